"""The page over HTTP: static files, JSON, and server-sent events once a second. Reads only; keeps no user data."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from streams.api.access import check_binding
from streams.api.requests import BODY_BYTES_MAX
from streams.api.routes import add_access, add_api
from streams.config import settings_in_force
from streams.core.errors import UsageError
from streams.core.events import ID_CHARS_MAX
from streams.dashboard.chronicle import Chronicle
from streams.dashboard.details_view import details_view
from streams.dashboard.history import History
from streams.dashboard.list_figures import SAMPLE_LISTS, list_figures
from streams.dashboard.person import person, reason_sentence
from streams.dashboard.view import overview
from streams.dashboard.what_if_routes import WhatIfRoutes

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.api.ports import Backend
    from streams.config import Settings
    from streams.core.observation import Observation, TailTopic
    from streams.dashboard.view import Observer

TAIL_TOPICS: dict[str, TailTopic] = {
    "events": "events",
    "recommendations": "recommendations",
    "dead-letters": "dead-letters",
}
PAGE_DIR = Path(__file__).parent / "page"
SUBSCRIBERS_MAX = 64
FRAME_S = 1.0
TICKS_PER_FRAME = 10
"""A watched user is looked at more often than the overview, so that a new list shows within a tenth of a second."""
WRITE_S_MAX = 10.0
SHUTDOWN_S = 1.0
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
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
    backend: Backend | None = None,
) -> None:
    """Serves the page, and the API if it has a backend, until `stop` is set; `ready` gets the address once it listens.

    Args:
        observer: started and stopped by the caller.
        settings: `dashboard_host` and `dashboard_port` (0 = any free one), `group`.
        ready: called once.
        stop: ends the server, open streams included, within a second or two.
        clock: epoch seconds.
        frame_s: pause between two frames of the overview.
        backend: of the API, opened and closed by the caller; None: the page alone.

    Raises:
        UsageError: the address cannot be listened on, or others could reach it and nobody is asked who they are.
    """
    check_binding(settings)
    page = LivePage(observer, settings, clock, stop)
    runner = web.AppRunner(page.app(backend), access_log=None, shutdown_timeout=SHUTDOWN_S)
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

    def __init__(self, observer: Observer, settings: Settings, clock: Callable[[], float], stop: asyncio.Event) -> None:
        self._observer = observer
        self._settings = settings
        self._weights = {kind.value: weight for kind, weight in settings.type_weights.items()}
        self._descriptions = {name: field.description or "" for name, field in type(settings).model_fields.items()}
        self._clock = clock
        self._stop = stop
        self._history = History()
        self._chronicle = Chronicle()
        self._ticks = 0
        self._ticked = asyncio.Event()
        self._frame = b"{}"
        self._frames = 0
        self._subscribers = 0

    def app(self, backend: Backend | None) -> web.Application:
        """The web application, with its rules of access and, where there is a backend, the API."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        add_access(app, self._settings, self._clock)
        if backend is not None:
            add_api(app, backend, partial(reason_sentence, title_of=self._observer.title))
            app.add_routes(WhatIfRoutes(backend, self._observer.title).routes())
        app.on_response_prepare.append(_add_security_headers)
        app.add_routes(
            [
                web.get("/", _index),
                web.get("/api/overview", self._get_overview),
                web.get("/api/users/{user_id:.+}", self._get_user),
                web.get("/api/stream", self._get_stream),
                web.get("/api/history", self._get_history),
                web.get("/api/tail", self._get_tail),
                web.get("/api/settings", self._get_settings),
                web.get("/api/workers", self._get_workers),
                web.static("/page", PAGE_DIR),
            ]
        )
        return app

    def tick(self) -> None:
        """Makes a new frame every TICKS_PER_FRAME ticks and wakes everybody who waits."""
        if self._ticks % TICKS_PER_FRAME == 0:
            self._add_frame(self._observer.snapshot(), self._now_ms())
        self._ticks += 1
        self._wake()

    def _add_frame(self, seen: Observation, now_ms: int) -> None:
        settings = self._settings
        frame = overview(seen, self._history, settings.group, now_ms, settings.freshness_target_ms)
        figures = None
        if self._chronicle.is_due(now_ms):
            catalogue_items = max((worker.items for worker in seen.workers), default=0)
            figures = list_figures(self._observer.lists(SAMPLE_LISTS), catalogue_items)
        self._chronicle.observe(frame, seen.workers, figures)
        self._frame = msgspec.json.encode(frame)
        self._frames += 1

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
        found = person(self._observer.user(user_id), self._observer.title, self._now_ms(), self._weights)
        return web.Response(
            body=msgspec.json.encode(found),
            content_type="application/json",
            status=404 if found.state in {"unknown", "gone"} else 200,
        )

    async def _get_history(self, request: web.Request) -> web.Response:
        since = _checked_number(request, "since")
        response = web.Response(body=msgspec.json.encode(self._chronicle.since(since)), content_type="application/json")
        response.enable_compression()
        return response

    async def _get_tail(self, request: web.Request) -> web.Response:
        topic = TAIL_TOPICS.get(request.query.get("topic", ""))
        if topic is None:
            words = ", ".join(TAIL_TOPICS)
            raise _problem(web.HTTPBadRequest, f"topic: expected one of {words}, got {request.query.get('topic')!r}.")
        records = self._observer.tail(topic, _checked_number(request, "after"))
        response = web.Response(body=msgspec.json.encode(records), content_type="application/json")
        response.enable_compression()
        return response

    async def _get_settings(self, _request: web.Request) -> web.Response:
        body = msgspec.json.encode([found._asdict() for found in settings_in_force(self._settings)], enc_hook=str)
        return web.Response(body=body, content_type="application/json")

    async def _get_workers(self, _request: web.Request) -> web.Response:
        seen = self._observer.snapshot()
        response = web.Response(
            body=msgspec.json.encode(details_view(seen, self._now_ms(), self._descriptions)),
            content_type="application/json",
        )
        response.enable_compression()
        return response

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
                    found = person(seen, self._observer.title, self._now_ms(), self._weights)
                    await _send(response, "user", msgspec.json.encode(found))
            await ticked.wait()


async def _send(response: web.StreamResponse, event: str, data: bytes) -> None:
    """Writes one event; a reader that takes nothing for WRITE_S_MAX loses its stream."""
    await asyncio.wait_for(response.write(b"event: %s\ndata: %s\n\n" % (event.encode(), data)), WRITE_S_MAX)


async def _index(_request: web.Request) -> web.FileResponse:
    return web.FileResponse(PAGE_DIR / "index.html")


async def _add_security_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SECURITY_HEADERS)


def _checked_user_id(user_id: str) -> str:
    if not 1 <= len(user_id) <= ID_CHARS_MAX:
        raise _problem(
            web.HTTPBadRequest, f"A user id has 1 to {ID_CHARS_MAX} characters, this one has {len(user_id)}."
        )
    return user_id


def _checked_number(request: web.Request, name: str) -> int:
    given = request.query.get(name, "0")
    if not (given.isascii() and given.isdigit()) or len(given) > 18:
        raise _problem(web.HTTPBadRequest, f"{name}: expected a whole number of at most 18 digits, got {given[:40]!r}.")
    return int(given)


def _problem(status: type[web.HTTPException], message: str) -> web.HTTPException:
    return status(text=msgspec.json.encode({"error": message}).decode(), content_type="application/json")


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
