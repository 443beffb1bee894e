"""The index's health: canary queries once a minute, limits on its figures, and a build where one helps."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np

from streams.core.status import IndexStatus, IndexTrigger, IndexWarning
from streams.kafka.background import BackgroundThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from index import IndexStats, RecallReport
    from streams.config import Settings
    from streams.core.ports import WatchedIndex
    from streams.metrics import Metrics

logger = logging.getLogger(__name__)

CANARIES = 256
FIRST_CHECK_S = 5.0
"""Pause while there is no report yet, because the index was empty or no check has succeeded."""
REBUILD_PAUSE_S = 600.0
"""Between two builds that the checks ask for: what one build did not cure, the next will not cure at once."""
MEMORY_SHARE_MAX = 0.5
"""A build needs half as much again beside what is there, and the profiles are of about the same size."""
CGROUP_MEMORY_MAX = Path("/sys/fs/cgroup/memory.max")
CURED_BY_BUILD: frozenset[IndexTrigger] = frozenset(
    {"low-recall", "self-miss", "dead-rows", "old-graph", "build-failed", "erasure-late"}
)


@runtime_checkable
class BuiltIndex(Protocol):
    """An index that keeps graphs. One that scans everything has nothing to build and is never in need of it."""

    def rebuild(self) -> object:
        """Starts a build in the background, from any thread; returns at once."""
        ...


@dataclass(frozen=True, slots=True)
class IndexLimits:
    """Where each figure triggers. Shares run from 0 to 1."""

    recall_min: float
    memory_bytes_max: int
    self_miss_share_max: float = 0.01
    delta_rows_max: int = 16_384
    """Twice what the index lets a delta grow to: changes outrun its builds."""
    dead_share_max: float = 0.2
    generation_age_s_max: float = 86_400.0
    build_s_max: float = 1800.0
    erasure_s_max: float = 600.0


class IndexReading(NamedTuple):
    """All that the triggers look at, at one moment."""

    stats: IndexStats
    report: RecallReport | None
    """The newest canary report; None before the first."""
    failed_builds: int = 0
    """Since the last graph that went into service."""
    failed_checks: int = 0
    """Since the last canary report."""
    erasing_s: float = 0.0
    """How long the oldest forgotten user may have been waiting to leave the graph's bytes."""


def fired(reading: IndexReading, limits: IndexLimits) -> list[IndexWarning]:
    """The figures that are past their limits, most important first. Pure."""
    stats, report = reading.stats, reading.report
    warnings = []
    if report is not None and report.recall < limits.recall_min:
        warnings.append(IndexWarning("low-recall", report.recall, limits.recall_min))
    if report is not None and report.self_miss_share > limits.self_miss_share_max:
        warnings.append(IndexWarning("self-miss", report.self_miss_share, limits.self_miss_share_max))
    changed = stats.delta + stats.moved + stats.dead > 0
    bounded: list[tuple[IndexTrigger, float, float]] = [
        ("erasure-late", reading.erasing_s, limits.erasure_s_max),
        ("build-failed", reading.failed_builds, 0),
        ("check-failed", reading.failed_checks, 0),
        ("delta-full", stats.delta, limits.delta_rows_max),
        # the build that runs removes dead rows: nothing needs doing before it is through
        ("dead-rows", 0.0 if stats.building else dead_share(stats), limits.dead_share_max),
        ("old-graph", stats.generation_age_s if changed else 0.0, limits.generation_age_s_max),
        ("slow-build", stats.build_s, limits.build_s_max),
        ("memory", stats.memory_bytes, limits.memory_bytes_max),
    ]
    warnings += [IndexWarning(word, value, limit) for word, value, limit in bounded if value > limit]
    return warnings


def dead_share(stats: IndexStats) -> float:
    """Removed rows, as a share of the base graph; 0 without one."""
    return stats.dead / stats.graph_rows if stats.graph_rows else 0.0


