"""The routes that write: events, forgetting, dead letters. Each answers after all replicas of Kafka have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from streams.api.problem import Problem
from streams.api.requests import ReplayRequest, decoded, events_of, limit_of, mended_value, read_body, user_id_of
from streams.core.serving import RefusedEvent

if TYPE_CHECKING:
    from streams.api.ports import Backend

REASON_CHARS_MAX = 100


class Writing:
    """Events in, people out, dead letters back."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        """With their handlers."""
        return [
            web.post("/v1/events", self._send),
            web.delete("/v1/users/{user_id:[^/]+}", self._forget),
            web.get("/v1/dead-letters", self._dead_letters),
            web.post("/v1/dead-letters/replay", self._replay),
        ]

    async def _send(self, request: web.Request) -> web.Response:
        places = await self._backend.send_events(await events_of(request))
        if isinstance(places, RefusedEvent):
            raise Problem(400, places.message, details={"index": places.index, "reason": places.reason})
        return _accepted({"accepted": len(places), "events": places})

    async def _forget(self, request: web.Request) -> web.Response:
        return _accepted(await self._backend.forget(user_id_of(request)))

    async def _dead_letters(self, request: web.Request) -> web.Response:
        reason = request.query.get("reason")
        if reason is not None and not 1 <= len(reason) <= REASON_CHARS_MAX:
            raise Problem(400, f"Expected a reason of 1 to {REASON_CHARS_MAX} characters, came {len(reason)}.")
        letters = await self._backend.dead_letters(reason, limit_of(request))
        return web.Response(body=msgspec.json.encode(letters), content_type="application/json")

    async def _replay(self, request: web.Request) -> web.Response:
        asked = decoded(await read_body(request), ReplayRequest)
        report = await self._backend.replay(asked.places(), mended_value(asked))
        if not report.replayed:
            raise Problem(409, "None of these dead letters was sent back; the lists say why.", details=_fields(report))
        return _accepted(report)


def _fields(report: msgspec.Struct) -> dict[str, object]:
    return {name: getattr(report, name) for name in report.__struct_fields__}


def _accepted(answer: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), status=202, content_type="application/json")
