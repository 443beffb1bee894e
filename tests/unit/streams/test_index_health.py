"""The health of the index: what triggers, what a check does, and what the worker reports and exports of it."""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest

from index import ExactIndex, IndexConfig, IndexStats, RecallReport
from streams.config import Settings
from streams.core.status import IndexTrigger, IndexWarning, WorkerStatus
from streams.kafka.index_health import (
    CANARIES,
    REBUILD_PAUSE_S,
    IndexHealth,
    IndexLimits,
    IndexReading,
    export_index,
    fired,
    memory_limit_bytes,
)
from streams.kafka.status import StatusReporter, WorkerFigures
from streams.kafka.topics import Topics
from streams.metrics import Metrics
from tests.fakes import worker_status
from tests.fakes_core import world
from tests.fakes_status import index_status, scanned_status

LIMITS = IndexLimits(recall_min=0.95, memory_bytes_max=1_000_000_000)
WAIT_S = 10.0
DAY_S = 86_400.0


def graph(**changes: Any) -> IndexStats:
    """A graph of 100,000 users that nothing is wrong with."""
    stats = IndexStats(
        size=98_500, capacity=131_072, memory_bytes=84_000_000, epoch=9, tier="hnsw", graph_rows=100_000, segments=2,
        delta=3210, moved=4000, dead=1500, ef=64, generation=4, generation_age_s=754.0, build_s=8.4,
    )  # fmt: skip
    return stats._replace(**changes)


def report(recall: float = 0.978, misses: float = 0.002) -> RecallReport:
    """What 256 canaries found."""
    return RecallReport(CANARIES, recall, misses)


@dataclass
class FakeIndex:
    """An index whose figures are set by hand; remembers what it was asked for."""

    figures: IndexStats = field(default_factory=graph)
    report: RecallReport | Exception = field(default_factory=report)
    rebuilds: int = 0
    checks: list[int] = field(default_factory=list)
    checked: threading.Event = field(default_factory=threading.Event)
    blocked: threading.Event | None = None
    running: int = 0
    running_max: int = 0

    def stats(self) -> IndexStats:
        """What was set."""
        return self.figures

    def check_recall(self, queries: int, *, rng: np.random.Generator) -> RecallReport:
        """What was set, once `blocked` is; raises it when it is an error."""
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        self.checks.append(int(rng.integers(1 << 30)))
        self.checked.set()
        if self.blocked is not None:
            assert self.blocked.wait(WAIT_S)
        self.running -= 1
        if isinstance(self.report, Exception):
            raise self.report
        return self.report

    def rebuild(self) -> None:
        """Counts."""
        self.rebuilds += 1


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def health_of(
    index: Any, clock: Clock | None = None, metrics: Metrics | None = None, interval_s: float = 60.0
) -> IndexHealth:
    """The health of an index, with a clock that stands unless it is given."""
    rng = np.random.default_rng(7)
    return IndexHealth(index, LIMITS, metrics or Metrics(), interval_s=interval_s, rng=rng, clock=clock or Clock())


def words(warnings: list[IndexWarning]) -> list[IndexTrigger]:
    """The triggers alone."""
    return [warning.trigger for warning in warnings]


