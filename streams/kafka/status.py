"""What the worker tells about itself: rolling figures, Prometheus metrics and one status record a second."""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError

from streams.core.errors import AccessDenied, PartitionLost
from streams.core.status import FRESHNESS_EDGES_MS as SHOWN_EDGES_MS
from streams.core.status import PartitionStatus, Quantiles, WorkerState, WorkerStatus, WorkerTotals
from streams.kafka.access import diagnosed
from streams.kafka.clients import close_producer, started_producer
from streams.kafka.details import DetailsReporter
from streams.kafka.index_health import export_index
from streams.kafka.model_watch import export_model
from streams.kafka.weights_watch import export_weights, list_quality
from streams.recommend.rerank import ShortBecause

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiokafka import AIOKafkaProducer

    from streams.config import Settings
    from streams.kafka.consumer_group import PipelineGroup
    from streams.kafka.index_health import IndexHealth
    from streams.kafka.late_lists import LateLists
    from streams.kafka.model_watch import ModelWatch
    from streams.kafka.processor import Output
    from streams.kafka.saver import MemorySaver
    from streams.kafka.topics import Topics
    from streams.metrics import Metrics
    from streams.recommend.engine import Engine
    from streams.recommend.reverse import ReverseRefreshes

logger = logging.getLogger(__name__)

WINDOW_S = 10.0
BATCHES_MAX = 4096
REPORT_S = 1.0
SEND_S = 3.0
PARTITION_GAUGES = ("nearstream_owed_users", "nearstream_shedding_level", "nearstream_batch_limit_events")


FRESHNESS_EDGES_MS = np.geomspace(1.0, 3_600_000.0, 640)
"""Bins of the freshness since the start: 2.4 % wide, so that a quantile is that exact and memory stays bounded."""


class _Batch(NamedTuple):
    at_s: float
    events: int
    lists: int
    freshness_ms: np.ndarray[tuple[int], np.dtype[np.float64]]
    stage_s: dict[str, float]


