from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.cli.feed import feed as feed_command
from streams.cli.feed_progress import figures
from streams.config import Settings
from streams.core.errors import BrokerUnavailable, NearstreamError, UsageError
from streams.feed import CATCH_UP_S, FeedProgress, Pacer, feed
from streams.kafka.keyed_batches import KeyedBatches
from streams.sources import ShopConfig, SyntheticShop

BATCH_BYTES = 1_000
NOBODY = "127.0.0.1:1"


class FakeProducer:
    """Takes batches like aiokafka's producer; acknowledges each at once, or never, or with an error."""

    def __init__(self, failure: Exception | None = None, *, silent: bool = False) -> None:
        self.records: list[tuple[int, bytes, bytes, int]] = []
        self.batches = 0
        self._failure = failure
        self._silent = silent

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(BATCH_BYTES, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[None]:
        assert topic == "events"
        assert batch.closed()
        self.batches += 1
        self.records += [(partition, *record) for record in read(batch)]
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._failure is not None:
            future.set_exception(self._failure)
        elif not self._silent:
            future.set_result(None)
        return future


def read(batch: BatchBuilder) -> list[tuple[bytes, bytes, int]]:
    """Key, value and timestamp of each record of a batch."""
    memory, records = MemoryRecords(bytes(batch._build())), []
    while (found := memory.next_batch()) is not None:
        records += [(record.key, record.value, record.timestamp) for record in found]
    return records


def batches_for(producer: FakeProducer, partitions: int = 4) -> KeyedBatches:
    return KeyedBatches(producer, "events", partitions)  # type: ignore[arg-type]


async def test_records_of_a_key_stay_in_order_on_one_partition() -> None:
    """However batches fill up, each key's records lie on one partition in the order they were added."""
    producer = FakeProducer()
    batches = batches_for(producer)
    for number in range(500):
        await batches.append(f"user{number % 7}", b"%d" % number, now_ms=9)
    await batches.acknowledge()
    assert batches.sent == batches.acknowledged == len(producer.records) == 500
    assert producer.batches > 4
    for key in {record[1] for record in producer.records}:
        mine = [record for record in producer.records if record[1] == key]
        assert len({partition for partition, *_ in mine}) == 1
        numbers = [int(value) for _, _, value, _ in mine]
        assert numbers == sorted(numbers)
    assert {timestamp for *_, timestamp in producer.records} == {9}


async def test_keys_go_where_the_java_client_would_put_them() -> None:
    """Murmur2 of the UTF-8 key, as `org.apache.kafka.common.utils.Utils` computes it, decides the partition."""
    java_murmur2 = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}
    for key, hashed in java_murmur2.items():
        producer = FakeProducer()
        batches = batches_for(producer, partitions=1000)
        await batches.append(key, b"", 1)
        await batches.flush()
        assert [partition for partition, *_ in producer.records] == [(hashed & 0x7FFFFFFF) % 1000]


async def test_a_record_larger_than_a_batch_travels_alone() -> None:
    """A single large record does not get stuck."""
    producer = FakeProducer()
    batches = batches_for(producer, partitions=1)
    for value in (b"small", b"x" * 3 * BATCH_BYTES, b"small"):
        await batches.append("user", value, 1)
    await batches.acknowledge()
    assert [len(value) for _, _, value, _ in producer.records] == [5, 3000, 5]


async def test_nothing_is_sent_before_a_batch_is_full_or_flushed() -> None:
    """Flat out, batches are filled; a flush sends what is there, and nothing when there is nothing."""
    producer = FakeProducer()
    batches = batches_for(producer)
    await batches.append("user", b"value", 1)
    assert producer.batches == 0
    await batches.flush()
    await batches.flush()
    assert producer.batches == 1


async def test_a_refused_batch_stops_the_feed_with_its_reason() -> None:
    """The error names the topic, the broker's reason and what was acknowledged; later records are not sent."""
    batches = batches_for(FakeProducer(MessageSizeTooLargeError()))
    await batches.append("user", b"value", 1)
    with pytest.raises(BrokerUnavailable, match=r"refused .*'events'.*MessageSizeTooLargeError.*0 of 1 records"):
        await batches.acknowledge()
    await batches.append("user", b"value", 1)
    with pytest.raises(BrokerUnavailable, match="refused"):
        await batches.flush()


async def test_a_silent_broker_is_waited_for_only_so_long() -> None:
    """Without acknowledgements the wait ends in an error that says so."""
    batches = batches_for(FakeProducer(silent=True))
    await batches.append("user", b"value", 1)
    with pytest.raises(BrokerUnavailable, match=r"acknowledged nothing on 'events' for 0\.01 s"):
        await batches.acknowledge(within_s=0.01)


