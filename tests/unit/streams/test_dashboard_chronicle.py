"""The last hour of the page: bounded, in steps, with what was added and what happened."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from streams.core.observation import PartitionOffsets, ProfileMoment, SeenRecord
from streams.core.status import FRESHNESS_EDGES_MS, ListQuality, Quantiles, WorkerStatus, WorkerTotals
from streams.dashboard import chronicle
from streams.dashboard.chronicle import MOMENTS_MAX, STEP_MS, Chronicle
from streams.dashboard.history import History, Poll, quiet_s
from streams.dashboard.interests import interests
from streams.dashboard.list_figures import list_figures
from streams.dashboard.view import overview
from tests.fakes import START_MS, list_record, observation, recommendation, worker_status

BUCKETS = len(FRESHNESS_EDGES_MS) + 1


class Told:
    """A chronicle that is told a poll at a time, with its clock."""

    def __init__(self) -> None:
        self.chronicle = Chronicle()
        self.history = History()
        self.now_ms = START_MS

    def poll(self, lags: list[int], *workers: WorkerStatus, after_ms: int = 1000) -> None:
        """A poll `after_ms` later, with these lags and these workers."""
        self.now_ms += after_ms
        rows = [PartitionOffsets(p, 0, 1000, 1000 - lag, self.now_ms - 10 * lag) for p, lag in enumerate(lags)]
        reporting = [msgspec.structs.replace(worker, reported_at=self.now_ms) for worker in workers]
        frame = overview(observation(rows, reporting, self.now_ms), self.history, "nearstream", self.now_ms)
        self.chronicle.observe(frame, reporting, None)


def worker(name: str = "w1", partitions: int = 1, started_at: int = START_MS, **totals: Any) -> WorkerStatus:
    """A worker that holds the first partitions, with these totals."""
    status = worker_status(name, dict.fromkeys(range(partitions), (990, 1000)))
    counted = msgspec.structs.replace(status.totals, **totals)
    return msgspec.structs.replace(status, totals=counted, started_at=started_at)


def test_a_moment_holds_the_worst_of_its_step() -> None:
    """A peak between two steps is not lost, and a step takes STEP_MS."""
    told = Told()
    told.poll([1, 1])
    for lag in (5, 900, 7, 3):
        told.poll([lag, 0])
    assert [m.lag for m in told.chronicle.moments] == [[1, 1]]
    told.poll([2, 0])
    assert [m.lag for m in told.chronicle.moments] == [[1, 1], [900, 0]]
    assert told.chronicle.moments[-1].lag_s == [9.0, 0.0]
    assert told.chronicle.moments[-1].time - told.chronicle.moments[0].time == STEP_MS


def test_an_hour_of_sixty_partitions_is_kept_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: the oldest moment goes, and an hour's answer stays below a megabyte."""
    assert MOMENTS_MAX * STEP_MS == 3_600_000
    kept = 40
    monkeypatch.setattr(chronicle, "MOMENTS_MAX", kept)
    told = Told()
    for step in range(kept + 5):
        told.poll([step] * 60, worker(partitions=60), after_ms=STEP_MS)
    chapter = told.chronicle.since(0)
    assert len(chapter.moments) == kept
    assert chapter.oldest == chapter.moments[0].time
    assert chapter.moments[0].lag[0] == 5
    assert len(msgspec.json.encode(chapter)) * MOMENTS_MAX / kept < 1_000_000


def test_since_gives_only_what_is_newer() -> None:
    """A reader that has everything gets nothing twice."""
    told = Told()
    for lag in range(5):
        told.poll([lag], after_ms=STEP_MS)
    third = told.chronicle.moments[2].time
    assert [m.lag for m in told.chronicle.since(third).moments] == [[3], [4]]
    assert told.chronicle.since(told.now_ms).moments == []


def test_rates_are_what_workers_added_since_the_last_step() -> None:
    """Counts of hours ago count for nothing; a restart begins at zero, not at a negative rate."""
    told = Told()
    fast = [0] * BUCKETS
    told.poll([0], worker(events=1000, batches=50, events_by_type={"view": 1000}, freshness_counts=fast))
    fast = [*[0] * (BUCKETS - 1), 30]
    told.poll(
        [0],
        worker(events=1050, batches=55, events_by_type={"view": 1040, "cart": 10}, freshness_counts=fast),
        after_ms=STEP_MS,
    )
    moment = told.chronicle.moments[-1]
    assert (moment.by_type, moment.batch) == ({"view": 8.0, "cart": 2.0}, 10.0)
    assert moment.freshness[-1] == 30
    told.poll(
        [0],
        worker(started_at=told.now_ms, events=20, batches=4, events_by_type={"view": 20}, freshness_counts=fast),
        after_ms=STEP_MS,
    )
    moment = told.chronicle.moments[-1]
    assert (moment.by_type, moment.batch, moment.freshness[-1]) == ({"view": 4.0}, 5.0, 30)


