"""What the page's Person tab asks about lists that nobody gets: GET and POST /api/what-if."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from streams.api.problem import Problem
from streams.api.requests import checked_id, decoded, read_body
from streams.api.what_if import asked
from streams.core.what_if import UserQuestion, WhatIf
from streams.dashboard.what_if_view import remembered, what_if_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.api.ports import Backend

PATH = "/api/what-if"


class WhatIfRoutes:
    """What can be left out of a user's history, and what the list would be."""

    def __init__(self, backend: Backend, title_of: Callable[[str], str | None]) -> None:
        self._backend = backend
        self._title_of = title_of

    def routes(self) -> list[web.RouteDef]:
        """With their handlers."""
        return [web.get(PATH, self._remembered), web.post(PATH, self._what_if)]

    async def _remembered(self, request: web.Request) -> web.Response:
        profile = await self._backend.profile(checked_id(request.query.get("user", ""), "user id"))
        if profile is None:
            raise Problem(404, "There is no profile of this user: no event of theirs has counted yet.")
        return _json(remembered(profile, self._title_of))

    async def _what_if(self, request: web.Request) -> web.Response:
        question = decoded(await read_body(request), UserQuestion)
        answer = await asked(self._backend, question.user_id, question)
        try:
            found = msgspec.json.decode(answer, type=WhatIf)
        except msgspec.MsgspecError:
            raise Problem(503, "The worker that answered is of another version than this page. Update both.") from None
        return _json(what_if_view(found, self._title_of))


def _json(found: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(found), content_type="application/json")