@settings(deadline=None)
@given(
    rate=st.floats(0.5, 2_000),
    steps_s=st.lists(st.floats(0.0, CATCH_UP_S * 0.9), min_size=1, max_size=20),
    most=st.integers(50, 500),
)
def test_pace_is_never_above_the_rate_and_has_no_drift(rate: float, steps_s: list[float], most: int) -> None:
    """At any moment at most one record more than rate x time has gone, and none less once all that is due was taken."""
    pacer, now_s, gone = Pacer(rate, 100.0), 100.0, 0
    for step_s in steps_s:
        now_s += step_s
        while count := pacer.grant(now_s, most):
            assert count <= most
            gone += count
        assert abs(gone - (now_s - 100.0) * rate) <= 1 + 1e-6 * gone


def test_after_a_stall_one_second_is_caught_up() -> None:
    """A pause of an hour is not followed by an hour's records at once."""
    pacer = Pacer(10.0, 0.0)
    assert pacer.grant(0.0, 100) == 1
    assert 10 <= pacer.grant(3600.0, 1000) <= 11
    assert pacer.grant(3600.0, 1000) == 0
    assert pacer.grant(3600.1, 1000) == 1


def test_what_was_not_there_may_go_later() -> None:
    """Records that were due but not read yet are due again."""
    pacer = Pacer(10.0, 0.0)
    assert pacer.grant(0.5, 100) == 6
    pacer.give_back(4)
    assert pacer.grant(0.5, 100) == 4


def test_the_wait_ends_when_the_next_record_is_due() -> None:
    """The pause is exact for slow rates and at least a tick for fast ones."""
    pacer = Pacer(2.0, 0.0)
    pacer.grant(0.0, 10)
    assert pacer.wait_s(0.1) == pytest.approx(0.4)
    assert Pacer(1e6, 0.0).wait_s(0.0) == pytest.approx(0.002)


def test_flat_out_grants_all_and_does_not_wait() -> None:
    """Without a rate nothing is held back."""
    assert Pacer(None, 0.0).grant(0.0, 500) == 500
    assert Pacer(None, 0.0).wait_s(0.0) == 0.0


def test_progress_says_rate_and_time_to_go() -> None:
    """Rate and ETA follow from what was acknowledged; without a known end there is no ETA."""
    assert figures(FeedProgress("events", 600, 500, 2000, 2.0)) == "500 of 2,000 at 250/s, 6 s to go"
    assert figures(FeedProgress("events", 600, 500, None, 2.0)) == "500 at 250/s"
    assert figures(FeedProgress("events", 0, 0, 2000, 0.0)) == "0 of 2,000 at 0/s"


async def test_an_unreachable_broker_says_where_it_was_looked_for() -> None:
    """No Kafka at the address: a clear error, soon."""
    with pytest.raises(BrokerUnavailable, match=r"No Kafka answers at 127\.0\.0\.1:1 .*nearstream kafka start"):
        await feed(SyntheticShop(ShopConfig(events=1)), Settings(bootstrap=NOBODY))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["parquet", "x"], "Unknown format 'parquet'"),
        (["csv"], "csv needs a PATH"),
        (["csv", "-", "--column", "user"], "--column takes LEFT=RIGHT, not user"),
        (["csv", "-", "--type-map", "=view"], "--type-map takes LEFT=RIGHT, not =view"),
        (["deskdrop", "-", "--seed", "1"], "no option seed"),
        (["synthetic", "--communities", "99"], "1 to 64 communities"),
    ],
)
def test_misuse_is_told_before_kafka_is_asked(arguments: list[str], message: str) -> None:
    """A wrong command line is a usage error that says what is expected."""
    result = CliRunner().invoke(feed_command, [*arguments, "--bootstrap", NOBODY])
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "keep"),
        (["--rate", "5"], "now"),
        (["--endless"], "now"),
        (["--rate", "5", "--time", "keep"], "keep"),
        (["--time", "now"], "now"),
    ],
)
def test_live_feeds_are_stamped_and_replays_keep_their_time(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], expected: str
) -> None:
    """Default of --time: now with --rate or --endless, else keep."""
    modes: list[str] = []

    async def record(*_: Any, time_mode: str, **__: Any) -> None:
        modes.append(time_mode)
        raise NearstreamError

    monkeypatch.setattr("streams.cli.feed.publish", record)
    result = CliRunner().invoke(feed_command, ["synthetic", *flags])
    assert isinstance(result.exception, NearstreamError)
    assert modes == [expected]


def test_help_names_every_format() -> None:
    """The help of the command lists the formats that it reads."""
    text = CliRunner().invoke(feed_command, ["--help"]).output
    for name in ("synthetic", "deskdrop", "csv", "jsonl"):
        assert name in text
