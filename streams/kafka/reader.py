"""A Kafka consumer outside any group, for whoever only looks on, and its end in bounded time."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer

from streams.kafka.clients import client_options, pace_metadata_updates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from streams.config import Settings

logger = logging.getLogger(__name__)

START_S = 3.0
CLOSE_S = 2.0
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
    client = consumer._client  # aiokafka has no public way to the client
    try:
        async with asyncio.timeout(START_S):
            await consumer.start()
        pace_metadata_updates(client)
        yield consumer
    finally:
        # While the broker is away stop() may end in the CancelledError of its own fetch task and leave the
        # connections open; hence the tasks apart, and the second close.
        await close_within(consumer.stop(), CLOSE_S)
        await close_within(client.close(), CLOSE_S)


async def close_within(work: Coroutine[Any, Any, object], limit_s: float) -> None:
    """Runs a clean-up for at most `limit_s`; whatever becomes of it is logged, never raised."""
    closing = asyncio.create_task(work)
    _, late = await asyncio.wait({closing}, timeout=limit_s)
    if late:
        closing.cancel()
        await asyncio.wait({closing})
    if closing.cancelled() or closing.exception() is not None:
        failure = None if closing.cancelled() else closing.exception()
        logger.debug("a Kafka client did not close cleanly: %r", failure)
