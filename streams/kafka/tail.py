"""Follows a compacted topic into memory: the changelog of foreign partitions, and the catalogue."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from streams.kafka.clients import client_options, close_consumer, pace_metadata_updates

if TYPE_CHECKING:
    from streams.config import Settings

logger = logging.getLogger(__name__)

POLL_MS = 200
RECORDS_MAX = 2000
PROGRESS_EVERY_S = 2.0
RETRY_S = 0.5
MARKER_OFFSETS = 1
"""What the end of a transaction takes of each of its partitions."""

OnProgress = Callable[[str, int, int], None]
"""Topic, records read, records to read."""


class TopicTail:
    """Reads every partition of a topic from the beginning and then follows it, in order, once.

    A partition that this worker owns is paused: its owner writes memory itself, and says so by `wrote`. `own` returns
    only when all that is committed up to that call has been applied. At any time, whatever memory lacks lies at or
    after `offsets`: there the tail goes on after a release, and a restored snapshot after a restart.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        apply: Callable[[list[ConsumerRecord]], Awaitable[Any]],
        on_progress: OnProgress,
    ) -> None:
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._topic = topic
        self._apply = apply
        self._on_progress = on_progress
        self._owned: set[int] = set()
        self._ends: dict[int, int] = {}
        """By owned partition: where the log ends if only its owner writes; absent once somebody else did."""
        self._applied: dict[TopicPartition, int] = {}
        self._moved = asyncio.Condition()
        self._settings = settings
        self._consumer = self._new_consumer()
        self._task: asyncio.Task[None] | None = None

    async def start(self, partitions: int, from_offsets: Mapping[int, int] | None = None) -> None:
        """Connects and begins to read, at these offsets by partition or at the beginning.

        Raises aiokafka's KafkaError when Kafka does not answer; then call it again.
        """
        assigned = [TopicPartition(self._topic, number) for number in range(partitions)]
        try:
            await self._consumer.start()
            pace_metadata_updates(self._consumer._client)  # aiokafka has no public way to the client
            self._consumer.assign(assigned)
            if from_offsets is None:
                await self._consumer.seek_to_beginning(*assigned)
                self._applied = await self._consumer.beginning_offsets(assigned)
            else:
                self._applied = {tp: from_offsets[tp.partition] for tp in assigned}
                for tp, offset in self._applied.items():
                    self._consumer.seek(tp, offset)
        except BaseException:
            await close_consumer(self._consumer)
            self._consumer = self._new_consumer()  # aiokafka's can be started only once
            raise
        self._task = asyncio.create_task(self._run(), name=f"tail-{self._topic}")

    async def catch_up(self) -> int:
        """Waits until everything committed by now has been applied; returns how many offsets that covers."""
        ends = await self._consumer.end_offsets(list(self._applied))
        begins = dict(self._applied)
        total: int = sum(max(0, ends[tp] - begins[tp]) for tp in ends)
        shown = 0.0
        while not all(self._applied[tp] >= end for tp, end in ends.items()):
            await self._wait_for_move()
            done = sum(max(0, min(self._applied[tp], ends[tp]) - begins[tp]) for tp in ends)
            if time.monotonic() - shown > PROGRESS_EVERY_S:
                shown = time.monotonic()
                self._on_progress(self._topic, done, total)
        self._on_progress(self._topic, total, total)
        return total

    def offsets(self) -> dict[int, int]:
        """By partition, the offset from which on memory may lack something: all before it has been applied."""
        return {tp.partition: offset for tp, offset in self._applied.items()}

    async def own(self, partition: int) -> int:
        """Waits until the partition's committed records are applied, pauses it and returns the next offset."""
        tp = TopicPartition(self._topic, partition)
        end: int = (await self._consumer.end_offsets([tp]))[tp]
        while self._applied[tp] < end:
            await self._wait_for_move()
        self._owned.add(partition)
        self._ends[partition] = self._applied[tp]
        self._consumer.pause(tp)
        return self._applied[tp]

    def wrote(self, partition: int, batches: Sequence[tuple[int, int]]) -> None:
        """Takes note of the batches (first offset, records) of a committed transaction that memory takes next.

        All before it is in memory, unless somebody else wrote in between, as one does who puts a tombstone there:
        then `offsets` stays before that until the partition is released and read again.
        """
        expected = self._ends.pop(partition, None)
        if expected is None:
            return
        for first, records in batches:
            if first != expected:
                logger.info("somebody else wrote to %s-%d at offset %d", self._topic, partition, expected)
                return
            expected += records
        self._applied[TopicPartition(self._topic, partition)] = batches[0][0]
        self._ends[partition] = expected + MARKER_OFFSETS

    async def overtaken(self, partition: int) -> bool:
        """Whether the owned partition holds records that its owner did not write. Call it between two transactions.

        Raises aiokafka's KafkaError when Kafka does not answer.
        """
        tp = TopicPartition(self._topic, partition)
        expected = self._ends.get(partition)
        return expected is None or (await self._consumer.end_offsets([tp]))[tp] > expected

    def release(self, partition: int) -> None:
        """Follows the partition again, from where memory may lack something; does nothing when it is not owned."""
        if partition not in self._owned:
            return
        tp = TopicPartition(self._topic, partition)
        self._owned.discard(partition)
        self._ends.pop(partition, None)
        self._consumer.seek(tp, self._applied[tp])
        self._consumer.resume(tp)

    async def stop(self) -> None:
        """Stops reading, in bounded time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await close_consumer(self._consumer)

    def _new_consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **client_options(self._settings),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=1 << 22,
        )

    async def _wait_for_move(self) -> None:
        async with self._moved:
            await self._moved.wait()

    async def _run(self) -> None:
        try:
            await self._follow()
        except Exception as error:  # noqa: BLE001 - what memory cannot follow must stop the worker, said aloud
            self.failure.set_exception(error)

    async def _follow(self) -> None:
        while True:
            try:
                fetched = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS_MAX)
            except KafkaError as error:
                logger.warning("reading %s failed, trying again: %r", self._topic, error)
                await asyncio.sleep(RETRY_S)
                continue
            records = [r for tp, batch in fetched.items() if tp.partition not in self._owned for r in batch]
            positions = {
                tp: await self._consumer.position(tp) for tp in self._applied if tp.partition not in self._owned
            }
            if records:
                await self._apply(records)
            async with self._moved:
                for tp, position in positions.items():
                    if tp.partition not in self._owned:
                        self._applied[tp] = position
                self._moved.notify_all()
