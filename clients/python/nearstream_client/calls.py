"""Each call of the API as a value: what to send and how to read the answer. No sockets, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar
from urllib.parse import quote

from nearstream_client.errors import (
    BadRequest,
    Conflict,
    NearstreamError,
    NotAllowed,
    NotFound,
    NotReady,
    Refused,
    ServerFault,
    TooManyRequests,
    UnreadableAnswer,
)
from nearstream_client.messages import (
    Accepted,
    Explanation,
    ForgetReceipt,
    Json,
    Neighbour,
    Profile,
    RecommendationList,
    UserParts,
    WhatIf,
    read_accepted,
    read_explanation,
    read_list,
    read_many,
    read_neighbours,
    read_profile,
    read_receipt,
    read_what_if,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import httpx

T = TypeVar("T")
Part = Literal["list", "profile", "neighbours"]
USERS_MAX = 100
EVENTS_MAX = 100
LEFT_OUT_ITEMS_MAX = 32
SUPPOSED_EVENTS_MAX = 8
REFUSALS: dict[int, type[Refused]] = {429: TooManyRequests, 503: NotReady}
FINAL_ERRORS: dict[int, type[NearstreamError]] = {401: NotAllowed, 403: NotAllowed, 404: NotFound, 409: Conflict}


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request. Each may be sent again after a refusal: it is a read, or has the same effect once as twice."""

    method: str
    path: str
    read: Callable[[Json], T]
    params: Mapping[str, str] | None = None
    body: object = None


def list_call(user_id: str) -> Call[RecommendationList]:
    """The newest list of a user."""
    return Call("GET", f"{_user(user_id)}/list", read_list)


def profile_call(user_id: str) -> Call[Profile]:
    """The profile of a user."""
    return Call("GET", f"{_user(user_id)}/profile", read_profile)


def neighbours_call(user_id: str) -> Call[tuple[Neighbour, ...]]:
    """The neighbours in a user's newest list."""
    return Call("GET", f"{_user(user_id)}/neighbours", read_neighbours)


def explain_call(user_id: str, item_id: str) -> Call[Explanation]:
    """Why an item is in a user's newest list."""
    return Call("GET", f"{_user(user_id)}/explain", read_explanation, params={"item_id": item_id})


def many_call(user_ids: Sequence[str], parts: Sequence[Part]) -> Call[dict[str, UserParts | None]]:
    """Parts of up to USERS_MAX users; ValueError for none or more."""
    if not 0 < len(user_ids) <= USERS_MAX:
        raise ValueError(f"Expected 1 to {USERS_MAX} users in one call, got {len(user_ids)}; split them.")
    return Call("POST", "/v1/users", read_many, body={"user_ids": list(user_ids), "parts": list(parts)})


def events_call(events: Iterable[Mapping[str, Any]], new_event_id: Callable[[], str]) -> Call[Accepted]:
    """Up to EVENTS_MAX events; ValueError for none or more. An event without `event_id` gets one: sent twice, it
    counts once."""
    body = [{"event_id": new_event_id(), **event} for event in events]
    if not 0 < len(body) <= EVENTS_MAX:
        raise ValueError(f"Expected 1 to {EVENTS_MAX} events in one call, got {len(body)}; split them.")
    return Call("POST", "/v1/events", read_accepted, body=body)


def what_if_call(user_id: str, without: Sequence[str], events: Iterable[Mapping[str, Any]]) -> Call[WhatIf]:
    """What a user's list would be; ValueError for more than LEFT_OUT_ITEMS_MAX items or SUPPOSED_EVENTS_MAX events."""
    body: dict[str, list[Any]] = {"without": list(without), "events": [dict(event) for event in events]}
    for part, most in (("without", LEFT_OUT_ITEMS_MAX), ("events", SUPPOSED_EVENTS_MAX)):
        if len(body[part]) > most:
            raise ValueError(f"Expected at most {most} in `{part}`, got {len(body[part])}; ask for fewer.")
    return Call("POST", f"{_user(user_id)}/what-if", read_what_if, body=body)


def forget_call(user_id: str) -> Call[ForgetReceipt]:
    """Forget a user."""
    return Call("DELETE", _user(user_id), read_receipt)


def stream_path(user_id: str) -> str:
    """Where a user's lists are pushed."""
    return f"{_user(user_id)}/stream"


def read_answer(call: Call[T], response: httpx.Response) -> T:
    """What the call promises; the error that the status stands for; UnreadableAnswer for anything else."""
    if not response.is_success:
        raise error_of(response)
    try:
        return call.read(response.json())
    except (KeyError, TypeError, ValueError) as error:
        message = (
            f"Expected what {call.method} {call.path} promises, got something else ({error!r}); is the client older?"
        )
        raise UnreadableAnswer(message, response.status_code) from error


def error_of(response: httpx.Response) -> NearstreamError:
    """The error that an answer stands for, with the server's sentence; its body must have been read."""
    status, problem = response.status_code, _problem(response)
    sentence = str(problem.get("error") or f"The server answered {status} {response.reason_phrase} without a reason.")
    if status in {400, 413}:
        return BadRequest(sentence, status, problem.get("index"), problem.get("reason"))
    if status in REFUSALS:
        return REFUSALS[status](sentence, status, retry_after_s(response))
    return FINAL_ERRORS.get(status, ServerFault)(sentence, status)


def retry_after_s(response: httpx.Response) -> float | None:
    """The seconds of Retry-After; None without it, and for its form with a date."""
    said = response.headers.get("Retry-After", "").strip()
    return float(said) if said.isascii() and said.isdigit() else None


def _problem(response: httpx.Response) -> Json:
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _user(user_id: str) -> str:
    if user_id in {"", ".", ".."}:
        raise ValueError(f"Expected a user id that a URL can carry, got {user_id!r}; ask for it with `many`.")
    return f"/v1/users/{quote(user_id, safe='')}"
