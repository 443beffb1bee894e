"""Following a compacted topic, without a broker: every failure is said aloud, and a start may be tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaConnectionError

from streams.config import load_settings
from streams.kafka import tail as module
from streams.kafka.tail import TopicTail
from tests.fakes_core import Record

TOPIC = "profiles"


class FakeConsumer:
    """A log of one partition in memory. Each consumer starts once, like aiokafka's."""

    log: ClassVar[list[Record]] = []
    start_failures = 0
    made: ClassVar[list[FakeConsumer]] = []

    def __init__(self, **options: Any) -> None:
        self._client = self
        self.position_now = 0
        self.paused = self.stopped = self.started = False
        self.position_failure: Exception | None = None
        FakeConsumer.made.append(self)

    async def start(self) -> None:
        """Works once."""
        assert not self.started, "started twice"
        self.started = True

    async def stop(self) -> None:
        """Remembers it."""
        self.stopped = True

    async def close(self) -> None:
        """The client's connections; here the consumer is its own client."""

    def assign(self, partitions: list[TopicPartition]) -> None:
        """One partition is all there is."""

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Starts over."""
        self.position_now = 0

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Fails as often as a test wants."""
        if FakeConsumer.start_failures:
            FakeConsumer.start_failures -= 1
            raise KafkaConnectionError("broker gone")
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """The length of the log."""
        return dict.fromkeys(partitions, len(self.log))

    async def position(self, partition: TopicPartition) -> int:
        """Where the next read begins."""
        if self.position_failure is not None:
            raise self.position_failure
        return self.position_now

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        """Two records at a time."""
        await asyncio.sleep(0)
        if self.paused:
            return {}
        found = self.log[self.position_now : self.position_now + 2]
        self.position_now += len(found)
        return {TopicPartition(TOPIC, 0): found} if found else {}

    def pause(self, partition: TopicPartition) -> None:
        """No more records."""
        self.paused = True

    def resume(self, partition: TopicPartition) -> None:
        """Records again."""
        self.paused = False

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Moves."""
        self.position_now = offset


class Applied(list[int]):
    """Offsets in the order in which they were applied; fails at one of them if told to."""

    fail_at: int | None = None

    async def __call__(self, records: list[Any]) -> None:
        """Takes over the offsets."""
        for record in records:
            if record.offset == self.fail_at:
                raise ValueError(f"cannot read {record.offset}")
            self.append(record.offset)


@pytest.fixture
async def applied() -> Applied:
    """What was applied."""
    return Applied()


@pytest.fixture
async def tail(applied: Applied, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TopicTail]:
    """A tail over five records, not started."""
    monkeypatch.setattr(module, "AIOKafkaConsumer", FakeConsumer)
    monkeypatch.setattr(module, "pace_metadata_updates", lambda client: None)
    monkeypatch.setattr(FakeConsumer, "log", [Record(n, b"u", b"v") for n in range(5)])
    monkeypatch.setattr(FakeConsumer, "start_failures", 0)
    monkeypatch.setattr(FakeConsumer, "made", [])
    made = TopicTail(load_settings(), TOPIC, applied, lambda topic, done, total: None)
    yield made
    await made.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Lets other tasks run until the condition holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_catching_up_returns_when_all_is_applied(tail: TopicTail, applied: Applied) -> None:
    """Everything that was there, once and in order."""
    await tail.start(1)
    assert await tail.catch_up() == 5
    assert applied == [0, 1, 2, 3, 4]


async def test_a_start_that_failed_may_be_tried_again(tail: TopicTail, applied: Applied) -> None:
    """With a new consumer, since aiokafka's starts only once; the old one is closed."""
    FakeConsumer.start_failures = 2
    for _ in range(2):
        with pytest.raises(KafkaConnectionError):
            await tail.start(1)
    await tail.start(1)
    await tail.catch_up()
    assert [consumer.stopped for consumer in FakeConsumer.made] == [True, True, False]
    assert applied == [0, 1, 2, 3, 4]


async def test_an_owned_partition_is_not_followed(tail: TopicTail, applied: Applied) -> None:
    """Owning waits for all that is committed; what the owner writes itself is not read, also after it is released."""
    await tail.start(1)
    assert await tail.own(0) == 5
    FakeConsumer.log += [Record(5, b"u", b"own"), Record(6, b"u", b"own")]
    tail.release(0, 7)
    FakeConsumer.log += [Record(7, b"u", b"of another")]
    await until(lambda: 7 in applied)
    assert applied == [0, 1, 2, 3, 4, 7]


async def test_records_that_cannot_be_applied_stop_the_worker(tail: TopicTail, applied: Applied) -> None:
    """The failure is handed to whoever watches, and nothing after it is applied."""
    applied.fail_at = 3
    await tail.start(1)
    with pytest.raises(ValueError, match="cannot read 3"):
        await tail.failure
    assert applied == [0, 1, 2]


async def test_a_reader_that_dies_says_so(tail: TopicTail, applied: Applied) -> None:
    """Whatever ends it: a silent end would leave stale neighbours for ever, and let `own` wait for ever."""
    await tail.start(1)
    await tail.catch_up()
    FakeConsumer.made[-1].position_failure = IllegalStateError("not assigned")
    with pytest.raises(IllegalStateError):
        await tail.failure
