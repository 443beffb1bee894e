"""Workers on a real Kafka share what they have learned of the sources, and obey commands to it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from numpy.testing import assert_allclose, assert_array_equal

from streams.config import Settings, load_settings
from streams.core.events import Event, EventType
from streams.kafka.clients import client_options
from streams.kafka.codec import encode_event
from streams.kafka.topics import Topics, create_topics, list_topics
from streams.kafka.weights_topic import WeightsState, mean_weights, read_weights
from streams.kafka.worker import Worker
from streams.metrics import Metrics
from streams.recommend.fusion import FusionWeights
from streams.wiring import build_engine

if TYPE_CHECKING:
    from pathlib import Path

    from streams.kafka.broker import EmbeddedKafka
    from streams.recommend.engine import Engine

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
USERS, EVENTS = 40, 200
INTERVAL_S = 0.2
WAIT_S_MAX = 40.0
NOW_MS = int(time.time()) * 1000 - 3_600_000


@dataclass(frozen=True, slots=True)
class Shop:
    """Settings of one test and how its workers and commands are started."""

    settings: Settings
    nearstream: str
    data_dir: Path
    workers: dict[str, Worker] = field(default_factory=dict)

    @asynccontextmanager
    async def running(self, name: str, interval_s: float = INTERVAL_S) -> AsyncIterator[Engine]:
        """The engine of a worker in this process that has joined; its memory is saved nowhere."""
        settings = self.settings.model_copy(update={"worker_id": name, "data_dir": self.data_dir / name})
        engine = await asyncio.get_running_loop().run_in_executor(None, build_engine, settings)
        worker = Worker(settings, engine, Metrics(), weights_interval_s=interval_s)
        try:
            await worker.start()
            self.workers[name] = worker
            yield engine
        finally:
            await worker.stop()

    async def all_run(self) -> None:
        """Every worker has a partition that runs."""
        await _until(lambda: all(worker.some_run and worker.ready for worker in self.workers.values()))

    async def feed(self, first: int, count: int = EVENTS) -> None:
        """Views of many users, who like what others like."""
        producer = AIOKafkaProducer(**client_options(self.settings), enable_idempotence=True)
        await producer.start()
        try:
            for n in range(first, first + count):
                user, item = f"user-{n % USERS}", f"item-{(n * 7 + n // USERS) % 41}"
                seen = Event(user, item, EventType.VIEW, NOW_MS + 1000 * n, event_id=f"event-{n}")
                await producer.send(Topics(self.settings.prefix).events, encode_event(seen), key=user.encode())
            await producer.flush()
        finally:
            await producer.stop()

    async def command(self, word: str) -> dict[str, Any]:
        """What `nearstream weights WORD --json` prints."""
        where = ("--bootstrap", self.settings.bootstrap, "--prefix", self.settings.prefix)
        process = await asyncio.create_subprocess_exec(
            self.nearstream, "weights", word, "--json", *where, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0
        answer: dict[str, Any] = json.loads(printed)
        return answer

    async def state(self) -> WeightsState:
        """What the topic says."""
        return await read_weights(self.settings)

    async def written(self, *engines: Engine) -> WeightsState:
        """What the topic says once it knows of all lessons of these."""
        wanted = sorted(engine.lessons for engine in engines)
        async with asyncio.timeout(WAIT_S_MAX):
            while True:
                state = await self.state()
                if sorted(learned.lessons for learned in state.workers.values()) == wanted:
                    return state
                await asyncio.sleep(INTERVAL_S)


@pytest.fixture
async def shop(kafka: EmbeddedKafka, prefix: str, tmp_path: Path, nearstream: str) -> Shop:
    """Two partitions under fresh topics' names; no worker saves its memory, no list has another cause than an event."""
    settings = load_settings(
        bootstrap=kafka.bootstrap,
        prefix=prefix,
        group=prefix.strip("."),
        partitions=2,
        batch_events_max=20,  # a batch teaches one lesson a user
        snapshot_interval_s=0.0,
        reverse_refreshes_per_s=0.0,
    )
    await create_topics(settings)
    return Shop(settings, nearstream, tmp_path)


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not condition():
            await asyncio.sleep(0.05)


def _weights(engine: Engine) -> FusionWeights:
    weights = engine.weights
    assert weights is not None
    return weights


