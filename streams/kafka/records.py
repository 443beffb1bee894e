"""Reads topics for people and checks: everything committed up to now, or from now on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from streams.core.errors import UsageError
from streams.kafka.partitioner import murmur2_partition
from streams.kafka.reader import reader
from streams.kafka.topics import list_topics, unreachable

if TYPE_CHECKING:
    from streams.config import Settings

Record = ConsumerRecord
"""A record as it was read: topic, partition, offset, timestamp (ms), key, value, headers."""

POLL_MS = 200
RECORDS_MAX = 5000


@asynccontextmanager
async def open_topic(settings: Settings, topic: str) -> AsyncIterator[tuple[AIOKafkaConsumer, list[TopicPartition]]]:
    """A `read_committed` consumer with every partition of the topic assigned, at no position yet.

    Raises:
        BrokerUnavailable: Kafka does not answer.
        UsageError: the topic does not exist.
    """
    counts = await list_topics(settings)
    if topic not in counts:
        raise UsageError(f"There is no topic {topic!r}. Create it with `nearstream topics create`.")
    partitions = [TopicPartition(topic, number) for number in range(counts[topic])]
    try:
        async with reader(settings, isolation_level="read_committed") as consumer:
            consumer.assign(partitions)
            yield consumer, partitions
    except (KafkaError, TimeoutError, OSError) as error:
        raise unreachable(settings, error) from error


async def read_all(settings: Settings, topic: str) -> AsyncIterator[ConsumerRecord]:
    """Every record committed up to now, each partition in order."""
    async with open_topic(settings, topic) as (consumer, partitions):
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        waiting = set(partitions)
        while waiting:
            fetched = await consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS_MAX)
            for partition, records in fetched.items():
                for record in records:
                    if record.offset < ends[partition]:
                        yield record
            waiting = {p for p in waiting if await consumer.position(p) < ends[p]}


async def read_newest(settings: Settings, topic: str, key: str) -> bytes | None:
    """The current value of one key of a compacted topic, or None."""
    wanted, newest = key.encode(), None
    async with open_topic(settings, topic) as (consumer, partitions):
        partition = partitions[murmur2_partition(key, len(partitions))]
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        await consumer.seek_to_beginning(partition)
        while await consumer.position(partition) < end:
            for records in (await consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS_MAX)).values():
                newest = next((r.value for r in reversed(records) if r.key == wanted), newest)
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
