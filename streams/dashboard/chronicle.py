"""The last hour, one row a few seconds: what the page's charts are drawn from. Pure and bounded.

Memory: MOMENTS_MAX rows of two numbers a partition and some sixty others, about 3 MB with 60 partitions.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from streams.core.status import FRESHNESS_EDGES_MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streams.core.status import WorkerStatus, WorkerTotals
    from streams.dashboard.list_figures import ListFigures
    from streams.dashboard.view import Overview

STEP_MS = 5000
MOMENTS_MAX = 720
"""An hour."""
MARKERS_MAX = 200
WORKERS_MAX = 200
"""Whose counts are remembered to tell what was added; the longest silent go first."""

MarkerKind = Literal["rebalance", "restart", "silent", "model"]


class Marker(msgspec.Struct, frozen=True):
    """Something happened: a sentence, and when."""

    time: int
    kind: MarkerKind
    text: str


class Moment(msgspec.Struct, frozen=True, omit_defaults=True):
    """STEP_MS of time up to `time`. Lags by partition are the worst of it; rates are a second; None = not known.

    `freshness` counts lists by `FRESHNESS_EDGES_MS`; `by_type`, `shed` and `coalesced` are a second; `stages` are
    mean milliseconds a batch, `batch` mean events of one; `weights` are those of the fusion, by source.
    """

    time: int
    lag: list[int]
    lag_s: list[float | None]
    events: float
    processed: float
    lists: float
    p50: float | None = None
    p99: float | None = None
    freshness: list[int] = []
    by_type: dict[str, float] = {}
    batch: float | None = None
    stages: dict[str, float] = {}
    shed: float = 0.0
    coalesced: float = 0.0
    owed: int = 0
    dead: int = 0
    recall: float | None = None
    memory: int = 0
    index_users: int = 0
    hit_rate: float | None = None
    ndcg: float | None = None
    weights: dict[str, float] = {}
    figures: ListFigures | None = None


class Chapter(msgspec.Struct, frozen=True):
    """Everything after a moment; `oldest` is the time of the oldest moment kept, so that a reader drops the same."""

    step_ms: int
    edges_ms: Sequence[int]
    partitions: list[int]
    oldest: int
    moments: list[Moment]
    markers: list[Marker]


class _Added(NamedTuple):
    """What workers counted since they were looked at last."""

    freshness: list[int]
    by_type: Counter[str]
    events: int
    batches: int
    shed: int
    coalesced: int


class Chronicle:
    """Remembers frames. Time comes with them; nothing here reads a clock."""

    def __init__(self) -> None:
        self.moments: deque[Moment] = deque(maxlen=MOMENTS_MAX)
        self.markers: deque[Marker] = deque(maxlen=MARKERS_MAX)
        self.partitions: list[int] = []
        self._frames: list[Overview] = []
        self._totals: dict[str, tuple[int, WorkerTotals]] = {}
        self._owners: dict[int, str | None] = {}
        self._known: dict[str, tuple[int, int, str, bool]] = {}

    def is_due(self, now_ms: int) -> bool:
        """Whether the frame of this moment ends a step."""
        return not self.moments or now_ms - self.moments[-1].time >= STEP_MS

    def observe(self, frame: Overview, workers: Sequence[WorkerStatus], figures: ListFigures | None) -> None:
        """Adds a frame; closes the step when it is due. `figures` count for the step that they come with."""
        if frame.polled_at is None or not frame.partitions:
            return
        partitions = [p.partition for p in frame.partitions]
        if partitions != self.partitions:
            self.partitions = partitions
            self.moments.clear()
            self._owners = {}
            self._frames = []
        self._mark(frame)
        self._frames.append(frame)
        if self.is_due(frame.now):
            self.moments.append(self._moment(frame, workers, figures))
            self._frames = []

    def since(self, time_ms: int) -> Chapter:
        """What is newer than `time_ms`; 0 for all of it."""
        return Chapter(
            STEP_MS,
            FRESHNESS_EDGES_MS,
            self.partitions,
            self.moments[0].time if self.moments else 0,
            [moment for moment in self.moments if moment.time > time_ms],
            [marker for marker in self.markers if marker.time > time_ms],
        )

    def _moment(self, frame: Overview, workers: Sequence[WorkerStatus], figures: ListFigures | None) -> Moment:
        frames, group = self._frames, frame.group
        span_s = (frame.now - self.moments[-1].time) / 1000 if self.moments else None
        added = self._added(workers)
        reporting = {w.worker for w in frame.workers if w.silent_s is None and w.state != "stopped"}
        alive = [w for w in workers if w.worker in reporting]
        quality = max((w.quality for w in alive if w.quality), key=lambda q: q.lessons, default=None)
        recalls = [w.index.recall for w in alive if w.index is not None and w.index.recall is not None]
        return Moment(
            time=frame.now,
            lag=[max(f.partitions[row].lag for f in frames) for row in range(len(self.partitions))],
            lag_s=[_worst(f.partitions[row].lag_s for f in frames) for row in range(len(self.partitions))],
            events=round(group.events_per_s, 2),
            processed=round(group.processed_per_s, 2),
            lists=round(group.lists_per_s, 2),
            p50=group.freshness_ms.p50,
            p99=group.freshness_ms.p99,
            freshness=added.freshness,
            by_type=_a_second(added.by_type, span_s),
            batch=round(added.events / added.batches, 2) if added.batches else None,
            stages=_mean_stages(alive),
            shed=round(added.shed / span_s, 2) if span_s else 0.0,
            coalesced=round(added.coalesced / span_s, 2) if span_s else 0.0,
            owed=sum(p.owed for w in alive for p in w.partitions),
            dead=frame.dead_letters.total,
            recall=min(recalls, default=None),
            memory=sum(w.rss_bytes for w in alive),
            index_users=max((w.index_users for w in alive), default=0),
            hit_rate=None if quality is None else quality.hit_rate,
            ndcg=None if quality is None else quality.ndcg,
            weights={} if quality is None else quality.weights,
            figures=figures,
        )

    def _added(self, workers: Iterable[WorkerStatus]) -> _Added:
        """Since the last step. A worker seen for the first time adds nothing: its counts may be hours old."""
        freshness = [0] * (len(FRESHNESS_EDGES_MS) + 1)
        by_type: Counter[str] = Counter()
        events = batches = shed = coalesced = 0
        for worker in workers:
            started_at, before = self._totals.pop(worker.worker, (worker.started_at, worker.totals))
            now = worker.totals
            self._totals[worker.worker] = (worker.started_at, now)
            fresh = started_at != worker.started_at
            old = None if fresh else before
            by_type += Counter(now.events_by_type) - Counter({} if old is None else old.events_by_type)
            events += now.events - (old.events if old else 0)
            batches += now.batches - (old.batches if old else 0)
            shed += sum(now.shed.values()) - (sum(old.shed.values()) if old else 0)
            coalesced += now.coalesced - (old.coalesced if old else 0)
            earlier = old.freshness_counts if old and old.freshness_counts else [0] * len(now.freshness_counts)
            for place, (count, known) in enumerate(zip(now.freshness_counts, earlier, strict=False)):
                if place < len(freshness):
                    freshness[place] += max(0, count - known)
        while len(self._totals) > WORKERS_MAX:
            del self._totals[next(iter(self._totals))]
        return _Added(freshness, by_type, max(0, events), max(0, batches), max(0, shed), max(0, coalesced))

    def _mark(self, frame: Overview) -> None:
        moved = [
            p.partition
            for p in frame.partitions
            if p.partition in self._owners and p.owner != self._owners[p.partition]
        ]
        if moved:
            self._add_marker(frame.now, "rebalance", f"{_count(len(moved), 'partition')} changed hands")
        self._owners = {p.partition: p.owner for p in frame.partitions}
        for worker in frame.workers:
            started_at = round(frame.now - (worker.age_s + worker.uptime_s) * 1000, -3)
            silent = worker.silent_s is not None
            now = (int(started_at), worker.restarts, worker.model, silent)
            before = self._known.get(worker.worker)
            if before is not None:
                self._mark_worker(frame.now, worker.worker, before, now)
            self._known[worker.worker] = now
        names = {worker.worker for worker in frame.workers}
        self._known = {name: known for name, known in self._known.items() if name in names}

    def _mark_worker(
        self, now_ms: int, name: str, before: tuple[int, int, str, bool], now: tuple[int, int, str, bool]
    ) -> None:
        if now[0] - before[0] > STEP_MS:
            self._add_marker(now_ms, "restart", f"{name} started anew")
        elif now[1] > before[1]:
            self._add_marker(
                now_ms, "restart", f"{name} rebuilt {_count(now[1] - before[1], 'partition')} from the log"
            )
        if now[3] and not before[3]:
            self._add_marker(now_ms, "silent", f"{name} went silent")
        if now[2] != before[2]:
            self._add_marker(now_ms, "model", f"{name} serves {now[2]}")

    def _add_marker(self, time_ms: int, kind: MarkerKind, text: str) -> None:
        self.markers.append(Marker(time_ms, kind, text))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _worst(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(max(known), 2) if known else None


def _a_second(counts: Mapping[str, int], span_s: float | None) -> dict[str, float]:
    return {name: round(count / span_s, 2) for name, count in counts.items() if count} if span_s else {}


def _mean_stages(workers: Sequence[WorkerStatus]) -> dict[str, float]:
    busy = [worker.stages_ms for worker in workers if worker.stages_ms]
    stages = dict.fromkeys(stage for times in busy for stage in times)
    return {stage: round(sum(times.get(stage, 0.0) for times in busy) / len(busy), 3) for stage in stages}
