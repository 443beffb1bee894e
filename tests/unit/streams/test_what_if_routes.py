"""What a list would be, asked by HTTP: the API's route, the page's, and the one on a worker's own port."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from streams.api.what_if import WorkerPage
from streams.app import _own_url
from streams.config import load_settings
from streams.core.errors import UsageError, WorkerUnavailable
from streams.core.events import EventType
from streams.core.serving import RecentItem
from streams.core.what_if import SupposedEvent, WhatIf, WhatIfQuestion, WhatIfRefusal
from streams.dashboard.what_if_view import remembered, what_if_view
from tests.fakes import START_MS
from tests.fakes_api import FakeBackend, profile, serving_api, supposition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

READ, WRITE = "read-" + "r" * 20, "write-" + "w" * 20
ASKED = {"without": ["i2"], "events": [{"type": "view", "item_id": "i9", "value": 2.5, "timestamp": START_MS}]}
QUESTION = WhatIfQuestion(
    without=["i2"], events=[SupposedEvent(item_id="i9", type=EventType.VIEW, value=2.5, timestamp=START_MS)]
)


def backend() -> FakeBackend:
    """Knows what u1 would see."""
    return FakeBackend(suppositions={"u1": supposition()}, profiles={"u1": profile()})


async def asked(client: aiohttp.ClientSession, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    """Status and JSON of a question."""
    async with client.post(path, json=body, headers=headers) as response:
        assert response.content_type == "application/json"
        return response.status, await response.json()


async def test_the_api_passes_a_workers_answer_on() -> None:
    """The question arrives as it was asked, the answer as the worker gave it; an empty question is one."""
    known = backend()
    async with serving_api(known) as client:
        status, found = await asked(client, "/v1/users/u1/what-if", ASKED)
        assert (status, msgspec.convert(found, WhatIf)) == (200, supposition())
        assert (await asked(client, "/v1/users/u1/what-if", {}))[0] == 200
    assert known.questions == [("u1", QUESTION), ("u1", WhatIfQuestion())]


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (WhatIfRefusal("unknown-user", "There is no profile."), 404),
        (WhatIfRefusal("unknown-item", "Expected items that are known."), 400),
        (WhatIfRefusal("not-remembered", "Expected items that the profile remembers."), 400),
        (WhatIfRefusal("future-timestamp", "Expected a timestamp."), 400),
    ],
)
async def test_what_a_worker_refuses_is_refused(refusal: WhatIfRefusal, status: int) -> None:
    """With its sentence and its reason, by API and page alike."""
    async with serving_api(FakeBackend(suppositions={"u1": refusal})) as client:
        expected = (status, {"error": refusal.message, "reason": refusal.reason})
        assert await asked(client, "/v1/users/u1/what-if", {}) == expected
        assert await asked(client, "/api/what-if", {"user_id": "u1"}) == expected


async def test_without_a_worker_the_answer_is_503_with_a_time_to_come_back() -> None:
    """Only a worker has what a list needs."""
    async with (
        serving_api(FakeBackend(has_worker=False)) as client,
        client.post("/v1/users/u1/what-if", json={}) as response,
    ):
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        assert await response.json() == {"error": "No worker of the group 'nearstream' runs."}


@pytest.mark.parametrize(
    "body",
    [
        {"without": ["i"] * 33},
        {"events": [{"type": "view", "item_id": "i1"}] * 9},
        {"events": [{"type": "stare", "item_id": "i1"}]},
        {"events": [{"type": "view", "item_id": ""}]},
        {"events": [{"type": "view", "item_id": "i1", "user_id": "u2"}]},
        {"events": [{"type": "view", "item_id": "i1", "timestamp": -1}]},
        {"witout": ["i2"]},
        [],
    ],
)
async def test_questions_are_bounded_and_checked(body: Any) -> None:
    """Too many items or events, unknown words and other shapes never reach a worker."""
    known = backend()
    async with serving_api(known) as client:
        status, problem = await asked(client, "/v1/users/u1/what-if", body)
    assert (status, known.questions) == (400, [])
    assert problem["error"].startswith("Expected a JSON body as in GET /v1/openapi.json")


async def test_asking_is_reading() -> None:
    """The read token is enough, none is not; a browser must come from our own page as for a write."""
    async with serving_api(backend(), read_token=READ, write_token=WRITE) as client:
        for path, body in (("/v1/users/u1/what-if", {}), ("/api/what-if", {"user_id": "u1"})):
            assert (await asked(client, path, body))[0] == 401
            assert (await asked(client, path, body, Authorization=f"Bearer {READ}"))[0] == 200
        assert (await asked(client, "/v1/events", {}, Authorization=f"Bearer {READ}"))[0] == 403
    async with serving_api(backend()) as client:
        assert (await asked(client, "/v1/users/u1/what-if", {}, Origin="https://evil.example"))[0] == 403


async def test_the_page_gets_titles_and_sentences() -> None:
    """And what can be left out, from the profile; nobody's is 404."""
    async with serving_api(backend()) as client:
        status, found = await asked(client, "/api/what-if", {"user_id": "u1", **ASKED})
        assert status == 200
        assert [item["item_id"] for item in found["then"]["items"]] == ["i5", "i7", "i9"]
        assert found["then"]["items"][0]["reasons"][0]["text"] == "Many people have it right now."
        async with client.get("/api/what-if?user=u1") as response:
            items = await response.json()
        assert items == [{"item_id": "i2", "title": None, "type": "view", "timestamp": START_MS, "events": 1}]
        async with client.get("/api/what-if?user=nobody") as response:
            assert response.status == 404
        async with client.get("/api/what-if") as response:
            assert response.status == 400


