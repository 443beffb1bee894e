"""Publishes a log: first its items and users, then its events, keyed, acknowledged and in order.

Each record's Kafka timestamp is the moment of sending, whatever time the event carries: a topic's retention
would otherwise delete an old log while it is being written.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.kafka.access import diagnosed
from streams.kafka.clients import client_options, close_producer, pace_metadata_updates
from streams.kafka.keyed_batches import KeyedBatches
from streams.kafka.topics import Topics, list_topics, missing_topics
from streams.sources.read_ahead import ReadAhead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streams.config import Settings
    from streams.core.events import Event, Item, User
    from streams.sources import Source

TimeMode = Literal["keep", "now"]
Stage = Literal["items", "users", "events"]
Record = TypeVar("Record")

logger = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode

CONNECT_S = 10.0
INTERRUPTED_FLUSH_S = 10.0
BATCH_BYTES_MAX = 128 * 1024
"""Filled, not waited for. At most two batches a partition are unacknowledged, which bounds memory."""
CHUNK_RECORDS_MAX = 500
"""Records handled between two turns of the event loop, about 3 ms."""
TICK_S = 0.002
CATCH_UP_S = 1.0
PROGRESS_S = 0.25


class FeedSummary(msgspec.Struct, frozen=True):
    """What Kafka acknowledged. `events_per_s` counts the events' own time, without items and users."""

    events: int
    items: int
    users: int
    seconds: float
    events_per_s: float
    skipped: dict[str, int]
    interrupted: bool = False


class FeedProgress(NamedTuple):
    """How far a stage is; `expected` is None when the source does not know how much is to come."""

    stage: Stage
    sent: int
    acknowledged: int
    expected: int | None
    elapsed_s: float
    """Since the stage began."""

    @property
    def per_s(self) -> float:
        """Records acknowledged per second."""
        return self.acknowledged / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds to go at this rate; None while there is nothing to tell it by."""
        if self.expected is None or not self.per_s:
            return None
        return max(0, self.expected - self.acknowledged) / self.per_s


def epoch_ms() -> int:
    """The clock of this machine, in epoch milliseconds."""
    return time.time_ns() // 1_000_000


async def feed(
    source: Source,
    settings: Settings,
    *,
    rate: float | None = None,
    limit: int | None = None,
    time_mode: TimeMode = "keep",
    clock: Callable[[], int] = epoch_ms,
    on_progress: Callable[[FeedProgress], None] | None = None,
    stop: asyncio.Event | None = None,
) -> FeedSummary:
    """Publishes the items, the users and then the events of `source`, and returns when all are acknowledged.

    Events of one user arrive in the order of the source: they share a partition, and the producer is idempotent.

    Args:
        source: the log.
        settings: where Kafka is, and the prefix of the topics, which must exist.
        rate: events per second, paced evenly; None is flat out. After a stall at most one second is caught up.
        limit: the most events to send; None is all. Items and users are not limited.
        time_mode: `keep` leaves the events' times alone; `now` stamps each with the moment it is sent, never
            earlier than the one before.
        clock: epoch milliseconds.
        on_progress: called at most four times a second, and once at the end of each stage.
        stop: when set, no more is read; what was sent is awaited, and the summary says `interrupted`.

    Raises:
        UsageError: topics are missing, or the source cannot be read.
        BrokerUnavailable: Kafka does not answer, stops acknowledging or refuses a batch; the message says how
            many records were acknowledged.
    """
    partitions = await _partitions(settings)
    producer = AIOKafkaProducer(
        **client_options(settings), enable_idempotence=True, acks="all", max_batch_size=BATCH_BYTES_MAX
    )
    try:
        await _start(producer, settings, partitions)
        run = _Feed(producer, partitions, clock, on_progress, stop or asyncio.Event())
        return await run.publish(source, Topics(settings.prefix), rate, limit, time_mode)
    finally:
        await close_producer(producer)


@dataclass(slots=True)
class Pacer:
    """How many records may go by now. Knows no clock: seconds come in, counts go out."""

    rate: float | None
    origin_s: float
    granted: int = 0

    def grant(self, now_s: float, most: int) -> int:
        """How many to send now, up to `most`; they count as sent."""
        if self.rate is None:
            return most
        behind_s = now_s - self.origin_s - self.granted / self.rate
        if behind_s > CATCH_UP_S:
            self.origin_s += behind_s - CATCH_UP_S
        due = 1 + int((now_s - self.origin_s) * self.rate) - self.granted
        count = max(0, min(due, most))
        self.granted += count
        return count

    def give_back(self, count: int) -> None:
        """Takes back what was granted but not there to be sent."""
        self.granted -= count

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next one is due, at least a tick."""
        return 0.0 if self.rate is None else max(TICK_S, self.origin_s + self.granted / self.rate - now_s)


