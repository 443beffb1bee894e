"""A worker on a real Kafka whose model folder is replaced while events flow, and one whose folder is no good."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from encoder.checkpoint import save_model
from streams.config import Settings, load_settings
from streams.core.events import Event, EventType, Item
from streams.core.histories import Histories, encoded_histories
from streams.core.recommendations import Recommendation
from streams.core.status import WorkerStatus
from streams.kafka.clients import client_options
from streams.kafka.codec import encode_event
from streams.kafka.digest import digest_of, read_profiles
from streams.kafka.records import read_all
from streams.kafka.topics import Topics, create_topics
from streams.kafka.worker import Worker
from streams.metrics import Metrics
from streams.wiring import build_engine, model_folder
from tests.fakes_encoder import random_model
from tests.integration.exactly_once import judge
from tests.integration.storm import drained, undisturbed

if TYPE_CHECKING:
    from streams.core.ports import Floats
    from streams.kafka.broker import EmbeddedKafka
    from streams.recommend.engine import Engine

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
PARTITIONS = 3
USERS = 40
WAIT_S_MAX = 40.0
NOW_MS = int(time.time()) * 1000 - 3_600_000
ITEMS = [f"item-{n}" for n in range(23)]


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str, tmp_path: Path) -> Settings:
    """Fresh topics' names and a model folder of their own; the folder is looked at five times a second."""
    return load_settings(
        bootstrap=kafka.bootstrap,
        prefix=prefix,
        group=prefix.strip("."),
        partitions=PARTITIONS,
        data_dir=tmp_path,
        model=str(tmp_path / "model"),
        model_check_interval_s=0.2,
        batch_events_max=50,
        snapshot_interval_s=0.0,
    )


def _train(settings: Settings, seed: int, dim: int = 8) -> str:
    """Puts another model into the folder; returns its name."""
    saved = random_model(dim, items=ITEMS[:15], item_attributes=("brand:x",), types=("view", "cart"), seed=seed)
    return f"gated-recurrence@{save_model(Path(settings.model), saved)}"


def _events(count: int, first: int = 0) -> list[Event]:
    """At most 32 a user, on whole seconds, so that profiles hold all that moved them."""
    return [
        Event(
            user_id=f"user-{n % USERS}",
            item_id=ITEMS[(n * 7) % len(ITEMS)],
            type=EventType.CART if n % 5 == 0 else EventType.VIEW,
            timestamp=NOW_MS + 1000 * n,
            event_id=f"event-{n}",
        )
        for n in range(first, first + count)
    ]


async def _send(settings: Settings, topic: str, rows: Sequence[tuple[str, bytes]]) -> None:
    producer = AIOKafkaProducer(**client_options(settings), enable_idempotence=True)
    await producer.start()
    try:
        for key, value in rows:
            await producer.send_and_wait(topic, key=key.encode(), value=value)
    finally:
        await producer.stop()


async def _feed(settings: Settings, events: list[Event]) -> None:
    await _send(settings, Topics(settings.prefix).events, [(e.user_id, encode_event(e)) for e in events])


async def _describe(settings: Settings) -> None:
    items = [Item(item, title=f"thing {item}", brand="x" if n % 2 else None) for n, item in enumerate(ITEMS[::2])]
    await _send(settings, Topics(settings.prefix).items, [(i.item_id, msgspec.json.encode(i)) for i in items])


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not condition():
            await asyncio.sleep(0.05)


@asynccontextmanager
async def _running(settings: Settings) -> AsyncIterator[tuple[Worker, Engine]]:
    """A worker in this process that has caught up and joined, as the app puts it together."""
    engine = await asyncio.get_running_loop().run_in_executor(None, build_engine, settings)
    worker = Worker(settings, engine, Metrics(), models=model_folder(settings))
    try:
        await worker.start()
        yield worker, engine
    finally:
        await worker.stop()


def _states(engine: Engine) -> dict[str, Floats]:
    return {user: engine.store.columns.state[slot].copy() for user, slot in engine.store.slot_of.items()}


