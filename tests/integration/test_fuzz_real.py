"""The short form of `python tests/benchmarks/fuzz_pipeline.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from streams.config import load_settings
from tests.benchmarks.fuzz_pipeline import PARTITIONS, fuzz, sound

if TYPE_CHECKING:
    from pathlib import Path

    from streams.kafka.broker import EmbeddedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

MESSAGES = 2000
SEED = 11


async def test_mutated_events_count_repeat_or_become_dead_letters(
    kafka: EmbeddedKafka, prefix: str, tmp_path: Path
) -> None:
    """No mutation stops the worker; events, duplicates and dead letters add up to the messages and to a re-count."""
    settings = load_settings(bootstrap=kafka.bootstrap, prefix=prefix, group=prefix.strip("."), partitions=PARTITIONS)
    report = await fuzz(settings, MESSAGES, SEED, tmp_path / "worker.log")
    assert sound(report), report
    assert report["events"] > 0
    assert report["duplicates"] > 0
    assert len(report["dead_letters"]) >= 8
