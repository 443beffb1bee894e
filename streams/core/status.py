"""The record of the internal topic `status` (schema v1): one a second per worker, what the page shows."""

from __future__ import annotations

from typing import Literal

import msgspec

from streams.core.worker_details import WorkerDetails

WorkerState = Literal["starting", "restoring", "running", "rebalancing", "broker-unreachable", "stopping", "stopped"]
PartitionState = Literal["restoring", "running", "retrying", "stopped"]
IndexTrigger = Literal[
    "low-recall",
    "self-miss",
    "delta-full",
    "dead-rows",
    "old-graph",
    "slow-build",
    "build-failed",
    "erasure-late",
    "check-failed",
    "memory",
]
"""What can be wrong with an index; `deploy/runbook.md` says what to do about each."""
DETAILS_EVERY_S = 30.0
"""A page that begins to watch sees a worker's details after this time at the latest."""
FRESHNESS_EDGES_MS = (5, 10, 20, 35, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10_000, 60_000)
"""Upper edges of the buckets of `WorkerTotals.freshness_counts`; one more bucket holds what took longer."""


class PartitionStatus(msgspec.Struct, frozen=True):
    """One input partition as its owner sees it. `lag_s` is the age of the next unprocessed record, 0 when none.

    `owed` users wait for a list that was shed; `shedding` is the `streams.core.shedding.Shedding` of the last batch,
    `batch_events` the most events of the next one. Old records have none of the three.
    """

    partition: int
    state: PartitionState
    position: int
    high_watermark: int
    lag: int
    lag_s: float
    error: str | None = None
    owed: int = 0
    shedding: int = 0
    batch_events: int = 0


class Quantiles(msgspec.Struct, frozen=True):
    """Of the last ten seconds; None when nothing happened."""

    p50: float | None
    p99: float | None


class WorkerTotals(msgspec.Struct, frozen=True):
    """Counts, and freshness in ms, since the worker started.

    `lists_by_cause` counts late lists of events as `owed`. `shed` counts lists by what their users did, and as
    `neighbour` those whose turn never came. `coalesced` refreshes were answered by another list of the same user.
    `freshness_counts` has one count more than `FRESHNESS_EDGES_MS`; old records have none. `short_lists` counts lists
    with fewer items than asked for, by the `short_because` of the message.
    """

    events: int
    lists: int
    duplicates: int
    dead_letters: dict[str, int]
    batches: int
    restarts: int
    events_by_type: dict[str, int] = {}
    freshness_ms: Quantiles = Quantiles(None, None)
    lists_by_cause: dict[str, int] = {}
    shed: dict[str, int] = {}
    coalesced: int = 0
    owed_overflows: int = 0
    freshness_counts: list[int] = []
    short_lists: dict[str, int] = {}


class IndexWarning(msgspec.Struct, frozen=True):
    """A figure that is past its limit, both in the figure's own unit: a share, rows, seconds, bytes or a count."""

    trigger: IndexTrigger
    value: float
    limit: float


class IndexStatus(msgspec.Struct, frozen=True):
    """A worker's index. Rows are vectors; all about graphs is zero while everything is scanned (`tier` "exact").

    `recall` and `self_miss_share` are those of the last canary queries, `checked_s_ago` seconds ago; all three are
    None before the first ones. `build_progress` and the shares run from 0 to 1.
    """

    tier: Literal["exact", "hnsw"]
    users: int
    memory_bytes: int
    recall: float | None
    recall_min: float
    self_miss_share: float | None
    canary_queries: int
    checked_s_ago: float | None
    graph_rows: int
    segments: int
    delta: int
    moved: int
    dead: int
    dead_share: float
    ef: int
    generation: int
    generation_age_s: float
    build_s: float
    building: bool
    build_progress: float
    erasures_pending: int
    failed_builds: int
    warnings: list[IndexWarning]


class SwapOverlap(msgspec.Struct, frozen=True):
    """How much of the lists of `users` users was the same just before and just after the last switch.

    Overlap@k: of the first `k` places of both lists, the share that is in both; a mean over the users, from 0 to 1.
    None where nobody of them had a list. `before` is the model of before.
    """

    before: str
    users: int
    k: int
    neighbours: float | None
    items: float | None


class ModelStatus(msgspec.Struct, frozen=True):
    """What a worker makes of the model folder that its settings name.

    `problem` says why the folder's model is not the one in service, None while it is or comes in; with `fallback` the
    built-in encoder serves in its place. `coming` is the model that is made ready, `progress` its share from 0 to 1.
    `pause_ms` is the longest job that the last switch gave the compute thread. `overlap` is None before the first
    switch, and where it could not be measured.
    """

    wanted: str
    fallback: bool
    problem: str | None
    coming: str | None
    progress: float
    switches: int
    failures: int
    switch_s: float | None
    pause_ms: float | None
    overlap: SwapOverlap | None = None


class ListQuality(msgspec.Struct, frozen=True):
    """How well a worker's lists foretold what came, of late: NDCG@10 and HR@10, means in which one of `lessons` counts
    half after a thousand more. The sources' weights come from `weights_lessons`; while `frozen`, lessons only judge.
    `weights` are those for all users alike, by source, its two parts together; old records have none.
    """

    ndcg: float
    hit_rate: float
    lessons: int
    weights_lessons: int
    frozen: bool
    weights: dict[str, float] = {}


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker. Times are epoch ms; `freshness_ms` runs from the event's record timestamp to its committed list;
    `stages_ms` is the mean time per batch of each stage over the last ten seconds. Old records have no `index`;
    `folder` is None where the settings name a built-in model, `quality` before the first lesson, `saved_s_ago` before
    the first snapshot. `details` come every DETAILS_EVERY_S seconds and when they change; None in between."""

    worker: str
    group: str
    state: WorkerState
    started_at: int
    reported_at: int
    web_url: str | None
    partitions: list[PartitionStatus]
    totals: WorkerTotals
    events_per_s: float
    lists_per_s: float
    freshness_ms: Quantiles
    stages_ms: dict[str, float]
    index_users: int
    index_epoch: int
    items: int
    model: str
    rss_bytes: int
    message: str | None = None
    index: IndexStatus | None = None
    folder: ModelStatus | None = None
    quality: ListQuality | None = None
    saved_s_ago: float | None = None
    details: WorkerDetails | None = None