@pytest.mark.parametrize(
    ("past", "within", "expected"),
    [
        ({"report": report(recall=0.9499)}, {"report": report(recall=0.95)}, IndexWarning("low-recall", 0.9499, 0.95)),
        ({"report": report(misses=0.011)}, {"report": report(misses=0.01)}, IndexWarning("self-miss", 0.011, 0.01)),
        ({"erasing_s": 601.0}, {"erasing_s": 600.0}, IndexWarning("erasure-late", 601.0, 600.0)),
        ({"failed_builds": 1}, {"failed_builds": 0}, IndexWarning("build-failed", 1, 0)),
        ({"failed_checks": 2}, {"failed_checks": 0}, IndexWarning("check-failed", 2, 0)),
        ({"delta": 16_385}, {"delta": 16_384}, IndexWarning("delta-full", 16_385, 16_384)),
        ({"dead": 20_001}, {"dead": 20_000}, IndexWarning("dead-rows", 0.20001, 0.2)),
        ({"dead": 20_001}, {"dead": 20_001, "building": True}, IndexWarning("dead-rows", 0.20001, 0.2)),
        ({"generation_age_s": DAY_S + 1}, {"generation_age_s": DAY_S}, IndexWarning("old-graph", DAY_S + 1, DAY_S)),
        (
            {"generation_age_s": DAY_S + 1},
            {"generation_age_s": DAY_S + 1, "delta": 0, "moved": 0, "dead": 0},
            IndexWarning("old-graph", DAY_S + 1, DAY_S),
        ),
        ({"build_s": 1801.0}, {"build_s": 1800.0}, IndexWarning("slow-build", 1801.0, 1800.0)),
        ({"memory_bytes": 10**9 + 1}, {"memory_bytes": 10**9}, IndexWarning("memory", 10**9 + 1, 10**9)),
    ],
    ids=lambda given: given.trigger if isinstance(given, IndexWarning) else ",".join(given),
)
def test_a_figure_triggers_past_its_limit_and_not_at_it(
    past: dict[str, Any], within: dict[str, Any], expected: IndexWarning
) -> None:
    """Each trigger alone, with the figure and the limit in it; at the limit, or where it cannot hurt, nothing."""
    assert fired(reading_of(past), LIMITS) == [expected]
    assert fired(reading_of(within), LIMITS) == []


def reading_of(changes: dict[str, Any]) -> IndexReading:
    """A reading in good order but for some fields of it or of its statistics."""
    own = {name: value for name, value in changes.items() if name in IndexReading._fields}
    others = {name: value for name, value in changes.items() if name not in own}
    return IndexReading(graph(**others), own.pop("report", report()), **own)


def test_every_trigger_is_tried_above() -> None:
    """A new word needs a row in the table."""
    (table,) = [mark for mark in test_a_figure_triggers_past_its_limit_and_not_at_it.pytestmark if mark.name]
    assert {row[2].trigger for row in table.args[1]} == set(get_args(IndexTrigger))


def test_an_index_that_scans_everything_and_is_not_checked_yet_is_fine() -> None:
    """Zeros are no figures: an empty index, without a report, triggers nothing."""
    assert fired(IndexReading(IndexStats(0, 1024, 0, 0), None), LIMITS) == []


def test_the_delta_limit_is_twice_what_the_index_lets_it_grow_to() -> None:
    """Below that the index is at work as it should be."""
    assert LIMITS.delta_rows_max == 2 * IndexConfig().delta_max


def test_a_check_keeps_the_newest_report_and_tells_its_age() -> None:
    """Before the first there is none; then recall and misses stay, and their age grows."""
    clock, index = Clock(), FakeIndex()
    health = health_of(index, clock)
    assert (health.status().recall, health.status().checked_s_ago) == (None, None)
    health.check()
    clock.now_s += 12
    status = health.status()
    assert (status.recall, status.self_miss_share, status.canary_queries) == (0.978, 0.002, CANARIES)
    assert status.checked_s_ago == 12.0
    assert status.warnings == []


def test_every_check_draws_other_canaries() -> None:
    """The same users again would tell nothing new."""
    index = FakeIndex()
    health = health_of(index)
    health.check()
    health.check()
    assert len(set(index.checks)) == 2


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"report": report(recall=0.90)}, 1),
        ({"report": report(misses=0.05)}, 1),
        ({"figures": graph(dead=30_000)}, 1),
        ({"figures": graph(generation_age_s=2 * DAY_S)}, 1),
        ({"report": report(recall=0.90), "figures": graph(building=True)}, 0),
        ({"figures": graph(delta=50_000)}, 0),
        ({"figures": graph(memory_bytes=2 * 10**9)}, 0),
        ({"figures": graph(build_s=9000.0)}, 0),
        ({}, 0),
    ],
)
def test_a_check_asks_for_a_build_where_one_helps(changes: dict[str, Any], asked: int) -> None:
    """Low recall, misses, dead rows and age do; not while one runs, nor for what a build does not cure."""
    index, metrics = FakeIndex(**changes), Metrics()
    health_of(index, metrics=metrics).check()
    assert index.rebuilds == asked
    assert metrics.registry.get_sample_value("nearstream_index_rebuilds_total") == asked


def test_builds_that_do_not_help_are_asked_for_ever_ten_minutes_only() -> None:
    """The recall stays low; a check a minute must not mean a build a minute."""
    clock, index = Clock(), FakeIndex(report=report(recall=0.5))
    health = health_of(index, clock)
    for _ in range(10):
        health.check()
        clock.now_s += REBUILD_PAUSE_S / 10
    assert index.rebuilds == 1
    health.check()
    assert index.rebuilds == 2