class WorkerFigures:
    """Counts since the start and the last ten seconds, fed by every committed batch."""

    def __init__(self, metrics: Metrics, now_s: float) -> None:
        self._metrics = metrics
        self._started_s = now_s
        self._recent: deque[_Batch] = deque(maxlen=BATCHES_MAX)
        self._events_by_type: Counter[str] = Counter()
        self._freshness_bins = np.zeros(len(FRESHNESS_EDGES_MS) + 1, np.int64)
        self._dead_letters: Counter[str] = Counter()
        self._lists_by_cause: Counter[str] = Counter()
        self._shed: Counter[str] = Counter()
        self._short_lists: Counter[str] = Counter()
        self._coalesced = 0
        self._events = self._lists = self._duplicates = self._batches = self._restarts = 0

    def committed(self, records: list[ConsumerRecord], output: Output, stage_s: dict[str, float]) -> None:
        """Counts a committed batch."""
        now_s = time.time()
        freshness_ms = now_s * 1000 - _answered_sent_ms(records, output)
        self._recent.append(_Batch(now_s, len(output.accepted), len(output.lists), freshness_ms, stage_s))
        bins = np.searchsorted(FRESHNESS_EDGES_MS, freshness_ms)
        self._freshness_bins += np.bincount(bins, minlength=len(self._freshness_bins))
        self._events += len(output.accepted)
        self._lists += len(output.lists)
        self._duplicates += output.duplicates
        self._dead_letters += output.reject_reasons
        self._events_by_type += output.types
        self._lists_by_cause += lists_by_cause(output)
        self._shed += output.late.shed_kinds
        self._short_lists += short_lists(output)
        self._coalesced += coalesced(output)
        self._batches += 1
        self._export(records, output, stage_s, now_s)

    def restarted(self, partition: int, error: BaseException) -> None:  # noqa: ARG002 - the pipeline logs which
        """Counts a pipeline that was rebuilt from the log."""
        cause = "fenced" if isinstance(error, PartitionLost) else "error"
        self._restarts += 1
        self._metrics.counter("nearstream_session_restarts_total", cause=cause).inc()

    def totals(self, reverse: ReverseRefreshes | None = None, owed_overflows: int = 0) -> WorkerTotals:
        """Counts since the worker started, with what the queue of reverse refreshes counts itself."""
        shed = dict(self._shed) if reverse is None else {**self._shed, "neighbour": reverse.dropped}
        return WorkerTotals(
            events=self._events,
            lists=self._lists,
            duplicates=self._duplicates,
            dead_letters=dict(self._dead_letters),
            batches=self._batches,
            restarts=self._restarts,
            events_by_type=dict(self._events_by_type),
            freshness_ms=Quantiles(self._since_start(0.5), self._since_start(0.99)),
            lists_by_cause=dict(self._lists_by_cause),
            shed={kind: count for kind, count in shed.items() if count},
            coalesced=self._coalesced + (0 if reverse is None else reverse.coalesced),
            owed_overflows=owed_overflows,
            freshness_counts=self._freshness_counts(),
            short_lists=dict(self._short_lists),
        )

    def rates(self, now_s: float) -> tuple[float, float]:
        """Events and lists per second over the window, or since the start when that is shorter."""
        batches = self._window(now_s)
        span_s = max(1.0, min(WINDOW_S, now_s - self._started_s))
        return sum(b.events for b in batches) / span_s, sum(b.lists for b in batches) / span_s

    def freshness(self, now_s: float) -> Quantiles:
        """Event sent -> list committed, ms, over the window."""
        parts = [b.freshness_ms for b in self._window(now_s) if len(b.freshness_ms)]
        if not parts:
            return Quantiles(None, None)
        p50, p99 = np.percentile(np.concatenate(parts), [50, 99])
        return Quantiles(round(float(p50), 1), round(float(p99), 1))

    def stages_ms(self, now_s: float) -> dict[str, float]:
        """Mean milliseconds per batch of each stage, over the window."""
        batches = self._window(now_s)
        sums: Counter[str] = Counter()
        for batch in batches:
            sums.update(batch.stage_s)
        return {stage: round(1000 * total / len(batches), 3) for stage, total in sums.items()}

    def _since_start(self, quantile: float) -> float | None:
        """Upper edge of the bin that holds the quantile."""
        total = int(self._freshness_bins.sum())
        if not total:
            return None
        place = int(np.searchsorted(np.cumsum(self._freshness_bins), quantile * total))
        return round(float(FRESHNESS_EDGES_MS[min(place, len(FRESHNESS_EDGES_MS) - 1)]), 1)

    def _freshness_counts(self) -> list[int]:
        """The bins since the start, gathered into those that the page shows."""
        ends = np.searchsorted(FRESHNESS_EDGES_MS, SHOWN_EDGES_MS, side="right")
        below = np.concatenate([[0], np.cumsum(self._freshness_bins)])[[*ends, len(self._freshness_bins)]]
        counts: list[int] = np.diff(below, prepend=0).tolist()
        return counts

    def _window(self, now_s: float) -> list[_Batch]:
        while self._recent and self._recent[0].at_s < now_s - WINDOW_S:
            self._recent.popleft()
        return list(self._recent)

    def _export(self, records: list[ConsumerRecord], output: Output, stage_s: dict[str, float], now_s: float) -> None:
        metrics = self._metrics
        for kind, count in output.types.items():
            metrics.counter("nearstream_events_total", type=kind).inc(count)
        for reason, count in output.reject_reasons.items():
            metrics.counter("nearstream_dead_letters_total", reason=reason).inc(count)
        metrics.counter("nearstream_duplicates_total").inc(output.duplicates)
        _export_lists(metrics, output)
        if output.refresh is not None and (taught := output.refresh.taught) is not None:
            metrics.counter("nearstream_lessons_total").inc(len(taught.targets))
        metrics.counter("nearstream_batches_total").inc()
        metrics.histogram("nearstream_batch_events").observe(len(records))
        for stage, seconds in stage_s.items():
            metrics.histogram("nearstream_stage_seconds", stage=stage).observe(seconds)
        freshness = metrics.histogram("nearstream_freshness_seconds")
        for row in output.lists_newest.tolist():
            freshness.observe(now_s - records[row].timestamp / 1000)
        for debt in output.late.paid:
            if debt.sent_ms is not None:
                freshness.observe(now_s - debt.sent_ms / 1000)


