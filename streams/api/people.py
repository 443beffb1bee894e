"""GET /v1/users/…: what is known of one user or of several, from the newest list and profile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from streams.api.problem import Problem
from streams.api.requests import UsersRequest, decoded, item_id_of, read_body, user_id_of
from streams.core.errors import BrokerUnavailable
from streams.core.recommendations import Reason

if TYPE_CHECKING:
    from streams.api.ports import Backend, ReasonWords

ANSWER_S_MAX = 10.0
"""For many users that memory has no room for; each look-up has a bound of its own."""
NULL = msgspec.Raw(b"null")


class _Neighbours(msgspec.Struct):
    """What a list says of them, unread."""

    generated_at: int
    neighbours: msgspec.Raw


class _Item(msgspec.Struct):
    item_id: str
    score: float
    reasons: list[dict[str, Any]]


class _Items(msgspec.Struct):
    """As much of a list as explaining takes; reasons may be of a later version's kinds."""

    rec_id: str
    generated_at: int
    items: list[_Item]


class ExplainedReason(msgspec.Struct):
    """A reason of the list. `sentence` is None for a kind that this version does not know."""

    kind: str
    share: float
    sentence: str | None
    message: dict[str, Any]


class Explanation(msgspec.Struct):
    """Why an item is on the newest list; `rank` counts from 1."""

    user_id: str
    rec_id: str
    generated_at: int
    item_id: str
    rank: int
    score: float
    reasons: list[ExplainedReason]


_neighbours = msgspec.json.Decoder(_Neighbours).decode
_items = msgspec.json.Decoder(_Items).decode
_encode = msgspec.json.Encoder().encode


class People:
    """The routes below /v1/users that read."""

    def __init__(self, backend: Backend, words: ReasonWords) -> None:
        self._backend = backend
        self._words = words

    def routes(self) -> list[web.RouteDef]:
        """With their handlers."""
        one = "/v1/users/{user_id:[^/]+}"
        return [
            web.get(f"{one}/list", self._list),
            web.get(f"{one}/profile", self._profile),
            web.get(f"{one}/neighbours", self._neighbours),
            web.get(f"{one}/explain", self._explain),
            web.post("/v1/users", self._several),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        return _json(await self._known_list(user_id_of(request)))

    async def _profile(self, request: web.Request) -> web.Response:
        user_id = user_id_of(request)
        profile = await self._backend.profile(user_id)
        if profile is None:
            raise _unknown("profile")
        return _json(_encode(profile))

    async def _neighbours(self, request: web.Request) -> web.Response:
        user_id = user_id_of(request)
        return _json(_encode(_neighbours_part(user_id, await self._known_list(user_id))))

    async def _explain(self, request: web.Request) -> web.Response:
        user_id, item_id = user_id_of(request), item_id_of(request)
        found = _items(await self._known_list(user_id))
        for rank, item in enumerate(found.items, 1):
            if item.item_id == item_id:
                reasons = [self._explained(reason) for reason in item.reasons]
                explanation = Explanation(user_id, found.rec_id, found.generated_at, item_id, rank, item.score, reasons)
                return _json(_encode(explanation))
        raise Problem(404, "This item is not on the user's newest list. Take one of GET /v1/users/{user_id}/list.")

    async def _several(self, request: web.Request) -> web.Response:
        asked = decoded(await read_body(request), UsersRequest)
        users = list(dict.fromkeys(asked.user_ids))
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                answers = await asyncio.gather(*(self._parts(user_id, asked) for user_id in users))
        except TimeoutError as error:
            raise BrokerUnavailable(
                f"Looking up so many users took longer than {ANSWER_S_MAX:g} s. Ask for fewer at a time."
            ) from error
        return _json(_encode({"users": dict(zip(users, answers, strict=True))}))

    async def _parts(self, user_id: str, asked: UsersRequest) -> dict[str, Any] | None:
        """The parts of one user, each None where there is none; None where all are."""
        parts: dict[str, Any] = {}
        if {"list", "neighbours"} & set(asked.parts):
            value = await self._backend.newest_list(user_id)
            if "list" in asked.parts:
                parts["list"] = None if value is None else msgspec.Raw(value)
            if "neighbours" in asked.parts:
                parts["neighbours"] = None if value is None else _neighbours(value).neighbours
        if "profile" in asked.parts:
            parts["profile"] = await self._backend.profile(user_id)
        return parts if any(part is not None for part in parts.values()) else None

    async def _known_list(self, user_id: str) -> bytes:
        value = await self._backend.newest_list(user_id)
        if value is None:
            raise _unknown("list")
        return value

    def _explained(self, message: dict[str, Any]) -> ExplainedReason:
        try:
            sentence = self._words(msgspec.convert(message, Reason))
        except msgspec.ValidationError:
            sentence = None
        return ExplainedReason(str(message.get("kind", "")), message.get("share", 0.0), sentence, message)


def _neighbours_part(user_id: str, value: bytes) -> dict[str, object]:
    found = _neighbours(value)
    return {"user_id": user_id, "generated_at": found.generated_at, "neighbours": found.neighbours}


def _unknown(what: str) -> Problem:
    """The id is left out: an answer is easily logged."""
    return Problem(404, f"There is no {what} of this user: no event of theirs has counted yet, or they were forgotten.")


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
