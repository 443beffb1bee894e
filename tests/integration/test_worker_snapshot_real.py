"""A worker on a real Kafka saves its memory, is killed, and goes on from what it saved."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from index import SnapshotMissing
from index.snapshot import Manifest, read_manifest
from streams.config import Settings, load_settings
from streams.core.events import Event, EventType
from streams.core.profile import FORGOTTEN
from streams.kafka import pipeline
from streams.kafka.changelog import decode_profile
from streams.kafka.clients import client_options
from streams.kafka.codec import encode_event
from streams.kafka.memory_file import load_memory
from streams.kafka.partitioner import murmur2_partition
from streams.kafka.reader import reader
from streams.kafka.records import read_newest
from streams.kafka.topics import Topics, create_topics
from streams.kafka.worker import Worker
from streams.metrics import Metrics
from streams.wiring import build_engine
from tests.integration.exactly_once import judge
from tests.integration.storm import WorkerProcess, drained

if TYPE_CHECKING:
    from streams.kafka.broker import EmbeddedKafka
    from streams.recommend.engine import Engine

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
PARTITIONS = 3
USERS = 60
EVENTS = 300
WAIT_S_MAX = 40.0
NOW_MS = int(time.time() * 1000)
INTERVAL = "NEARSTREAM_SNAPSHOT_INTERVAL_S"
DEADLINE = "NEARSTREAM_FORGET_DEADLINE_S"


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str, tmp_path: Path) -> Settings:
    """Fresh topics' names, a group and a data folder of their own on the session's broker."""
    return load_settings(
        bootstrap=kafka.bootstrap,
        prefix=prefix,
        group=prefix.strip("."),
        partitions=PARTITIONS,
        data_dir=tmp_path,
    )


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> WorkerProcess:
    """A worker that is not started yet and keeps its data in the test's folder."""
    return WorkerProcess("worker", settings, tmp_path / "worker.log")


def _events(count: int, first: int = 0) -> list[Event]:
    """Views and purchases of many users, no two alike."""
    return [
        Event(
            user_id=f"user-{n % USERS}",
            item_id=f"item-{(n * 7) % 41}",
            type=EventType.PURCHASE if n % 11 == 0 else EventType.VIEW,
            timestamp=NOW_MS + n,
            event_id=f"event-{n}",
        )
        for n in range(first, first + count)
    ]


async def _send(settings: Settings, topic: str, rows: list[tuple[str, bytes | None]]) -> None:
    producer = AIOKafkaProducer(**client_options(settings), enable_idempotence=True)
    await producer.start()
    try:
        for user, value in rows:
            partition = murmur2_partition(user, PARTITIONS)
            await producer.send_and_wait(topic, key=user.encode(), value=value, partition=partition)
    finally:
        await producer.stop()


async def _feed(settings: Settings, events: list[Event]) -> None:
    await _send(settings, Topics(settings.prefix).events, [(e.user_id, encode_event(e)) for e in events])


def _folder(settings: Settings) -> Path | None:
    found = list((settings.data_dir / "snapshots").glob("*/*/memory/CURRENT"))
    return found[0].parents[1] if found else None


def _manifest(settings: Settings) -> Manifest | None:
    folder = _folder(settings)
    return None if folder is None else read_manifest(folder / "memory")


def _saved_users(settings: Settings) -> tuple[int, int]:
    """How many the memory and the index in force hold; 0 where there is none yet."""
    folder = _folder(settings)
    if folder is None:
        return 0, 0
    try:
        return read_manifest(folder / "memory").size, read_manifest(folder / "index").size
    except SnapshotMissing:
        return 0, 0


def _held(settings: Settings, needle: bytes) -> bool:
    """Whether any saved file has the bytes; files that a save deletes just now do not count."""
    for file in (settings.data_dir / "snapshots").rglob("*"):
        try:
            if file.is_file() and needle in file.read_bytes():
                return True
        except FileNotFoundError:
            continue
    return False


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not condition():
            await asyncio.sleep(0.1)


async def _changelog_ends(settings: Settings) -> dict[str, int]:
    partitions = [TopicPartition(Topics(settings.prefix).profiles, number) for number in range(PARTITIONS)]
    async with reader(settings, isolation_level="read_committed") as consumer:
        return {str(tp.partition): end for tp, end in (await consumer.end_offsets(partitions)).items()}


@asynccontextmanager
async def _running(settings: Settings) -> AsyncIterator[Engine]:
    """The engine of a worker in this process that has caught up and joined."""
    engine = await asyncio.get_running_loop().run_in_executor(None, build_engine, settings)
    worker = Worker(settings, engine, Metrics())
    try:
        await worker.start()
        yield engine
    finally:
        await worker.stop()


def _remembered(engine: Engine) -> dict[str, dict[str, Any]]:
    """Every column of every user, the items by their ids, and where the index has the user."""
    store, names = engine.store, engine.catalogue.item_ids
    columns = store.take(np.arange(len(store), dtype=np.int32))
    users = {}
    for slot, user in enumerate(store.user_ids):
        if user != FORGOTTEN:
            row = {column.name: getattr(columns, column.name)[slot].tolist() for column in fields(columns)}
            row["recent_items"] = [names[item] for item in row["recent_items"] if item >= 0]
            row["excluded"] = [names[item] for item in store.excluded.get(slot, ())]
            row["indexed"] = engine.index.vector(slot).tolist()  # type: ignore[attr-defined]
            users[user] = row
    return users