def _export_lists(metrics: Metrics, output: Output) -> None:
    metrics.counter("nearstream_lists_total").inc(len(output.lists))
    for cause, count in lists_by_cause(output).items():
        metrics.counter("nearstream_lists_by_cause_total", cause=cause).inc(count)
    for because, count in short_lists(output).items():
        metrics.counter("nearstream_lists_short_total", because=because).inc(count)
    for kind, count in output.late.shed_kinds.items():
        metrics.counter("nearstream_lists_shed_total", kind=kind).inc(count)
    metrics.counter("nearstream_lists_coalesced_total").inc(coalesced(output))


def lists_by_cause(output: Output) -> Counter[str]:
    """Lists of a batch: of its events, owed ones, and those whose cause is a neighbour."""
    late = output.late
    of_events = len(output.lists_newest)
    counts = {"event": of_events, "owed": len(output.lists) - of_events - late.reverse_lists}
    return Counter({**counts, "neighbour": late.reverse_lists})


def short_lists(output: Output) -> Counter[str]:
    """Lists of a batch that have fewer items than asked for, by the reason that their messages give."""
    refresh = output.refresh
    if refresh is None or refresh.ranking is None:
        return Counter()
    counts = np.bincount(refresh.ranking.short_because, minlength=len(ShortBecause)).tolist()
    return Counter({reason.word: counts[reason] for reason in ShortBecause if reason.word and counts[reason]})


def coalesced(output: Output) -> int:
    """Refreshes that a list of the batch stands for besides its own: of earlier events, and of debts."""
    return len(output.answered) - len(output.lists_newest) + len(output.late.paid) - len(output.late.owed)


def _answered_sent_ms(records: list[ConsumerRecord], output: Output) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """When the events were sent whose list this batch is, those of paid debts included."""
    sent_ms = [records[p].timestamp for p in output.answered.tolist()]
    sent_ms += [debt.sent_ms for debt in output.late.paid if debt.sent_ms is not None]
    return np.array(sent_ms, np.float64)