def test_a_failed_check_is_logged_counted_and_shown_until_one_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    """The old report stays with its age; nothing is raised, and a good check ends the warning."""
    clock, index, metrics = Clock(), FakeIndex(), Metrics()
    health = health_of(index, clock, metrics=metrics)
    health.check()
    index.report = RuntimeError("the graph broke")
    clock.now_s += 60
    with caplog.at_level(logging.ERROR):
        health.check()
        health.check()
    assert "the graph broke" in caplog.text
    status = health.status()
    assert status.warnings == [IndexWarning("check-failed", 2, 0)]
    assert (status.recall, status.checked_s_ago) == (0.978, 60.0)
    assert metrics.registry.get_sample_value("nearstream_index_failed_checks_total") == 2
    index.report = report()
    health.check()
    assert health.status().warnings == []


def test_failed_builds_are_shown_until_a_graph_is_built() -> None:
    """The count of the index only grows; what counts is what failed since the graph that serves."""
    index = FakeIndex()
    health = health_of(index)
    assert health.status().warnings == []
    index.figures = graph(failed_builds=2)
    assert health.status().warnings == [IndexWarning("build-failed", 2, 0)]
    index.figures = graph(failed_builds=2, generation=5)
    assert health.status().warnings == []
    assert health.status().failed_builds == 2


def test_an_erasure_is_late_only_when_no_new_graph_came_since() -> None:
    """A new graph took the users of then; those forgotten later have not waited long."""
    clock, index = Clock(), FakeIndex(graph(erasures_pending=3, generation_age_s=5000.0))
    health = health_of(index, clock)
    assert health.status().warnings == []
    clock.now_s += 601
    assert words(health.status().warnings) == ["erasure-late"]
    index.figures = graph(erasures_pending=1, generation=5, generation_age_s=30.0)
    assert health.status().warnings == []
    index.figures = graph(erasures_pending=0)
    assert health.status().warnings == []
    index.figures = graph(erasures_pending=1)
    clock.now_s += 5
    assert health.status().warnings == []


def test_another_index_is_watched_as_if_nothing_were_known() -> None:
    """After a change of the model: no report, no failures, and a build may be asked for at once."""
    first, second = FakeIndex(report=report(recall=0.5)), FakeIndex()
    health = health_of(first)
    health.check()
    assert first.rebuilds == 1
    health.follow(second)
    status = health.status()
    assert (status.recall, status.checked_s_ago, words(status.warnings)) == (None, None, [])
    second.report = report(recall=0.5)
    health.check()
    assert (first.rebuilds, second.rebuilds, len(first.checks)) == (1, 1, 1)
    assert health.status().recall == 0.5


def test_a_report_of_an_index_that_was_replaced_meanwhile_is_dropped() -> None:
    """It would say something about nobody's index."""
    first, second = FakeIndex(blocked=threading.Event()), FakeIndex()
    health = health_of(first)
    checking = threading.Thread(target=health.check)
    checking.start()
    assert first.checked.wait(WAIT_S)
    health.follow(second)
    assert first.blocked is not None
    first.blocked.set()
    checking.join()
    assert health.status().recall is None


def test_an_empty_index_is_not_checked() -> None:
    """There is nobody to search for, and that is no failure."""
    index = FakeIndex(graph(size=0))
    health = health_of(index)
    health.check()
    assert (index.checks, health.status().warnings) == ([], [])


def test_checks_run_in_one_thread_of_their_own_and_never_pile_up() -> None:
    """A check that hangs delays the next; the caller is not held up, and a stop does not wait for ever."""
    index = FakeIndex(blocked=threading.Event())
    health = health_of(index, interval_s=0.001)
    health.start()
    assert index.checked.wait(WAIT_S)
    assert health.status().recall is None
    health.stop()
    assert index.running == 1  # left behind: it hangs for longer than a stop may take
    index.blocked.set()
    assert (len(index.checks), index.running_max) == (1, 1)


