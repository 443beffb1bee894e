"""The worker as a process on a real Kafka: bad input, its bound, signals, a broker that is not there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from streams.config import Settings, load_settings
from streams.core.events import Event, EventType
from streams.core.recommendations import Recommendation
from streams.core.status import WorkerStatus
from streams.kafka.clients import client_options
from streams.kafka.codec import encode_event
from streams.kafka.digest import digest_of, read_profiles
from streams.kafka.partitioner import murmur2_partition
from streams.kafka.processes import free_ports
from streams.kafka.records import read_all
from streams.kafka.topics import Topics, create_topics
from tests.integration.storm import WorkerProcess, drained

if TYPE_CHECKING:
    from pathlib import Path

    from streams.kafka.broker import EmbeddedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
PARTITIONS = 3
Row = tuple[bytes | None, bytes | None, int | None]
"""Key, value, and the partition, None for murmur2's."""
NOW_MS = int(time.time() * 1000)


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str) -> Settings:
    """Fresh topics' names and a group of their own on the session's broker."""
    return load_settings(bootstrap=kafka.bootstrap, prefix=prefix, group=prefix.strip("."), partitions=PARTITIONS)


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> WorkerProcess:
    """A worker that is not started yet; killed after the test if it still runs."""
    return WorkerProcess("worker", settings, tmp_path / "worker.log")


def _event(user: str, item: str, place: int, **fields: object) -> Event:
    return Event(user_id=user, item_id=item, type=EventType.VIEW, timestamp=NOW_MS + place, **fields)  # type: ignore[arg-type]


async def _send(settings: Settings, rows: list[Row]) -> None:
    """Sends (key, value, partition or None for murmur2) in order."""
    producer = AIOKafkaProducer(**client_options(settings), enable_idempotence=True)
    await producer.start()
    try:
        sends = [
            await producer.send(Topics(settings.prefix).events, key=key, value=value, partition=partition)
            for key, value, partition in rows
        ]
        for send in sends:
            await send
    finally:
        await producer.stop()


async def _lists(settings: Settings) -> dict[str, Recommendation]:
    newest = {}
    async for record in read_all(settings, Topics(settings.prefix).recommendations):
        newest[record.key.decode()] = msgspec.json.decode(record.value, type=Recommendation)
    return newest


async def test_poison_becomes_dead_letters_and_the_rest_counts(settings: Settings, worker: WorkerProcess) -> None:
    """Every kind of bad record is a dead letter with its reason and original bytes; sound events beside it count."""
    await create_topics(settings)
    sound = [_event(f"u{n % 7}", f"i{n}", n) for n in range(60)]
    rows: list[Row] = [(e.user_id.encode(), encode_event(e), None) for e in sound]
    stray = "u0"
    elsewhere = (murmur2_partition("fresh", PARTITIONS) + 1) % PARTITIONS
    poison: dict[str, Row] = {
        "not-json": (b"u1", b"{nope", None),
        "empty-value": (b"u1", None, None),
        "key-mismatch": (b"u2", encode_event(_event("u3", "i1", 1)), None),
        "invalid-utf8": (b"u4", b'{"user_id": "\xff\xfe"}', None),
        "future-timestamp": (b"u5", encode_event(_event("u5", "i1", 10 * 3_600_000)), None),
        "wrong-partition": (b"fresh", encode_event(_event("fresh", "i1", 1)), elsewhere),
    }
    keyless: Row = (None, encode_event(_event("u3", "i1", 1)), 0)
    last: Row = (stray.encode(), encode_event(_event(stray, "i99", 99)), None)
    await _send(settings, [*rows, *poison.values(), keyless, last])
    with worker:
        worker.start()
        await drained(settings, len(rows) + len(poison) + 2)
        worker.end(signal.SIGTERM)
    reasons: Counter[str] = Counter()
    originals = set()
    async for record in read_all(settings, Topics(settings.prefix).dead_letters):
        reasons[dict(record.headers)["errors.reason"].decode()] += 1
        originals.add((record.key, record.value))
    assert reasons == Counter(dict.fromkeys(poison, 1)) + Counter({"key-mismatch": 1})
    assert originals == {(key, value) for key, value, _ in [*poison.values(), keyless]}
    assert digest_of(await read_profiles(settings)).events == len(rows) + 1


async def test_lists_keep_the_contract(settings: Settings, worker: WorkerProcess) -> None:
    """The first event of a user brings a list; neighbours are others, bought items stay away, reasons are given."""
    await create_topics(settings)
    events = [_event(f"u{n % 5}", f"i{n % 11}", n) for n in range(55)]
    bought = Event(user_id="u1", item_id="i7", type=EventType.PURCHASE, timestamp=NOW_MS + 100)
    cold = _event("newcomer", "i3", 101)
    await _send(settings, [(e.user_id.encode(), encode_event(e), None) for e in [*events, bought]])
    with worker:
        worker.start()
        await drained(settings, len(events) + 1)
        await _send(settings, [(b"newcomer", encode_event(cold), None)])
        await drained(settings, len(events) + 2)
        worker.end(signal.SIGTERM)
    lists = await _lists(settings)
    assert set(lists) == {"u0", "u1", "u2", "u3", "u4", "newcomer"}
    assert "i7" not in [item.item_id for item in lists["u1"].items]
    newcomer = lists["newcomer"]
    assert newcomer.profile.events == 1
    assert newcomer.items, "a cold user gets a list at once"
    assert {n.user_id for n in newcomer.neighbours} == {f"u{n}" for n in range(5)}
    for list_ in lists.values():
        assert list_.user_id not in [n.user_id for n in list_.neighbours]
        assert len({item.item_id for item in list_.items}) == len(list_.items)
        assert all(item.reasons for item in list_.items)
        similarities = [n.similarity for n in list_.neighbours]
        assert similarities == sorted(similarities, reverse=True)