def test_what_happened_is_marked_once() -> None:
    """Another owner, a restart, a rebuild, silence and another model each leave one marker in words."""
    told = Told()
    first = worker(started_at=START_MS)
    told.poll([0], first)
    assert told.chronicle.since(0).markers == []
    told.poll([0], msgspec.structs.replace(first, worker="w2"))
    told.poll([0], msgspec.structs.replace(first, worker="w2"))
    kinds = [(m.kind, m.text) for m in told.chronicle.markers]
    assert kinds == [("rebalance", "1 partition changed hands")]
    w2 = msgspec.structs.replace(worker("w2", started_at=told.now_ms + 9000), model="new@2")
    told.poll([0], w2, after_ms=20_000)
    told.poll([0], worker("w2", started_at=w2.started_at, restarts=2))
    assert [m.text for m in list(told.chronicle.markers)[1:]] == [
        "w2 started anew",
        "w2 serves new@2",
        "w2 rebuilt 2 partitions from the log",
        "w2 serves decayed-mean@1",
    ]


def test_a_silent_worker_is_marked() -> None:
    """A report that does not come leaves its moment behind."""
    told = Told()
    told.poll([0], worker())
    told.now_ms += 4000
    silent = msgspec.structs.replace(worker(), reported_at=told.now_ms - 4000)
    frame = overview(
        observation([PartitionOffsets(0, 0, 9, 9)], [silent], told.now_ms), told.history, "nearstream", told.now_ms
    )
    told.chronicle.observe(frame, [silent], None)
    assert [(m.kind, m.text) for m in told.chronicle.markers] == [("silent", "w1 went silent")]


def test_other_partitions_begin_anew() -> None:
    """A topic that grew has no history to compare with."""
    told = Told()
    told.poll([1])
    told.poll([1, 2], after_ms=STEP_MS)
    assert [m.lag for m in told.chronicle.moments] == [[1, 2]]


def test_quality_is_that_of_the_worker_with_most_lessons() -> None:
    """Its hit rate and weights are the moment's."""
    told = Told()
    much = msgspec.structs.replace(
        worker("w1"), quality=ListQuality(0.2, 0.3, 500, 500, frozen=False, weights={"profile": 2.0})
    )
    little = msgspec.structs.replace(worker("w2"), quality=ListQuality(0.9, 0.9, 5, 5, frozen=False))
    told.poll([0], much, little)
    moment = told.chronicle.moments[-1]
    assert (moment.hit_rate, moment.ndcg, moment.weights) == (0.3, 0.2, {"profile": 2.0})


def test_a_status_of_an_old_worker_is_still_read() -> None:
    """Records without the counts of later versions leave their charts empty."""
    told = Told()
    old = msgspec.json.decode(
        msgspec.json.encode(worker_status("w1", {0: (1, 1)})).replace(b'"freshness_counts":[],', b""),
        type=WorkerStatus,
    )
    told.poll([0], old)
    told.poll([0], old, after_ms=STEP_MS)
    assert told.chronicle.moments[-1].freshness == [0] * BUCKETS
    assert WorkerTotals(1, 1, 0, {}, 1, 0, freshness_ms=Quantiles(None, None)).freshness_counts == []


def moment(events: int, vector: list[float], model: str = "m@1") -> ProfileMoment:
    """A profile after so many events."""
    return ProfileMoment(events, START_MS + events, events, model, vector, f"i{events}")


def test_interests_keep_distances_of_a_plane() -> None:
    """Vectors that lie in a plane keep every distance, whatever their dimension; the share shown is all of it."""
    rng = np.random.default_rng(7)
    flat = rng.normal(size=(6, 2)) @ np.linalg.qr(rng.normal(size=(16, 2)))[0].T
    found = interests([moment(n, row.tolist()) for n, row in enumerate(flat)], {"i2": "Scarf"}.get)
    assert found is not None
    assert found.shown == pytest.approx(1.0)
    for one in range(6):
        for two in range(6):
            a, b = found.points[one], found.points[two]
            assert math.hypot(a.x - b.x, a.y - b.y) == pytest.approx(np.linalg.norm(flat[one] - flat[two]), abs=1e-3)
    assert [p.item for p in found.points][1:4] == ["i1", "Scarf", "i3"]
    cosine = flat[4] @ flat[5] / np.linalg.norm(flat[4]) / np.linalg.norm(flat[5])
    assert found.points[5].moved == pytest.approx(1 - cosine, abs=1e-3)


