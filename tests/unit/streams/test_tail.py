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


def append(*values: bytes) -> None:
    """More records on the log, or the markers of transactions, which take an offset as well."""
    FakeConsumer.log += [Record(len(FakeConsumer.log) + n, b"u", value) for n, value in enumerate(values)]


async def test_an_owned_partition_is_not_followed(tail: TopicTail, applied: Applied) -> None:
    """Owning waits for all that is committed; of what the owner writes itself only the last transaction is read again
    after the release, for memory may not have it yet."""
    await tail.start(1)
    assert await tail.own(0) == 5
    append(b"own", b"own", b"marker", b"own", b"marker")
    tail.wrote(0, [(5, 1), (6, 1)])
    assert tail.offsets() == {0: 5}
    tail.wrote(0, [(8, 1)])
    assert tail.offsets() == {0: 8}
    assert not await tail.overtaken(0)
    tail.release(0)
    append(b"of another")
    await until(lambda: 10 in applied)
    assert applied == [0, 1, 2, 3, 4, 8, 9, 10]
    tail.release(0)
    assert FakeConsumer.made[-1].position_now == 11


@pytest.mark.parametrize(
    ("written", "batches"),
    [
        ([b"tombstone", b"own", b"own", b"marker"], [(9, 2)]),
        ([b"own", b"tombstone", b"own", b"marker"], [(8, 1), (10, 1)]),
    ],
)
async def test_what_somebody_else_writes_to_an_owned_partition_is_not_skipped(
    tail: TopicTail, applied: Applied, written: list[bytes], batches: list[tuple[int, int]]
) -> None:
    """Before or between the owner's batches: whoever goes on later, goes on before it, whatever came since."""
    await tail.start(1)
    await tail.own(0)
    append(b"own", b"own", b"marker")
    tail.wrote(0, [(5, 2)])
    append(*written)
    tail.wrote(0, batches)
    tail.wrote(0, [(12, 1)])
    assert tail.offsets() == {0: 5}
    assert await tail.overtaken(0)
    tail.release(0)
    await until(lambda: 11 in applied)
    assert applied == list(range(12))
    await tail.own(0)
    assert not await tail.overtaken(0)


async def test_a_record_of_somebody_else_is_seen_without_a_transaction(tail: TopicTail) -> None:
    """A tombstone on a partition where nothing happens."""
    await tail.start(1)
    await tail.own(0)
    assert not await tail.overtaken(0)
    append(b"tombstone")
    assert await tail.overtaken(0)


async def test_a_tail_begins_where_it_is_told(tail: TopicTail, applied: Applied) -> None:
    """What memory has already is neither read nor counted."""
    await tail.start(1, {0: 3})
    assert tail.offsets() == {0: 3}
    assert await tail.catch_up() == 2
    assert applied == [3, 4]


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
