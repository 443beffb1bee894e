"""What comes in by path, query and body, checked; every refusal is a `Problem` that says what was expected."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from streams.api.problem import Problem
from streams.core.events import EVENT_BYTES_MAX, ID_CHARS_MAX, Id
from streams.core.serving import Place

T = TypeVar("T")

USERS_MAX = 100
EVENTS_MAX = 100
LETTERS_MAX = 500
LETTERS_SHOWN = 50
BODY_BYTES_MAX = EVENTS_MAX * EVENT_BYTES_MAX
PARTITION_MAX = 2**31 - 1
OFFSET_MAX = 2**63 - 1

Part = Literal["list", "profile", "neighbours"]
Partition = Annotated[int, Meta(ge=0, le=PARTITION_MAX)]
Offset = Annotated[int, Meta(ge=0, le=OFFSET_MAX)]


def _list_only() -> list[Part]:
    return ["list"]


class UsersRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/users."""

    user_ids: Annotated[list[Id], Meta(min_length=1, max_length=USERS_MAX)]
    parts: Annotated[list[Part], Meta(min_length=1, max_length=3)] = msgspec.field(default_factory=_list_only)


class LetterId(msgspec.Struct, forbid_unknown_fields=True):
    """Where a dead letter lies."""

    partition: Partition
    offset: Offset


class ReplayRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/dead-letters/replay. `value` is the mended event, for one letter."""

    ids: Annotated[list[LetterId], Meta(min_length=1, max_length=LETTERS_MAX)]
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    def places(self) -> list[Place]:
        """The letters, each once."""
        return list(dict.fromkeys(Place(letter.partition, letter.offset) for letter in self.ids))


class _Mended(msgspec.Struct):
    user_id: Id


def user_id_of(request: web.Request) -> str:
    """The user in the path. Raises Problem 400 when it is no id."""
    return checked_id(request.match_info["user_id"], "user id")


def item_id_of(request: web.Request) -> str:
    """The item in the query. Raises Problem 400 when there is none or it is no id."""
    if "item_id" not in request.query:
        raise Problem(400, "Expected `?item_id=…` with an item of the newest list, came none. Name one.")
    return checked_id(request.query["item_id"], "item id")


def checked_id(given: str, what: str) -> str:
    """The id as it came. Raises Problem 400 unless it can be one."""
    if not 1 <= len(given) <= ID_CHARS_MAX:
        raise Problem(400, f"Expected a {what} of 1 to {ID_CHARS_MAX} characters, came one of {len(given)}.")
    return given


def limit_of(request: web.Request) -> int:
    """How many letters to show. Raises Problem 400 for what is no number in range."""
    text = request.query.get("limit", str(LETTERS_SHOWN))
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= LETTERS_MAX):
        raise Problem(400, f"Expected `limit` as a number from 1 to {LETTERS_MAX}, came {text[:40]!r}.")
    return int(text)


async def events_of(request: web.Request) -> list[bytes]:
    """The events of the body, as sent. Raises Problem 400 or 413."""
    body = (await read_body(request)).strip()
    if not body.startswith(b"["):
        return [body]
    events = decoded(body, list[msgspec.Raw])
    if not 1 <= len(events) <= EVENTS_MAX:
        raise Problem(400, f"Expected 1 to {EVENTS_MAX} events in an array, came {len(events)}. Send several requests.")
    return [bytes(event) for event in events]


async def read_body(request: web.Request) -> bytes:
    """The body. Raises Problem 413 for a long one, most of it unread, and 400 for an empty one."""
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise web.HTTPRequestEntityTooLarge(BODY_BYTES_MAX, request.content_length or 0)
    body = await request.read()
    if not body:
        raise Problem(400, "Expected a JSON body, came an empty one.")
    return body


def decoded(body: bytes, kind: type[T]) -> T:
    """The body as JSON of this shape. Raises Problem 400 with the place of the first fault."""
    try:
        body.decode()
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(
            400, f"Expected a JSON body as in GET /v1/openapi.json, came another: {error}. Correct it."
        ) from None


def mended_value(asked: ReplayRequest) -> tuple[bytes, bytes] | None:
    """Key and value to send instead of the letter's own; None where it goes as it is. Raises Problem 400."""
    if asked.value is msgspec.UNSET or bytes(asked.value) == b"null":
        return None
    if len(asked.ids) != 1:
        raise Problem(400, f"Expected one id beside `value`, came {len(asked.ids)}. Mend letters one by one.")
    value = bytes(asked.value)
    return decoded(value, _Mended).user_id.encode(), value
