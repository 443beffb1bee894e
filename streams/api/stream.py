"""GET /v1/users/{user_id}/stream: a user's lists as they come, by server-sent events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from streams.api.problem import Problem
from streams.api.requests import user_id_of

if TYPE_CHECKING:
    from streams.api.ports import Backend

READERS_MAX = 256
KEEP_ALIVE_S = 15.0
WRITE_S_MAX = 10.0
"""A reader that takes nothing for so long loses its stream."""
HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
OPEN = b": the newest list, then each new one\n\n"
"""Sent first: a client waits for bytes, and there may be no list for long."""
KEEP_ALIVE = b": keep-alive\n\n"
"""Also how it shows that a reader is gone."""
GONE = b"event: gone\ndata: {}\n\n"


class Streams:
    """Readers of live lists, at most READERS_MAX. A slow one misses lists, it queues none."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._closing = False
        self._wakes: set[asyncio.Event] = set()

    def routes(self) -> list[web.RouteDef]:
        """With their handlers."""
        return [web.get("/v1/users/{user_id:[^/]+}/stream", self._stream, allow_head=False)]

    async def close(self, _app: web.Application) -> None:
        """Ends all streams."""
        self._closing = True
        for wake in self._wakes:
            wake.set()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        user_id = user_id_of(request)
        if len(self._wakes) >= READERS_MAX:
            raise Problem(
                503, f"All {READERS_MAX} places for live readers are taken. Close one.", headers={"Retry-After": "5"}
            )
        newest = await self._backend.newest_list(user_id)  # what cannot be answered is an error, not a stream
        wake = asyncio.Event()
        self._wakes.add(wake)
        unwatch = self._backend.watch_list(user_id, wake.set)
        response = web.StreamResponse(headers=HEADERS)
        try:
            await response.prepare(request)
            await self._feed(response, user_id, newest, wake)
        except (ConnectionResetError, TimeoutError):
            if request.transport is not None:  # the reader is gone, or takes nothing: there is nobody to tell
                request.transport.abort()
        finally:
            unwatch()
            self._wakes.discard(wake)
        return response

    async def _feed(
        self, response: web.StreamResponse, user_id: str, newest: bytes | None, wake: asyncio.Event
    ) -> None:
        """Sends the newest list at once, then each that is newer when the reader is ready for it."""
        await _write(response, OPEN)
        sent: bytes | None = None
        while not self._closing:
            if newest is not sent:
                sent = newest
                await _write(response, GONE if newest is None else b"event: list\ndata: %s\n\n" % newest)
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await wake.wait()
            except TimeoutError:
                await _write(response, KEEP_ALIVE)
                continue
            wake.clear()
            newest = await self._backend.newest_list(user_id)


async def _write(response: web.StreamResponse, data: bytes) -> None:
    await asyncio.wait_for(response.write(data), WRITE_S_MAX)
