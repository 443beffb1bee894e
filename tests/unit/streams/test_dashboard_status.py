"""What a worker's status carries for the page's charts: counts of freshness by bucket."""

from __future__ import annotations

import time

import pytest

from streams.core.status import FRESHNESS_EDGES_MS
from streams.kafka.commit_note import CommitNote
from streams.kafka.dead_letter import DeadLetterBound
from streams.kafka.late_lists import Plan
from streams.kafka.processor import Processor
from streams.kafka.status import WorkerFigures
from streams.metrics import Metrics
from tests.fakes_core import event, event_records, world


@pytest.mark.parametrize("took_ms", [2, 60, 490, 600, 1900, 59_000, 900_000])
def test_each_list_falls_into_the_bucket_of_its_freshness(monkeypatch: pytest.MonkeyPatch, took_ms: int) -> None:
    """Every list is counted once, where its time belongs; the bins it comes from are 2.4 % wide."""
    now_s = 1_700_000_010.0
    monkeypatch.setattr(time, "time", lambda: now_s)
    found, figures = world(), WorkerFigures(Metrics(), now_s)
    target = Processor(found.engine, "events", 1, 2, lambda: DeadLetterBound(1.0, 10))
    target.late.take_up(0, CommitNote(), 0)
    sent = [record._replace(timestamp=int(now_s * 1000) - took_ms) for record in event_records([event("u1", "a")], 0)]
    output = target.prepare(sent, 0, int(now_s * 1000), Plan())
    target.apply(output)
    figures.committed(sent, output, {})  # type: ignore[arg-type]
    counts = figures.totals().freshness_counts
    assert len(counts) == len(FRESHNESS_EDGES_MS) + 1
    expected = sum(edge < took_ms for edge in FRESHNESS_EDGES_MS)
    assert [place for place, count in enumerate(counts) if count] == [expected]
    assert sum(counts) == 1
