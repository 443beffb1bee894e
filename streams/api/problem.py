"""Errors as the API says them: a status and `{"error": "<what was expected, what came, what to do>"}`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from streams.core.errors import BrokerUnavailable, NearstreamError, PartitionLost, WorkerUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Handler

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1
SENTENCES = {
    404: "There is nothing at this path; GET /v1/openapi.json lists what there is.",
    413: "The body is too large: expected at most {bytes_max:,} bytes. Send fewer at a time.",
}


class Problem(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        sentence: str,
        *,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = headers or {}
        self.details = details or {}

    def response(self) -> web.Response:
        """As JSON."""
        return web.Response(
            body=msgspec.json.encode({"error": self.sentence, **self.details}),
            status=self.status,
            content_type="application/json",
            headers=self.headers,
        )


@web.middleware
async def problems_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error below the API's paths, and every one of the access rules, as JSON; the path is in no log."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except NearstreamError as error:
        return _of_verdict(error).response()
    except web.HTTPException as error:
        if error.status < 400 or error.content_type == "application/json":
            raise
        return _of_status(request, error).response()
    except Exception:
        logger.exception("answering a request failed")
        return Problem(500, "The server has a fault and did not do this; its log says more.").response()


def _of_verdict(error: NearstreamError) -> Problem:
    if isinstance(error, PartitionLost):
        return Problem(409, str(error))
    may_pass = isinstance(error, BrokerUnavailable | WorkerUnavailable)
    return Problem(503, str(error), headers={"Retry-After": str(RETRY_AFTER_S)} if may_pass else None)


def _of_status(request: web.Request, error: web.HTTPException) -> Problem:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return Problem(405, f"Expected {allowed} here, came {error.method}.", headers={"Allow": allowed})
    sentence = SENTENCES.get(error.status, f"{error.reason}.")
    return Problem(error.status, sentence.format(bytes_max=request.client_max_size))
