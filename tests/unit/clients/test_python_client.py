"""The Python clients against a fake API: what they send, what they read, what they raise, when they try again."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from contextlib import aclosing, closing
from itertools import islice
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from nearstream_client import (
    Accepted,
    AsyncClient,
    BadRequest,
    Client,
    Conflict,
    Item,
    Move,
    NearstreamError,
    Neighbour,
    NotAllowed,
    NotFound,
    NotReady,
    Reason,
    RecentItem,
    Retry,
    ServerFault,
    SupposedList,
    TooManyRequests,
    Unreachable,
    UnreadableAnswer,
    Written,
)
from nearstream_client.messages import read_explanation, read_list, read_profile, read_receipt
from nearstream_client.sse import EVENT_BYTES_MAX, EventDecoder

from tests.unit.clients.fake_api import EXPLANATION, LIST, PROFILE, RECEIPT, FakeApi, Refusal, pushed
from tests.unit.clients.guide import PACKAGE, run

if TYPE_CHECKING:
    from collections.abc import Callable

EVENT = {"user_id": "ada", "item_id": "red-shoes", "type": "view", "timestamp": 1_700_000_000_000}


class Waits(list[float]):
    """Sleeps that only keep their seconds, for either client."""

    def sleep(self, wait_s: float) -> None:
        """Blocking."""
        self.append(wait_s)

    async def sleep_async(self, wait_s: float) -> None:
        """Awaited."""
        self.append(wait_s)


class Both:
    """Runs a method on the blocking and on the asyncio client; both must do the same."""

    def __init__(self, url: str, waits: Waits, **options: Any) -> None:
        self._url = url
        self._waits = waits
        self._options = {"chance": lambda: 1.0, "new_event_id": lambda: "e1", **options}

    def blocking(self, name: str, *arguments: Any) -> Any:
        """The result of Client's method."""
        with Client(self._url, sleep=self._waits.sleep, **self._options) as client:
            return getattr(client, name)(*arguments)

    def awaited(self, name: str, *arguments: Any) -> Any:
        """The result of AsyncClient's method."""

        async def called() -> Any:
            async with AsyncClient(self._url, sleep=self._waits.sleep_async, **self._options) as client:
                return await getattr(client, name)(*arguments)

        return asyncio.run(called())

    def streamed(self, n: int, *, is_async: bool) -> list[str]:
        """The ids of the first lists of ada's stream."""
        if is_async:
            return asyncio.run(self._streamed_async(n))
        with (
            Client(self._url, sleep=self._waits.sleep, **self._options) as client,
            closing(client.stream("ada")) as lists,
        ):
            return [list_.rec_id for list_ in islice(lists, n)]

    async def _streamed_async(self, n: int) -> list[str]:
        async with AsyncClient(self._url, sleep=self._waits.sleep_async, **self._options) as client:
            ids: list[str] = []
            async with aclosing(client.stream("ada")) as lists:
                async for list_ in lists:
                    ids.append(list_.rec_id)
                    if len(ids) == n:
                        break
            return ids


@pytest.fixture
def waits() -> Waits:
    """What the client waited, in seconds."""
    return Waits()


@pytest.fixture
def both(api: FakeApi, waits: Waits) -> Both:
    """Both clients of the fake API."""
    return Both(api.url, waits, token="secret")


@pytest.fixture(params=["blocking", "awaited"])
def call(request: pytest.FixtureRequest, both: Both) -> Callable[..., Any]:
    """A method by name, once on each client."""
    return getattr(both, request.param)


def test_reads_come_back_typed(call: Callable[..., Any]) -> None:
    """List, profile, neighbours and explanation are the server's fields as dataclasses."""
    assert call("list", "ada") == read_list(LIST)
    assert call("list", "ada").items[0].reasons[0] == Reason("similar-users", 0.6, users=("u9",))
    assert call("profile", "ada").recent_items == (RecentItem("red-shoes", "view", 1_700_000_000_000),)
    assert call("profile", "ada") == read_profile(PROFILE)
    assert call("neighbours", "ada") == (Neighbour("u9", 0.93),)
    explained = call("explain", "ada", "blue-shoes")
    assert explained == read_explanation(EXPLANATION)
    assert explained.reasons[0].item_id == "red-shoes"
    assert explained.reasons[0].sentence == "Resembles “red-shoes”, which this user had."