class IndexHealth:
    """Checks the index in a thread of its own, at low priority, and remembers the newest report.

    A check that takes longer than the interval delays the next one; checks never run side by side. One that fails
    is logged, counted and shown; the next one comes all the same. `status` may be called from any thread.
    """

    def __init__(
        self,
        index: WatchedIndex,
        limits: IndexLimits,
        metrics: Metrics,
        *,
        interval_s: float,
        rng: np.random.Generator,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing runs before `start`. `rng` draws the canaries; `clock` gives seconds that never go back."""
        self._index = index
        self._limits = limits
        self._metrics = metrics
        self._interval_s = interval_s
        self._rng = rng
        self._clock = clock
        self._lock = threading.Lock()
        self._thread = BackgroundThread("index-health", self._step)
        self._report: RecallReport | None = None
        self._reported_s = self._rebuilt_s = -math.inf
        self._failed_checks = 0
        self._builds = _Builds()

    def follow(self, index: WatchedIndex) -> None:
        """Watches another index from now on, of which nothing is known yet; from any thread."""
        with self._lock:
            self._index = index
            self._report, self._reported_s, self._rebuilt_s = None, -math.inf, -math.inf
            self._failed_checks, self._builds = 0, _Builds()

    def start(self) -> None:
        """Begins to check; once."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, waiting a second at most: a check that takes longer goes on, unseen, and is the last."""
        self._thread.stop()

    def check(self) -> None:
        """One round, in the caller's thread: canaries, then a build if a figure asks for one. Raises nothing."""
        index = self._index
        try:
            if index.stats().size:
                report = index.check_recall(CANARIES, rng=self._rng)
                with self._lock:
                    if index is self._index:  # else it was replaced meanwhile: the report is of nobody's interest
                        self._report, self._reported_s, self._failed_checks = report, self._clock(), 0
            self._build_if_needed()
        except Exception:
            logger.exception("the check of the index failed; the next one comes in %g s", self._interval_s)
            self._metrics.counter("nearstream_index_failed_checks_total").inc()
            with self._lock:
                self._failed_checks += 1

    def status(self) -> IndexStatus:
        """The figures as of now, with the newest canary report."""
        reading, reported_s = self._read()
        return _status_of(reading, self._limits, self._clock() - reported_s)

    def _step(self) -> float:
        self.check()
        return self._interval_s if self._report is not None else min(self._interval_s, FIRST_CHECK_S)

    def _read(self) -> tuple[IndexReading, float]:
        stats = self._index.stats()
        with self._lock:
            failed_builds, erasing_s = self._builds.observe(stats, self._clock())
            return IndexReading(stats, self._report, failed_builds, self._failed_checks, erasing_s), self._reported_s

    def _build_if_needed(self) -> None:
        reading, _ = self._read()
        words = [w.trigger for w in fired(reading, self._limits) if w.trigger in CURED_BY_BUILD]
        now_s = self._clock()
        if not words or reading.stats.building or now_s - self._rebuilt_s < REBUILD_PAUSE_S:
            return
        if isinstance(self._index, BuiltIndex):
            logger.warning("the index is built anew: %s", ", ".join(words))
            self._rebuilt_s = now_s
            self._index.rebuild()
            self._metrics.counter("nearstream_index_rebuilds_total").inc()


class _Builds:
    """What builds have failed to do since the last one that succeeded."""

    def __init__(self) -> None:
        self._generation = 0
        self._failed_before = 0
        self._erasing_since_s = math.inf

    def observe(self, stats: IndexStats, now_s: float) -> tuple[int, float]:
        """Builds failed since the last good one, and how long an erasure has been late at least, in seconds."""
        if stats.generation != self._generation:
            self._generation, self._failed_before = stats.generation, stats.failed_builds
        self._erasing_since_s = min(self._erasing_since_s, now_s) if stats.erasures_pending else math.inf
        # A new graph holds nobody who was forgotten before its build; later ones wait for the next.
        erasing_s = min(max(0.0, now_s - self._erasing_since_s), stats.generation_age_s)
        return stats.failed_builds - self._failed_before, erasing_s


def watch_index(index: WatchedIndex, settings: Settings, metrics: Metrics) -> IndexHealth:
    """The health of a worker's index by its settings and this machine's memory; not started yet."""
    limits = IndexLimits(settings.recall_min, int(MEMORY_SHARE_MAX * memory_limit_bytes()))
    return IndexHealth(index, limits, metrics, interval_s=settings.canary_interval_s, rng=np.random.default_rng())


def memory_limit_bytes(cgroup: Path = CGROUP_MEMORY_MAX) -> int:
    """What this process may use: the machine's memory, or the container's if that is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = cgroup.read_text().strip()
    except OSError:
        return machine
    return machine if limit == "max" else min(machine, int(limit))


def _status_of(reading: IndexReading, limits: IndexLimits, checked_s_ago: float) -> IndexStatus:
    stats, report = reading.stats, reading.report
    return IndexStatus(
        tier=stats.tier,
        users=stats.size,
        memory_bytes=stats.memory_bytes,
        recall=None if report is None else report.recall,
        recall_min=limits.recall_min,
        self_miss_share=None if report is None else report.self_miss_share,
        canary_queries=0 if report is None else report.queries,
        checked_s_ago=None if report is None else round(checked_s_ago, 1),
        graph_rows=stats.graph_rows,
        segments=stats.segments,
        delta=stats.delta,
        moved=stats.moved,
        dead=stats.dead,
        dead_share=dead_share(stats),
        ef=stats.ef,
        generation=stats.generation,
        generation_age_s=stats.generation_age_s,
        build_s=stats.build_s,
        building=stats.building,
        build_progress=stats.build_progress,
        erasures_pending=stats.erasures_pending,
        failed_builds=stats.failed_builds,
        warnings=fired(reading, limits),
    )


def export_index(metrics: Metrics, status: IndexStatus) -> None:
    """Sets the metrics `nearstream_index_*`; a figure that is not known yet is NaN, since 0 would be an alarm."""
    figures = {
        "recall": math.nan if status.recall is None else status.recall,
        "self_miss_share": math.nan if status.self_miss_share is None else status.self_miss_share,
        "graph_rows": status.graph_rows,
        "delta_rows": status.delta,
        "moved_rows": status.moved,
        "dead_share": status.dead_share,
        "segments": status.segments,
        "generation": status.generation,
        "generation_age_seconds": status.generation_age_s,
        "build_seconds": status.build_s,
        "building": status.building,
        "memory_bytes": status.memory_bytes,
        "erasures_pending": status.erasures_pending,
        "failed_builds": status.failed_builds,
    }
    for figure, value in figures.items():
        metrics.gauge(f"nearstream_index_{figure}").set(value)
    firing = {warning.trigger for warning in status.warnings}
    for trigger in get_args(IndexTrigger):
        metrics.gauge("nearstream_index_warning", trigger=trigger).set(trigger in firing)