def test_interests_of_another_model_do_not_mix() -> None:
    """Vectors of two models have no common plane; one moment alone has no path."""
    moments = [moment(1, [1.0, 0.0], "old@1"), moment(2, [0.0, 1.0]), moment(3, [1.0, 0.0])]
    found = interests(moments, {}.get)
    assert found is not None
    assert [p.events for p in found.points] == [2, 3]
    assert interests(moments[:2], {}.get) is None
    assert interests([], {}.get) is None


def test_a_profile_that_does_not_move_has_a_path() -> None:
    """No spread is no division by zero."""
    found = interests([moment(1, [1.0, 0.0]), moment(2, [1.0, 0.0])], {}.get)
    assert found is not None
    assert [(p.x, p.y, p.moved) for p in found.points] == [(0, 0, 0), (0, 0, 0)]


def test_figures_of_lists_count_places() -> None:
    """Coverage by distinct items, popularity by the most shown, newness by events; what cannot be read is left out."""
    records: list[SeenRecord] = [list_record(recommendation(events=n)) for n in (3, 42)]
    records.append(SeenRecord("recommendations", 0, 9, START_MS, b"{nope"))
    records.append(SeenRecord("recommendations", 0, 10, START_MS, None))
    figures = list_figures(records, catalogue_items=8)
    assert (figures.lists, figures.coverage, figures.cold_share) == (2, 0.25, 0.5)
    assert (figures.popularity_share, figures.hub_share) == (0.5, 0.5)
    empty = list_figures([], catalogue_items=8)
    assert (empty.coverage, empty.popularity_share, empty.cold_share) == (None, None, None)


def test_a_stopped_producer_is_told_by_the_seconds_without_a_record() -> None:
    """Since the last poll that saw the end move; a gap that the rate explains is none, nor an empty topic."""
    polls = [Poll(START_MS + 1000 * n, end, 0, 0) for n, end in enumerate([5, 25, 45, 45, 45, 45])]
    assert quiet_s(polls[:4]) is None
    assert quiet_s(polls) == 3.0
    assert quiet_s(polls[3:]) == 2.0
    assert quiet_s([poll._replace(end=poll.end // 20) for poll in polls]) is None
    assert quiet_s([poll._replace(end=0) for poll in polls]) is None
    assert quiet_s(polls[:1]) is None


@pytest.mark.parametrize(
    ("ages_ms", "sentence"),
    [
        ([4000, 500, 200], "Partition 0 is 4 s behind, the others 0.5 s at most."),
        ([4000, 3000, 200], "All 3 partitions keep up."),
        ([1500, 0, 0], "All 3 partitions keep up."),
    ],
)
def test_one_partition_far_behind_is_named(ages_ms: list[int], sentence: str) -> None:
    """Long before ten polls make a verdict; not when others are nearly as far, nor for a moment's lag."""
    rows = [PartitionOffsets(p, 0, 100, 90 if age else 100, START_MS - age) for p, age in enumerate(ages_ms)]
    frame = overview(observation(rows, [worker(partitions=3)]), History(), "nearstream", START_MS)
    assert frame.group.sentence == sentence


def test_a_silent_worker_is_named_before_any_verdict() -> None:
    """With how long; once nobody reports and events wait, that is said; calm is calm."""
    rows = [PartitionOffsets(0, 0, 100, 90, START_MS - 1000)]
    silent = [
        msgspec.structs.replace(worker(name), reported_at=START_MS - ms) for name, ms in (("w1", 4000), ("w2", 9000))
    ]
    sentences = []
    for workers in (silent, silent[:1], [], [worker()]):
        group = overview(observation(rows, workers), History(), "nearstream", START_MS).group
        sentences.append((group.sentence, group.attention))
    assert sentences == [
        ("w2 is silent for 9 s, and 1 more.", True),
        ("w1 is silent for 4 s.", True),
        ("Events wait and no worker reports.", True),
        ("All 1 partitions keep up.", False),
    ]
