"""What a replay of dead letters says when another one takes over."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
from aiokafka import ConsumerRecord
from aiokafka.errors import IllegalOperation, ProducerFenced

from streams.core.errors import PartitionLost
from streams.kafka.dead_letter import OutRecord
from streams.kafka.dlq_read import DeadLetter
from streams.kafka.dlq_replay import LetterSender
from streams.kafka.topics import Topics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiokafka import AIOKafkaProducer


class OvertakenProducer:
    """As aiokafka's after its sender met the end: what was sent fails, and the next send is not in a transaction."""

    def __init__(self, cause: Exception | None) -> None:
        self._cause = cause
        self._sends = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield

    async def send(self, topic: str, **record: object) -> asyncio.Future[None]:
        self._sends += 1
        if self._sends > 1 or self._cause is None:
            raise IllegalOperation("Can't send messages while not in transaction")
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent.set_exception(self._cause)
        return sent


def letter(offset: int) -> DeadLetter:
    record = ConsumerRecord("events.dlq", 0, offset, 0, 0, b"ada", b"{}", None, 3, 2, ())
    return DeadLetter("schema", "", "events", 0, offset, 0, offset, record)


async def flushed(producer: OvertakenProducer) -> None:
    sender = LetterSender(cast("AIOKafkaProducer", producer), Topics(""))
    for offset in range(2):
        await sender.add(letter(offset), OutRecord(b"ada", b"{}", []))
    await sender.flush()


async def test_a_replay_that_is_overtaken_between_two_sends_says_so() -> None:
    """aiokafka refuses the second send without a reason; the first one has it."""
    with pytest.raises(PartitionLost, match="took over"):
        await flushed(OvertakenProducer(ProducerFenced()))


async def test_a_send_that_is_refused_for_no_known_reason_is_not_taken_for_that() -> None:
    """Nothing else explains it, so it comes out as it is."""
    with pytest.raises(IllegalOperation):
        await flushed(OvertakenProducer(None))