def test_checks_repeat_until_the_stop() -> None:
    """The thread goes on after each check, and is gone after `stop`."""
    index, others = FakeIndex(), set(threading.enumerate())
    health = health_of(index, interval_s=0.001)
    health.start()
    for _ in range(3):
        index.checked.clear()
        assert index.checked.wait(WAIT_S)
    health.stop()
    assert set(threading.enumerate()) <= others
    assert index.running_max == 1


def test_a_health_that_never_started_can_be_stopped() -> None:
    """A worker may end before its index was restored."""
    health_of(FakeIndex()).stop()


def test_a_real_index_is_checked_and_finds_itself() -> None:
    """The exact index by its own figures: recall 1, nothing missed, tier and memory as it says."""
    index = ExactIndex(IndexConfig(dim=8))
    index.upsert(range(300), np.random.default_rng(1).standard_normal((300, 8)).astype(np.float32))
    health = health_of(index)
    health.check()
    status = health.status()
    assert (status.tier, status.users, status.recall, status.self_miss_share) == ("exact", 300, 1.0, 0.0)
    assert status.memory_bytes == index.stats().memory_bytes
    assert status.warnings == []


def test_figures_are_exported_with_a_flag_for_each_trigger() -> None:
    """The worker's status and Prometheus say the same; what is not known is NaN, not an alarming 0."""
    metrics = Metrics()
    export_index(metrics, index_status(building=True, warnings=[IndexWarning("memory", 2.0, 1.0)]))
    value = metrics.registry.get_sample_value
    assert value("nearstream_index_recall") == 0.978
    assert value("nearstream_index_delta_rows") == 3210
    assert value("nearstream_index_dead_share") == 0.015
    assert value("nearstream_index_generation_age_seconds") == 754.0
    assert value("nearstream_index_memory_bytes") == 84_000_000
    assert value("nearstream_index_building") == 1
    flags = {word: value("nearstream_index_warning", {"trigger": word}) for word in get_args(IndexTrigger)}
    assert {word for word, flag in flags.items() if flag} == {"memory"}
    export_index(metrics, scanned_status())
    assert math.isnan(value("nearstream_index_recall"))
    assert value("nearstream_index_warning", {"trigger": "memory"}) == 0


def test_a_status_keeps_its_index_and_old_records_have_none() -> None:
    """A record of today comes back equal; one written before the index was reported still decodes."""
    status = worker_status(index=index_status(warnings=[IndexWarning("low-recall", 0.9, 0.95)]))
    written = msgspec.json.encode(status)
    assert msgspec.json.decode(written, type=WorkerStatus) == status
    old = msgspec.json.decode(written)
    del old["index"]
    assert msgspec.json.decode(msgspec.json.encode(old), type=WorkerStatus).index is None


class TopicOfOne:
    """Takes the last record sent, as a producer would."""

    def __init__(self) -> None:
        self.value = b""

    async def send_and_wait(self, topic: str, value: bytes, *, key: bytes, partition: int) -> None:
        """Keeps the value."""
        self.value = value


@pytest.mark.parametrize("watched", [True, False])
async def test_the_reporter_sends_and_exports_the_index(watched: bool) -> None:
    """The record on the topic and Prometheus hold its figures; without a health the record has no index."""
    engine = world().engine
    metrics, topic = Metrics(), TopicOfOne()
    figures = WorkerFigures(metrics, 0.0)
    reporter = StatusReporter(Settings(), Topics(""), "w1", engine, figures, metrics, 0)
    reporter._producer = topic  # type: ignore[assignment]
    if watched:
        reporter.index_health = health_of(FakeIndex(), metrics=metrics)
    await reporter.report()
    sent = msgspec.json.decode(topic.value, type=WorkerStatus)
    assert (sent.index is not None) == watched
    assert metrics.registry.get_sample_value("nearstream_index_delta_rows") == (3210 if watched else 0)


@pytest.mark.parametrize(("written", "expected"), [("max\n", None), (f"{1 << 20}\n", 1 << 20), (f"{1 << 60}\n", None)])
def test_a_container_limits_the_memory(tmp_path: Path, written: str, expected: int | None) -> None:
    """The smaller of the machine's and the container's; `max`, or no such file, is the machine's."""
    machine = memory_limit_bytes(tmp_path / "none")
    (tmp_path / "memory.max").write_text(written)
    assert machine > 1 << 20
    assert memory_limit_bytes(tmp_path / "memory.max") == (machine if expected is None else expected)
