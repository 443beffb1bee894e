"""The record of the internal topic `status` (schema v1): one a second per worker, what the page shows."""

from __future__ import annotations

from typing import Literal

import msgspec

WorkerState = Literal["starting", "restoring", "running", "rebalancing", "broker-unreachable", "stopping", "stopped"]
PartitionState = Literal["restoring", "running", "retrying", "stopped"]


class PartitionStatus(msgspec.Struct, frozen=True):
    """One input partition as its owner sees it. `lag_s` is the age of the next unprocessed record, 0 when none."""

    partition: int
    state: PartitionState
    position: int
    high_watermark: int
    lag: int
    lag_s: float
    error: str | None = None


class Quantiles(msgspec.Struct, frozen=True):
    """Of the last ten seconds; None when nothing happened."""

    p50: float | None
    p99: float | None


class WorkerTotals(msgspec.Struct, frozen=True):
    """Counts, and freshness in ms, since the worker started."""

    events: int
    lists: int
    duplicates: int
    dead_letters: dict[str, int]
    batches: int
    restarts: int
    events_by_type: dict[str, int] = {}
    freshness_ms: Quantiles = Quantiles(None, None)


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker. Times are epoch ms; `freshness_ms` runs from the event's record timestamp to its committed list;
    `stages_ms` is the mean time per batch of each stage over the last ten seconds."""

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
