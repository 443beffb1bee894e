"""The API over HTTP: what each route answers, and how it refuses."""

from __future__ import annotations

import asyncio
import io
import logging
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import orjson
import pytest

from streams.api import stream as stream_module
from streams.api.people import People
from streams.api.requests import BODY_BYTES_MAX
from streams.core.serving import Place
from tests.fakes import START_MS, recommendation
from tests.fakes_api import FakeBackend, letter, list_value, profile, serving_api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WAIT_S = 5


def event(user_id: str = "u1", **changes: Any) -> dict[str, Any]:
    """An event that counts."""
    return {"user_id": user_id, "item_id": "i1", "type": "view", "timestamp": START_MS, **changes}


async def asked(client: aiohttp.ClientSession, path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    async with client.request(method, path, **options) as response:
        assert response.content_type == "application/json"
        return response.status, await response.json()


async def events_of(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """Name and data of each server-sent event; a comment is named by itself."""
    while line := (await response.content.readline()).decode().strip():
        if line.startswith(":"):
            yield line, None
        else:
            data = (await response.content.readline()).removeprefix(b"data: ")
            yield line.removeprefix("event: "), orjson.loads(data)
        await response.content.readline()


async def test_the_newest_list_comes_byte_for_byte_as_published() -> None:
    """Fields that this version does not know stay in it."""
    value = list_value()[:-1] + b',"of a later version":[1]}'
    async with serving_api(FakeBackend(lists={"u1": value})) as client, client.get("/v1/users/u1/list") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        assert await response.read() == value


async def test_profile_neighbours_and_reasons_of_one_user() -> None:
    """The profile as floats and counts, the list's neighbours, and a sentence beside each reason."""
    backend = FakeBackend(lists={"u1": list_value()}, profiles={"u1": profile()})
    async with serving_api(backend) as client:
        status, found = await asked(client, "/v1/users/u1/profile")
        assert (status, found["events"], found["vector"]) == (200, 42, [0.6, 0.8])
        assert found["recent_items"] == [{"item_id": "i2", "type": "view", "timestamp": START_MS}]
        status, near = await asked(client, "/v1/users/u1/neighbours")
        assert near["neighbours"] == msgspec.to_builtins(recommendation().neighbours)
        item = recommendation().items[1]
        status, why = await asked(client, f"/v1/users/u1/explain?item_id={item.item_id}")
        assert (status, why["rank"], why["score"]) == (200, 2, item.score)
        assert [reason["share"] for reason in why["reasons"]] == [reason.share for reason in item.reasons]
        assert why["reasons"][0]["sentence"].endswith(".")


async def test_a_reason_of_a_later_version_is_explained_without_a_sentence() -> None:
    """Its share and its message come all the same."""
    message = {"kind": "horoscope", "share": 1.0, "sign": "leo"}
    value = orjson.loads(list_value())
    value["items"][0]["reasons"] = [message]
    item_id = value["items"][0]["item_id"]
    async with serving_api(FakeBackend(lists={"u1": orjson.dumps(value)})) as client:
        status, why = await asked(client, f"/v1/users/u1/explain?item_id={item_id}")
    assert (status, why["reasons"]) == (
        200,
        [{"kind": "horoscope", "share": 1.0, "sentence": None, "message": message}],
    )


@pytest.mark.parametrize("part", ["list", "profile", "neighbours", "explain?item_id=i1"])
async def test_an_unknown_user_is_404_and_before_all_is_read_503(part: str) -> None:
    """An answer before that would say that a known user is unknown."""
    backend = FakeBackend()
    async with serving_api(backend) as client:
        status, body = await asked(client, f"/v1/users/nobody/{part}")
        assert (status, "of this user" in body["error"]) == (404, True)
        backend.is_ready = False
        async with client.get(f"/v1/users/nobody/{part}") as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "1")


async def test_an_item_that_is_not_on_the_list_is_404_and_none_is_400() -> None:
    """Each with what to do."""
    async with serving_api(FakeBackend(lists={"u1": list_value()})) as client:
        assert (await asked(client, "/v1/users/u1/explain?item_id=nothing"))[0] == 404
        status, body = await asked(client, "/v1/users/u1/explain")
        assert (status, "?item_id" in body["error"]) == (400, True)


async def test_several_users_come_in_one_request() -> None:
    """Each once, with the parts that were asked for; None for whom nothing is known."""
    backend = FakeBackend(lists={"u1": list_value()}, profiles={"u1": profile(), "u2": profile("u2")})
    async with serving_api(backend) as client:
        body = {"user_ids": ["u1", "u2", "u3", "u1"], "parts": ["list", "neighbours", "profile"]}
        status, found = await asked(client, "/v1/users", "POST", json=body)
        assert (status, list(found["users"])) == (200, ["u1", "u2", "u3"])
        assert found["users"]["u1"]["list"] == orjson.loads(list_value())
        assert found["users"]["u2"]["list"] is None
        assert found["users"]["u2"]["profile"]["user_id"] == "u2"
        assert found["users"]["u3"] is None
        status, found = await asked(client, "/v1/users", "POST", json={"user_ids": ["u1"]})
        assert list(found["users"]["u1"]) == ["list"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"user_ids": []}',
        b'{"user_ids": [""]}',
        b'{"user_ids": ["u1"], "parts": ["shoe size"]}',
        b'{"user_ids": ["u1"], "also": 1}',
        orjson.dumps({"user_ids": [str(n) for n in range(101)]}),
        b"[" * 100_000,
    ],
)
async def test_a_malformed_body_is_400_with_a_sentence(body: bytes) -> None:
    """Whatever is wrong with it."""
    async with serving_api(FakeBackend()) as client:
        headers = {"Content-Type": "application/json"}
        status, answer = await asked(client, "/v1/users", "POST", data=body, headers=headers)
    assert (status, answer["error"].startswith("Expected")) == (400, True)


