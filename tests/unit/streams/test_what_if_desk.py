"""A worker's desk for questions, which workers are asked, and what becomes of silent ones."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiohttp import web

from streams.config import Settings, load_settings
from streams.core.errors import WorkerUnavailable
from streams.core.what_if import UserQuestion, WhatIf, WhatIfQuestion, WhatIfRefusal
from streams.kafka import what_if_desk
from streams.kafka.partitioner import murmur2_partition
from streams.kafka.worker_directory import SILENT_S_MAX, WorkerAddress, WorkerDirectory, addresses, owner_first
from streams.kafka.worker_questions import ask_workers
from streams.metrics import Metrics
from tests.fakes import START_MS, worker_status
from tests.fakes_api import supposition
from tests.fakes_core import World, event, world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

TOKEN = "read-" + "r" * 20


@pytest.fixture
def compute_thread() -> Iterator[ThreadPoolExecutor]:
    """The one thread that touches memory."""
    with ThreadPoolExecutor(1) as thread:
        yield thread


def lived() -> World:
    """u1 viewed a, u2 viewed a and b."""
    found = world()
    found.feed([event("u1", "a"), event("u2", "a"), event("u2", "b")])
    return found


def desk_of(found: World, thread: ThreadPoolExecutor, metrics: Metrics) -> what_if_desk.WhatIfDesk:
    """At START_MS."""
    return what_if_desk.WhatIfDesk(found.engine, 2, thread, metrics, lambda: START_MS / 1000)


async def test_a_question_is_answered_in_the_compute_thread_and_counted(compute_thread: ThreadPoolExecutor) -> None:
    """With the moment of the answer; refusals come back as they are."""
    metrics = Metrics()
    desk = desk_of(lived(), compute_thread, metrics)
    found = await desk.ask("u1", WhatIfQuestion())
    assert isinstance(found, WhatIf)
    assert (found.answered_at, [item.item_id for item in found.now.items]) == (START_MS, ["b"])
    assert isinstance(await desk.ask("nobody", WhatIfQuestion()), WhatIfRefusal)
    assert b"nearstream_what_if_seconds_count 2.0" in metrics.exposition()


async def test_few_questions_wait_and_the_next_is_turned_away(compute_thread: ThreadPoolExecutor) -> None:
    """While a batch computes; those that waited are answered after it, and there is room again."""
    go_on = threading.Event()
    batch = compute_thread.submit(go_on.wait)
    desk = desk_of(lived(), compute_thread, Metrics())
    waiting = [asyncio.create_task(desk.ask("u1", WhatIfQuestion())) for _ in range(what_if_desk.QUESTIONS_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(WorkerUnavailable, match="4 questions wait"):
        await desk.ask("u1", WhatIfQuestion())
    go_on.set()
    assert all(isinstance(found, WhatIf) for found in await asyncio.gather(*waiting))
    assert batch.result()
    assert isinstance(await desk.ask("u1", WhatIfQuestion()), WhatIf)


async def test_an_answer_comes_in_time_or_not_at_all(
    compute_thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question that never got its turn is taken back, and takes nobody's place."""
    monkeypatch.setattr(what_if_desk, "ANSWER_S_MAX", 0.02)
    metrics, go_on = Metrics(), threading.Event()
    compute_thread.submit(go_on.wait)
    desk = desk_of(lived(), compute_thread, metrics)
    found = await asyncio.gather(*(desk.ask("u1", WhatIfQuestion()) for _ in range(3)), return_exceptions=True)
    assert all("too busy to answer within 0.02 s" in str(each) for each in found)
    go_on.set()
    await asyncio.get_running_loop().run_in_executor(compute_thread, int)
    assert b"nearstream_what_if_seconds_count 0.0" in metrics.exposition()
    monkeypatch.setattr(what_if_desk, "ANSWER_S_MAX", 5.0)
    assert isinstance(await desk.ask("u1", WhatIfQuestion()), WhatIf)


def status(name: str, partitions: list[int], url: str | None = "http://w:6066", **changes: Any) -> bytes:
    """A record of the topic `status`."""
    held = dict.fromkeys(partitions, (0, 0))
    return msgspec.json.encode(worker_status(name, held, web_url=url, **changes))


def test_only_workers_that_run_now_are_asked() -> None:
    """By the last word of each: not the stopped, the silent, those of another group, or without a usable address."""
    old = START_MS - int(SILENT_S_MAX * 1000) - 1
    values = [
        status("w1", [0], state="restoring"),
        status("w1", [0, 1], "http://one:6066/"),
        status("w2", [2], state="running"),
        status("w2", [2], state="stopped"),
        status("w3", [3], now_ms=old),
        status("w4", [4], group="other"),
        status("w5", [5], None),
        status("w6", [6], "file:///etc/passwd"),
        status("w7", [7], "http://host:0"),
        status("w8", [8], "http://[::1"),
        b'{"worker": "another kind of record"}',
        status("w9", [9], "https://nine:1", state="rebalancing"),
    ]
    assert addresses(values, "nearstream", START_MS) == [
        WorkerAddress("w1", "http://one:6066", frozenset({0, 1})),
        WorkerAddress("w9", "https://nine:1", frozenset({9})),
    ]


