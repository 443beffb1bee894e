"""A question of what a user's list would be, and its answer: plain values between worker, API, page and clients."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from streams.core.events import EventType, Id, Timestamp
from streams.core.recommendations import Neighbour, RecommendedItem, ShortWord

SUPPOSED_EVENTS_MAX = 8
LEFT_OUT_ITEMS_MAX = 32


class SupposedEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """An event that did not happen, in the words of the topic `events`."""

    item_id: Id
    type: EventType
    value: Annotated[float, Meta(description="Rating, price, quantity or dwell seconds; finite.")] | None = None
    timestamp: Annotated[Timestamp, Meta(description="Epoch milliseconds, UTC; now when left out.")] | None = None


class WhatIfQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What would the list be if the user had never touched the items of `without`, and these events came?"""

    without: Annotated[list[Id], Meta(max_length=LEFT_OUT_ITEMS_MAX)] = []
    events: Annotated[list[SupposedEvent], Meta(max_length=SUPPOSED_EVENTS_MAX)] = []


class UserQuestion(WhatIfQuestion, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The question with the user it is about, as a worker takes it."""

    user_id: Id


class SupposedList(msgspec.Struct, frozen=True, omit_defaults=True):
    """A list that was not published; its parts are those of a `Recommendation`."""

    neighbours: list[Neighbour]
    items: list[RecommendedItem]
    short_because: ShortWord | None = None


class Move(msgspec.Struct, frozen=True):
    """An item that is on both lists, at another rank; ranks count from 1."""

    item_id: str
    from_rank: int
    to_rank: int


class WhatIf(msgspec.Struct, frozen=True):
    """The list as it would be beside the list as it is, both made just now and in the same way.

    Where something is left out, both profiles are encoded anew from the remembered events: what a profile has from
    older events cannot be taken apart. `left_out` counts the remembered events that are left out, `added` those that
    are supposed. `profile_cosine` is that of the two profile vectors; None where one of them has no direction.
    """

    user_id: str
    answered_at: int
    model: str
    profile_events: int
    left_out: int
    added: int
    profile_cosine: float | None
    now: SupposedList
    then: SupposedList
    entered: list[str]
    left: list[str]
    moved: list[Move]


RefusalReason = Literal["unknown-user", "unknown-item", "not-remembered", "future-timestamp"]


class WhatIfRefusal(msgspec.Struct, frozen=True):
    """Why a question has no answer: what was expected, what came, what to do."""

    reason: RefusalReason
    message: str
