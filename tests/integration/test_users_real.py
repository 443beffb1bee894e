"""The topic `users` on a real Kafka: people are described, forgotten, and come back."""

from __future__ import annotations

import asyncio
import signal
import time
import urllib.request
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.config import Settings, load_settings
from streams.core.errors import UsageError
from streams.core.events import Event, EventType, User
from streams.kafka.changelog import decode_profile
from streams.kafka.clients import client_options
from streams.kafka.codec import encode_description, encode_event
from streams.kafka.partitioner import murmur2_partition
from streams.kafka.records import read_newest
from streams.kafka.topics import Topics, create_topics
from tests.integration.storm import WorkerProcess, drained

if TYPE_CHECKING:
    from pathlib import Path

    from streams.kafka.broker import EmbeddedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
PARTITIONS = 3
WAIT_S_MAX = 40.0
ADA = "ada-the-unforgettable"
NOW_MS = int(time.time() * 1000)


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str, tmp_path: Path) -> Settings:
    """Fresh topics' names, a group and a data folder of their own on the session's broker."""
    return load_settings(
        bootstrap=kafka.bootstrap, prefix=prefix, group=prefix.strip("."), partitions=PARTITIONS, data_dir=tmp_path
    )


@pytest.fixture
def workers(settings: Settings, tmp_path: Path) -> list[WorkerProcess]:
    """Two workers that are not started yet; they share a data folder, as on one machine."""
    return [WorkerProcess(name, settings, tmp_path / f"{name}.log") for name in ("first", "second")]


def _view(user: str, item: str, place: int) -> Event:
    return Event(user_id=user, item_id=item, type=EventType.VIEW, timestamp=NOW_MS + place)


async def _send(settings: Settings, topic: str, rows: list[tuple[str, bytes | None]]) -> None:
    producer = AIOKafkaProducer(**client_options(settings), enable_idempotence=True)
    await producer.start()
    try:
        for user, value in rows:
            partition = murmur2_partition(user, PARTITIONS)
            await producer.send_and_wait(topic, key=user.encode(), value=value, partition=partition)
    finally:
        await producer.stop()


async def _feed(settings: Settings, *events: Event) -> None:
    await _send(settings, Topics(settings.prefix).events, [(e.user_id, encode_event(e)) for e in events])


async def _tell(settings: Settings, *users: User) -> None:
    await _send(settings, Topics(settings.prefix).users, [(u.user_id, encode_description(u)) for u in users])


async def _ask_to_forget(settings: Settings, user: str) -> None:
    await _send(settings, Topics(settings.prefix).users, [(user, None)])


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not await holds():
            await asyncio.sleep(0.2)


async def _events_of(settings: Settings, user: str) -> int | None:
    """As the log says; None where there is no profile."""
    value = await read_newest(settings, Topics(settings.prefix).profiles, user)
    return None if value is None else decode_profile(value).events


async def _is_gone(settings: Settings, user: str) -> bool:
    listed = await read_newest(settings, Topics(settings.prefix).recommendations, user)
    return listed is None and await _events_of(settings, user) is None


async def test_a_user_is_described_forgotten_and_comes_back(settings: Settings, workers: list[WorkerProcess]) -> None:
    """Profile and list become tombstones within seconds; who comes back begins anew, and stays through takeovers."""
    await create_topics(settings)
    first, second = workers
    others = [_view(f"user-{n % 9}", f"item-{n % 5}", n) for n in range(27)]
    await _tell(settings, User(ADA, age=36, country="uk"))
    await _feed(settings, *others, *(_view(ADA, f"item-{n}", n) for n in range(4)))
    with first, second:
        first.start()
        second.start()
        await drained(settings, 31)
        assert await _events_of(settings, ADA) == 4
        await _ask_to_forget(settings, ADA)
        await _until(lambda: _is_gone(settings, ADA))
        await _feed(settings, _view(ADA, "item-1", 100))
        await drained(settings, 32)
        assert await _events_of(settings, ADA) == 1
        first.end(signal.SIGKILL)
        await _tell(settings, User(ADA, age=37))
        await _feed(settings, _view(ADA, "item-2", 101))
        await drained(settings, 33)
        second.end(signal.SIGKILL)
        first.start()
        await _feed(settings, _view(ADA, "item-3", 102))
        await drained(settings, 34)
        assert await _events_of(settings, ADA) == 3
        first.end(signal.SIGTERM)
    assert await _events_of(settings, "user-1") == 3
    for worker in workers:
        assert ADA not in worker.log.read_text()


async def test_a_tombstone_that_came_while_no_worker_ran_is_done_at_the_start(
    settings: Settings, workers: list[WorkerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any later event of that user; the events from before it bring nothing back; saved files lose the id."""
    monkeypatch.setenv("NEARSTREAM_SNAPSHOT_INTERVAL_S", "1")
    monkeypatch.setenv("NEARSTREAM_FORGET_DEADLINE_S", "4")
    await create_topics(settings)
    first, second = workers

    def held() -> bool:
        files = [file for file in (settings.data_dir / "snapshots").rglob("*") if file.is_file()]
        return any(ADA.encode() in file.read_bytes() for file in files if file.exists())

    async def is_held() -> bool:
        return held()

    async def is_not_held() -> bool:
        return not held()

    with first, second:
        await _feed(settings, *(_view(ADA, f"item-{n}", n) for n in range(4)), _view("user-1", "item-1", 5))
        first.start()
        await drained(settings, 5)
        await _until(is_held)
        first.end(signal.SIGKILL)
        await _feed(settings, _view(ADA, "item-7", 50))
        await _ask_to_forget(settings, ADA)
        second.start()
        await drained(settings, 6)
        await _until(lambda: _is_gone(settings, ADA))
        await _until(is_not_held)
        await _feed(settings, _view(ADA, "item-8", 60))
        await drained(settings, 7)
        second.end(signal.SIGTERM)
    assert await _events_of(settings, ADA) == 1


async def test_what_cannot_be_read_of_users_and_items_is_counted(
    settings: Settings, workers: list[WorkerProcess]
) -> None:
    """By topic, in the worker's metrics; the worker goes on."""
    await create_topics(settings)
    topics, first = Topics(settings.prefix), workers[0]
    await _send(settings, topics.users, [(ADA, b"{"), (ADA, b'{"user_id": 7}'), ("ben", b'{"user_id": "ben"}')])
    await _send(settings, topics.items, [("item-1", b"{")])
    await _feed(settings, _view(ADA, "item-1", 0))
    with first:
        first.start()
        await drained(settings, 1)
        address = f"http://127.0.0.1:{first.web_port}/metrics"
        exposition = (await asyncio.to_thread(urllib.request.urlopen, address)).read().decode()
        first.end(signal.SIGTERM)
    assert "nearstream_unreadable_users_total 2.0" in exposition.splitlines()
    assert "nearstream_unreadable_items_total 1.0" in exposition.splitlines()


async def test_users_need_as_many_partitions_as_events(settings: Settings) -> None:
    """Who owns a user's events forgets the user, so both must lie on the same partition number."""
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
        await admin.create_topics([NewTopic(Topics(settings.prefix).users, PARTITIONS + 1, 1)])
    finally:
        await admin.close()
    with pytest.raises(UsageError, match=r"users: 4"):
        await create_topics(settings)
