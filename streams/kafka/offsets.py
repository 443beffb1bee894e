"""Polls where a group stands on the input topic, apart from the group itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka import TopicPartition
from aiokafka.errors import GroupLoadInProgressError

from streams.core.observation import PartitionOffsets

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer
    from aiokafka.admin import AIOKafkaAdminClient

PEEK_S = 0.5


class OffsetPoller:
    """Committed offsets, end offsets and the age of the next record.

    `consumer` belongs to the poller alone: it is assigned every partition and kept paused between peeks.
    """

    def __init__(self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, topic: str, group: str) -> None:
        self._admin = admin
        self._consumer = consumer
        self._topic = topic
        self._group = group
        self._partitions: list[TopicPartition] = []
        self._timestamps: dict[TopicPartition, tuple[int, int]] = {}
        """Offset of the next record and its timestamp, as last read."""

    def assign(self, partitions: int) -> None:
        """Says how many partitions the topic has; call it once."""
        self._partitions = [TopicPartition(self._topic, number) for number in range(partitions)]
        self._consumer.assign(self._partitions)
        self._consumer.pause(*self._partitions)

    async def poll(self) -> list[PartitionOffsets]:
        """One look at all partitions. Committed offsets are read first, so that the lag is never too small.

        Raises:
            KafkaError: Kafka does not answer, or refuses.
        """
        committed = await self._admin.list_consumer_group_offsets(self._group, partitions=self._partitions)
        if len(committed) < len(self._partitions):  # aiokafka leaves the error of the whole answer unread
            raise GroupLoadInProgressError(f"the offsets of group {self._group} are not readable yet")
        begins = await self._consumer.beginning_offsets(self._partitions)
        ends = await self._consumer.end_offsets(self._partitions)
        offsets = {tp: _none_if_negative(committed[tp].offset) for tp in self._partitions}
        nexts = {tp: max(begins[tp], offsets[tp] or 0) for tp in self._partitions}
        await self._peek({tp: offset for tp, offset in nexts.items() if offset < ends[tp]})
        return [
            PartitionOffsets(tp.partition, begins[tp], ends[tp], offsets[tp], self._timestamp(tp, nexts[tp]))
            for tp in self._partitions
        ]

    def _timestamp(self, tp: TopicPartition, offset: int) -> int | None:
        at, timestamp = self._timestamps.get(tp, (-1, 0))
        return timestamp if at == offset else None

    async def _peek(self, wanted: dict[TopicPartition, int]) -> None:
        """Reads the record at each of these offsets, unless it was read before; gives up after PEEK_S."""
        unread = {tp: offset for tp, offset in wanted.items() if self._timestamp(tp, offset) is None}
        for tp, offset in unread.items():
            self._consumer.seek(tp, offset)
            self._consumer.resume(tp)
        try:
            async with asyncio.timeout(PEEK_S):
                while unread:
                    record = await self._consumer.getone(*unread)
                    tp = TopicPartition(record.topic, record.partition)
                    self._consumer.pause(tp)
                    self._timestamps[tp] = (unread.pop(tp), record.timestamp)
        except TimeoutError:  # their age stays unknown until the next poll
            self._consumer.pause(*unread)


def _none_if_negative(offset: int) -> int | None:
    """Kafka says -1 for a partition without a committed offset."""
    return None if offset < 0 else offset