async def test_user_ids_may_hold_any_character() -> None:
    """A slash, a blank, a percent sign, braces, umlauts; 257 characters are refused."""
    odd = "a/b ü?#%{x}"
    async with serving_api(FakeBackend(lists={odd: list_value(odd)})) as client:
        path = "/v1/users/a%2Fb%20%C3%BC%3F%23%25%7Bx%7D/list"
        assert (await asked(client, path))[1]["user_id"] == odd
        assert (await asked(client, f"/v1/users/{'x' * 257}/list"))[0] == 400


async def test_events_are_accepted_one_by_one_or_many_with_their_places() -> None:
    """As sent, byte for byte, in order."""
    backend = FakeBackend()
    async with serving_api(backend) as client:
        status, answer = await asked(client, "/v1/events", "POST", json=event(extra=[1, 2]))
        assert (status, answer) == (202, {"accepted": 1, "events": [{"partition": 0, "offset": 0}]})
        status, answer = await asked(client, "/v1/events", "POST", json=[event("u2"), event("u3")])
        assert (status, answer["accepted"]) == (202, 2)
    assert [orjson.loads(value) for value in backend.sent] == [event(extra=[1, 2]), event("u2"), event("u3")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": "sneeze"}, "invalid-schema"),
        ({"user_id": ""}, "invalid-schema"),
        ({"timestamp": START_MS * 1000}, "future-timestamp"),
        ({"properties": {"x": "y" * 5000}}, "oversized"),
        ({"properties": {"x": "y" * 50_000}}, "oversized"),
    ],
)
async def test_one_bad_event_refuses_the_whole_request(changes: dict[str, Any], reason: str) -> None:
    """With its place and the reason that a dead letter would have; nothing is sent."""
    backend = FakeBackend()
    async with serving_api(backend) as client:
        status, answer = await asked(client, "/v1/events", "POST", json=[event(), event(**changes)])
    assert (status, answer["index"], answer["reason"]) == (400, 1, reason)
    assert backend.sent == []


@pytest.mark.parametrize("body", [b"null", b"17", b"[]", b"[1]", b'"event"', b"{}"])
async def test_what_is_no_event_is_400(body: bytes) -> None:
    """And nothing is sent."""
    backend = FakeBackend()
    headers = {"Content-Type": "application/json"}
    async with serving_api(backend) as client:
        status, answer = await asked(client, "/v1/events", "POST", data=body, headers=headers)
    assert (status, "error" in answer, backend.sent) == (400, True, [])


