"""Finds the newest records of one key by reading its partition from the end towards the beginning."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from aiokafka import TopicPartition
from aiokafka.partitioner import murmur2

from streams.core.observation import SeenRecord
from streams.kafka.observed import seen_record
from streams.kafka.reader import reader

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

    from streams.config import Settings

CHUNK_RECORDS_FIRST = 2000
CHUNK_RECORDS_MAX = 32_000
POLL_MS = 100


class Found(NamedTuple):
    """Records oldest first; `finished` is False when the time ran out before the beginning of the partition."""

    records: list[SeenRecord]
    finished: bool


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as every Kafka client's default partitioner chooses it."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


async def look_back(
    settings: Settings, topic: str, partitions: int, key: bytes, *, records_max: int, limit_s: float
) -> Found:
    """The key's newest `records_max` committed records, sought for at most about `limit_s` seconds.

    Raises:
        KafkaError, TimeoutError: Kafka does not answer.
    """
    async with reader(settings, isolation_level="read_committed") as consumer:
        tp = TopicPartition(topic, partition_of(key, partitions))
        consumer.assign([tp])
        return await _backwards(consumer, tp, key, records_max, limit_s)


async def _backwards(
    consumer: AIOKafkaConsumer, tp: TopicPartition, key: bytes, records_max: int, limit_s: float
) -> Found:
    deadline = asyncio.get_running_loop().time() + limit_s
    begin = (await consumer.beginning_offsets([tp]))[tp]
    high = (await consumer.end_offsets([tp]))[tp]
    found: list[SeenRecord] = []
    chunk = CHUNK_RECORDS_FIRST
    while high > begin and len(found) < records_max:
        low = max(begin, high - chunk)
        matches = await _matching(consumer, tp, low, high, key, deadline)
        if matches is None:
            return Found(found[-records_max:], finished=False)
        found = matches + found
        high, chunk = low, min(2 * chunk, CHUNK_RECORDS_MAX)
    return Found(found[-records_max:], finished=True)


async def _matching(
    consumer: AIOKafkaConsumer, tp: TopicPartition, low: int, high: int, key: bytes, deadline: float
) -> list[SeenRecord] | None:
    """The key's records with low <= offset < high; None when the deadline passed."""
    consumer.seek(tp, low)
    matches: list[SeenRecord] = []
    while await consumer.position(tp) < high:
        if asyncio.get_running_loop().time() > deadline:
            return None
        fetched = await consumer.getmany(tp, timeout_ms=POLL_MS)
        matches += [seen_record(r) for r in fetched.get(tp, ()) if r.key == key and r.offset < high]
    return matches