async def test_what_ends_a_transaction_is_no_lag(settings: Settings, worker: WorkerProcess) -> None:
    """A producer's marker and what it aborted are committed too, so that nothing is left once all events count."""
    await create_topics(settings)
    topics, sent = Topics(settings.prefix), [_event("u1", f"i{n}", n) for n in range(3)]
    upstream = AIOKafkaProducer(**client_options(settings), transactional_id=f"{settings.prefix}upstream")
    await upstream.start()
    with worker:
        worker.start()
        for place, end in enumerate((upstream.commit_transaction, upstream.abort_transaction), 1):
            await upstream.begin_transaction()
            for event in sent:
                await upstream.send_and_wait(topics.events, encode_event(event), b"u1")
            await end()
            await drained(settings, place * (len(sent) + 1))  # the second time nothing comes that counts
        await upstream.stop()
        worker.end(signal.SIGTERM)
    statuses = [msgspec.json.decode(r.value, type=WorkerStatus) async for r in read_all(settings, topics.status)]
    held = [status for status in statuses if status.partitions][-1].partitions
    assert [(p.lag, p.lag_s) for p in held] == [(0, 0.0)] * PARTITIONS
    assert max(p.high_watermark for p in held) == 2 * (len(sent) + 1)
    assert (await read_profiles(settings))["u1"].events == len(sent)


async def test_repeated_event_ids_count_once(settings: Settings, worker: WorkerProcess) -> None:
    """A client's retry with the same event_id has no effect, in the same batch and across a restart."""
    await create_topics(settings)
    once = [_event("u1", f"i{n}", n, event_id=f"e{n}") for n in range(10)]
    rows: list[Row] = [(b"u1", encode_event(e), None) for e in once]
    await _send(settings, rows + rows)
    with worker:
        worker.start()
        await drained(settings, 20)
        worker.end(signal.SIGKILL)
        await _send(settings, rows[-3:])
        worker.start()
        await drained(settings, 23)
        worker.end(signal.SIGTERM)
    assert (await read_profiles(settings))["u1"].events == 10


async def test_too_many_dead_letters_stop_the_worker_with_an_explanation(
    settings: Settings, worker: WorkerProcess
) -> None:
    """A flood of unreadable records is not committed; the worker exits 1 and says what to do."""
    await create_topics(settings)
    await _send(settings, [(b"u1", b"rubbish", 0)] * 1500)
    with worker:
        worker.start()
        assert worker.process is not None
        code = await asyncio.get_running_loop().run_in_executor(None, worker.process.wait, 60)
    said = worker.log.read_text()
    assert code == 1
    assert "nearstream dlq list" in said
    assert "Traceback" not in said
    assert [r async for r in read_all(settings, Topics(settings.prefix).dead_letters)] == []


async def test_sigterm_leaves_within_five_seconds_and_says_so(settings: Settings, worker: WorkerProcess) -> None:
    """A graceful stop is quick, exits 0 and leaves `stopped` as the last status."""
    await create_topics(settings)
    await _send(settings, [(b"u1", encode_event(_event("u1", "i1", 1)), None)])
    with worker:
        worker.start()
        await drained(settings, 1)
        took = worker.end(signal.SIGTERM)
        assert worker.process is not None
        assert worker.process.returncode == 0
    assert took < 5.0
    statuses = [
        msgspec.json.decode(r.value, type=WorkerStatus)
        async for r in read_all(settings, Topics(settings.prefix).status)
    ]
    assert statuses[-1].state == "stopped"
    assert statuses[-1].totals.events == 1


def _readyz(port: int) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


async def test_an_absent_broker_is_a_visible_state_not_a_hang(tmp_path: Path) -> None:
    """Without Kafka the worker waits, answers /readyz with 503 and the reason, and leaves at once on SIGTERM."""
    nowhere = load_settings(bootstrap=f"127.0.0.1:{free_ports(1)[0]}")
    worker = WorkerProcess("worker", nowhere, tmp_path / "worker.log")
    with worker:
        worker.start()
        deadline = time.monotonic() + 60
        status, answer = 0, {}
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # not listening yet
                status, answer = await asyncio.get_running_loop().run_in_executor(None, _readyz, worker.web_port)
            if answer.get("state") == "broker-unreachable":
                break
            await asyncio.sleep(0.2)
        assert status == 503
        assert "nearstream kafka start" in str(answer["message"])
        assert worker.end(signal.SIGTERM) < 5.0


async def test_missing_topics_end_the_worker_with_the_command_to_create_them(
    settings: Settings, worker: WorkerProcess
) -> None:
    """No catalogue and no users is misuse: exit 2, and the message names both and `nearstream topics create`."""
    topics = Topics(settings.prefix)
    await create_topics(settings)
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    await admin.delete_topics([topics.items, topics.users])
    await admin.close()
    with worker:
        worker.start()
        assert worker.process is not None
        code = await asyncio.get_running_loop().run_in_executor(None, worker.process.wait, 60)
    said = worker.log.read_text()
    assert code == 2
    assert f"These topics do not exist: {topics.items}, {topics.users}. Create" in said
    assert "nearstream topics create" in said
    assert "Traceback" not in said