async def test_a_killed_worker_goes_on_from_what_it_saved(
    settings: Settings, worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It reads exactly what came after the save, and then remembers what the whole changelog says, to the last bit."""
    await create_topics(settings)
    with worker:
        monkeypatch.setenv(INTERVAL, "1")
        worker.start()
        for first in range(0, EVENTS, USERS):
            await _feed(settings, _events(USERS, first))
            await drained(settings, first + USERS)
        written = sum((await _changelog_ends(settings)).values())
        await _until(lambda: (found := _manifest(settings)) is not None and sum(found.offsets.values()) > 0.7 * written)
        worker.end(signal.SIGKILL)
        monkeypatch.setenv(INTERVAL, "0")
        await _feed(settings, _events(40, first=EVENTS))
        worker.start()
        await drained(settings, EVENTS + 40)
        worker.end(signal.SIGKILL)
    manifest = _manifest(settings)
    assert manifest is not None
    ends = await _changelog_ends(settings)
    after = sum(ends[partition] - manifest.offsets[partition] for partition in ends)
    assert 0 < after < sum(ends.values()) / 2
    caplog.set_level("INFO")
    async with _running(settings) as engine:
        restored = _remembered(engine)
    assert f"restored {USERS} users from" in caplog.text
    assert f"restored {after} records of {Topics(settings.prefix).profiles}" in caplog.text
    async with _running(settings.model_copy(update={"snapshot_interval_s": 0.0})) as engine:
        assert restored == _remembered(engine)
    assert len(restored) == USERS
    with worker:
        monkeypatch.setenv(INTERVAL, "1")
        await _feed(settings, _events(EVENTS, first=EVENTS + 40))
        worker.start()
        await drained(settings, 2 * EVENTS + 40)
        worker.end(signal.SIGTERM)
    assert (await judge(settings)).sound


async def test_a_damaged_memory_is_not_used(
    settings: Settings, worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why, and the changelog is read from its beginning."""
    await create_topics(settings)
    monkeypatch.setenv(INTERVAL, "1")
    with worker:
        await _feed(settings, _events(USERS))
        worker.start()
        await drained(settings, USERS)
        await _until(lambda: (found := _manifest(settings)) is not None and found.size == USERS)
        worker.end(signal.SIGKILL)
    (part,) = (settings.data_dir / "snapshots").rglob("generation-*/memory")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    async with _running(settings) as engine:
        assert len(engine.store) == USERS
    assert "is not used: Part 'memory'" in caplog.text
    assert "is damaged" in caplog.text


async def test_the_forgotten_leave_all_saved_files(
    settings: Settings, worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tombstone that came while the worker was down: within the deadline no file has the id or the vector."""
    await create_topics(settings)
    monkeypatch.setenv(INTERVAL, "1")
    gone = Event(user_id="somebody-unforgettable", item_id="item-1", type=EventType.LIKE, timestamp=NOW_MS)
    with worker:
        await _feed(settings, [*_events(EVENTS), gone])
        worker.start()
        await drained(settings, EVENTS + 1)
        value = await read_newest(settings, Topics(settings.prefix).profiles, gone.user_id)
        assert value is not None
        users = len({event.user_id for event in _events(EVENTS)} | {gone.user_id})
        await _until(lambda: _saved_users(settings) == (users, users))
        worker.end(signal.SIGKILL)
        needles = [gone.user_id.encode(), decode_profile(value).state, _indexed(settings, gone.user_id)]
        assert [_held(settings, needle) for needle in needles] == [True, True, True]
        await _send(settings, Topics(settings.prefix).profiles, [(gone.user_id, None)])
        monkeypatch.setenv(INTERVAL, "3600")
        monkeypatch.setenv(DEADLINE, "4")
        worker.start()
        await _until(lambda: not any(_held(settings, needle) for needle in needles))
        worker.end(signal.SIGTERM)
    manifest = _manifest(settings)
    assert manifest is not None, "there is a memory, without that user"
    assert "somebody-unforgettable" not in (settings.data_dir / "worker.log").read_text()


def _indexed(settings: Settings, user_id: str) -> bytes:
    """The user's unit vector as the index has saved it."""
    folder = _folder(settings)
    assert folder is not None
    engine = build_engine(settings)
    load_memory(folder, read_manifest(folder / "memory"), engine)
    vector: bytes = engine.index.vector(engine.store.slot_of[user_id]).tobytes()  # type: ignore[attr-defined]
    return vector


async def test_a_tombstone_on_a_partition_that_is_owned_is_heeded(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner does not follow its own changelog, but looks from time to time whether somebody else wrote to it."""
    monkeypatch.setattr(pipeline, "LOOK_FOR_OTHERS_S", 0.2)
    await create_topics(settings)
    async with _running(settings) as engine:
        await _feed(settings, _events(USERS))
        await drained(settings, USERS)
        await _send(settings, Topics(settings.prefix).profiles, [("user-7", None)])
        await _until(lambda: "user-7" not in engine.store.slot_of)
        await _feed(settings, _events(USERS, first=USERS))
        await drained(settings, 2 * USERS)
        await _until(lambda: len(engine.store.slot_of) == USERS)
        events = dict(zip(engine.store.user_ids, engine.store.columns.events.tolist(), strict=False))
    assert events["user-7"] == 1
    assert events["user-8"] == 2
