"""The transactional micro-batch pipeline of one input partition.

fetch -> prepare on copies -> one Kafka transaction (lists, profiles, dead letters, offsets) -> only then memory moves.
The rules it follows are numbered in ARCHITECTURE.md; each was paid for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from streams.core.errors import CorruptState, DeadLetterLimit, PartitionLost, UsageError
from streams.core.shedding import SloBatcher
from streams.core.status import PartitionStatus
from streams.kafka.clients import mark_seen
from streams.kafka.commit_note import NOTHING_NOTED, CommitNote
from streams.kafka.forgetting import read_tombstones
from streams.kafka.late_lists import Plan
from streams.kafka.traces import NOTHING_TRACED, BatchTrace, Traces
from streams.kafka.transaction import PartitionProducer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.config import Settings
    from streams.core.status import PartitionState
    from streams.kafka.processor import Output, Processor
    from streams.kafka.tail import TopicTail
    from streams.kafka.topics import Topics
    from streams.kafka.traces import Headers

logger = logging.getLogger(__name__)
T = TypeVar("T")

FETCH_WAIT_MS = 500
RETRY_DELAY_S_MIN, RETRY_DELAY_S_MAX = 0.1, 2.0
FENCED_PAUSE_HEARTBEATS = 3
LOOK_FOR_OTHERS_S = 60.0
FATAL = (DeadLetterLimit, CorruptState, UsageError)


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
        self._producer = PartitionProducer(host.settings, host.topics, partition)
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
        await self._producer.close()

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
                    await self._producer.close()
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
            await self._producer.close()
            await self._or_stop(self._producer.start())
            committed, self._note = await self._or_stop(self._committed())
            if committed is None:
                committed = (await self._or_stop(consumer.beginning_offsets([partition])))[partition]
            await self._or_stop(self._host.changelog.own(partition.partition))
            await self._or_stop(self._producer.find_topics())
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
        if not self._producer.is_started or not self.clean:
            return False
        await self._settle()
        return await self._or_stop(self._committed()) == (self.next_offset, self._note)

    async def _committed(self) -> tuple[int | None, CommitNote]:
        """The group's offset, None when it never committed one, and what was noted with it."""
        coordinator = self._host.consumer._coordinator  # aiokafka has no public way to the metadata
        found = (await coordinator.fetch_committed_offsets([self.partition])).get(self.partition)
        return (None, NOTHING_NOTED) if found is None else (found.offset, CommitNote.decode(found.metadata))

    async def _step(self) -> None:
        """One micro-batch. From the transaction's begin to its commit it runs to completion (rule 11)."""
        await self._look_for_others()
        if self._host.processor.forgetting.is_due(self.partition.partition):
            await self._forget()
        records, waits_s = await self._fetch()
        end = await self._read_up_to()
        self._batcher.fetched(self._left_behind_s(records, end))
        if not records and not await self._is_late():
            await self._pass_over(end)
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
        await self._commit(output, end, trace.headers)
        committed = time.perf_counter()
        self._take_in(output, end)
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
        await self._commit(output, self.next_offset, {})
        self._take_in(output, self.next_offset)
        logger.info("partition %d has forgotten %d users", self.partition.partition, len(output.profiles))

    async def _commit(self, output: Output, next_offset: int, headers: Mapping[bytes, Headers]) -> None:
        batches = await self._producer.commit(output, next_offset, headers)
        if batches:
            self._host.changelog.wrote(self.partition.partition, batches)

    def _take_in(self, output: Output, next_offset: int) -> None:
        """Moves memory to what is committed now.

        Nobody waits for this: the compute thread takes its work in order, so whatever is prepared or loaded from here
        on sees it.
        """
        self._applying = asyncio.ensure_future(self._host.compute(self._host.processor.apply, output))
        self._applying.add_done_callback(self._count_owed)
        self.next_offset = next_offset
        self.next_record_ms = None
        self._note = output.late.note
        self.clean = True

    async def _read_up_to(self) -> int:
        """Where reading goes on: after the last record, and after what follows it and is none, as the markers that end
        the transactions of producers and all that they aborted. Uncommitted, that would stay as lag.
        """
        position: int = await self._or_stop(self._host.consumer.position(self.partition))
        return position

    async def _pass_over(self, end: int) -> None:
        """Commits that up to `end` there are no more records; does nothing where that is committed already."""
        if end <= self.next_offset:
            return
        await self._settle()
        self.clean = False
        await self._producer.commit_offset(end, self._note)
        self.next_offset, self.clean = end, True

    def _left_behind_s(self, records: list[ConsumerRecord], end: int) -> float | None:
        """Age of the batch's last record when the batch is full and more wait; else None: it takes all there is."""
        is_full = len(records) >= self._batcher.batch_events
        if not is_full or (self._host.consumer.highwater(self.partition) or 0) <= end:
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
        behind = (consumer.highwater(partition) or 0) > await self._read_up_to()
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
