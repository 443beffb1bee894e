"""What a worker tells of lists that were shed, owed and coalesced: counts, metrics, and an honest freshness."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from streams.core.events import EventType
from streams.core.shedding import Shedding, SloBatcher
from streams.kafka.commit_note import CommitNote
from streams.kafka.dead_letter import DeadLetterBound
from streams.kafka.late_lists import Plan
from streams.kafka.processor import Processor
from streams.kafka.status import WorkerFigures
from streams.metrics import Metrics
from tests.fakes_core import event, event_records, world

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.core.events import Event

PARTITION = 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The wall clock's answer, for the test to move."""
    now_s = [1_700_000_010.0]
    monkeypatch.setattr(time, "time", lambda: now_s[0])
    return now_s


def test_a_shed_list_is_counted_once_and_is_fresh_only_when_it_is_there(clock: list[float]) -> None:
    """Events count at once; freshness waits for the list, however late it is; coalesced lists are counted."""
    found, metrics = world(), Metrics()
    figures = WorkerFigures(metrics, clock[0])
    target = Processor(found.engine, "events", 1, 2, lambda: DeadLetterBound(1.0, 10), reverse_per_s=50.0)
    target.late.take_up(PARTITION, CommitNote(), 0)

    def run(events: Sequence[Event], first: int, plan: Plan) -> None:
        sent = [record._replace(timestamp=int(clock[0] * 1000) - 100) for record in event_records(events, first)]
        output = target.prepare(sent, PARTITION, int(clock[0] * 1000), plan)
        target.apply(output)
        figures.committed(sent, output, {})  # type: ignore[arg-type]

    run([event("u1", "a"), event("u1", "b"), event("u2", "a", EventType.CART)], 0, Plan(Shedding.VIEWS))
    first = figures.freshness(clock[0])
    assert first.p50 == first.p99 == pytest.approx(100.0)
    clock[0] += 3.0
    run([], 3, Plan(late_lists_max=5))
    assert figures.freshness(clock[0]).p99 == pytest.approx(3100.0, rel=0.02)
    run([], 3, Plan(late_lists_max=5))
    totals = figures.totals(found.engine.reverse, owed_overflows=4)
    assert (totals.events, totals.lists, totals.shed, totals.owed_overflows) == (3, 3, {"view": 1}, 4)
    assert totals.lists_by_cause == {"event": 1, "owed": 1, "neighbour": 1}
    exported = metrics.exposition().decode()
    assert 'nearstream_lists_shed_total{kind="view"} 1.0' in exported
    assert 'nearstream_lists_by_cause_total{cause="owed"} 1.0' in exported
    assert "nearstream_freshness_seconds_count 2.0" in exported


def test_a_batcher_sheds_while_it_is_behind_and_then_has_room_for_late_lists() -> None:
    """Full batches with older and older records left behind shed step by step; one that takes all there is ends it."""
    batcher = SloBatcher(0.5, 1000)
    levels = []
    for left_behind_s in (None, 0.2, 0.6, 1.2, 2.5, 1.3, 0.8, None):
        batcher.fetched(left_behind_s)
        levels.append(int(batcher.shedding))
        assert (batcher.late_lists_max(1000) > 0) == (batcher.shedding == Shedding.NOTHING)
        batcher.committed(1000, 0.1)
    assert levels == [0, 0, 1, 2, 3, 3, 2, 0]
    assert batcher.batch_events == 1000
    assert batcher.late_lists_max(100) == 900
    for _ in range(20):
        batcher.fetched(None)
        batcher.committed(200, 1.0)
    assert batcher.batch_events == 64
    without_target = SloBatcher(0.0, 1000)
    without_target.fetched(3600.0)
    without_target.committed(1000, 60.0)
    assert (without_target.shedding, without_target.batch_events) == (Shedding.NOTHING, 1000)
