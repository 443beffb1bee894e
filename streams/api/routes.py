"""The API as part of a web application: one call adds its rules, its routes and its measures."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from streams.api.access import Access, access_rules
from streams.api.measured import measured
from streams.api.openapi import openapi_document
from streams.api.people import People
from streams.api.problem import problems_as_json
from streams.api.sign_in import SignIn
from streams.api.stream import Streams
from streams.api.what_if import Supposing
from streams.api.writing import Writing
from streams.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.api.ports import Backend, ReasonWords
    from streams.config import Settings


def add_access(app: web.Application, settings: Settings, clock: Callable[[], float]) -> None:
    """Adds the rules of `streams.api.access` to all paths of an application, with /sign-in, /healthz and /metrics.

    Args:
        app: not started yet; errors of all its paths become JSON.
        settings: tokens, proxies and rates.
        clock: epoch seconds.
    """
    access = Access(settings, clock)
    metrics = Metrics("page")

    async def exposition(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"})

    app.middlewares.extend([measured(metrics, time.perf_counter), problems_as_json, access_rules(access)])
    app.add_routes([*SignIn(access, clock).routes(), web.get("/healthz", _health), web.get("/metrics", exposition)])


def add_api(app: web.Application, backend: Backend, words: ReasonWords) -> None:
    """Adds the routes below /v1. The application wants `add_access` too, and a `client_max_size` of BODY_BYTES_MAX.

    Args:
        app: not started yet.
        backend: opened and closed by the caller.
        words: a reason of a list as a sentence.
    """
    streams = Streams(backend)
    document = msgspec.json.encode(openapi_document())

    async def openapi(_request: web.Request) -> web.Response:
        return web.Response(body=document, content_type="application/json")

    app.add_routes([*People(backend, words).routes(), *streams.routes(), *Writing(backend).routes()])
    app.add_routes(Supposing(backend).routes())
    app.add_routes([web.get("/v1/openapi.json", openapi)])
    app.on_shutdown.append(streams.close)


async def _health(_request: web.Request) -> web.Response:
    """That the process answers; whether Kafka does is for the page to say, since a restart would not help it."""
    return web.json_response({"status": "ok"})