def _equal(engine: Engine) -> FusionWeights:
    return FusionWeights.start(len(engine.sources), engine.fusion.start)


def _judged(*engines: Engine) -> int:
    return sum(engine.quality.lessons for engine in engines)


async def test_what_two_workers_learned_is_shown_and_is_where_a_third_begins(shop: Shop) -> None:
    """Each writes its own; the mean by lessons is taken over once, and frozen weights stay while lists are judged."""
    async with AsyncExitStack() as workers:
        one = await workers.enter_async_context(shop.running("one"))
        two = await workers.enter_async_context(shop.running("two"))
        await shop.all_run()
        await shop.feed(0)
        await _until(lambda: one.lessons > 0 and two.lessons > 0)
        await shop.command("freeze")
        await _until(lambda: one.frozen and two.frozen)
        state = await shop.written(one, two)
        for name, engine in (("one", one), ("two", two)):
            assert_array_equal(state.workers[name].weights.shared, _weights(engine).shared)
        shown = await shop.command("show")
        assert shown["command"]["frozen"]
        assert shown["workers"]["one"]["lessons"] == one.lessons
        neighbours = shown["workers"]["two"]["sources"][two.sources[0]]
        assert [neighbours["a"], neighbours["l"]] == _weights(two).shared[0].tolist()

        mean = mean_weights(state.workers.values(), one.sources, 0, int(time.time() * 1000))
        third = await workers.enter_async_context(shop.running("three"))
        assert mean is not None
        assert mean.workers == 2
        assert third.frozen
        for found, expected in zip(_weights(third), mean.weights, strict=True):
            assert_allclose(found, expected)
        judged = _judged(one, two, third)
        await shop.feed(EVENTS)
        await _until(lambda: _judged(one, two, third) >= judged + EVENTS / 4)
        assert_allclose(_weights(third).shared, mean.weights.shared)
        assert (await shop.state()).workers["one"].lessons == one.lessons == state.workers["one"].lessons


async def test_a_freeze_outlives_restarts_and_a_reset_reaches_all(shop: Shop) -> None:
    """Stopped, a worker leaves its last weights to the next; a reset is for all, now and later; a thaw learns."""
    async with shop.running("first", interval_s=3600.0) as engine:
        await shop.feed(0)
        await _until(lambda: engine.lessons > EVENTS / 4)
    kept = _weights(engine).copy()
    assert (await shop.state()).workers["first"].lessons == engine.lessons
    await shop.command("freeze")

    async with shop.running("second") as engine:
        assert engine.frozen
        assert_allclose(_weights(engine).shared, kept.shared)
        asked_s = time.monotonic()
        await shop.command("reset")
        await _until(lambda: engine.lessons == 0)
        assert time.monotonic() - asked_s < 10
        assert_array_equal(_weights(engine).shared, _equal(engine).shared)

    async with shop.running("third") as engine:
        assert engine.frozen
        assert_array_equal(_weights(engine).shared, _equal(engine).shared)
        await shop.command("thaw")
        await _until(lambda: not engine.frozen)
        await shop.feed(EVENTS)
        await _until(lambda: engine.lessons > 0)
        assert not np.array_equal(_weights(engine).shared, _equal(engine).shared)


async def test_a_worker_runs_without_the_topic(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """On a Kafka whose topics are older than this one: it learns, says what is missing, and stops cleanly."""
    admin = AIOKafkaAdminClient(**client_options(shop.settings))
    await admin.start()
    try:
        await admin.delete_topics([Topics(shop.settings.prefix).weights])
    finally:
        await admin.close()
    async with asyncio.timeout(WAIT_S_MAX):  # Kafka answers a deletion before the topic is gone for everybody
        while Topics(shop.settings.prefix).weights in await list_topics(shop.settings):
            await asyncio.sleep(0.05)
    async with shop.running("alone") as engine:
        await shop.feed(0)
        await _until(lambda: engine.lessons > 0)
    assert "weights are not kept" in caplog.text


async def test_an_interval_of_0_writes_nothing_and_obeys(shop: Shop) -> None:
    """The worker learns, its weights are its own, commands reach it all the same."""
    async with shop.running("quiet", interval_s=0.0) as engine:
        await shop.feed(0)
        await _until(lambda: engine.lessons > 0)
        await shop.command("freeze")
        await _until(lambda: engine.frozen)
    assert (await shop.state()).workers == {}