@dataclass(frozen=True, slots=True)
class _Stage(Generic[Record]):
    """One kind of record on its way to its topic."""

    name: Stage
    topic: str
    records: Iterable[Record]
    keyed: Callable[[Record], tuple[str, bytes]]
    """Key and value of a record."""
    expected: int | None
    rate: float | None = None
    limit: int | None = None


class _Feed:
    """One run of `feed`, with its producer started."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        partitions: dict[str, int],
        clock: Callable[[], int],
        on_progress: Callable[[FeedProgress], None] | None,
        stop: asyncio.Event,
    ) -> None:
        self._producer = producer
        self._partitions = partitions
        self._clock = clock
        self._on_progress = on_progress
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.ensure_future(stop.wait())
        self._sent: dict[Stage, KeyedBatches] = {}
        self._now_ms = 0
        self._reported_s = self._started_s = self._stage_s = self._loop.time()

    async def publish(
        self, source: Source, topics: Topics, rate: float | None, limit: int | None, time_mode: TimeMode
    ) -> FeedSummary:
        """Items, users, events; each stage is acknowledged before the next begins."""
        try:
            async with asyncio.timeout(None) as deadline:
                self._stopped.add_done_callback(lambda _: self._hurry(deadline))
                await self._publish_all(source, topics, rate, limit, time_mode)
        except TimeoutError:
            logger.warning("Kafka did not acknowledge all that was sent before the interrupt")
        finally:
            interrupted = self._stopped.done()
            self._stopped.cancel()
        return self._summary(source, interrupted=interrupted)

    def _hurry(self, deadline: asyncio.Timeout) -> None:
        if not self._stopped.cancelled():
            deadline.reschedule(self._loop.time() + INTERRUPTED_FLUSH_S)

    async def _publish_all(
        self, source: Source, topics: Topics, rate: float | None, limit: int | None, time_mode: TimeMode
    ) -> None:
        known = await asyncio.to_thread(source.describe)
        await self._send(_Stage("items", topics.items, source.items(), _keyed_item, known.items))
        await self._send(_Stage("users", topics.users, source.users(), _keyed_user, known.users))
        keyed = self._stamped_event if time_mode == "now" else _keyed_event
        expected = min((count for count in (known.events, limit) if count is not None), default=None)
        await self._send(_Stage("events", topics.events, source.events(), keyed, expected, rate, limit))

    async def _send(self, stage: _Stage[Record]) -> None:
        batches = KeyedBatches(self._producer, stage.topic, self._partitions[stage.topic])
        self._sent[stage.name] = batches
        self._stage_s = self._loop.time()
        async with ReadAhead(stage.records) as ahead:
            await self._pump(stage, ahead, batches)
        await batches.acknowledge()
        self._report(stage, batches)

    async def _pump(self, stage: _Stage[Record], ahead: ReadAhead[Record], batches: KeyedBatches) -> None:
        """Moves records from the reader to the batches until one ends, the limit is reached or `stop` is set."""
        pacer = Pacer(stage.rate, self._loop.time())
        most = CHUNK_RECORDS_MAX
        while not self._stopped.done() and not ahead.exhausted and most > 0:
            granted = pacer.grant(self._loop.time(), most)
            records = ahead.take(granted)
            pacer.give_back(granted - len(records))
            await self._append(records, stage.keyed, batches)
            if stage.rate is not None or len(records) < granted:
                await batches.flush()
            await self._pause(ahead if len(records) < granted else None, pacer)
            if self._loop.time() - self._reported_s >= PROGRESS_S:
                self._report(stage, batches)
            if stage.limit is not None:
                most = min(CHUNK_RECORDS_MAX, stage.limit - batches.sent)

    async def _append(
        self, records: list[Record], keyed: Callable[[Record], tuple[str, bytes]], batches: KeyedBatches
    ) -> None:
        self._now_ms = max(self._now_ms, self._clock())
        for record in records:
            key, value = keyed(record)
            await batches.append(key, value, self._now_ms)

    async def _pause(self, ahead: ReadAhead[Any] | None, pacer: Pacer) -> None:
        """Until the reader has more, if it is given; else until the next record is due; or until `stop`."""
        if ahead is not None:
            arrival = asyncio.ensure_future(ahead.arrival())
            try:
                await asyncio.wait({self._stopped, arrival}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                arrival.cancel()
        elif pacer.rate is not None:
            await asyncio.wait({self._stopped}, timeout=pacer.wait_s(self._loop.time()))
        else:
            await asyncio.sleep(0)  # lets the producer send

    def _stamped_event(self, event: Event) -> tuple[str, bytes]:
        return _keyed_event(msgspec.structs.replace(event, timestamp=self._now_ms))

    def _report(self, stage: _Stage[Any], batches: KeyedBatches) -> None:
        self._reported_s = self._loop.time()
        if self._on_progress is not None:
            elapsed_s = self._reported_s - self._started_s
            self._on_progress(FeedProgress(stage.name, batches.sent, batches.acknowledged, stage.expected, elapsed_s))

    def _summary(self, source: Source, *, interrupted: bool) -> FeedSummary:
        now_s = self._loop.time()
        counts = {name: batches.acknowledged for name, batches in self._sent.items()}
        events = counts.get("events", 0)
        return FeedSummary(
            events=events,
            items=counts.get("items", 0),
            users=counts.get("users", 0),
            seconds=round(now_s - self._started_s, 3),
            events_per_s=round(events / max(now_s - self._stage_s, 1e-3), 1),
            skipped=dict(source.skips.counts),
            interrupted=interrupted,
        )


async def _partitions(settings: Settings) -> dict[str, int]:
    """Partition counts of the three input topics."""
    try:
        async with asyncio.timeout(CONNECT_S):
            present = await list_topics(settings)
    except (TimeoutError, KafkaError) as error:
        raise await diagnosed(settings, error) from error
    topics = Topics(settings.prefix)
    missing = [name for name in (topics.items, topics.users, topics.events) if name not in present]
    if missing:
        raise missing_topics(missing)
    return {name: present[name] for name in (topics.items, topics.users, topics.events)}


async def _start(producer: AIOKafkaProducer, settings: Settings, topics: Iterable[str]) -> None:
    """Connects and learns where the topics are, so that the first record of each need not wait for that."""
    try:
        async with asyncio.timeout(CONNECT_S):
            await producer.start()
            for topic in topics:
                await producer.partitions_for(topic)
    except (TimeoutError, KafkaError, OSError) as error:
        raise await diagnosed(settings, error) from error
    pace_metadata_updates(producer.client)


def _keyed_item(item: Item) -> tuple[str, bytes]:
    return item.item_id, _encode(item)


def _keyed_user(user: User) -> tuple[str, bytes]:
    return user.user_id, _encode(user)


def _keyed_event(event: Event) -> tuple[str, bytes]:
    return event.user_id, _encode(event)
