"""A real Kafka for the tests that need one, started once and gone when the tests are, however they end."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from streams.config import load_settings
from streams.kafka.broker import EmbeddedKafka
from streams.kafka.processes import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