def _encoded_anew(engine: Engine) -> dict[str, Floats]:
    histories = Histories.of(engine.store.columns, slice(0, len(engine.store)))
    states = encoded_histories(histories, engine.encoder, engine.catalogue.vectors, engine.type_weights)
    return {user: states[slot] for user, slot in engine.store.slot_of.items()}


def _error(one: dict[str, Floats], two: dict[str, Floats]) -> float:
    assert one.keys() == two.keys()
    return max(float(np.abs(one[user] - two[user]).max()) for user in one)


async def _lists(settings: Settings) -> list[Recommendation]:
    topic = Topics(settings.prefix).recommendations
    return [msgspec.json.decode(r.value, type=Recommendation) async for r in read_all(settings, topic)]


async def test_two_swaps_lose_no_event_and_every_vector_follows(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts and histories are those of an undisturbed run, states those of the last model, lists name theirs."""
    await create_topics(settings)
    await _describe(settings)
    names = [_train(settings, seed=1)]
    fed = 0
    async with _running(settings) as (worker, engine):
        assert engine.encoder.name == names[0]
        for seed, dim in ((2, 8), (3, 12)):
            feeding = asyncio.create_task(_feed(settings, _events(USERS * 8, fed)))
            await _until(lambda: engine.store.columns.events.sum() > fed + 20)  # noqa: B023 - awaited here
            names.append(_train(settings, seed, dim))
            await _until(lambda: engine.encoder.name == names[-1])
            await feeding
            fed += USERS * 8
        await drained(settings, fed)
        await _feed(settings, _events(USERS, fed))
        fed += USERS
        await drained(settings, fed)
        await _until(lambda: engine.store.columns.events.sum() == fed)
        status = worker.reporter.status(time.time())
        assert status.folder is not None
        assert (status.model, status.folder.switches, status.folder.problem) == (names[2], 2, None)
        assert worker._index_health is not None
        assert worker._index_health._index is engine.index
        assert _error(_states(engine), _encoded_anew(engine)) < 1e-5
        states = _states(engine)
        vectors = engine.encoder.vectors(np.array(list(states.values())))
        for slot, vector in zip(engine.store.slot_of.values(), vectors, strict=True):
            assert np.allclose(engine.index.vector(slot), vector, atol=1e-5)  # type: ignore[attr-defined]
    verdict = await judge(settings)
    assert verdict.sound, verdict
    models = [found.profile.model for found in await _lists(settings)]
    assert set(models) == set(names)
    assert models[-1] == names[2]
    async with _running(settings) as (_, restarted):
        assert _error(_states(restarted), states) < 1e-5
    monkeypatch.setenv("NEARSTREAM_MODEL", settings.model)
    calm = await undisturbed(settings, tmp_path)
    assert digest_of(await read_profiles(calm)) == digest_of(await read_profiles(settings))


async def test_a_worker_with_a_truncated_model_serves_until_it_is_mended(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """It begins with decayed-mean and says so on the topic; the mended folder comes into service by itself."""
    await create_topics(settings)
    name = _train(settings, seed=1)
    (weights,) = Path(settings.model).glob("weights-*")
    whole = weights.read_bytes()
    os.truncate(weights, len(whole) // 2)
    async with _running(settings) as (worker, engine):
        await _feed(settings, _events(USERS))
        await drained(settings, USERS)
        await worker.reporter.report()
        weights.write_bytes(whole)
        await _until(lambda: engine.encoder.name == name)
        await _feed(settings, _events(USERS, USERS))
        await drained(settings, 2 * USERS)
        await worker.reporter.report()
        assert _error(_states(engine), _encoded_anew(engine)) < 1e-5
    assert "is not used, decayed-mean serves in its place" in caplog.text
    topic = Topics(settings.prefix).status
    told = [msgspec.json.decode(r.value, type=WorkerStatus) async for r in read_all(settings, topic)]
    assert any(
        s.model == "decayed-mean@1"
        and s.folder is not None
        and s.folder.fallback
        and "damaged" in str(s.folder.problem)
        for s in told
    )
    last = told[-1]
    assert last.folder is not None
    assert (last.model, last.folder.fallback, last.folder.problem) == (name, False, None)
    assert (await judge(settings)).sound
    assert {found.profile.model for found in await _lists(settings)} >= {name}
