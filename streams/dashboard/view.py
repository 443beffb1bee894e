"""Observations in, what the page shows out. Pure: time is an argument, all state is in `History`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

import msgspec

from streams.core.observation import (
    Connection,
    DeadLetter,
    Observation,
    PartitionOffsets,
    SeenRecord,
    TailRecord,
    TailTopic,
    UserObservation,
)
from streams.core.status import ListQuality, ModelStatus, PartitionStatus, Quantiles, WorkerStatus
from streams.dashboard.history import History, PartitionHistory, Trend, lag_trend, quiet_s, rates_per_s
from streams.dashboard.index_view import IndexView, index_views
from streams.dashboard.model_view import model_sentence
from streams.dashboard.verdict import GroupVerdict, Verdict, group_verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

SILENT_AFTER_MS = 3000
"""Workers report once a second: three reports missed."""
STRAGGLER_S_MIN = 2.0
STRAGGLER_TIMES = 3.0
"""A partition this many seconds behind, and this many times as far as any other, is named."""
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

    def lists(self, count: int) -> list[SeenRecord]:
        """The newest lists of the users whose lists changed last, newest first."""
        ...

    def tail(self, topic: TailTopic, after: int) -> list[TailRecord]:
        """The newest records of a topic whose number is greater than `after`, oldest first."""
        ...


class GroupView(msgspec.Struct, frozen=True):
    """The header strip. Rates are a second; seconds of lag and freshness are those of the worst partition or worker,
    because quantiles of several workers cannot be merged. `quiet_s` is how long no
    event has come in, where that is unusual; `attention` says
    that the sentence is not a calm one."""

    name: str
    verdict: GroupVerdict
    sentence: str
    attention: bool
    lag: int
    lag_s: float | None
    trend: Trend
    catch_up_s: float | None
    events_per_s: float
    processed_per_s: float
    lists_per_s: float
    freshness_ms: Quantiles
    quiet_s: float | None


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
    """One worker; `silent_s` is None while it reports, then how long ago it last did. Counts of lists, also short ones
    by their reason, run since the worker's start."""

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
    owed: int
    shed: int
    coalesced: int
    lists: int
    short_lists: dict[str, int]
    saved_s_ago: float | None
    quality: ListQuality | None
    folder: ModelStatus | None


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
    freshness_target_ms: int
    """Of the page's own settings; 0 = none."""


def overview(seen: Observation, history: History, group: str, now_ms: int, freshness_target_ms: int = 0) -> Overview:
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
        freshness_target_ms=freshness_target_ms,
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
    problem = _group_problem(partitions, workers, at_ms)
    return GroupView(
        name=name,
        verdict=group_verdict(p.verdict for p in partitions),
        sentence=problem or (f"All {len(partitions)} partitions keep up." if partitions else "No partitions seen yet."),
        attention=problem is not None,
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
        quiet_s=quiet_s(history.group),
    )


def _group_problem(partitions: list[PartitionView], workers: list[WorkerStatus], at_ms: int) -> str | None:
    """What wants attention, the surest first: verdicts, a silent worker, one partition far behind, nobody at work."""
    counts = Counter(p.verdict for p in partitions if p.verdict is not Verdict.OK)
    if counts:
        words = ", ".join(f"{count} {word}" for word, count in counts.most_common())
        return f"{words} of {len(partitions)} partitions."
    silent = {w.worker: silent_s for w in workers if (silent_s := _silent_s(w, at_ms)) is not None}
    if silent:
        name, silent_s = max(silent.items(), key=lambda pair: pair[1])
        more = f", and {len(silent) - 1} more" if len(silent) > 1 else ""
        return f"{name} is silent for {silent_s:.0f} s{more}."
    if (straggler := _straggler_sentence(partitions)) is not None:
        return straggler
    nobody = not any(is_reporting(worker, at_ms) for worker in workers)
    return "Events wait and no worker reports." if nobody and any(p.lag for p in partitions) else None


def _straggler_sentence(partitions: list[PartitionView]) -> str | None:
    """Says when one partition is far behind the others: that shows long before a verdict can be given."""
    known = sorted((p for p in partitions if p.lag_s is not None), key=lambda p: p.lag_s or 0.0)
    if len(known) < 2:
        return None
    last, next_s = known[-1], known[-2].lag_s or 0.0
    if (last.lag_s or 0.0) < max(STRAGGLER_S_MIN, STRAGGLER_TIMES * next_s):
        return None
    return f"Partition {last.partition} is {last.lag_s:.0f} s behind, the others {next_s:.1f} s at most."


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
        owed=sum(status.owed for status in worker.partitions),
        shed=sum(worker.totals.shed.values()),
        coalesced=worker.totals.coalesced,
        lists=worker.totals.lists,
        short_lists=worker.totals.short_lists,
        saved_s_ago=worker.saved_s_ago,
        quality=worker.quality,
        folder=worker.folder,
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
