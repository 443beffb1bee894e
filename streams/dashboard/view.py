"""Observations in, what the page shows out. Pure: time is an argument, all state is in `History`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

import msgspec

from streams.core.observation import Connection, DeadLetter, Observation, PartitionOffsets, UserObservation
from streams.core.status import PartitionStatus, Quantiles, WorkerStatus
from streams.dashboard.history import History, PartitionHistory, Trend, lag_trend, rates_per_s
from streams.dashboard.index_view import IndexView, index_views
from streams.dashboard.model_view import model_sentence
from streams.dashboard.verdict import GroupVerdict, Verdict, group_verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

SILENT_AFTER_MS = 3000
"""Workers report once a second: three reports missed."""
FORGOTTEN_AFTER_MS = 15 * 60_000
"""A worker that has been silent or stopped for this long leaves the page."""


class Observer(Protocol):
    """Where the page gets everything from. No method waits."""

    def snapshot(self) -> Observation:
        """The group as last seen."""
        ...

    def user(self, user_id: str) -> UserObservation:
        """What is known of a user; starts looking back into the topics when memory holds too little."""
        ...

    def title(self, item_id: str) -> str | None:
        """The title of an item, if known."""
        ...


class GroupView(msgspec.Struct, frozen=True):
    """The header strip. Rates are a second; seconds of lag and freshness are those of the worst partition or worker,
    because quantiles of several workers cannot be merged."""

    name: str
    verdict: GroupVerdict
    sentence: str
    lag: int
    lag_s: float | None
    trend: Trend
    catch_up_s: float | None
    events_per_s: float
    processed_per_s: float
    lists_per_s: float
    freshness_ms: Quantiles


class PartitionView(msgspec.Struct, frozen=True):
    """One row of the lag table. `lag_s` is None while the age of the next record is not known; `spark` is the lag
    of the last polls, oldest first."""

    partition: int
    verdict: Verdict
    sentence: str
    owner: str | None
    owner_silent_s: float | None
    state: str | None
    error: str | None
    position: int | None
    committed: int | None
    end: int
    lag: int
    lag_s: float | None
    trend: Trend
    spark: list[int]


class WorkerView(msgspec.Struct, frozen=True):
    """One worker; `silent_s` is None while it reports, then how long ago it last did."""

    worker: str
    state: str
    silent_s: float | None
    age_s: float
    uptime_s: float
    partitions: list[int]
    events_per_s: float
    lists_per_s: float
    freshness_ms: Quantiles
    stages_ms: dict[str, float]
    index_users: int
    items: int
    model: str
    rss_bytes: int
    restarts: int
    duplicates: int
    message: str | None
    web_url: str | None


class ReasonCount(msgspec.Struct, frozen=True):
    """Dead letters of one reason."""

    reason: str
    count: int


class DeadLettersView(msgspec.Struct, frozen=True):
    """Most frequent reason first, newest dead letter first."""

    total: int
    complete: bool
    by_reason: list[ReasonCount]
    last: list[DeadLetter]


class Overview(msgspec.Struct, frozen=True):
    """One frame of the page. `now` is the server's clock, epoch ms; `polled_at` tells how old the offsets are."""

    now: int
    polled_at: int | None
    connection: Connection
    group: GroupView
    partitions: list[PartitionView]
    workers: list[WorkerView]
    indexes: list[IndexView]
    dead_letters: DeadLettersView
    recent_users: list[str]


def overview(seen: Observation, history: History, group: str, now_ms: int) -> Overview:
    """The frame of this moment; adds the observation to `history`."""
    # The moment that everything is judged at. While Kafka is away that stays the last poll: nobody's silence counts.
    at_ms = seen.polled_at if seen.polled_at is not None else now_ms
    workers = [w for w in seen.workers if at_ms - w.reported_at < FORGOTTEN_AFTER_MS]
    owners = partition_owners(workers)
    history.observe(seen, [p for p, (worker, _) in owners.items() if is_reporting(worker, at_ms)])
    partitions = [
        _partition_view(offsets, history.partitions[offsets.partition], owners.get(offsets.partition), at_ms)
        for offsets in seen.partitions
    ]
    return Overview(
        now=now_ms,
        polled_at=seen.polled_at,
        connection=seen.connection,
        group=_group_view(group, partitions, workers, history, at_ms),
        partitions=partitions,
        workers=[_worker_view(worker, at_ms) for worker in sorted(workers, key=lambda w: w.worker)],
        indexes=index_views(worker for worker in workers if is_reporting(worker, at_ms)),
        dead_letters=_dead_letters_view(seen),
        recent_users=seen.recent_users,
    )


def is_reporting(worker: WorkerStatus, at_ms: int) -> bool:
    """True while the worker's last report is young and not its farewell."""
    return worker.state != "stopped" and at_ms - worker.reported_at <= SILENT_AFTER_MS


def partition_owners(workers: Iterable[WorkerStatus]) -> dict[int, tuple[WorkerStatus, PartitionStatus]]:
    """Who holds each partition: the worker that reported it last; one that said farewell holds nothing."""
    owners: dict[int, tuple[WorkerStatus, PartitionStatus]] = {}
    for worker in sorted(workers, key=lambda w: w.reported_at):
        if worker.state != "stopped":
            owners.update({status.partition: (worker, status) for status in worker.partitions})
    return owners