async def test_too_many_events_are_400_and_too_many_bytes_413() -> None:
    """With the bound in the sentence."""
    headers = {"Content-Type": "application/json"}
    async with serving_api(FakeBackend()) as client:
        status, answer = await asked(client, "/v1/events", "POST", json=[event()] * 101)
        assert (status, "101" in answer["error"]) == (400, True)
        for body in (io.BytesIO(b" " * (BODY_BYTES_MAX + 1)), _in_pieces()):
            status, answer = await asked(client, "/v1/events", "POST", data=body, headers=headers)
            assert (status, f"{BODY_BYTES_MAX:,}" in answer["error"]) == (413, True)


async def _in_pieces() -> AsyncIterator[bytes]:
    """A body without a length beforehand."""
    for _ in range(BODY_BYTES_MAX // 65_536 + 2):
        yield b" " * 65_536


async def test_forgetting_gives_a_receipt() -> None:
    """Where the tombstone lies and until when the last file holds the user."""
    backend = FakeBackend()
    async with serving_api(backend) as client:
        status, receipt = await asked(client, "/v1/users/ada%2Fl", "DELETE")
    assert (status, receipt["user_id"], receipt["partition"], receipt["offset"]) == (202, "ada/l", 3, 17)
    assert receipt["deadline"] - receipt["requested_at"] == 3_600_000
    assert backend.forgotten == ["ada/l"]


async def test_dead_letters_are_listed_and_sent_back() -> None:
    """By reason and number; mended one by one; what is not sent back is told."""
    backend = FakeBackend(letters=[letter(4), letter(5)])
    async with serving_api(backend) as client:
        status, found = await asked(client, "/v1/dead-letters?reason=not-json&limit=1")
        assert (status, found["waiting"], [one["offset"] for one in found["letters"]]) == (200, 2, [5])
        body = {"ids": [{"partition": 0, "offset": 5}], "value": event()}
        status, report = await asked(client, "/v1/dead-letters/replay", "POST", json=body)
        assert (status, report["replayed"]) == (202, [{"partition": 0, "offset": 5}])
        assert backend.mended is not None
        assert (backend.mended[0], orjson.loads(backend.mended[1])) == (b"u1", event())
        status, report = await asked(client, "/v1/dead-letters/replay", "POST", json=body)
        assert (status, report["already_replayed"]) == (409, [{"partition": 0, "offset": 5}])
        many = {"ids": [{"partition": 0, "offset": 4}, {"partition": 9, "offset": 9}]}
        status, report = await asked(client, "/v1/dead-letters/replay", "POST", json=many)
        assert (status, report["refused"][0]["offset"], report["unknown"][0]["offset"]) == (409, 4, 9)
        status, _ = await asked(client, "/v1/dead-letters/replay", "POST", json={**many, "value": event()})
        assert status == 400
        backend.is_overtaken = True
        assert (await asked(client, "/v1/dead-letters/replay", "POST", json=many))[0] == 409
    assert backend.replayed == [Place(0, 5)]


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=ten", "limit=-1", "reason="])
async def test_a_bad_question_for_dead_letters_is_400(query: str) -> None:
    """With what was expected."""
    async with serving_api(FakeBackend()) as client:
        status, answer = await asked(client, f"/v1/dead-letters?{query}")
    assert (status, answer["error"].startswith("Expected")) == (400, True)


async def test_a_stream_sends_the_newest_list_at_once_and_each_new_one() -> None:
    """A tombstone too, and comments that keep the connection while nothing happens."""
    backend = FakeBackend(lists={"u1": list_value()})
    async with (
        asyncio.timeout(WAIT_S),
        serving_api(backend, keep_alive_s=0.05) as client,
        client.get("/v1/users/u1/stream") as response,
    ):
        assert response.content_type == "text/event-stream"
        told = events_of(response)
        assert (await anext(told))[0].startswith(": ")
        assert (await anext(told))[1]["rec_id"] == "r-1"
        assert (await anext(told))[0] == ": keep-alive"
        backend.publish("u1", list_value(rec_id="r-2"))
        assert [data["rec_id"] async for _, data in _lists(told, 1)] == ["r-2"]
        backend.publish("u1", None)
        assert [data async for _, data in _lists(told, 1)] == [{}]
    assert backend.watchers["u1"] == []


async def test_a_stream_of_a_user_without_a_list_waits_for_the_first() -> None:
    """So that a page can listen before it sends the first event."""
    backend = FakeBackend()
    async with asyncio.timeout(WAIT_S), serving_api(backend) as client, client.get("/v1/users/new/stream") as response:
        backend.publish("new", list_value("new"))
        assert [data["user_id"] async for _, data in _lists(events_of(response), 1)] == ["new"]


async def _lists(told: AsyncIterator[tuple[str, Any]], count: int) -> AsyncIterator[tuple[str, Any]]:
    """The next events that are no comments."""
    async for name, data in told:
        if not name.startswith(":"):
            yield name, data
            count -= 1
            if not count:
                return


async def test_places_for_live_readers_are_bounded_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second reader of one place is told so; the place is free when the first left."""
    monkeypatch.setattr(stream_module, "READERS_MAX", 1)
    async with asyncio.timeout(WAIT_S), serving_api(FakeBackend(), keep_alive_s=0.02) as client:
        first = await client.get("/v1/users/u1/stream")
        status, answer = await asked(client, "/v1/users/u1/stream")
        assert (status, "1 places" in answer["error"]) == (503, True)
        first.close()
        while True:
            async with client.get("/v1/users/u1/stream") as again:
                if again.status == 200:
                    break


async def test_a_stop_ends_open_streams() -> None:
    """`serving_api` fails when the server does not end in time."""
    async with serving_api(FakeBackend(lists={"u1": list_value()})) as client:
        response = await client.get("/v1/users/u1/stream")
        await response.content.readline()
    response.close()


async def test_paths_and_methods_that_are_not_there_are_told_as_json() -> None:
    """404 says where the paths are listed, 405 which methods there are."""
    async with serving_api(FakeBackend()) as client:
        status, answer = await asked(client, "/v1/nothing")
        assert (status, "openapi.json" in answer["error"]) == (404, True)
        async with client.put("/v1/events", json={}) as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")


async def test_a_fault_of_the_program_is_500_and_in_the_log_without_the_user(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is any other request in a log."""

    async def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(People, "_list", broken)
    with caplog.at_level(logging.DEBUG):
        async with serving_api(FakeBackend(lists={"ada-lovelace": list_value()})) as client:
            assert (await asked(client, "/v1/users/ada-lovelace/list"))[0] == 500
            assert (await asked(client, "/v1/users/ada-lovelace/neighbours"))[0] == 200
    assert "a fault" in caplog.text
    assert "ada-lovelace" not in caplog.text


async def test_requests_are_measured_by_route_and_never_by_user() -> None:
    """The exposition has counts and times, and no worker's metric at 0."""
    async with serving_api(FakeBackend(lists={"ada": list_value("ada")})) as client:
        await asked(client, "/v1/users/ada/list")
        await asked(client, "/v1/users/ada/profile")
        await asked(client, "/ada")
        async with client.get("/metrics") as response:
            text = await response.text()
    assert 'nearstream_http_requests_total{route="/v1/users/{user_id}/list",status="200"} 1.0' in text
    assert 'nearstream_http_requests_total{route="/v1/users/{user_id}/profile",status="404"} 1.0' in text
    assert 'nearstream_http_requests_total{route="other",status="404"} 1.0' in text
    assert 'nearstream_http_seconds_count{route="/v1/users/{user_id}/list"} 1.0' in text
    assert "ada" not in text
    assert "nearstream_index" not in text


async def test_health_is_told_whatever_kafka_does() -> None:
    """A restart of this process would not help Kafka."""
    backend = FakeBackend(is_ready=False)
    async with serving_api(backend) as client:
        assert await asked(client, "/healthz") == (200, {"status": "ok"})
