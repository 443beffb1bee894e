"""The page's server: JSON, live stream, limits and guards."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

from streams.config import Settings, load_settings, settings_in_force
from streams.core.errors import UsageError
from streams.core.observation import PartitionOffsets, TailRecord, UserObservation
from streams.dashboard import server
from streams.dashboard.server import PAGE_DIR, serve_dashboard
from tests.fakes import START_MS, FakeObserver, event_record, list_record, observation, recommendation, worker_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FRAME_S = 0.02
USER_MS_MAX = 10
PAGE_BYTES_MAX = 300_000


@asynccontextmanager
async def serving(observer: FakeObserver, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a running page."""
    stop, address = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve_dashboard(
            observer,
            Settings(dashboard_port=0, **options),
            ready=address.set_result,
            stop=stop,
            clock=lambda: START_MS / 1000,
            frame_s=FRAME_S,
        )
    )
    async with aiohttp.ClientSession(await address) as client:
        yield client
        stop.set()
        await asyncio.wait_for(task, 5)


async def stream_events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """Name and data of each server-sent event."""
    while True:
        name = (await response.content.readline()).decode().removeprefix("event: ").strip()
        data = (await response.content.readline()).removeprefix(b"data: ")
        await response.content.readline()
        yield name, orjson.loads(data)


def known_user(offset: int = 500, rec_id: str = "r-1") -> UserObservation:
    """A user with an event and a list."""
    return UserObservation("u1", [event_record(7)], list_record(recommendation(rec_id=rec_id), offset))


async def test_overview_is_the_frame_as_json() -> None:
    """Numbers equal those observed."""
    observer = FakeObserver(observation([PartitionOffsets(0, 0, 100, 90, START_MS - 500)], [worker_status()]))
    async with serving(observer) as client, client.get("/api/overview") as response:
        body = await response.json()
    assert (body["group"]["lag"], body["group"]["lag_s"], body["group"]["name"]) == (10, 0.5, "nearstream")
    assert body["workers"][0]["worker"] == "w1"


async def test_a_known_user_comes_within_ten_milliseconds() -> None:
    """The median of 50 requests, connection kept."""
    observer = FakeObserver(users={"u1": known_user()})
    async with serving(observer) as client:
        spent_ms = []
        for _ in range(50):
            began = time.perf_counter()
            async with client.get("/api/users/u1") as response:
                body = await response.json()
            spent_ms.append((time.perf_counter() - began) * 1000)
    assert body["list"]["items"][1]["reasons"][0]["text"] == "Many people have it right now."
    assert sorted(spent_ms)[25] < USER_MS_MAX


async def test_an_unknown_user_is_404_with_a_sentence_and_a_searched_one_200() -> None:
    """A search that still runs is no failure."""
    observer = FakeObserver(users={"lost": UserObservation("lost", search="searching")})
    async with serving(observer) as client:
        async with client.get("/api/users/nobody") as response:
            assert response.status == 404
            assert "no list" in (await response.json())["message"]
        async with client.get("/api/users/lost") as response:
            assert (response.status, (await response.json())["state"]) == (200, "searching")


async def test_user_ids_may_hold_any_character_and_have_a_limit() -> None:
    """Slashes, blanks and umlauts are looked up as they are; 257 characters are refused with the reason."""
    odd = "a/b ü?#%"
    observer = FakeObserver(users={odd: UserObservation(odd, [event_record(1)])})
    async with serving(observer) as client:
        async with client.get("/api/users/a%2Fb%20%C3%BC%3F%23%25") as response:
            assert (await response.json())["user_id"] == odd
        async with client.get("/api/users/" + "x" * 257) as response:
            assert response.status == 400
            assert "1 to 256" in (await response.json())["error"]
        async with client.get("/api/stream?user=" + "x" * 257) as response:
            assert response.status == 400


async def test_the_stream_sends_frames_and_a_user_only_when_something_changed() -> None:
    """Many frames, one record of an unchanged user, a second one when the list is replaced."""
    observer = FakeObserver(users={"u1": known_user()})
    lists, frames = [], 0
    async with serving(observer) as client, client.get("/api/stream?user=u1") as response:
        assert response.content_type == "text/event-stream"
        async for name, data in stream_events(response):
            if name == "overview":
                frames += 1
            else:
                lists.append(data["list"]["rec_id"])
            if frames == 5:
                observer.users["u1"] = known_user(offset=501, rec_id="r-2")
            if len(lists) == 2:
                break
    assert lists == ["r-1", "r-2"]
    assert frames >= 5


