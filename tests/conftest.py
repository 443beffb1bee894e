"""What tests of several folders share: a real Kafka, the command as it is installed, and where screenshots go."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streams.config import load_settings
from streams.kafka.broker import EmbeddedKafka
from streams.kafka.processes import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

SCREENSHOTS = Path(__file__).resolve().parents[1] / "docs" / "screenshots"


def pytest_addoption(parser: pytest.Parser) -> None:
    """--screenshots."""
    parser.addoption("--screenshots", action="store_true", help="Rewrite docs/screenshots from the pages under test.")


@pytest.fixture(scope="session")
def jars_dir() -> Path:
    """The broker's jars of this machine, fetched by the first test run; NEARSTREAM_DATA_DIR moves them."""
    return load_settings().data_dir / "kafka" / "jars"


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, jars_dir: Path) -> Iterator[EmbeddedKafka]:
    """One broker on a free port with empty data; `kafka.bootstrap` is its address. Tests keep apart by prefix."""
    data_dir = tmp_path_factory.mktemp("kafka")
    broker = EmbeddedKafka(data_dir, brokers=1, port=free_ports(1)[0], die_with_owner=True, jars_dir=jars_dir)
    with broker:
        yield broker


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