def _partition_view(
    offsets: PartitionOffsets,
    past: PartitionHistory,
    owned: tuple[WorkerStatus, PartitionStatus] | None,
    at_ms: int,
) -> PartitionView:
    owner, status = owned if owned is not None else (None, None)
    verdict = past.verdict(at_ms)
    return PartitionView(
        partition=offsets.partition,
        verdict=verdict,
        sentence=_verdict_sentence(verdict, past, offsets),
        owner=owner.worker if owner else None,
        owner_silent_s=_silent_s(owner, at_ms) if owner else None,
        state=status.state if status else None,
        error=status.error if status else None,
        position=status.position if status else None,
        committed=offsets.committed,
        end=offsets.end,
        lag=offsets.lag,
        lag_s=_lag_s(offsets, at_ms),
        trend=lag_trend(past.polls).direction,
        spark=[poll.lag for poll in past.polls],
    )


def _lag_s(offsets: PartitionOffsets, at_ms: int) -> float | None:
    if offsets.lag == 0:
        return 0.0
    if offsets.next_timestamp is None:
        return None
    return max(0, at_ms - offsets.next_timestamp) / 1000


def _silent_s(worker: WorkerStatus, at_ms: int) -> float | None:
    if worker.state == "stopped" or is_reporting(worker, at_ms):
        return None
    return (at_ms - worker.reported_at) / 1000


def _verdict_sentence(verdict: Verdict, past: PartitionHistory, offsets: PartitionOffsets) -> str:
    stuck = f"{past.stuck_ms / 1000:.0f} s"
    match verdict:
        case Verdict.WARN:
            return "The group moves, but the lag has not fallen once over the window: it is too slow."
        case Verdict.STALL:
            return f"A worker reports this partition, but its offset has not moved for {stuck}."
        case Verdict.STOP:
            return f"Nobody works on this partition; its offset has not moved for {stuck}."
        case Verdict.REWIND:
            return "The committed offset went back and has not reached its old place again."
        case Verdict.OK:
            pass
    if not past.complete:
        return "Still watching: a verdict needs ten polls."
    return "Nothing is waiting." if offsets.lag == 0 else "The group keeps up."


def _group_view(
    name: str,
    partitions: list[PartitionView],
    workers: list[WorkerStatus],
    history: History,
    at_ms: int,
) -> GroupView:
    trend = lag_trend(history.group)
    incoming, processed = rates_per_s(history.group)
    reporting = [worker for worker in workers if is_reporting(worker, at_ms)]
    lags_s = [p.lag_s for p in partitions]
    return GroupView(
        name=name,
        verdict=group_verdict(p.verdict for p in partitions),
        sentence=_group_sentence(partitions),
        lag=sum(p.lag for p in partitions),
        lag_s=None if None in lags_s else max((s for s in lags_s if s is not None), default=0.0),
        trend=trend.direction,
        catch_up_s=trend.catch_up_s,
        events_per_s=incoming,
        processed_per_s=processed,
        lists_per_s=sum(worker.lists_per_s for worker in reporting),
        freshness_ms=Quantiles(
            _worst(worker.freshness_ms.p50 for worker in reporting),
            _worst(worker.freshness_ms.p99 for worker in reporting),
        ),
    )


def _group_sentence(partitions: list[PartitionView]) -> str:
    counts = Counter(p.verdict for p in partitions if p.verdict is not Verdict.OK)
    if not counts:
        return f"All {len(partitions)} partitions keep up." if partitions else "No partitions seen yet."
    words = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    return f"{words} of {len(partitions)} partitions."


def _worst(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _worker_view(worker: WorkerStatus, at_ms: int) -> WorkerView:
    silent_s = _silent_s(worker, at_ms)
    return WorkerView(
        worker=worker.worker,
        state=worker.state,
        silent_s=silent_s,
        age_s=max(0, at_ms - worker.reported_at) / 1000,
        uptime_s=max(0, worker.reported_at - worker.started_at) / 1000,
        partitions=sorted(status.partition for status in worker.partitions),
        events_per_s=worker.events_per_s,
        lists_per_s=worker.lists_per_s,
        freshness_ms=worker.freshness_ms,
        stages_ms=worker.stages_ms,
        index_users=worker.index_users,
        items=worker.items,
        model=worker.model,
        rss_bytes=worker.rss_bytes,
        restarts=worker.totals.restarts,
        duplicates=worker.totals.duplicates,
        message=worker.message or model_sentence(worker.folder, worker.model),
        web_url=worker.web_url,
    )


def _dead_letters_view(seen: Observation) -> DeadLettersView:
    tally = seen.dead_letters
    ordered = sorted(tally.by_reason.items(), key=lambda pair: (-pair[1], pair[0]))
    return DeadLettersView(
        total=sum(tally.by_reason.values()),
        complete=tally.complete,
        by_reason=[ReasonCount(reason, count) for reason, count in ordered],
        last=list(reversed(tally.last)),
    )
