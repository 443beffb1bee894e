from __future__ import annotations

import asyncio
import signal
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.config import Settings
from streams.core.errors import UsageError
from streams.core.events import Event, Item, User
from streams.feed import FeedProgress, FeedSummary, epoch_ms, feed
from streams.kafka.topics import Topics, create_topics
from streams.sources import ShopConfig, SyntheticShop, open_source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiokafka import ConsumerRecord

    from streams.kafka.broker import EmbeddedKafka

pytestmark = pytest.mark.kafka

LOGS = Path(__file__).resolve().parents[2] / "../shared/data"
WAIT_S = 60.0


@pytest.fixture
async def connection(kafka: EmbeddedKafka, prefix: str) -> Settings:
    """Settings of a broker with fresh topics."""
    made = Settings(bootstrap=kafka.bootstrap, prefix=prefix, partitions=4)
    await create_topics(made)
    return made


async def records(connection: Settings, topic: str) -> list[ConsumerRecord]:
    """All that is on a topic, partition after partition, each in its order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=connection.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(connection.partitions)]
        consumer.assign(partitions)
        ends, found = await consumer.end_offsets(partitions), []
        async with asyncio.timeout(WAIT_S):
            for partition, end in ends.items():
                while await consumer.position(partition) < end:
                    found += (await consumer.getmany(partition, timeout_ms=500)).get(partition, [])
        return found
    finally:
        await consumer.stop()


def by_user(events: Iterable[Event]) -> dict[str, list[Event]]:
    histories = defaultdict(list)
    for event in events:
        histories[event.user_id].append(event)
    return histories


def decoded(found: list[ConsumerRecord]) -> list[Event]:
    events = msgspec.json.Decoder(Event)
    for record in found:
        assert record.key is not None
    made = [events.decode(record.value) for record in found]
    assert [record.key.decode() for record in found] == [event.user_id for event in made]
    return made


async def test_every_record_of_a_shop_arrives_once_and_in_order(connection: Settings) -> None:
    """Items, users and events are on their topics exactly as the source gave them, each user's events in order."""
    shop, topics = SyntheticShop(ShopConfig(users=300, items=200, events=20_000)), Topics(connection.prefix)
    before_ms = epoch_ms()
    summary = await feed(shop, connection)
    assert (summary.events, summary.items, summary.users, summary.skipped) == (20_000, 200, 300, {})
    assert not summary.interrupted
    assert summary.events_per_s > 0
    found = await records(connection, topics.events)
    assert by_user(decoded(found)) == by_user(shop.events())
    assert all(before_ms <= record.timestamp <= epoch_ms() for record in found)
    items = [msgspec.json.decode(record.value, type=Item) for record in await records(connection, topics.items)]
    users = [msgspec.json.decode(record.value, type=User) for record in await records(connection, topics.users)]
    assert sorted(items, key=lambda item: item.item_id) == sorted(shop.items(), key=lambda item: item.item_id)
    assert sorted(users, key=lambda user: user.user_id) == sorted(shop.users(), key=lambda user: user.user_id)


@pytest.mark.logs
async def test_deskdrop_arrives_whole(connection: Settings) -> None:
    """The real log: 72,312 events of 1,895 users with their own times, 11 repeats with the id of their first."""
    if not (LOGS / "deskdrop").is_dir():
        pytest.skip("the public logs are not here: no folder deskdrop in ../shared/data")
    source = open_source("deskdrop", str(LOGS / "deskdrop"))
    summary = await feed(source, connection)
    assert (summary.events, summary.items, summary.users) == (72_312, 1_273, 0)
    events = decoded(await records(connection, Topics(connection.prefix).events))
    histories = by_user(events)
    assert len(histories) == 1_895
    assert len(events) - len({(event.user_id, event.event_id) for event in events}) == 11
    assert histories == by_user(source.events())


async def test_a_rate_spreads_events_evenly_and_stamps_them(connection: Settings) -> None:
    """At 400 events a second 400 take a second; `now` makes each event's time the moment of its sending, in order."""
    shop = SyntheticShop(ShopConfig(users=50, items=50, events=None))
    seen: list[FeedProgress] = []
    before_ms = epoch_ms()
    summary = await feed(shop, connection, rate=400, limit=400, time_mode="now", on_progress=seen.append)
    assert summary.events == 400
    assert summary.seconds >= 0.99
    events = decoded(await records(connection, Topics(connection.prefix).events))
    events.sort(key=lambda event: int((event.event_id or "e0")[1:], 16))
    times = [event.timestamp for event in events]
    assert times == sorted(times)
    assert before_ms <= times[0] < times[-1] - 500
    assert times[-1] <= epoch_ms()
    assert [seen[-1].stage, seen[-1].acknowledged, seen[-1].expected] == ["events", 400, 400]


async def test_a_stopped_feed_has_published_what_it_says(connection: Settings) -> None:
    """`stop` ends the reading; the summary counts what is on the topic, a prefix of each user's events."""
    shop, stop = SyntheticShop(ShopConfig(users=50, items=50, events=None)), asyncio.Event()

    def stop_soon(now: FeedProgress) -> None:
        if now.stage == "events":
            stop.set()

    summary = await feed(shop, connection, rate=2_000, stop=stop, on_progress=stop_soon)
    events = decoded(await records(connection, Topics(connection.prefix).events))
    assert summary.interrupted
    assert 0 < summary.events == len(events)
    made = by_user(event for event, _ in zip(shop.events(), range(len(events)), strict=False))
    assert by_user(events) == made


async def test_missing_topics_are_named(kafka: EmbeddedKafka, prefix: str) -> None:
    """Without topics nothing is sent, and the error names them and the command that makes them."""
    with pytest.raises(UsageError, match=rf"do not exist: .*{prefix}events.*nearstream topics create"):
        await feed(SyntheticShop(), Settings(bootstrap=kafka.bootstrap, prefix=prefix))


def command(connection: Settings, *arguments: str) -> list[str]:
    program = "from streams.cli import main; main()"
    where = ["--bootstrap", connection.bootstrap, "--prefix", connection.prefix]
    return [sys.executable, "-c", program, "feed", *arguments, *where, "--json"]


async def test_standard_input_is_published_as_it_comes(connection: Settings) -> None:
    """Lines piped in arrive; bad ones are told on stderr with their number and counted in the summary."""
    process = await asyncio.create_subprocess_exec(
        *command(connection, "jsonl", "-"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    lines = b'{"user_id":"u","item_id":"i","type":"view","timestamp":2}\nbad\n' + (
        b'{"user_id":"u","item_id":"i","type":"view","timestamp":1}'
    )
    out, err = await asyncio.wait_for(process.communicate(lines), WAIT_S)
    summary = msgspec.json.decode(out, type=FeedSummary)
    assert (process.returncode, summary.events, summary.skipped) == (0, 2, {"not-json": 1})
    assert b"line 2: not-json" in err
    events = decoded(await records(connection, Topics(connection.prefix).events))
    assert [event.timestamp for event in events] == [2, 1]


async def test_an_interrupt_ends_cleanly(connection: Settings) -> None:
    """SIGINT: exit code 130, and the summary on stdout counts exactly what is on the topic."""
    process = await asyncio.create_subprocess_exec(
        *command(connection, "synthetic", "--rate", "500", "--endless"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(WAIT_S):
        while not await records(connection, Topics(connection.prefix).events):
            assert process.returncode is None
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    summary = msgspec.json.decode(out, type=FeedSummary)
    assert (process.returncode, summary.interrupted) == (130, True)
    assert 0 < summary.events == len(await records(connection, Topics(connection.prefix).events))