class StatusReporter:
    """Publishes the worker's status once a second, and knows by it whether Kafka answers."""

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        worker: str,
        engine: Engine,
        figures: WorkerFigures,
        metrics: Metrics,
        started_ms: int,
    ) -> None:
        self.state: WorkerState = "starting"
        self.message: str | None = None
        self.web_url: str | None = None
        self.group: PipelineGroup | None = None
        self.index_health: IndexHealth | None = None
        self.saver: MemorySaver | None = None
        self.models: ModelWatch | None = None
        self.late: LateLists | None = None
        self.kafka_answers = True
        self.on_denied: Callable[[AccessDenied], None] | None = None
        self._settings = settings
        self._topics = topics
        self._worker = worker
        self._engine = engine
        self._figures = figures
        self._metrics = metrics
        self._started_ms = started_ms
        self.details = DetailsReporter(settings, engine)
        self._producer: AIOKafkaProducer | None = None
        self._encode = msgspec.json.Encoder().encode

    async def start(self) -> None:
        """Connects. Raises aiokafka's KafkaError when Kafka does not answer."""
        self._producer = await started_producer(self._settings, request_timeout_ms=5000)

    async def run(self) -> None:
        """Reports until cancelled."""
        while True:
            await self.report()
            await asyncio.sleep(REPORT_S)

    async def report(self) -> None:
        """One record; a broker that does not take it within three seconds counts as unreachable."""
        now_s = time.time()
        status = self.status(now_s)
        self._export(status)
        if (details := self.details.due(now_s)) is not None:
            status = msgspec.structs.replace(status, details=details)
        assert self._producer is not None
        try:
            await asyncio.wait_for(
                self._producer.send_and_wait(
                    self._topics.status, self._encode(status), key=self._worker.encode(), partition=0
                ),
                SEND_S,
            )
        except (KafkaError, TimeoutError, OSError) as error:
            if self.kafka_answers:
                logger.warning("Kafka at %s does not answer: %r", self._settings.bootstrap, error)
            self.kafka_answers = False
            await self._look_for_denial(error)
        else:
            if not self.kafka_answers:
                logger.info("Kafka answers again")
            self.kafka_answers = True
            if details is not None:
                self.details.told(details, now_s)

    async def _look_for_denial(self, error: BaseException) -> None:
        """A login that was withdrawn, or a certificate that ran out, is no outage that passes."""
        verdict = await diagnosed(self._settings, error)
        if isinstance(verdict, AccessDenied) and self.on_denied is not None:
            self.on_denied(verdict)

    async def stop(self) -> None:
        """Says goodbye and closes the producer, in bounded time."""
        if self._producer is None:
            return
        self.state = "stopped"
        if self.kafka_answers:
            await self.report()
        await close_producer(self._producer)

    def status(self, now_s: float) -> WorkerStatus:
        """The record as of now."""
        events_per_s, lists_per_s = self._figures.rates(now_s)
        return WorkerStatus(
            worker=self._worker,
            group=self._settings.group,
            state=self._current_state(),
            started_at=self._started_ms,
            reported_at=int(now_s * 1000),
            web_url=self.web_url,
            partitions=self._partitions(now_s),
            totals=self._figures.totals(self._engine.reverse, 0 if self.late is None else self.late.overflows),
            events_per_s=round(events_per_s, 1),
            lists_per_s=round(lists_per_s, 1),
            freshness_ms=self._figures.freshness(now_s),
            stages_ms=self._figures.stages_ms(now_s),
            index_users=len(self._engine.index),
            index_epoch=self._engine.epoch,
            items=len(self._engine.catalogue),
            model=self._engine.encoder.name,
            rss_bytes=resident_bytes(),
            message=self.message,
            index=None if self.index_health is None else self.index_health.status(),
            folder=None if self.models is None else self.models.status(),
            quality=list_quality(self._engine),
            saved_s_ago=self._saved_s_ago(now_s),
        )

    def _saved_s_ago(self, now_s: float) -> float | None:
        if self.saver is None or self.saver.saved_at_s is None:
            return None
        return round(now_s - self.saver.saved_at_s, 1)

    def _current_state(self) -> WorkerState:
        if self.state != "running":
            return self.state
        if not self.kafka_answers:
            return "broker-unreachable"
        if self.group is not None and self.group.rebalancing:
            return "rebalancing"
        return "running"

    def _partitions(self, now_s: float) -> list[PartitionStatus]:
        if self.group is None:
            return []
        return [p.status(now_s) for p in sorted(self.group.pipelines.values(), key=lambda p: p.partition.partition)]

    def _export(self, status: WorkerStatus) -> None:
        self._metrics.clear("nearstream_lag_events")
        self._metrics.clear("nearstream_lag_seconds")
        for name in PARTITION_GAUGES:
            self._metrics.clear(name)
        for partition in status.partitions:
            number = str(partition.partition)
            self._metrics.gauge("nearstream_lag_events", partition=number).set(partition.lag)
            self._metrics.gauge("nearstream_lag_seconds", partition=number).set(partition.lag_s)
            for name, value in zip(
                PARTITION_GAUGES, (partition.owed, partition.shedding, partition.batch_events), strict=True
            ):
                self._metrics.gauge(name, partition=number).set(value)
        if (reverse := self._engine.reverse) is not None:
            self._metrics.gauge("nearstream_reverse_waiting_users").set(len(reverse))
            self._metrics.gauge("nearstream_reverse_dropped_users").set(reverse.dropped)
        self._metrics.gauge("nearstream_index_users").set(status.index_users)
        self._metrics.gauge("nearstream_catalogue_items").set(status.items)
        self._metrics.gauge("nearstream_memory_bytes").set(status.rss_bytes)
        export_weights(self._metrics, self._engine)
        if status.index is not None:
            export_index(self._metrics, status.index)
        if status.folder is not None:
            export_model(self._metrics, status.folder)
        if (saver := self.saver) is not None:
            self._metrics.gauge("nearstream_snapshot_failures").set(saver.failures)
            if saver.saved_at_s is not None:
                self._metrics.gauge("nearstream_snapshot_age_seconds").set(time.time() - saver.saved_at_s)
                self._metrics.gauge("nearstream_snapshot_bytes").set(saver.saved_bytes)
                self._metrics.gauge("nearstream_snapshot_seconds").set(saver.save_s)


def resident_bytes() -> int:
    """Resident memory of this process; where the system does not tell the current figure, its peak."""
    try:
        with open("/proc/self/statm") as statm:  # noqa: PTH123 - a kernel file, read whole
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
