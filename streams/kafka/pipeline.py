"""The transactional micro-batch pipeline of one input partition.

fetch -> prepare on copies -> one Kafka transaction (lists, profiles, dead letters, offsets) -> only then memory moves.
The rules it follows are numbered in ARCHITECTURE.md; each was paid for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import aiokafka.producer.sender
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from streams.core.errors import CorruptState, DeadLetterLimit, PartitionLost, UsageError
from streams.core.shedding import SloBatcher
from streams.core.status import PartitionStatus
from streams.kafka.clients import client_options, close_producer, mark_seen, pace_metadata_updates
from streams.kafka.commit_note import NOTHING_NOTED, CommitNote
from streams.kafka.forgetting import read_tombstones
from streams.kafka.late_lists import Plan
from streams.kafka.traces import NOTHING_TRACED, BatchTrace, Headers, Traces

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.core.status import PartitionState
    from streams.kafka.processor import Output, Processor
    from streams.kafka.tail import TopicTail
    from streams.kafka.topics import Topics

logger = logging.getLogger(__name__)
T = TypeVar("T")

FETCH_WAIT_MS = 500
BATCH_BYTES_MAX = 1 << 20
RETRY_DELAY_S_MIN, RETRY_DELAY_S_MAX = 0.1, 2.0
FENCED_PAUSE_HEARTBEATS = 3
LOOK_FOR_OTHERS_S = 60.0
FATAL = (DeadLetterLimit, CorruptState, UsageError)

# Rule 15: aiokafka waits 20 ms before it repeats AddPartitionsToTxn after CONCURRENT_TRANSACTIONS, which follows every
# transaction at once; 2 ms was measured faster back to back.
aiokafka.producer.sender.BACKOFF_OVERRIDE = 0.002


class Stopped(Exception):
    """The pipeline was told to stop while it waited."""


class ChangelogOvertaken(Exception):
    """Somebody else wrote to the changelog of a partition that is ours."""


class BatchListener(Protocol):
    """Hears of each committed batch."""

    def committed(self, records: list[ConsumerRecord], output: Output, stage_s: dict[str, float]) -> None:
        """The transaction is committed and memory has moved. Must not block."""
        ...

    def restarted(self, partition: int, error: BaseException) -> None:
        """The pipeline dropped its session and will rebuild it from the log."""
        ...


@dataclass(frozen=True, slots=True)
class PipelineHost:
    """What all pipelines of a worker share."""

    settings: Settings
    topics: Topics
    consumer: AIOKafkaConsumer
    changelog: TopicTail
    processor: Processor
    compute: Callable[..., Awaitable[Any]]
    """Runs a function in the one compute thread."""
    listener: BatchListener
    traces: Traces | None = None


class PartitionPipeline:
    """One task and one transactional producer for one input partition.

    `clean` says that memory, log and committed offset agree, so that a parked pipeline may be taken up again.
    """

    def __init__(self, host: PipelineHost, partition: TopicPartition) -> None:
        self.partition = partition
        self.state: PartitionState = "restoring"
        self.error: str | None = None
        self.next_offset = 0
        self.next_record_ms: int | None = None
        self.clean = False
        self._host = host
        self._note = NOTHING_NOTED
        self._owed = 0
        self._batcher = SloBatcher(host.settings.freshness_target_ms / 1000, host.settings.batch_events_max)
        self._producer: AIOKafkaProducer | None = None
        self._looked_s = 0.0
        self._applying: asyncio.Future[int] | None = None
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def task(self) -> asyncio.Task[None]:
        """The running task."""
        if self._task is None:
            raise RuntimeError("The pipeline was not started.")
        return self._task

    def status(self, now_s: float) -> PartitionStatus:
        """As the page shows it. Without a batch in hand, a record that waits is taken to be new."""
        position = self.next_offset
        high_watermark = self._host.consumer.highwater(self.partition) or position
        waiting_since_ms = self.next_record_ms
        return PartitionStatus(
            partition=self.partition.partition,
            state=self.state,
            position=position,
            high_watermark=max(high_watermark, position),
            lag=max(0, high_watermark - position),
            lag_s=0.0 if waiting_since_ms is None else round(max(0.0, now_s - waiting_since_ms / 1000), 3),
            error=self.error,
            owed=self._owed,
            shedding=int(self._batcher.shedding),
            batch_events=self._batcher.batch_events,
        )

    def start(self) -> None:
        """Begins, or goes on after parking, in a task of its own."""
        self._stop = asyncio.Event()
        self.state = "restoring"
        self._task = asyncio.create_task(self._run(), name=f"pipeline-{self.partition.partition}")

    def request_stop(self) -> None:
        """Asks to stop after the running transaction; returns at once."""
        self._stop.set()

    async def close(self) -> None:
        """Gives the partition up: the changelog is followed from here on, the producer is closed in bounded time."""
        self.state = "stopped"
        self._host.changelog.release(self.partition.partition)
        for part in (self._host.processor.late, self._host.processor.forgetting):
            given_up = asyncio.ensure_future(self._host.compute(part.give_up, self.partition.partition))
            given_up.add_done_callback(mark_seen)
        producer, self._producer = self._producer, None
        await close_producer(producer)

    async def _run(self) -> None:
        """Sessions, one after the other, until stopped. A fatal verdict ends the task with that error."""
        delay_s = RETRY_DELAY_S_MIN
        while not self._stop.is_set():
            try:
                await self._open()
                delay_s = RETRY_DELAY_S_MIN
                while True:
                    await self._step()
            except Stopped:
                return
            except FATAL as error:
                self._drop_session(error)
                raise
            except asyncio.CancelledError:
                self.clean = False
                raise
            except Exception as error:  # noqa: BLE001 - whatever failed, memory may be behind the log: rebuild from it
                self._drop_session(error)
                logger.warning("partition %d restarts: %r", self.partition.partition, error)
                pause_s = delay_s
                if isinstance(error, PartitionLost):
                    # A zombie learns from its next heartbeats that it lost the partition, and is stopped. Only the
                    # true owner, whose transaction the broker timed out, is still here afterwards and may fence.
                    heartbeat_s = self._host.settings.heartbeat_interval_ms / 1000
                    pause_s = max(delay_s, FENCED_PAUSE_HEARTBEATS * heartbeat_s)
                try:
                    producer, self._producer = self._producer, None
                    await close_producer(producer)
                    await self._or_stop(asyncio.sleep(pause_s))
                except Stopped:
                    return
                delay_s = min(delay_s * 2, RETRY_DELAY_S_MAX)

    def _drop_session(self, error: BaseException) -> None:
        self.clean = False
        self._applying = None
        self.state = "retrying"
        self.error = f"{type(error).__name__}: {error}"[:300]
        self._host.processor.forget_bound(self.partition.partition)
        self._host.changelog.release(self.partition.partition)
        self._host.listener.restarted(self.partition.partition, error)

    async def _open(self) -> None:
        """Rule 1: producer first (it fences the old owner), then the committed offset, then the profiles, then go."""
        consumer, partition = self._host.consumer, self.partition
        if not await self._resumes_parked():
            self.clean = False
            self._host.changelog.release(self.partition.partition)
            await close_producer(self._producer)
            self._producer = self._new_producer()
            await self._or_stop(self._producer.start())
            committed, self._note = await self._or_stop(self._committed())
            if committed is None:
                committed = (await self._or_stop(consumer.beginning_offsets([partition])))[partition]
            await self._or_stop(self._host.changelog.own(partition.partition))
            for topic in self._output_topics():  # rule 12: metadata first, so one AddPartitionsToTxn covers all
                await self._or_stop(self._producer.partitions_for(topic))
            pace_metadata_updates(self._producer.client)
            self.next_offset = committed
            self._owed = await self._host.compute(
                self._host.processor.late.take_up, partition.partition, self._note, committed
            )
            await self._or_stop(self._take_up_forgetting())
        if self._stop.is_set():
            raise Stopped
        consumer.seek(partition, self.next_offset)
        consumer.resume(partition)
        self.clean, self.state, self.error = True, "running", None
        self._looked_s = time.monotonic()
        logger.info("partition %d runs from offset %d", partition.partition, self.next_offset)

    async def _resumes_parked(self) -> bool:
        """Rule 13: a pipeline parked over a rebalance goes on when the committed offset is still its own."""
        if self._producer is None or not self.clean:
            return False
        await self._settle()
        return await self._or_stop(self._committed()) == (self.next_offset, self._note)

    async def _committed(self) -> tuple[int | None, CommitNote]:
        """The group's offset, None when it never committed one, and what was noted with it."""
        coordinator = self._host.consumer._coordinator  # aiokafka has no public way to the metadata
        found = (await coordinator.fetch_committed_offsets([self.partition])).get(self.partition)
        return (None, NOTHING_NOTED) if found is None else (found.offset, CommitNote.decode(found.metadata))

    def _new_producer(self) -> AIOKafkaProducer:
        settings = self._host.settings
        return AIOKafkaProducer(
            **client_options(settings),
            # Rule 2: the id names the partition, never the worker; it is the fence.
            transactional_id=f"{settings.group}-{self.partition.topic}-{self.partition.partition}",
            transaction_timeout_ms=settings.transaction_timeout_ms,
            max_batch_size=BATCH_BYTES_MAX,
            retry_backoff_ms=50,
            request_timeout_ms=10_000,
        )

    def _output_topics(self) -> tuple[str, str, str]:
        topics = self._host.topics
        return topics.recommendations, topics.profiles, topics.dead_letters

    async def _step(self) -> None:
        """One micro-batch. From the transaction's begin to its commit it runs to completion (rule 11)."""
        await self._look_for_others()
        if self._host.processor.forgetting.is_due(self.partition.partition):
            await self._forget()
        records, waits_s = await self._fetch()
        self._batcher.fetched(self._left_behind_s(records))
        if not records and not await self._is_late():
            return
        started = time.perf_counter()
        plan = Plan(self._batcher.shedding, self._batcher.late_lists_max(len(records)))
        output = await self._host.compute(
            self._host.processor.prepare, records, self.partition.partition, int(time.time() * 1000), plan
        )
        await self._settle()
        prepared = time.perf_counter()
        self.clean = False
        trace = self._traced(records, output, prepared - started + sum(waits_s.values()))
        await self._transact(records, output, trace.headers)
        committed = time.perf_counter()
        self._take_in(records, output)
        self._batcher.committed(len(records) + output.late.lists, committed - started)
        stage_s = {
            **waits_s,
            **output.stage_s,
            "queue": prepared - started - sum(output.stage_s.values()),
            "transaction": committed - prepared,
        }
        trace.committed(stage_s)
        self._host.listener.committed(records, output, stage_s)

    def _traced(self, records: list[ConsumerRecord], output: Output, waited_s: float) -> BatchTrace:
        traces = self._host.traces
        if traces is None:
            return NOTHING_TRACED
        return traces.batch(records, output.lists_newest.tolist(), waited_s, self._host.topics.recommendations)

    async def _take_up_forgetting(self) -> None:
        """Whoever was to be forgotten while nobody, or somebody else, had the partition."""
        forgetting, topic, partition = (
            self._host.processor.forgetting,
            self._host.topics.users,
            self.partition.partition,
        )
        done = self._note.users_offset
        if done is not None:
            tp = TopicPartition(topic, partition)
            if (await self._host.consumer.end_offsets([tp]))[tp] < done:
                logger.warning("%s was made anew: its tombstones are done from the beginning", topic)
                done = None
        unread = await self._host.compute(forgetting.take_up, partition, done)
        if unread is not None:
            found = await read_tombstones(self._host.settings, topic, partition, unread)
            await self._host.compute(forgetting.add, partition, found)

    async def _forget(self) -> None:
        """Takes users out of the log, in a transaction without events, and then out of memory."""
        processor = self._host.processor
        output = await self._host.compute(processor.prepare_forget, self.partition.partition)
        await self._settle()
        if not output.profiles:  # nobody has a profile: the next batch notes that they are done
            await self._host.compute(processor.apply, output)
            return
        self.clean = False
        await self._transact([], output, {})
        self._take_in([], output)
        logger.info("partition %d has forgotten %d users", self.partition.partition, len(output.profiles))

    def _take_in(self, records: list[ConsumerRecord], output: Output) -> None:
        """Moves memory to what is committed now.

        Nobody waits for this: the compute thread takes its work in order, so whatever is prepared or loaded from here
        on sees it.
        """
        self._applying = asyncio.ensure_future(self._host.compute(self._host.processor.apply, output))
        self._applying.add_done_callback(self._count_owed)
        self.next_offset = _end(records, self.next_offset)
        self.next_record_ms = None
        self._note = output.late.note
        self.clean = True

    def _left_behind_s(self, records: list[ConsumerRecord]) -> float | None:
        """Age of the batch's last record when the batch is full and more wait; else None: it takes all there is."""
        is_full = len(records) >= self._batcher.batch_events
        if not is_full or (self._host.consumer.highwater(self.partition) or 0) <= records[-1].offset + 1:
            return None
        sent_s: float = records[-1].timestamp / 1000
        return max(0.0, time.time() - sent_s)

    async def _is_late(self) -> bool:
        """Whether a list is to be published although no event came; known in the compute thread only."""
        processor, partition = self._host.processor, self.partition.partition
        return bool(await self._host.compute(processor.late.is_due, partition, int(time.time() * 1000)))

    def _count_owed(self, applying: asyncio.Future[int]) -> None:
        if not applying.cancelled() and applying.exception() is None:
            self._owed = applying.result()

    async def _look_for_others(self) -> None:
        """Once in a while: did somebody else write to our changelog, a tombstone say? Then memory must read it.

        Raises:
            ChangelogOvertaken: so it is; the session ends, and the next one begins with what the log says.
        """
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_FOR_OTHERS_S:
            return
        self._looked_s = now_s
        if await self._or_stop(self._host.changelog.overtaken(self.partition.partition)):
            raise ChangelogOvertaken(
                f"Somebody else wrote to partition {self.partition.partition} of {self._host.topics.profiles}; "
                "it is read again."
            )

    async def _settle(self) -> None:
        """Raises what went wrong when the last committed batch was taken into memory."""
        applying, self._applying = self._applying, None
        if applying is not None:
            await applying

    async def _fetch(self) -> tuple[list[ConsumerRecord], dict[str, float]]:
        """Up to a full batch: at once when behind, else what arrives within the linger. And how long that took:
        from the first record's timestamp to its arrival, and from there to the end of the linger.

        Nobody is waited for while lists are owed. Without them the wait is also the pause between two rounds of
        reverse refreshes of an idle partition.
        """
        consumer, partition, settings = self._host.consumer, self.partition, self._host.settings
        events_max = self._batcher.batch_events
        records = await self._poll(0 if self._owed else FETCH_WAIT_MS, events_max)
        if not records:
            return records, {}
        arrived = time.perf_counter()
        self.next_record_ms = records[0].timestamp
        fetch_s = max(0.0, time.time() - records[0].timestamp / 1000)
        behind = (consumer.highwater(partition) or 0) > records[-1].offset + 1
        linger_s = settings.linger_ms / 1000 - fetch_s  # records that waited for the last batch have lingered already
        if len(records) < events_max and not behind and linger_s > 0:
            await self._or_stop(asyncio.sleep(linger_s))
        while len(records) < events_max:
            more = await self._poll(0, events_max - len(records))
            if not more:
                break
            records.extend(more)
        return records, {"fetch": fetch_s, "linger": time.perf_counter() - arrived}

    async def _poll(self, timeout_ms: int, records_max: int) -> list[ConsumerRecord]:
        fetched = await self._or_stop(
            self._host.consumer.getmany(self.partition, timeout_ms=timeout_ms, max_records=records_max)
        )
        records: list[ConsumerRecord] = fetched.get(self.partition, [])
        return records

    async def _transact(self, records: list[ConsumerRecord], output: Output, headers: Mapping[bytes, Headers]) -> None:
        """Rule 3: outputs, changelog and offsets in one transaction. No abort on failure: the next
        `InitProducerId`, ours or the next owner's, aborts what is open, whatever state this client is in.

        Raises:
            PartitionLost: a newer producer fenced this one.
        """
        producer = self._producer
        if producer is None:
            raise RuntimeError("A transaction needs an open session.")
        recommendations, profiles, dead_letters = self._output_topics()
        sends: list[asyncio.Future[Any]] = []
        try:
            await producer.begin_transaction()
            await self._send(
                recommendations, ((key, value, headers.get(key, [])) for key, value in output.lists), sends
            )
            lists_end = len(sends)
            changelog_records = await self._send(profiles, ((key, value, []) for key, value in output.profiles), sends)
            await self._send(dead_letters, ((d.key, d.value, d.headers) for d in output.dead_letters), sends)
            outcomes = await asyncio.gather(*sends)  # rule 12: aiokafka commits even when a batch failed
            # Without a record the offset stays, and only the note beside it moves.
            end = OffsetAndMetadata(_end(records, self.next_offset), output.late.note.encode())
            await producer.send_offsets_to_transaction({self.partition: end}, self._host.settings.group)
            await producer.commit_transaction()
        except ProducerFenced as error:
            raise PartitionLost(
                f"Partition {self.partition.partition} was taken over by another worker; this one stops writing to it."
            ) from error
        finally:
            for send in sends:  # of several failures one is raised; the others count as seen
                send.add_done_callback(mark_seen)
        if changelog_records:
            offsets = [outcome.offset for outcome in outcomes[lists_end : lists_end + len(changelog_records)]]
            batches = list(zip(offsets, changelog_records, strict=True))
            self._host.changelog.wrote(self.partition.partition, batches)

    async def _send(
        self,
        topic: str,
        rows: Iterable[tuple[bytes | None, bytes | None, Any]],
        sends: list[asyncio.Future[Any]],
    ) -> list[int]:
        """Rule 8: whole batches, to the input's own partition; their futures are appended to `sends`.

        Returns how many records each batch has.

        Raises:
            ValueError: a record that fits no batch.
        """
        producer, partition = self._producer, self.partition.partition
        assert producer is not None
        records: list[int] = []
        batch, filled = producer.create_batch(), 0
        for key, value, headers in rows:
            if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
                sends.append(await producer.send_batch(batch, topic, partition=partition))
                records.append(filled)
                batch, filled = producer.create_batch(), 0
                if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
                    raise ValueError(f"A record for {topic} is larger than {BATCH_BYTES_MAX} bytes.")
            filled += 1
        if filled:
            sends.append(await producer.send_batch(batch, topic, partition=partition))
            records.append(filled)
        return records

    async def _or_stop(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits `work`, or raises Stopped as soon as a stop is requested.

        Rule 11: aiokafka blocks `getmany()` from the start of a rebalance to the next assignment, while the
        revocation callback waits for this task; without the race both would wait for ever.
        """
        running, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                raise Stopped
            return running.result()
        finally:
            stop.cancel()
            if not running.done():
                running.cancel()
                await asyncio.wait({running})
            if not running.cancelled():
                running.exception()  # seen: either raised above, or a stop came first


def _end(records: list[ConsumerRecord], otherwise: int) -> int:
    """The offset after the last record."""
    return records[-1].offset + 1 if records else otherwise
