"""What tests of several folders share: a real Kafka, the command as it is installed, and where screenshots go."""

from __future__ import annotations

import sys
import uuid
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streams.config import load_settings
from streams.kafka.broker import EmbeddedKafka
from tests.broker_watch import BrokerWatch

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from contextlib import AbstractContextManager

SCREENSHOTS = Path(__file__).resolve().parents[1] / "docs" / "screenshots"
WATCH = pytest.StashKey[BrokerWatch]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """--screenshots."""
    parser.addoption("--screenshots", action="store_true", help="Rewrite docs/screenshots from the pages under test.")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[WATCH] = BrokerWatch()


@pytest.fixture(scope="session")
def jars_dir() -> Path:
    """The broker's jars of this machine, fetched by the first test run; NEARSTREAM_DATA_DIR moves them."""
    return load_settings().data_dir / "kafka" / "jars"


@pytest.fixture(scope="session")
def kafka(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, jars_dir: Path
) -> Iterator[EmbeddedKafka]:
    """One broker on a free port with empty data; `kafka.bootstrap` is its address. Tests keep apart by prefix."""
    data_dir = tmp_path_factory.mktemp("kafka")
    with (
        EmbeddedKafka(data_dir, brokers=1, port=0, die_with_owner=True, jars_dir=jars_dir) as broker,
        request.config.stash[WATCH].watching(broker),
    ):
        yield broker


def _guarded(item: pytest.Item) -> AbstractContextManager[None]:
    """Fails the test once the session's broker, if the test uses it, answers nobody."""
    uses_it = "kafka" in getattr(item, "fixturenames", ())
    return item.config.stash[WATCH].guarding() if uses_it else nullcontext()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    with _guarded(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    with _guarded(item):
        return (yield)


@pytest.fixture
def prefix() -> str:
    """A topic prefix that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}."


@pytest.fixture(scope="session")
def nearstream() -> str:
    """Path of the command `nearstream` as it is installed beside this Python."""
    command = Path(sys.executable).with_name("nearstream")
    assert command.exists(), f"{command} is missing; install the project with `make setup`"
    return str(command)


@pytest.fixture
def screenshots(request: pytest.FixtureRequest) -> Path | None:
    """Where pictures of the pages under test go; None without --screenshots, so that a test run changes no file."""
    if not request.config.getoption("--screenshots"):
        return None
    SCREENSHOTS.mkdir(exist_ok=True)
    return SCREENSHOTS
