"""Dead letters on a real Kafka: listed by reason, sent back once, whatever happens in between."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.partitioner import murmur2
from click.testing import CliRunner

from streams.cli.dlq import dlq
from streams.config import Settings
from streams.core.errors import BrokerUnavailable, PartitionLost, RejectReason, UsageError
from streams.kafka.codec import Rejected
from streams.kafka.dead_letter import dead_letter
from streams.kafka.dlq_read import Receipts, list_dead_letters, receipt
from streams.kafka.dlq_replay import ReplayReport, replay_dead_letters
from streams.kafka.mend import Mend
from streams.kafka.processes import free_ports
from streams.kafka.topics import Topics, create_topics
from tests.benchmarks.fuzz_events import FuzzRecord

if TYPE_CHECKING:
    from streams.kafka.broker import EmbeddedKafka

pytestmark = pytest.mark.kafka

PARTITIONS = 3


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str) -> Settings:
    """Topics of its own on the shared broker."""
    return Settings(bootstrap=kafka.bootstrap, prefix=prefix, group=f"{prefix}group", partitions=PARTITIONS)


def producer(settings: Settings, transactional_id: str | None = None) -> AIOKafkaProducer:
    return AIOKafkaProducer(bootstrap_servers=settings.bootstrap, transactional_id=transactional_id)


async def send_letter(
    sender: AIOKafkaProducer, settings: Settings, number: int, reason: RejectReason, partition: int = 0, **fields: Any
) -> None:
    """A dead letter of an event of user `u<number>`, with one header of its producer."""
    message = {"user_id": f"u{number}", "item_id": "i1", "type": "view", "timestamp": 1_690_000_000_000} | fields
    headers = (("trace", str(number).encode()),)
    record = FuzzRecord(f"u{number}".encode(), json.dumps(message).encode(), number, headers=headers)
    topics = Topics(settings.prefix)
    letter = dead_letter(record, topics.events, partition, Rejected(0, reason, "Expected better."))
    await sender.send_and_wait(topics.dead_letters, partition=partition, **letter._asdict())


async def written(settings: Settings) -> None:
    """Twelve letters that a type would mend, four of the future that count by now, and one beyond mending."""
    await create_topics(settings)
    async with producer(settings) as sender:
        for number in range(12):
            await send_letter(sender, settings, number, RejectReason.INVALID_SCHEMA, number % PARTITIONS, type="buy")
        for number in range(12, 16):
            await send_letter(sender, settings, number, RejectReason.FUTURE_TIMESTAMP, number % PARTITIONS)
        hopeless = dead_letter(FuzzRecord(None, b"{", 99), "events", 1, Rejected(0, RejectReason.NOT_JSON, "Expected."))
        await sender.send_and_wait(Topics(settings.prefix).dead_letters, partition=1, **hopeless._asdict())


async def committed_events(settings: Settings) -> list[ConsumerRecord]:
    topic = Topics(settings.prefix).events
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    found: list[ConsumerRecord] = []
    async with AIOKafkaConsumer(bootstrap_servers=settings.bootstrap, isolation_level="read_committed") as consumer:
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        while [tp for tp in partitions if await consumer.position(tp) < ends[tp]]:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += records
    return found


def users(records: list[ConsumerRecord]) -> list[str]:
    return sorted((record.key.decode() for record in records), key=lambda user: int(user[1:]))


async def test_letters_are_counted_by_reason_with_examples(settings: Settings) -> None:
    """The list counts every waiting letter and shows where a few of each reason came from."""
    await written(settings)
    report = await list_dead_letters(settings, examples_max=2)
    assert report.waiting == {"invalid-schema": 12, "future-timestamp": 4, "not-json": 1}
    assert report.replayed_before == 0
    assert [example.offset for example in report.examples if example.reason == "not-json"] == [99]
    assert sum(example.reason == "invalid-schema" for example in report.examples) == 2
    only = await list_dead_letters(settings, reason="not-json")
    assert only.waiting == {"not-json": 1}


async def test_mended_letters_go_back_once_and_the_rest_waits(settings: Settings) -> None:
    """Letters of one reason go first, those of another later, none twice, each to its key's partition."""
    await written(settings)
    mend = Mend({"type": "purchase"})

    tried = await replay_dead_letters(settings, mend, reason="invalid-schema", dry_run=True)
    assert tried.replayed == {"invalid-schema": 12}
    assert await committed_events(settings) == []

    first = await replay_dead_letters(settings, mend, reason="invalid-schema")
    assert (first.replayed, first.remaining.waiting) == ({"invalid-schema": 12}, {})
    second = await replay_dead_letters(settings, mend)
    assert (second.replayed, second.remaining.waiting) == ({"future-timestamp": 4}, {"not-json": 1})
    assert second.remaining.replayed_before == 12
    third = await replay_dead_letters(settings, mend)
    assert (third.replayed, third.remaining.waiting) == ({}, {"not-json": 1})

    records = await committed_events(settings)
    assert users(records) == [f"u{number}" for number in range(16)]
    for record in records:
        assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % PARTITIONS
        assert json.loads(record.value)["type"] == "purchase"
        names = dict(record.headers)
        assert names["trace"] == record.key[1:]
        assert names["errors.replayed-from"].startswith(f"{settings.prefix}events.dlq/".encode())
        assert set(names) == {"trace", "errors.replayed-from"}
    waiting = await list_dead_letters(settings)
    assert (waiting.waiting, waiting.replayed_before) == ({"not-json": 1}, 16)


