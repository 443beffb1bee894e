"""Writes to the input topics for those who have no Kafka client: events that count, and wishes to be forgotten."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from aiokafka.errors import KafkaError

from streams.core.errors import BrokerUnavailable
from streams.core.serving import Place, RefusedEvent
from streams.kafka.clients import close_producer, mark_seen, started_producer
from streams.kafka.codec import decode_events
from streams.kafka.partitioner import murmur2_partition
from streams.kafka.topics import Topics, list_topics, missing_topics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiokafka import AIOKafkaProducer

    from streams.config import Settings

ACKNOWLEDGE_S_MAX = 10.0
SENDING_MAX = 200
"""Requests whose records Kafka has not acknowledged."""


OutValue = tuple[bytes, bytes | None]
"""Key and value."""


class _Sent(NamedTuple):
    """An event as the codec looks at it."""

    key: bytes | None
    value: bytes
    offset: int
    timestamp: int
    headers: tuple[tuple[str, bytes | None], ...] = ()


class _Named(msgspec.Struct):
    user_id: str


_NAMED = msgspec.json.Decoder(_Named)


def checked_events(values: Sequence[bytes], now_ms: int) -> list[OutValue] | RefusedEvent:
    """Keys and values to send, if all of these would count; else the first that would not, and why."""
    events = [_Sent(_key(value), value, place, now_ms) for place, value in enumerate(values)]
    rejects = decode_events(events, now_ms).rejects
    if rejects:
        return RefusedEvent(rejects[0].position, str(rejects[0].reason), rejects[0].message)
    return [(event.key or b"", event.value) for event in events]


class EventSender:
    """An idempotent producer that waits for all replicas, started by the first who needs it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = Topics(settings.prefix)
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._counts: dict[str, int] = {}
        self._sending = 0

    async def send(self, values: Sequence[bytes], now_ms: int) -> list[Place] | RefusedEvent:
        """Sends events as they are, once all of them would count; returns where they lie when Kafka has them.

        Raises:
            BrokerUnavailable: Kafka did not acknowledge in time; some may have been written.
            UsageError: the topic does not exist.
        """
        checked = checked_events(values, now_ms)
        return checked if isinstance(checked, RefusedEvent) else await self._send(self._topics.events, checked)

    async def forget(self, user_id: str) -> Place:
        """Sends a tombstone for the user; returns where it lies when Kafka has it.

        Raises:
            BrokerUnavailable: Kafka did not acknowledge in time; it may have been written, and sending again is right.
            UsageError: the topic does not exist.
        """
        (place,) = await self._send(self._topics.users, [(user_id.encode(), None)])
        return place

    async def close(self) -> None:
        """Stops the producer in bounded time."""
        await close_producer(self._producer)

    async def _send(self, topic: str, records: list[OutValue]) -> list[Place]:
        if self._sending >= SENDING_MAX:
            raise BrokerUnavailable(f"{SENDING_MAX} requests wait for Kafka already. Send again in a moment.")
        self._sending += 1
        try:
            async with asyncio.timeout(ACKNOWLEDGE_S_MAX):
                partitions = await self._partitions(topic)
                return await self._acknowledged(await self._started(), topic, partitions, records)
        except (KafkaError, OSError) as error:  # TimeoutError is one
            raise BrokerUnavailable(
                f"Kafka did not acknowledge within {ACKNOWLEDGE_S_MAX:g} s ({error!r}). What was sent may have been "
                "written: send it again with the same `event_id`, which counts once."
            ) from error
        finally:
            self._sending -= 1

    async def _acknowledged(
        self, producer: AIOKafkaProducer, topic: str, partitions: int, records: list[OutValue]
    ) -> list[Place]:
        sends: list[asyncio.Future[Any]] = []
        for key, value in records:
            partition = murmur2_partition(key.decode(), partitions)
            sends.append(await producer.send(topic, key=key, value=value, partition=partition))
            sends[-1].add_done_callback(mark_seen)
        return [Place(written.partition, written.offset) for written in await asyncio.gather(*sends)]

    async def _partitions(self, topic: str) -> int:
        """Asked for once: a producer that asks for a missing topic may create it."""
        if topic not in self._counts:
            self._counts = await list_topics(self._settings)
        if topic not in self._counts:
            raise missing_topics([topic])
        return self._counts[topic]

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                self._producer = await started_producer(self._settings, enable_idempotence=True)
            return self._producer


def _key(value: bytes) -> bytes | None:
    """The user's id; None where there is none to be read, which the codec then says."""
    try:
        return _NAMED.decode(value).user_id.encode()
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