def test_each_remembered_item_is_there_once_the_last_touched_first() -> None:
    """With its newest event, and how many there are."""
    recent = [RecentItem("a", "view", 1), RecentItem("b", "cart", 2), RecentItem("a", "purchase", 3)]
    found = remembered(msgspec.structs.replace(profile(), recent_items=recent), {"a": "Hat"}.get)
    assert [(one.item_id, one.title, one.type, one.timestamp, one.events) for one in found] == [
        ("a", "Hat", "purchase", 3, 2),
        ("b", None, "cart", 2, 1),
    ]


def test_a_short_list_says_why_in_words() -> None:
    """As the page does for published lists."""
    then = msgspec.structs.replace(supposition().then, short_because="fatigue")
    view = what_if_view(msgspec.structs.replace(supposition(), then=then), {}.get)
    assert view.then.short_because is not None
    assert "pauses" in view.then.short_because
    assert view.now.short_because is None


@asynccontextmanager
async def worker_port(found: WhatIf | WhatIfRefusal | None, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a worker's port that answers this; None: it is not ready."""

    async def answer(user_id: str, question: WhatIfQuestion) -> WhatIf | WhatIfRefusal:
        assert (user_id, question.without, question.events) == ("u1", QUESTION.without, QUESTION.events)
        if found is None:
            raise WorkerUnavailable("This worker is restoring.")
        return found

    page = WorkerPage(load_settings(**options), answer, lambda: START_MS / 1000)
    app = web.Application()
    app.router.add_post("/what-if", page.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
            yield client
    finally:
        await runner.cleanup()


BODY = {"user_id": "u1", **ASKED}


async def test_a_worker_answers_this_machine_without_a_token() -> None:
    """And nobody who calls it by a foreign name, and no foreign page."""
    async with worker_port(supposition()) as client:
        status, found = await asked(client, "/what-if", BODY)
        assert (status, msgspec.convert(found, WhatIf)) == (200, supposition())
        assert (await asked(client, "/what-if", BODY, Host="evil.example"))[0] == 403
        assert (await asked(client, "/what-if", BODY, Origin="https://evil.example"))[0] == 403
        assert (await asked(client, "/what-if", ASKED))[0] == 400


async def test_a_worker_that_others_reach_wants_a_token() -> None:
    """Without one it refuses everybody and says what to set; with one, a wrong token and none are refused."""
    async with worker_port(supposition(), web_host="0.0.0.0") as client:
        status, problem = await asked(client, "/what-if", BODY)
        assert status == 403
        assert "NEARSTREAM_READ_TOKEN" in problem["error"]
    async with worker_port(supposition(), web_host="0.0.0.0", read_token=READ) as client:
        assert (await asked(client, "/what-if", BODY))[0] == 401
        assert (await asked(client, "/what-if", BODY, Authorization=f"Bearer {WRITE}"))[0] == 401
        assert (await asked(client, "/what-if", BODY, Authorization=f"Bearer {READ}"))[0] == 200
        assert (await asked(client, "/what-if", BODY, Authorization=f"Bearer {READ}", Host="pod-3.workers"))[0] == 200


async def test_tokens_count_on_this_machine_too() -> None:
    """Whoever set them does not want other users of the machine to read people's lists."""
    async with worker_port(supposition(), read_token=READ) as client:
        assert (await asked(client, "/what-if", BODY))[0] == 401


async def test_a_worker_says_what_it_refuses_and_that_it_is_not_ready() -> None:
    """In the form of the API's errors."""
    async with worker_port(WhatIfRefusal("unknown-user", "There is no profile.")) as client:
        assert await asked(client, "/what-if", BODY) == (
            404,
            {"error": "There is no profile.", "reason": "unknown-user"},
        )
    async with worker_port(None) as client:
        assert await asked(client, "/what-if", BODY) == (503, {"error": "This worker is restoring."})


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:7000"),
        ("::1", "http://[::1]:7000"),
        ("0.0.0.0", f"http://{socket.gethostname()}:7000"),
    ],
)
def test_the_address_that_a_worker_tells_can_be_asked(host: str, url: str) -> None:
    """A machine's name for one that listens everywhere; brackets around what has colons."""
    assert _own_url(load_settings(web_host=host), 7000) == url


def test_another_address_can_be_told() -> None:
    """By a setting, which is an address or nothing."""
    assert load_settings(web_url="http://worker-1.internal:6066").web_url == "http://worker-1.internal:6066"
    assert load_settings(web_url="").web_url is None
    with pytest.raises(UsageError, match="web_url"):
        load_settings(web_url="worker-1:6066")
