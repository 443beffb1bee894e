"""Exactly once, on a real Kafka, with real worker processes that are killed: the short form of `make storm`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from streams.kafka.broker import EmbeddedKafka
from streams.sources import open_source
from tests.integration.exactly_once import compare
from tests.integration.storm import settings_for, storm, undisturbed

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]


async def test_kills_of_workers_and_broker_lose_and_double_nothing(tmp_path: Path, jars_dir: Path) -> None:
    """Workers are killed and stopped at random and the broker is killed once; a re-count finds no difference."""
    with EmbeddedKafka(tmp_path / "kafka", 1, port=0, die_with_owner=True, jars_dir=jars_dir) as broker:
        settings = settings_for(broker, partitions=4)
        result = await storm(
            settings,
            broker,
            open_source("synthetic", events=9000, seed=3),
            limit=9000,
            rate=250.0,
            actions=4,
            broker_kill=True,
            seed=20,  # a clean stop; kills of both workers, back before and after their session ends
            out=tmp_path,
        )
        assert result["sound"], json.dumps(result, indent=1)
        assert result["events"] == 9000
        comparison = await compare(settings, await undisturbed(settings, tmp_path))
    assert comparison.equal, comparison