async def test_a_replay_that_died_leaves_no_trace(settings: Settings) -> None:
    """What a killed replay had sent without committing is undone, and its letters go back by the next run."""
    await written(settings)
    topics = Topics(settings.prefix)
    dead = producer(settings, f"{topics.dead_letters}-replay")
    await dead.start()
    await dead.begin_transaction()
    await dead.send_and_wait(topics.events, key=b"u13", value=b"half sent")
    sent = Receipts()
    sent.add(1, [(0, 100)])
    await dead.send_and_wait(topics.dead_letters, partition=1, **receipt(sent, 1)._asdict())
    try:
        report = await replay_dead_letters(settings, Mend({"type": "view"}))
    finally:
        await dead.client.close()
        dead._sender.sender_task.cancel()
        dead._closed = True
    assert report.replayed.total() == 16
    records = await committed_events(settings)
    assert users(records) == [f"u{number}" for number in range(16)]
    assert b"half sent" not in {record.value for record in records}


async def test_replays_at_the_same_time_send_once(settings: Settings) -> None:
    """Of replays that run beside one another each letter comes from one; the one that lost says so."""
    await written(settings)
    outcomes = await asyncio.gather(
        *(replay_dead_letters(settings, Mend({"type": "view"})) for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(outcome, ReplayReport | PartitionLost) for outcome in outcomes), outcomes
    await replay_dead_letters(settings, Mend({"type": "view"}))
    assert users(await committed_events(settings)) == [f"u{number}" for number in range(16)]
    # A fenced aiokafka producer leaves failed futures behind, which are logged when they are collected. Python 3.11
    # cannot format a traceback while pytest parses the source of a module, so let it happen here.
    del outcomes
    gc.collect()


async def test_a_replay_waits_for_a_workers_open_transaction(settings: Settings) -> None:
    """A receipt behind a worker's open transaction is invisible, so the replay waits until that has ended."""
    await create_topics(settings)
    async with producer(settings) as sender, producer(settings, f"{settings.prefix}worker") as worker:
        await send_letter(sender, settings, 0, RejectReason.FUTURE_TIMESTAMP)
        async with worker.transaction():
            await send_letter(worker, settings, 1, RejectReason.FUTURE_TIMESTAMP)
            replay = asyncio.create_task(replay_dead_letters(settings, Mend()))
            done, _ = await asyncio.wait({replay}, timeout=2)
            assert not done
        assert (await replay).replayed == {"future-timestamp": 2}
    assert users(await committed_events(settings)) == ["u0", "u1"]


def test_the_commands_report_as_json(settings: Settings) -> None:
    """`dlq list` and `dlq replay` print what scripts read, on stdout."""
    asyncio.run(written(settings))
    where = ["--bootstrap", settings.bootstrap, "--prefix", settings.prefix, "--json"]
    listed = json.loads(CliRunner().invoke(dlq, ["list", *where], catch_exceptions=False).stdout)
    assert (listed["waiting"], listed["by_reason"]["invalid-schema"]) == (17, 12)
    mend = ["--reason", "invalid-schema", "--set", 'type="view"']
    sent = json.loads(CliRunner().invoke(dlq, ["replay", *mend, *where], catch_exceptions=False).stdout)
    assert (sent["replayed"], sent["waiting"], sent["replayed_by_reason"]) == (12, 0, {"invalid-schema": 12})
    shown = CliRunner().invoke(dlq, ["list", *where[:-1]], catch_exceptions=False).stdout
    assert "5 dead letters wait" in shown
    assert "12 were sent back before" in shown


async def test_missing_topics_and_brokers_are_said(settings: Settings) -> None:
    """Without the topics, or without a broker, the command says what to do."""
    with pytest.raises(UsageError, match="nearstream topics create"):
        await list_dead_letters(settings)
    nobody = settings.model_copy(update={"bootstrap": f"127.0.0.1:{free_ports(1)[0]}"})
    with pytest.raises(BrokerUnavailable, match="nearstream kafka start"):
        await list_dead_letters(nobody)
