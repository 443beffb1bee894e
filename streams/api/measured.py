"""Counts requests by route and status and measures them; no log line, no user's id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler, Middleware

    from streams.metrics import Metrics

OTHER_ROUTE = "other"
"""Paths that lead nowhere are anybody's words: they must not become labels."""
STREAM_ROUTES = ("/stream",)


def measured(metrics: Metrics, timer: Callable[[], float]) -> Middleware:
    """The middleware that measures all that is inside it; `timer` gives seconds that never go back."""

    @web.middleware
    async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = timer()
        status = 500
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            raise
        else:
            return response
        finally:
            route = _route(request)
            metrics.counter("nearstream_http_requests_total", route=route, status=str(status)).inc()
            if not route.endswith(STREAM_ROUTES):
                metrics.histogram("nearstream_http_seconds", route=route).observe(timer() - began)

    return measure


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return OTHER_ROUTE if resource is None else resource.canonical
