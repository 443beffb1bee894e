"""The observer on a real Kafka: what it shows equals what stands in the topics."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.config import Settings
from streams.kafka import observer as observer_module
from streams.kafka.broker import EmbeddedKafka
from streams.kafka.lookback import partition_of
from streams.kafka.observer import KafkaObserver
from streams.kafka.topics import Topics, create_topics
from tests.fakes import recommendation, worker_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = pytest.mark.kafka

WAIT_S = 30.0
PARTITIONS = 4
NODE = 1


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str) -> Settings:
    """A group of its own on the shared broker."""
    return Settings(bootstrap=kafka.bootstrap, prefix=prefix, group=f"{prefix}group", partitions=PARTITIONS)


@pytest.fixture
def topics(settings: Settings) -> Topics:
    """The names of the test's topics."""
    return Topics(settings.prefix)


@asynccontextmanager
async def producing(settings: Settings, transactional_id: str | None = None) -> AsyncIterator[AIOKafkaProducer]:
    """A producer, inside a transaction when it has an id."""
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap, transactional_id=transactional_id) as producer:
        if transactional_id is None:
            yield producer
        else:
            async with producer.transaction():
                yield producer


async def commit(settings: Settings, offsets: dict[TopicPartition, int]) -> None:
    """Commits as a member of the group would."""
    async with AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap, group_id=settings.group, enable_auto_commit=False
    ) as consumer:
        consumer.assign(list(offsets))
        await consumer.commit(offsets)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for the observer to see something; the deadline fails the test."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.05)


async def test_lag_and_age_come_from_committed_offsets(settings: Settings, topics: Topics) -> None:
    """Lag is end minus committed, its age that of the next record, and both know a group that never committed."""
    await create_topics(settings)
    sent_at = int(time.time() * 1000) - 60_000
    async with producing(settings) as producer:
        for number in range(10):
            await producer.send_and_wait(topics.events, b"{}", b"u", partition=1, timestamp_ms=sent_at + 1000 * number)
    await commit(settings, {TopicPartition(topics.events, 1): 4})
    async with KafkaObserver(settings) as observer:
        await until(lambda: observer.snapshot().polled_at is not None)
        never, behind = observer.snapshot().partitions[:2]
        assert (never.committed, never.end, never.lag, never.next_timestamp) == (None, 0, 0, None)
        assert (behind.committed, behind.end, behind.lag) == (4, 10, 6)
        assert behind.next_timestamp == sent_at + 4000
        await commit(settings, {TopicPartition(topics.events, 1): 10})
        await until(lambda: observer.snapshot().partitions[1].lag == 0)
        assert observer.snapshot().connection.state == "connected"


async def test_the_marker_of_a_transaction_is_no_lag(settings: Settings, topics: Topics) -> None:
    """A group that has read every record of a transaction is up to date, though the log ends one offset later."""
    await create_topics(settings)
    tp = TopicPartition(topics.events, 1)
    async with producing(settings, f"{settings.group}-upstream") as producer:
        for _ in range(3):
            await producer.send_and_wait(topics.events, b"{}", b"u", partition=tp.partition)
    await commit(settings, {tp: 1})
    async with KafkaObserver(settings) as observer:
        await until(lambda: observer.snapshot().polled_at is not None)
        behind = observer.snapshot().partitions[tp.partition]
        assert (behind.committed, behind.end, behind.lag) == (1, 4, 3)
        await commit(settings, {tp: 3})
        await until(lambda: observer.snapshot().partitions[tp.partition].committed == 3)
        await until(lambda: observer.snapshot().partitions[tp.partition].lag == 0)
        done = observer.snapshot().partitions[tp.partition]
        assert (done.end, done.next_offset, done.next_timestamp) == (4, 4, None)
        async with producing(settings) as producer:
            await producer.send_and_wait(topics.events, b"{}", b"u", partition=tp.partition)
        await until(lambda: observer.snapshot().partitions[tp.partition].lag == 1)


async def test_tails_show_workers_titles_and_dead_letters(settings: Settings, topics: Topics) -> None:
    """The last report of each worker of the group, titles by item and dead letters by reason."""
    await create_topics(settings)
    async with producing(settings) as producer:
        for name, group in (("w1", settings.group), ("w2", "another group"), ("w1", settings.group)):
            status = msgspec.structs.replace(worker_status(name), group=group, reported_at=int(time.time() * 1000))
            await producer.send_and_wait(topics.status, msgspec.json.encode(status), name.encode())
        await producer.send_and_wait(topics.items, b'{"item_id":"i1","title":"Scarf"}', b"i1")
        await producer.send_and_wait(topics.items, b'{"item_id":"i2","title":"Gone"}', b"i2")
        await producer.send_and_wait(topics.items, None, b"i2")
    async with producing(settings, f"{settings.group}-dead") as producer:
        for reason in (b"not-json", b"not-json", b"key-mismatch"):
            headers = [("errors.reason", reason), ("errors.message", b"why"), ("errors.offset", b"7")]
            await producer.send_and_wait(topics.dead_letters, b"{oops", b"u1", headers=headers)
    async with KafkaObserver(settings) as observer:
        await until(lambda: observer.snapshot().dead_letters.complete and observer.title("i1") is not None)
        seen = observer.snapshot()
        assert seen.dead_letters.by_reason == {"not-json": 2, "key-mismatch": 1}
        assert {(d.key, d.offset, d.message, d.excerpt) for d in seen.dead_letters.last} == {("u1", 7, "why", "{oops")}
        await until(lambda: bool(observer.snapshot().workers))
        assert [w.worker for w in observer.snapshot().workers] == ["w1"]
        assert (observer.title("i1"), observer.title("i2")) == ("Scarf", None)


