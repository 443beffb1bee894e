"""Reads topics for people and checks: everything committed up to now, or from now on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from streams.core.errors import BrokerUnavailable
from streams.kafka.access import diagnosed
from streams.kafka.partitioner import murmur2_partition
from streams.kafka.reader import reader
from streams.kafka.topics import list_topics, missing_topics

if TYPE_CHECKING:
    from streams.config import Settings

Record = ConsumerRecord
"""A record as it was read: topic, partition, offset, timestamp (ms), key, value, headers."""

POLL_MS = 200
RECORDS_MAX = 5000
STALL_S_MAX = 30.0


@asynccontextmanager
async def open_topic(settings: Settings, topic: str) -> AsyncIterator[tuple[AIOKafkaConsumer, list[TopicPartition]]]:
    """A `read_committed` consumer with every partition of the topic assigned, at no position yet.

    Raises:
        BrokerUnavailable: Kafka does not answer.
        UsageError: the topic does not exist.
    """
    counts = await list_topics(settings)
    if topic not in counts:
        raise missing_topics([topic])
    partitions = [TopicPartition(topic, number) for number in range(counts[topic])]
    try:
        async with reader(settings, isolation_level="read_committed") as consumer:
            consumer.assign(partitions)
            yield consumer, partitions
    except (KafkaError, TimeoutError, OSError) as error:
        raise await diagnosed(settings, error) from error


async def read_until(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> AsyncIterator[ConsumerRecord]:
    """The records before these offsets, each partition in order, from the beginning.

    Raises:
        BrokerUnavailable: nothing moved for 30 s.
    """
    await consumer.seek_to_beginning(*ends)
    waiting = {tp for tp, end in ends.items() if await consumer.position(tp) < end}
    moved_s = time.monotonic()
    while waiting:
        fetched = await consumer.getmany(*waiting, timeout_ms=POLL_MS, max_records=RECORDS_MAX)
        for tp, records in fetched.items():
            for record in records:
                if record.offset < ends[tp]:
                    yield record
        behind = {tp for tp in waiting if await consumer.position(tp) < ends[tp]}
        if fetched or behind != waiting:
            moved_s = time.monotonic()
        elif time.monotonic() - moved_s > STALL_S_MAX:
            raise BrokerUnavailable(
                f"Reading {next(iter(waiting)).topic} made no progress for {STALL_S_MAX:g} s: Kafka does not answer, "
                "or a transaction on it stays open. Nothing is lost; run the command again in a while."
            )
        waiting = behind


async def read_all(settings: Settings, topic: str) -> AsyncIterator[ConsumerRecord]:
    """Every record committed up to now, each partition in order."""
    async with open_topic(settings, topic) as (consumer, partitions):
        ends = await consumer.end_offsets(partitions)
        async for record in read_until(consumer, ends):
            yield record


async def read_newest(settings: Settings, topic: str, key: str) -> bytes | None:
    """The current value of one key of a compacted topic, or None."""
    wanted, newest = key.encode(), None
    async with open_topic(settings, topic) as (consumer, partitions):
        partition = partitions[murmur2_partition(key, len(partitions))]
        consumer.assign([partition])
        async for record in read_until(consumer, await consumer.end_offsets([partition])):
            if record.key == wanted:
                newest = record.value
    return newest


async def follow(settings: Settings, topic: str, *, from_beginning: bool) -> AsyncIterator[ConsumerRecord]:
    """Records as they are committed, without end."""
    async with open_topic(settings, topic) as (consumer, partitions):
        if from_beginning:
            await consumer.seek_to_beginning(*partitions)
        else:
            await consumer.seek_to_end(*partitions)
        while True:
            for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                for record in records:
                    yield record
