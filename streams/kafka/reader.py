"""A Kafka consumer outside any group, for whoever only looks on, and its end in bounded time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer

from streams.kafka.clients import client_options, close_consumer, pace_metadata_updates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from streams.config import Settings

START_S = 3.0
FETCH_WAIT_MS = 100


@asynccontextmanager
async def reader(settings: Settings, **options: object) -> AsyncIterator[AIOKafkaConsumer]:
    """A started consumer that commits nothing; assign partitions to it yourself.

    Raises:
        KafkaError, TimeoutError: Kafka does not answer.
    """
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS,
        **options,
    )
    try:
        async with asyncio.timeout(START_S):
            await consumer.start()
        pace_metadata_updates(consumer._client)  # aiokafka has no public way to the client
        yield consumer
    finally:
        await close_consumer(consumer)
