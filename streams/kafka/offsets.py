"""Polls where a group stands on the input topic, apart from the group itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import GroupLoadInProgressError

from streams.core.observation import PartitionOffsets

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer
    from aiokafka.admin import AIOKafkaAdminClient

PEEK_S = 0.5


class _Next(NamedTuple):
    """What was found at or after an offset: a record, or up to another offset nothing but markers."""

    sought: int
    offset: int
    timestamp: int | None
    """None: no record before `offset`."""

    def holds(self, sought: int, end: int) -> bool:
        """Whether this is still what is to be found there, now that the log ends at `end`."""
        return self.sought == sought and (self.timestamp is not None or self.offset >= end)


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
        self._found: dict[TopicPartition, _Next] = {}

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
        sought = {tp: max(begins[tp], offsets[tp] or 0) for tp in self._partitions}
        await self._peek({tp: offset for tp, offset in sought.items() if offset < ends[tp]}, ends)
        polled = []
        for tp in self._partitions:
            found = self._found.get(tp)
            if found is None or not found.holds(sought[tp], ends[tp]):
                polled.append(PartitionOffsets(tp.partition, begins[tp], ends[tp], offsets[tp]))
            else:
                next_offset = min(found.offset, ends[tp])
                polled.append(
                    PartitionOffsets(tp.partition, begins[tp], ends[tp], offsets[tp], found.timestamp, next_offset)
                )
        return polled

    async def _peek(self, sought: dict[TopicPartition, int], ends: dict[TopicPartition, int]) -> None:
        """Looks for the record at or after each of these offsets, unless it was found before; gives up after PEEK_S."""
        unknown = {
            tp: offset
            for tp, offset in sought.items()
            if tp not in self._found or not self._found[tp].holds(offset, ends[tp])
        }
        for tp, offset in unknown.items():
            self._consumer.seek(tp, offset)
            self._consumer.resume(tp)
        try:
            async with asyncio.timeout(PEEK_S):
                while unknown:
                    record = await self._consumer.getone(*unknown)
                    tp = TopicPartition(record.topic, record.partition)
                    self._consumer.pause(tp)
                    self._found[tp] = _Next(unknown.pop(tp), record.offset, record.timestamp)
        except TimeoutError:  # what is not known now is looked for at the next poll
            self._consumer.pause(*unknown)
            for tp, offset in unknown.items():
                position = await self._consumer.position(tp)
                if position >= ends[tp]:  # nothing came, and yet reading got there: it passed over markers
                    self._found[tp] = _Next(offset, position, None)


def _none_if_negative(offset: int) -> int | None:
    """Kafka says -1 for a partition without a committed offset."""
    return None if offset < 0 else offset
