"""The page over HTTP: static files, JSON, and server-sent events once a second. Reads only; keeps no user data."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from streams.core.errors import UsageError
from streams.core.events import ID_CHARS_MAX
from streams.dashboard.history import History
from streams.dashboard.person import person
from streams.dashboard.view import overview

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler

    from streams.config import Settings
    from streams.dashboard.view import Observer

PAGE_DIR = Path(__file__).parent / "page"
SUBSCRIBERS_MAX = 64
FRAME_S = 1.0
TICKS_PER_FRAME = 4
"""A watched user is looked at more often than the overview, so that a new list shows within a quarter second."""
WRITE_S_MAX = 10.0
SHUTDOWN_S = 1.0
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STREAM_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}


async def serve_dashboard(
    observer: Observer,
    settings: Settings,
    *,
    ready: Callable[[str], None],
    stop: asyncio.Event,
    clock: Callable[[], float] = time.time,
    frame_s: float = FRAME_S,
) -> None:
    """Serves the page until `stop` is set; `ready` gets its address once it listens.

    Args:
        observer: started and stopped by the caller.
        settings: `dashboard_host` and `dashboard_port` (0 = any free one), `group`.
        ready: called once.
        stop: ends the server, open streams included, within a second or two.
        clock: epoch seconds.
        frame_s: pause between two frames of the overview.

    Raises:
        UsageError: the address cannot be listened on.
    """
    page = LivePage(observer, settings.group, clock, stop)
    runner = web.AppRunner(page.app(settings.dashboard_host), access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await _listen(runner, settings)
        page.tick()
        ready(_address(runner, settings.dashboard_host))
        await page.tick_until_stopped(frame_s / TICKS_PER_FRAME)
    finally:
        await runner.cleanup()


class LivePage:
    """The newest frame, and everybody who waits for the next one. A slow reader misses frames, it queues none."""

    def __init__(self, observer: Observer, group: str, clock: Callable[[], float], stop: asyncio.Event) -> None:
        self._observer = observer
        self._group = group
        self._clock = clock
        self._stop = stop
        self._history = History()
        self._ticks = 0
        self._ticked = asyncio.Event()
        self._frame = b"{}"
        self._frames = 0
        self._subscribers = 0

    def app(self, host: str) -> web.Application:
        """The web application. Bound to this machine only, it refuses requests that name another host."""
        app = web.Application(middlewares=[_guard(only_local=_is_loopback(host))], client_max_size=4096)
        app.on_response_prepare.append(_add_security_headers)
        app.add_routes(
            [
                web.get("/", _index),
                web.get("/api/overview", self._get_overview),
                web.get("/api/users/{user_id:.+}", self._get_user),
                web.get("/api/stream", self._get_stream),
                web.static("/page", PAGE_DIR),
            ]
        )
        return app

    def tick(self) -> None:
        """Makes a new frame every TICKS_PER_FRAME ticks and wakes everybody who waits."""
        if self._ticks % TICKS_PER_FRAME == 0:
            frame = overview(self._observer.snapshot(), self._history, self._group, self._now_ms())
            self._frame = msgspec.json.encode(frame)
            self._frames += 1
        self._ticks += 1
        self._wake()

    async def tick_until_stopped(self, pause_s: float) -> None:
        """Ticks until the stop event is set, then wakes the open streams so that they end."""
        stopped = asyncio.create_task(self._stop.wait())
        try:
            while not (await asyncio.wait([stopped], timeout=pause_s))[0]:
                self.tick()
        finally:
            stopped.cancel()
            self._wake()

    def _wake(self) -> None:
        self._ticked.set()
        self._ticked = asyncio.Event()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    async def _get_overview(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._frame, content_type="application/json")

    async def _get_user(self, request: web.Request) -> web.Response:
        user_id = _checked_user_id(request.match_info["user_id"])
        found = person(self._observer.user(user_id), self._observer.title, self._now_ms())
        return web.Response(
            body=msgspec.json.encode(found),
            content_type="application/json",
            status=404 if found.state in {"unknown", "gone"} else 200,
        )

    async def _get_stream(self, request: web.Request) -> web.StreamResponse:
        user_id = request.query.get("user")
        if user_id is not None:
            _checked_user_id(user_id)
        if self._subscribers >= SUBSCRIBERS_MAX:
            raise _problem(
                web.HTTPServiceUnavailable, f"All {SUBSCRIBERS_MAX} places for live readers are taken; close a tab."
            )
        response = web.StreamResponse(headers=STREAM_HEADERS)
        self._subscribers += 1
        try:
            await response.prepare(request)
            await self._feed(response, user_id)
        except (ConnectionResetError, TimeoutError):
            if request.transport is not None:  # the reader is gone, or takes nothing: there is nobody to tell
                request.transport.abort()
        finally:
            self._subscribers -= 1
        return response

    async def _feed(self, response: web.StreamResponse, user_id: str | None) -> None:
        frames, revision = -1, None
        while not self._stop.is_set():
            ticked = self._ticked
            if frames != self._frames:
                frames = self._frames
                await _send(response, "overview", self._frame)
            if user_id is not None:
                seen = self._observer.user(user_id)
                if seen.revision != revision:
                    revision = seen.revision
                    found = person(seen, self._observer.title, self._now_ms())
                    await _send(response, "user", msgspec.json.encode(found))
            await ticked.wait()


async def _send(response: web.StreamResponse, event: str, data: bytes) -> None:
    """Writes one event; a reader that takes nothing for WRITE_S_MAX loses its stream."""
    await asyncio.wait_for(response.write(b"event: %s\ndata: %s\n\n" % (event.encode(), data)), WRITE_S_MAX)


async def _index(_request: web.Request) -> web.FileResponse:
    return web.FileResponse(PAGE_DIR / "index.html")


async def _add_security_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SECURITY_HEADERS)


def _guard(*, only_local: bool) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if only_local and not _is_loopback(_host_name(request.host)):
            # A foreign name that resolves to this machine is how a web page elsewhere would read ours.
            raise _problem(web.HTTPForbidden, f"This page answers only as localhost, not as {request.host!r}.")
        return await handler(request)

    return guard


def _checked_user_id(user_id: str) -> str:
    if not 1 <= len(user_id) <= ID_CHARS_MAX:
        raise _problem(
            web.HTTPBadRequest, f"A user id has 1 to {ID_CHARS_MAX} characters, this one has {len(user_id)}."
        )
    return user_id


def _problem(status: type[web.HTTPException], message: str) -> web.HTTPException:
    return status(text=msgspec.json.encode({"error": message}).decode(), content_type="application/json")


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _listen(runner: web.AppRunner, settings: Settings) -> None:
    try:
        await web.TCPSite(runner, settings.dashboard_host, settings.dashboard_port).start()
    except OSError as error:
        raise UsageError(
            f"The page cannot listen on {settings.dashboard_host}:{settings.dashboard_port} ({error.strerror}). "
            "Choose another --port (0 = any free one) or --host."
        ) from error


def _address(runner: web.AppRunner, host: str) -> str:
    port = runner.addresses[0][1]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