def test_the_owner_of_the_users_partition_comes_first() -> None:
    """Then the others by name; while nobody owns anything, by name."""
    own = murmur2_partition("u1", 4)
    others = frozenset(range(4)) - {own}
    workers = [WorkerAddress("b", "", frozenset({own})), WorkerAddress("c", "", others), WorkerAddress("a", "", others)]
    assert [worker.name for worker in owner_first(workers, "u1")] == ["b", "a", "c"]
    nothing = [WorkerAddress(name, "", frozenset()) for name in ("z", "y")]
    assert [worker.name for worker in owner_first(nothing, "u1")] == ["y", "z"]


class KnownWorkers(WorkerDirectory):
    """Workers at these addresses, without a Kafka."""

    def __init__(self, *urls: str) -> None:
        self._urls = urls

    async def running(self, user_id: str) -> list[WorkerAddress]:
        """In the order given."""
        return [WorkerAddress(f"w{number}", url, frozenset()) for number, url in enumerate(self._urls, 1)]


@asynccontextmanager
async def a_worker(answer: Callable[[web.Request], web.Response], asked: list[Any]) -> AsyncIterator[str]:
    """The address of a worker's port; what it is asked is kept."""

    async def handle(request: web.Request) -> web.Response:
        asked.append(
            (request.headers.get("Authorization"), msgspec.json.decode(await request.read(), type=UserQuestion))
        )
        return answer(request)

    app = web.Application()
    app.router.add_post("/what-if", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def problem(status: int, **fields: str) -> Callable[[web.Request], web.Response]:
    """An error as a worker says it."""
    return lambda _: web.json_response(fields, status=status)


def found_answer(_: web.Request) -> web.Response:
    """What a list would be."""
    return web.json_response(body=msgspec.json.encode(supposition()))


@pytest.fixture
def settings() -> Settings:
    """With a token."""
    return load_settings(read_token=TOKEN)


QUESTION = WhatIfQuestion(without=["i2"])


async def test_the_first_worker_that_can_answer_answers(settings: Settings) -> None:
    """One that is gone, one that restores and one that leads elsewhere are passed over; the token goes along."""
    asked: list[Any] = []
    elsewhere = web.Response(status=302, headers={"Location": "http://127.0.0.1:1/what-if"})
    async with (
        a_worker(problem(503, error="This worker is restoring."), asked) as restoring,
        a_worker(found_answer, asked) as good,
    ):
        answer = await ask_workers(settings, KnownWorkers("http://127.0.0.1:1", restoring, good), "u1", QUESTION)
    assert isinstance(answer, bytes)
    assert msgspec.json.decode(answer, type=WhatIf) == supposition()
    assert asked == [(f"Bearer {TOKEN}", UserQuestion(user_id="u1", without=["i2"]))] * 2
    async with a_worker(lambda _: elsewhere, asked) as leading:
        with pytest.raises(WorkerUnavailable, match="it answered 302"):
            await ask_workers(settings, KnownWorkers(leading), "u1", QUESTION)


async def test_what_one_worker_refuses_no_other_is_asked(settings: Settings) -> None:
    """They all know the same profiles."""
    asked: list[Any] = []
    refusing = problem(400, error="Expected items that are known.", reason="unknown-item")
    async with a_worker(refusing, asked) as first, a_worker(found_answer, asked) as second:
        answer = await ask_workers(settings, KnownWorkers(first, second), "u1", QUESTION)
    assert answer == WhatIfRefusal("unknown-item", "Expected items that are known.")
    assert len(asked) == 1


async def test_when_none_answers_it_is_said_why(settings: Settings) -> None:
    """By each worker that was asked, at most three; or that none runs."""
    with pytest.raises(WorkerUnavailable, match="No worker of the group 'nearstream' runs"):
        await ask_workers(settings, KnownWorkers(), "u1", QUESTION)
    async with (
        a_worker(problem(403, error="Set NEARSTREAM_READ_TOKEN."), []) as closed,
        a_worker(lambda _: web.Response(status=404, text="<html>"), []) as older,
    ):
        silent = "http://127.0.0.1:1"
        with pytest.raises(WorkerUnavailable) as refused:
            await ask_workers(settings, KnownWorkers(closed, older, silent, silent), "u1", QUESTION)
    said = str(refused.value)
    assert said.startswith("No worker answers. w1: Set NEARSTREAM_READ_TOKEN. w2: it answered 404 at http://127.0.0.1:")
    assert "w3: it cannot be reached at http://127.0.0.1:1 (ClientConnectorError)" in said
    assert "w4" not in said
    assert TOKEN not in said
