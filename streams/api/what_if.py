"""What a user's list would be: POST /v1/users/{user_id}/what-if here, and POST /what-if on a worker's own port.

The worker's answer shows a person's data, so its port asks for the same tokens as the API does. Without tokens it
answers this machine only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from streams.api.access import Access, is_loopback
from streams.api.problem import Problem, problems_as_json
from streams.api.requests import decoded, read_body, user_id_of
from streams.core.what_if import UserQuestion, WhatIf, WhatIfQuestion, WhatIfRefusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from streams.api.ports import Backend
    from streams.config import Settings

    Answer = Callable[[str, WhatIfQuestion], Awaitable[WhatIf | WhatIfRefusal]]

_encode = msgspec.json.Encoder().encode


class Supposing:
    """The route of the API."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        """With their handlers."""
        return [web.post("/v1/users/{user_id:[^/]+}/what-if", self._what_if)]

    async def _what_if(self, request: web.Request) -> web.Response:
        user_id = user_id_of(request)
        question = decoded(await read_body(request), WhatIfQuestion)
        answer = await asked(self._backend, user_id, question)
        return web.Response(body=answer, content_type="application/json")


class WorkerPage:
    """The route of a worker.

    Args:
        settings: tokens, and the address that the worker listens on.
        answer: raises WorkerUnavailable while the worker cannot answer.
        clock: epoch seconds.
    """

    def __init__(self, settings: Settings, answer: Answer, clock: Callable[[], float]) -> None:
        self._access = Access(settings, clock)
        self._host = settings.web_host
        self._answer = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers a request, with problems as the API tells them."""
        return await problems_as_json(request, self._handle)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self._access.is_open and not is_loopback(self._host):
            raise Problem(
                403,
                f"This worker listens on {self._host} and asks nobody who they are: expected a token before it shows a "
                "person's list. Set NEARSTREAM_READ_TOKEN, to the same for workers and page, or let it listen on "
                "127.0.0.1.",
            )
        self._access.check(request)
        question = decoded(await read_body(request), UserQuestion)
        found = await self._answer(question.user_id, question)
        if isinstance(found, WhatIfRefusal):
            raise refused(found)
        return web.Response(body=_encode(found), content_type="application/json")


async def asked(backend: Backend, user_id: str, question: WhatIfQuestion) -> bytes:
    """The answer of a worker, as JSON. Raises Problem 400 or 404 for what it refuses."""
    answer = await backend.what_if(user_id, question)
    if isinstance(answer, WhatIfRefusal):
        raise refused(answer)
    return answer


def refused(refusal: WhatIfRefusal) -> Problem:
    """As the API says it."""
    status = 404 if refusal.reason == "unknown-user" else 400
    return Problem(status, refusal.message, details={"reason": refusal.reason})