async def test_places_for_live_readers_are_bounded_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third reader of two places is told so; a reader that leaves makes room."""
    monkeypatch.setattr(server, "SUBSCRIBERS_MAX", 2)
    async with serving(FakeObserver()) as client:
        first, second = await client.get("/api/stream"), await client.get("/api/stream")
        async with client.get("/api/stream") as refused:
            assert refused.status == 503
            assert "2 places" in (await refused.json())["error"]
        first.close()
        async with asyncio.timeout(10):
            while True:
                async with client.get("/api/stream") as again:
                    if again.status == 200:
                        break
        second.close()


async def test_a_stop_ends_open_streams() -> None:
    """Nobody has to leave first; `serving` fails when the server does not end in time."""
    async with serving(FakeObserver()) as client:
        response = await client.get("/api/stream")
        await response.content.readline()
    response.close()


async def test_every_answer_forbids_foreign_scripts_frames_and_caches() -> None:
    """The content policy has no inline scripts or styles."""
    async with serving(FakeObserver()) as client:
        for path in ("/", "/api/overview", "/page/app.js", "/api/history", "/api/settings", "/api/users/" + "x" * 300):
            async with client.get(path) as response:
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_local_page_answers_no_foreign_host_name() -> None:
    """A name elsewhere that resolves to this machine gets nothing."""
    async with serving(FakeObserver()) as client:
        async with client.get("/api/overview", headers={"Host": "evil.example:8686"}) as response:
            assert response.status == 403
        for host in ("localhost:1", "127.0.0.1", "[::1]:8686"):
            async with client.get("/api/overview", headers={"Host": host}) as response:
                assert response.status == 200


async def test_history_comes_in_steps_and_only_what_is_new() -> None:
    """The first answer has the first moment with its lag, one after it nothing; a bad number is refused."""
    observer = FakeObserver(observation([PartitionOffsets(0, 0, 100, 90, START_MS - 500)], [worker_status()]))
    async with serving(observer) as client:
        async with client.get("/api/history") as response:
            chapter = await response.json()
            assert response.headers["Content-Encoding"] in {"gzip", "deflate"}
        async with client.get(f"/api/history?since={START_MS}") as response:
            assert (await response.json())["moments"] == []
        async with client.get("/api/history?since=-1") as response:
            assert response.status == 400
            assert "since" in (await response.json())["error"]
    assert [(m["time"], m["lag"], m["lag_s"]) for m in chapter["moments"]] == [(START_MS, [10], [0.5])]
    assert (chapter["partitions"], chapter["oldest"]) == ([0], START_MS)


async def test_the_tail_gives_what_is_newer_and_knows_three_topics() -> None:
    """Each topic by its word; another word is refused with those that there are."""
    observer = FakeObserver(tails={"events": [TailRecord(n, 0, n, START_MS, "u1", "{}") for n in (1, 2, 3)]})
    async with serving(observer) as client:
        async with client.get("/api/tail?topic=events&after=1") as response:
            assert [record["number"] for record in await response.json()] == [2, 3]
        async with client.get("/api/tail?topic=dead-letters") as response:
            assert await response.json() == []
        async with client.get("/api/tail?topic=profiles") as response:
            assert response.status == 400
            assert "recommendations" in (await response.json())["error"]


async def test_settings_say_where_they_come_from_and_hide_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag, a variable and a default are told apart; a password is in no answer."""
    monkeypatch.setenv("NEARSTREAM_NEIGHBOURS", "7")
    options = {"sasl_username": "me", "sasl_password": "s3cr3t", "security_protocol": "SASL_PLAINTEXT"}
    async with serving(FakeObserver(), **options) as client, client.get("/api/settings") as response:
        text = await response.text()
    assert "s3cr3t" not in text
    found = {row["name"]: (row["value"], row["source"]) for row in orjson.loads(text)}
    assert found["neighbours"] == (7, "environment")
    assert found["dashboard_port"] == (0, "flag")
    assert found["list_items"] == (20, "default")
    assert found["sasl_password"] == ("hidden", "flag")


def test_a_flag_over_a_variable_is_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is where the value in force came from."""
    monkeypatch.setenv("NEARSTREAM_NEIGHBOURS", "7")
    sources = {s.name: s.source for s in settings_in_force(load_settings(neighbours=5))}
    assert (sources["neighbours"], sources["group"]) == ("flag", "default")


def test_the_page_weighs_less_than_three_hundred_kilobytes() -> None:
    """Everything a browser could load of it, libraries included; each library's licence lies beside it."""
    page = [path for path in PAGE_DIR.rglob("*") if path.is_file()]
    loaded = [path for path in page if path.suffix in {".js", ".css", ".html", ".svg"}]
    assert sum(path.stat().st_size for path in loaded) < PAGE_BYTES_MAX
    assert {path.name for path in page} - {path.name for path in loaded} == {
        "README.md",
        "LICENSE.preact",
        "LICENSE.htm",
        "LICENSE.uplot",
    }


async def test_nothing_outside_the_page_folder_is_served() -> None:
    """No way up, no listing."""
    async with serving(FakeObserver()) as client:
        for path in ("/page/..%2fserver.py", "/page/", "/page"):
            async with client.get(path) as response:
                assert response.status in {403, 404}


async def test_a_taken_port_is_a_usage_error_that_says_what_to_do() -> None:
    """The message names the address and the flag."""
    async with serving(FakeObserver()) as client:
        taken = client._base_url.port
        settings = Settings(dashboard_port=taken)
        with pytest.raises(UsageError, match=rf"127\.0\.0\.1:{taken}.*--port"):
            await serve_dashboard(FakeObserver(), settings, ready=print, stop=asyncio.Event())


async def test_an_observer_that_breaks_ends_the_server_with_its_error() -> None:
    """A page that shows nothing new must not look alive."""

    class Broken(FakeObserver):
        def snapshot(self) -> Any:
            raise RuntimeError("the observer broke")

    with pytest.raises(RuntimeError, match="the observer broke"):
        await serve_dashboard(Broken(), Settings(dashboard_port=0), ready=lambda _: None, stop=asyncio.Event())
