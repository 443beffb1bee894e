"""The HTTP API as small as the clients need it: scripted answers by path, everything asked kept for the test."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

LIST: dict[str, Any] = {
    "rec_id": "r1",
    "user_id": "ada",
    "generated_at": 1_700_000_000_123,
    "cause": "event",
    "source": {"topic": "events", "partition": 3, "offset": 1881, "event_time": 1_700_000_000_000},
    "profile": {"events": 42, "version": 42, "model": "decayed-mean@1"},
    "index": {"epoch": 7, "users": 1895},
    "neighbours": [{"user_id": "u9", "similarity": 0.93}],
    "items": [
        {
            "item_id": "blue-shoes",
            "score": 0.81,
            "reasons": [
                {"kind": "similar-users", "users": ["u9"], "share": 0.6},
                {"kind": "because-of", "item_id": "red-shoes", "share": 0.4},
            ],
        }
    ],
}
PROFILE: dict[str, Any] = {
    "user_id": "ada",
    "events": 42,
    "version": 42,
    "model": "decayed-mean@1",
    "last_event_time": 1_700_000_000_000,
    "recent_items": [{"item_id": "red-shoes", "type": "view", "timestamp": 1_700_000_000_000}],
    "vector": [0.6, 0.8],
}
EXPLANATION: dict[str, Any] = {
    "user_id": "ada",
    "rec_id": "r1",
    "generated_at": 1_700_000_000_123,
    "item_id": "blue-shoes",
    "rank": 1,
    "score": 0.81,
    "reasons": [
        {
            "kind": "because-of",
            "share": 0.4,
            "sentence": "Resembles “red-shoes”, which this user had.",
            "message": {"kind": "because-of", "item_id": "red-shoes", "share": 0.4},
        }
    ],
}
RECEIPT: dict[str, Any] = {
    "user_id": "ada",
    "topic": "users",
    "partition": 2,
    "offset": 9,
    "requested_at": 1_700_000_000_000,
    "deadline": 1_700_000_600_000,
}
WHAT_IF: dict[str, Any] = {
    "user_id": "ada",
    "answered_at": 1_700_000_000_123,
    "model": "decayed-mean@1",
    "profile_events": 42,
    "left_out": 2,
    "added": 1,
    "profile_cosine": 0.71,
    "now": {"neighbours": LIST["neighbours"], "items": LIST["items"]},
    "then": {
        "neighbours": [],
        "items": [{"item_id": "hat", "score": 0.5, "reasons": [{"kind": "trending", "share": 1.0}]}],
        "short_because": "catalogue-exhausted",
    },
    "entered": ["hat"],
    "left": ["blue-shoes"],
    "moved": [{"item_id": "sock", "from_rank": 3, "to_rank": 2}],
}
PARTS = {"list": LIST, "profile": PROFILE, "neighbours": LIST["neighbours"]}
ANSWERS = {
    "list": LIST,
    "profile": PROFILE,
    "neighbours": {"user_id": "ada", "generated_at": LIST["generated_at"], "neighbours": LIST["neighbours"]},
    "explain": EXPLANATION,
}


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Refusal:
    """An answer instead of the usual one."""

    status: int
    body: dict[str, Any] | str = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class FakeApi:
    """Serves on a free port of this machine, in a thread of its own, until it is left.

    `answers_by_path` and `refusals` go first, one of these a request. `pushed` are the connections of a stream, each
    the bytes that it sends before the server ends it; the last of them stays open.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.refusals: deque[Refusal] = deque()
        self.answers_by_path: dict[str, Refusal] = {}
        self.pushed: deque[list[bytes]] = deque([[pushed(LIST)]])
        self.is_silent = False
        self.url = ""
        self._ending: Future[None] = Future()
        self._ready: Future[str] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="fake-api")

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = self._ready.result(timeout=10)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set_result(None)
        self._thread.join(timeout=10)
        assert not self._thread.is_alive(), "the fake API did not end"

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self._ready.set_result(f"http://127.0.0.1:{runner.addresses[0][1]}")
            await asyncio.wrap_future(self._ending)
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        self.asked.append(Asked(request.method, request.raw_path, dict(request.headers), body))
        if self.is_silent:
            await asyncio.wrap_future(self._ending)
        if self.refusals or request.raw_path in self.answers_by_path:
            refusal = self.answers_by_path.get(request.raw_path) or self.refusals.popleft()
            said = refusal.body if isinstance(refusal.body, str) else json.dumps(refusal.body)
            return web.Response(status=refusal.status, text=said, headers=dict(refusal.headers))
        if request.raw_path.endswith("/stream"):
            return await self._stream(request)
        return web.json_response(usual_answer(request.method, request.raw_path.partition("?")[0], body))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for data in self.pushed[0]:
            await response.write(data)
        if len(self.pushed) > 1:
            self.pushed.popleft()
        else:
            await asyncio.wrap_future(self._ending)
        return response


def pushed(list_: Mapping[str, Any]) -> bytes:
    """A list as the stream sends it."""
    return b"event: list\ndata: %s\n\n" % json.dumps(list_, ensure_ascii=False).encode()


def usual_answer(method: str, path: str, body: Any) -> object:
    """What the API answers when all is well."""
    if (method, path) == ("POST", "/v1/users"):
        known = {part: PARTS[part] for part in body["parts"]}
        return {"users": {user_id: known if user_id == "ada" else None for user_id in body["user_ids"]}}
    if (method, path.rpartition("/")[2]) == ("POST", "what-if"):
        return WHAT_IF
    if (method, path) == ("POST", "/v1/events"):
        return {"accepted": len(body), "events": [{"partition": 3, "offset": n} for n in range(len(body))]}
    return {"GET": ANSWERS.get(path.rpartition("/")[2]), "DELETE": RECEIPT}[method]