async def test_only_committed_lists_are_shown_and_a_new_one_replaces_the_old(
    settings: Settings, topics: Topics
) -> None:
    """An aborted list never shows; the newest committed one does, as it comes, beside the user's events."""
    await create_topics(settings)
    partition = partition_of(b"u1", PARTITIONS)
    async with KafkaObserver(settings) as observer:
        await until(lambda: observer.snapshot().polled_at is not None)
        assert observer.user("u1").recommendation is None
        async with producing(settings) as producer:
            await producer.send_and_wait(topics.events, b'{"item_id":"i2"}', b"u1", partition=partition)
        for rec_id in ("r-1", "r-2"):
            async with producing(settings, f"{settings.group}-lists") as producer:
                value = msgspec.json.encode(recommendation(rec_id=rec_id))
                await producer.send_and_wait(topics.recommendations, value, b"u1", partition=partition)
        async with AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap, transactional_id=f"{settings.group}-lists"
        ) as producer:
            await producer.begin_transaction()
            await producer.send_and_wait(topics.recommendations, b"{}", b"u1", partition=partition)
            await producer.abort_transaction()

        def shown() -> bool:
            seen = observer.user("u1")
            current = seen.recommendation
            return bool(seen.events) and current is not None and b'"r-2"' in (current.value or b"")

        await until(shown)
        assert observer.snapshot().recent_users == ["u1"]
        assert observer.user("u1").events[-1].value == b'{"item_id":"i2"}'


async def test_looks_back_for_what_memory_no_longer_holds(
    settings: Settings, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list and events from before the tail began are found in the user's partition, by key."""
    await create_topics(settings)
    monkeypatch.setattr(observer_module, "LISTS_MAX", 0)
    monkeypatch.setattr(observer_module, "EVENTS_MAX", 0)
    async with producing(settings, f"{settings.group}-lists") as producer:
        await producer.send_and_wait(topics.recommendations, b'{"rec_id":"old"}', b"u1")
        await producer.send_and_wait(topics.recommendations, b'{"rec_id":"new"}', b"u1")
        for number in range(30):
            await producer.send(topics.events, str(number).encode(), b"u1")
            await producer.send(topics.events, b"noise", f"u{number + 2}".encode())
    async with KafkaObserver(settings) as observer:
        await until(lambda: observer.snapshot().connection.state == "connected")
        assert observer.user("u1").search == "searching"
        await until(lambda: observer.user("u1").search == "finished")
        seen = observer.user("u1")
        assert seen.recommendation is not None
        assert seen.recommendation.value == b'{"rec_id":"new"}'
        assert [event.value for event in seen.events] == [str(n).encode() for n in range(10, 30)]
        await until(lambda: observer.user("nobody").search == "finished")
        assert observer.user("nobody").recommendation is None


async def test_says_which_topics_are_missing_and_goes_on_when_they_come(settings: Settings, topics: Topics) -> None:
    """Before `topics create` the state names the missing topics; it creates none itself."""
    async with KafkaObserver(settings) as observer:
        await until(lambda: observer.snapshot().connection.state == "no-topics")
        assert topics.events in observer.snapshot().connection.missing_topics
        assert set(await create_topics(settings)) >= {topics.events, topics.status}
        await until(lambda: len(observer.snapshot().partitions) == PARTITIONS)
        assert observer.snapshot().connection.state == "connected"


async def test_says_since_when_kafka_is_unreachable_and_stops_in_time() -> None:
    """Without a broker the state says so, keeps its beginning, and leaving takes no longer than seconds."""
    async with KafkaObserver(Settings(bootstrap="127.0.0.1:9")) as observer:
        await until(lambda: observer.snapshot().connection.state == "unreachable")
        since = observer.snapshot().connection.since
        assert observer.user("u1").search == "failed"
        assert observer.snapshot().connection.since == since
        began = time.monotonic()
    assert time.monotonic() - began < 5


async def test_a_broker_that_dies_is_noticed_in_time_and_found_again(
    tmp_path_factory: pytest.TempPathFactory, jars_dir: Path, prefix: str
) -> None:
    """Within five seconds of a kill the state is `unreachable` with the last figures kept; it recovers by itself."""
    data_dir = tmp_path_factory.mktemp("dying")
    broker = EmbeddedKafka(data_dir, brokers=1, port=0, die_with_owner=True, jars_dir=jars_dir)
    with broker:
        settings = Settings(bootstrap=broker.bootstrap, prefix=prefix, partitions=PARTITIONS)
        await create_topics(settings)
        async with KafkaObserver(settings) as observer:
            await until(lambda: observer.snapshot().connection.state == "connected")
            await asyncio.to_thread(broker.kill, NODE)
            killed = time.monotonic()
            await until(lambda: observer.snapshot().connection.state == "unreachable")
            assert time.monotonic() - killed < 5
            assert len(observer.snapshot().partitions) == PARTITIONS
            await asyncio.to_thread(broker.start_node, NODE)
            await until(lambda: observer.snapshot().connection.state == "connected")
            async with producing(settings) as producer:
                await producer.send_and_wait(Topics(prefix).events, b"{}", b"u1", partition=0)
            await until(lambda: observer.snapshot().partitions[0].lag == 1)