def test_many_users_in_one_request(api: FakeApi, call: Callable[..., Any]) -> None:
    """Parts of several users come by id, None for somebody unknown."""
    users = call("many", ["ada", "nobody"], ["list", "neighbours"])
    assert users["ada"].list == read_list(LIST)
    assert users["ada"].neighbours == (Neighbour("u9", 0.93),)
    assert users["ada"].profile is None
    assert users["nobody"] is None
    assert api.asked[-1].body == {"user_ids": ["ada", "nobody"], "parts": ["list", "neighbours"]}


def test_events_get_an_id(api: FakeApi, call: Callable[..., Any]) -> None:
    """An event without event_id is sent with one, one that has its own keeps it; the answer says where they lie."""
    accepted = call("send_events", [EVENT, {**EVENT, "event_id": "mine"}])
    assert accepted == Accepted(2, (Written(3, 0), Written(3, 1)))
    assert [event["event_id"] for event in api.asked[-1].body] == ["e1", "mine"]
    assert api.asked[-1].headers["Content-Type"] == "application/json"


def test_what_if_asks_and_reads(api: FakeApi, call: Callable[..., Any]) -> None:
    """Both lists, what changed between them, and a question that is sent as it is; a longer one is not sent."""
    found = call("what_if", "ada", ["red-shoes"], [{"type": "view", "item_id": "hat"}])
    assert api.asked[-1].path == "/v1/users/ada/what-if"
    assert api.asked[-1].body == {"without": ["red-shoes"], "events": [{"type": "view", "item_id": "hat"}]}
    assert (found.left_out, found.added, found.profile_cosine, found.profile_events) == (2, 1, 0.71, 42)
    assert found.then == SupposedList((), (Item("hat", 0.5, (Reason("trending", 1.0),)),), "catalogue-exhausted")
    assert [item.item_id for item in found.now.items] == ["blue-shoes"]
    assert (found.entered, found.left, found.moved) == (("hat",), ("blue-shoes",), (Move("sock", 3, 2),))
    for without, events, words in ((["i"] * 33, [], "32 in `without`, got 33"), ([], [{}] * 9, "8 in `events`, got 9")):
        with pytest.raises(ValueError, match=words):
            call("what_if", "ada", without, events)
    assert len(api.asked) == 1


def test_forget_gives_the_receipt(api: FakeApi, call: Callable[..., Any]) -> None:
    """Forgetting is a DELETE, and its receipt names the deadline."""
    assert call("forget", "ada") == read_receipt(RECEIPT)
    assert (api.asked[-1].method, api.asked[-1].path) == ("DELETE", "/v1/users/ada")


def test_ids_and_token_go_as_they_are(api: FakeApi, call: Callable[..., Any]) -> None:
    """An id with a slash, a question mark or an umlaut is one part of the path; the token is in its header."""
    call("explain", "a/b?ü", "x&y=1")
    assert api.asked[-1].path == "/v1/users/a%2Fb%3F%C3%BC/explain?item_id=x%26y%3D1"
    assert api.asked[-1].headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("user_id", ["", ".", ".."])
def test_ids_that_a_path_cannot_carry(api: FakeApi, call: Callable[..., Any], user_id: str) -> None:
    """An id that a URL would take for a folder is refused before it asks for somebody else."""
    with pytest.raises(ValueError, match="that a URL can carry"):
        call("list", user_id)
    assert api.asked == []


@pytest.mark.parametrize("count", [0, 101])
def test_too_many_at_once(api: FakeApi, call: Callable[..., Any], count: int) -> None:
    """None or more than 100 users or events are refused here, with the number that came."""
    with pytest.raises(ValueError, match=f"1 to 100 users in one call, got {count}"):
        call("many", ["ada"] * count)
    with pytest.raises(ValueError, match=f"1 to 100 events in one call, got {count}"):
        call("send_events", [EVENT] * count)
    assert api.asked == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (401, NotAllowed),
        (403, NotAllowed),
        (404, NotFound),
        (409, Conflict),
        (413, BadRequest),
        (500, ServerFault),
    ],
)
def test_errors_have_the_servers_sentence(
    api: FakeApi, call: Callable[..., Any], waits: Waits, status: int, kind: type[NearstreamError]
) -> None:
    """Each status is an error of its own with the server's words, raised at once."""
    api.refusals.append(Refusal(status, {"error": "Expected this, came that. Do so."}))
    with pytest.raises(kind, match=r"^Expected this, came that\. Do so\.$") as caught:
        call("list", "ada")
    assert caught.value.status == status
    assert waits == []


