"""Records of one topic on their way to Kafka in whole batches, in the order of each key, each acknowledged."""

from __future__ import annotations

import asyncio
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaTimeoutError
from aiokafka.partitioner import DefaultPartitioner

from streams.core.errors import BrokerUnavailable

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer
    from aiokafka.producer.message_accumulator import BatchBuilder

ACK_WAIT_S = 30.0
"""A broker that acknowledges nothing for this long counts as gone."""
KEYS_CACHED_MAX = 200_000


class KeyedBatches:
    """Fills one batch per partition of a topic and ships it when full, or when told to.

    Batches of a partition are shipped one after the other, so that the records of a key keep their order.
    """

    def __init__(self, producer: AIOKafkaProducer, topic: str, partitions: int) -> None:
        self.sent = 0
        self.acknowledged = 0
        self._producer = producer
        self._topic = topic
        self._open: list[BatchBuilder | None] = [None] * partitions
        self._unacknowledged: set[asyncio.Future[Any]] = set()
        self._failure: BaseException | None = None
        self._place = lru_cache(maxsize=KEYS_CACHED_MAX)(partial(_place, range(partitions)))

    async def append(self, key: str, value: bytes, now_ms: int) -> None:
        """Adds a record; blocks only when its partition's batch is full and the one before still waits."""
        partition, key_bytes = self._place(key)
        batch = self._open[partition]
        if batch is None:
            batch = self._open[partition] = self._producer.create_batch()
        if batch.append(timestamp=now_ms, key=key_bytes, value=value) is None:
            await self._ship(partition)
            batch = self._open[partition] = self._producer.create_batch()
            batch.append(timestamp=now_ms, key=key_bytes, value=value)
        self.sent += 1

    async def flush(self) -> None:
        """Hands all that was added to the producer."""
        for partition in range(len(self._open)):
            await self._ship(partition)

    async def acknowledge(self, within_s: float = ACK_WAIT_S) -> None:
        """Returns when Kafka has acknowledged every record.

        Raises:
            BrokerUnavailable: a batch was refused, or nothing was acknowledged for `within_s`.
        """
        await self.flush()
        while self._unacknowledged:
            done, _ = await asyncio.wait(self._unacknowledged, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            self._check()
            if not done:
                raise self._gone(within_s)

    async def _ship(self, partition: int) -> None:
        batch, self._open[partition] = self._open[partition], None
        if batch is None:
            return
        self._check()
        batch.close()
        try:
            async with asyncio.timeout(ACK_WAIT_S):
                future = await self._producer.send_batch(batch, self._topic, partition=partition)
        except (TimeoutError, KafkaTimeoutError) as error:
            raise self._gone(ACK_WAIT_S) from error
        self._unacknowledged.add(future)
        future.add_done_callback(partial(self._acknowledged, batch.record_count()))

    def _acknowledged(self, count: int, future: asyncio.Future[Any]) -> None:
        self._unacknowledged.discard(future)
        failure = None if future.cancelled() else future.exception()
        if failure is None and not future.cancelled():
            self.acknowledged += count
        elif self._failure is None:
            self._failure = failure

    def _check(self) -> None:
        if self._failure is not None:
            raise BrokerUnavailable(
                f"Kafka refused a batch for {self._topic!r}: {self._failure!r}. {self._so_far()}"
            ) from self._failure

    def _gone(self, waited_s: float) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"Kafka has acknowledged nothing on {self._topic!r} for {waited_s:g} s. {self._so_far()} "
            "Check the broker, then feed again."
        )

    def _so_far(self) -> str:
        return f"{self.acknowledged} of {self.sent} records sent were acknowledged."


def _place(partitions: range, key: str) -> tuple[int, bytes]:
    """Where the Java client would put the key, and its bytes."""
    key_bytes = key.encode()
    return DefaultPartitioner()(key_bytes, partitions, partitions), key_bytes