def test_a_refused_event_is_named(api: FakeApi, call: Callable[..., Any]) -> None:
    """The place and the reason of the event that was refused are fields of the error."""
    api.refusals.append(Refusal(400, {"error": "No.", "index": 1, "reason": "unknown-type"}))
    with pytest.raises(BadRequest) as caught:
        call("send_events", [EVENT, {**EVENT, "type": "stare"}])
    assert (caught.value.index, caught.value.reason) == (1, "unknown-type")


def test_an_error_that_is_not_json(api: FakeApi, call: Callable[..., Any]) -> None:
    """A proxy's page without a sentence still says what came."""
    api.refusals.append(Refusal(502, "<html>"))
    with pytest.raises(ServerFault, match="answered 502 Bad Gateway without a reason"):
        call("list", "ada")


@pytest.mark.parametrize("said", ['{"rec_id": "r1"}', "[]", "no json"])
def test_an_answer_of_another_shape(api: FakeApi, call: Callable[..., Any], said: str) -> None:
    """What does not fit the promise is an error of its own, not a KeyError."""
    api.refusals.append(Refusal(200, said))
    with pytest.raises(UnreadableAnswer, match="Expected what GET /v1/users/ada/list promises"):
        call("list", "ada")


def test_a_newer_server(api: FakeApi, call: Callable[..., Any]) -> None:
    """An unknown field is passed over, and an unknown kind of reason keeps its kind and share."""
    items = [{"item_id": "i", "score": 1.0, "reasons": [{"kind": "horoscope", "share": 1.0, "sign": "leo"}]}]
    api.refusals.append(Refusal(200, {**LIST, "mood": "blue", "items": items}))
    assert call("list", "ada").items[0].reasons == (Reason("horoscope", 1.0),)


@pytest.mark.parametrize("status", [429, 503])
def test_refusals_are_tried_again(api: FakeApi, call: Callable[..., Any], waits: Waits, status: int) -> None:
    """429 and 503 are sent again after waits that double; events keep their ids, so that they count once."""
    api.refusals.extend([Refusal(status)] * 3)
    assert call("send_events", [EVENT]).accepted == 1
    assert waits == [0.25, 0.5, 1.0]
    assert [asked.body[0]["event_id"] for asked in api.asked] == ["e1"] * 4


@pytest.mark.parametrize(("status", "kind"), [(429, TooManyRequests), (503, NotReady)])
def test_retries_are_bounded(
    api: FakeApi, call: Callable[..., Any], waits: Waits, status: int, kind: type[NearstreamError]
) -> None:
    """After the last attempt the server's own sentence is raised."""
    api.refusals.extend([Refusal(status, {"error": "Still reading."})] * 9)
    with pytest.raises(kind, match="Still reading"):
        call("list", "ada")
    assert (len(api.asked), len(waits)) == (4, 3)


def test_retry_after_is_honoured(api: FakeApi, call: Callable[..., Any], waits: Waits) -> None:
    """The server's own wait goes before the client's."""
    api.refusals.append(Refusal(429, headers={"Retry-After": "7"}))
    call("list", "ada")
    assert waits == [7.0]


def test_a_long_retry_after_is_an_error(api: FakeApi, call: Callable[..., Any], waits: Waits) -> None:
    """A wait beyond the bound is not cut short but given to the caller at once."""
    api.refusals.append(Refusal(503, headers={"Retry-After": "3600"}))
    with pytest.raises(NotReady) as caught:
        call("list", "ada")
    assert caught.value.retry_after_s == 3600.0
    assert waits == []


def test_waits_are_cut_by_chance_and_bounded() -> None:
    """A wait lies between a half and the whole, and no wait is longer than the bound."""
    retry = Retry(attempts_max=20)
    error = NotReady("…", 503)
    assert retry.wait_s(error, 1, lambda: 0.0) == 0.125
    assert retry.wait_s(error, 19, lambda: 1.0) == 8.0
    assert retry.wait_s(error, 20, lambda: 1.0) is None
    assert retry.wait_s(Unreachable("…"), 1, lambda: 1.0) is None


def test_a_dated_retry_after_is_left_to_the_back_off(api: FakeApi, call: Callable[..., Any], waits: Waits) -> None:
    """A date needs a clock that agrees with the server's; the client's own wait serves."""
    api.refusals.append(Refusal(503, headers={"Retry-After": "Fri, 31 Dec 2099 23:59:59 GMT"}))
    call("list", "ada")
    assert waits == [0.25]


@pytest.mark.parametrize("name", ["blocking", "awaited"])
def test_silence_ends_in_time(api: FakeApi, waits: Waits, name: str) -> None:
    """A server that says nothing is given up after the timeout, in a sentence with its address."""
    api.is_silent = True
    with pytest.raises(Unreachable, match=f"No answer from {api.url}/v1/users/ada/list: .*Timeout"):
        getattr(Both(api.url, waits, timeout_s=0.05), name)("list", "ada")
    assert waits == []


@pytest.mark.parametrize("name", ["blocking", "awaited"])
def test_nobody_listens(waits: Waits, name: str) -> None:
    """No connection is an error of this client, too."""
    with FakeApi() as gone:
        url = gone.url
    with pytest.raises(Unreachable, match="ConnectError"):
        getattr(Both(url, waits), name)("list", "ada")


def test_an_address_without_a_scheme() -> None:
    """An address that httpx would stumble over later is refused at once."""
    with pytest.raises(ValueError, match=r"such as http://127\.0\.0\.1:8686, got 'localhost:8686'"):
        Client("localhost:8686")


@pytest.mark.parametrize("is_async", [False, True])
def test_stream_gives_each_list_once(api: FakeApi, both: Both, waits: Waits, is_async: bool) -> None:
    """Lists come as they are pushed, over a broken connection too; the newest, sent again, is passed over."""
    first, second, third = ({**LIST, "rec_id": rec_id} for rec_id in ("r1", "r2", "r3"))
    api.pushed = deque(
        [
            [b": keep-alive\n\n", pushed(first), b"event: gone\ndata: {}\n\n"],
            [pushed(first), pushed(second)],
            [pushed(third)],
        ]
    )
    assert both.streamed(3, is_async=is_async) == ["r1", "r2", "r3"]
    assert waits == [0.25, 0.25]
    assert api.asked[-1].headers["Accept"] == "text/event-stream"


@pytest.mark.parametrize("is_async", [False, True])
def test_stream_gives_up(api: FakeApi, both: Both, waits: Waits, is_async: bool) -> None:
    """A stream that only ever breaks is an error after as many attempts as a call has."""
    api.pushed = deque([[]] * 9)
    with pytest.raises(Unreachable, match="The server ended the stream"):
        both.streamed(1, is_async=is_async)
    assert waits == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("is_async", [False, True])
def test_stream_of_nobody(api: FakeApi, both: Both, is_async: bool) -> None:
    """A refusal that time does not mend ends the stream at once, in the server's words."""
    api.refusals.append(Refusal(403, {"error": "Read tokens only."}))
    with pytest.raises(NotAllowed, match="Read tokens only"):
        both.streamed(1, is_async=is_async)


def test_stream_of_another_shape(api: FakeApi, both: Both) -> None:
    """A pushed list that does not fit is an error of its own."""
    api.pushed = deque([[b"event: list\ndata: {}\n\n"]])
    with pytest.raises(UnreadableAnswer, match="Expected a list in the stream"):
        both.streamed(1, is_async=False)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_are_cut_anywhere(size: int) -> None:
    """However the bytes fall into chunks, the events are the same; U+2028 inside a line ends nothing."""
    data = "event: list\r\ndata: é\u2028ü\r\ndata:two\n\n: comment\n\ndata: three\n\nid: 4\n\n".encode()
    decoder = EventDecoder()
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    events = [(event.event, event.data) for chunk in chunks for event in decoder.feed(chunk)]
    assert events == [("list", "é\u2028ü\ntwo"), ("message", "three")]


@pytest.mark.parametrize("chunk", [b"data: x", b"data: x\n"])
def test_an_endless_event_is_bounded(chunk: bytes) -> None:
    """An event that never ends is given up instead of filling the memory."""
    decoder = EventDecoder()
    big = chunk.replace(b"x", b"x" * (EVENT_BYTES_MAX // 4))
    for _ in range(3):
        assert list(decoder.feed(big)) == []
    with pytest.raises(UnreadableAnswer, match="in one pushed event"):
        list(decoder.feed(big + big))


def test_httpx_is_all_it_needs() -> None:
    """The client imports nothing of the server, and nothing beside httpx and Python itself."""
    script = "import sys, httpx; before = set(sys.modules); import nearstream_client; print(*set(sys.modules) - before)"
    new = {name.partition(".")[0] for name in run(sys.executable, "-c", script, cwd=PACKAGE).split()}
    assert new - set(sys.stdlib_module_names) <= {"nearstream_client", "httpx", "httpcore", "h11"}


def test_transport_is_for_tests() -> None:
    """A caller's own tests need no server: httpx's mock transport takes its place."""
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, text=json.dumps(LIST)))
    with Client("http://nearstream", transport=transport) as client:
        assert client.list("ada").rec_id == "r1"
