"""What the API answers, as frozen dataclasses. Times are epoch ms; similarities, scores and shares have no unit.

Fields that a newer server adds are passed over, and a new kind of reason has its `kind` and `share`. A reader of this
module raises KeyError, TypeError or ValueError for what does not fit; `calls.py` makes sentences of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
"""A decoded JSON object, before it is looked at."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an item is in a list. `share` is its part of the score, 0 to 1.

    Which of `users`, `item_id`, `category` and `group` are there depends on `kind`. `sentence` is in words, only in
    an explanation, and not for a kind that the server does not know.
    """

    kind: str
    share: float
    users: tuple[str, ...] = ()
    item_id: str | None = None
    category: str | None = None
    group: str | None = None
    sentence: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A recommended item with at least one reason."""

    item_id: str
    score: float
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A user nearby; `similarity` is the cosine."""

    user_id: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Source:
    """The last event that a list reflects."""

    topic: str
    partition: int
    offset: int
    event_time: int


@dataclass(frozen=True, slots=True)
class ProfileSummary:
    """The profile behind a list; `events` counts the accepted events of the user since the first."""

    events: int
    version: int
    model: str


@dataclass(frozen=True, slots=True)
class IndexSummary:
    """The index behind a list; `users` is how many can be found."""

    epoch: int
    users: int


@dataclass(frozen=True, slots=True)
class RecommendationList:
    """A user's newest list, as published. Items and neighbours are best first.

    `short_because` says why there are fewer items than asked for, None where there are as many.
    """

    rec_id: str
    user_id: str
    generated_at: int
    cause: str
    source: Source
    profile: ProfileSummary
    index: IndexSummary
    neighbours: tuple[Neighbour, ...]
    items: tuple[Item, ...]
    short_because: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an item is in the newest list, `rec_id`; `rank` counts from 1."""

    user_id: str
    rec_id: str
    generated_at: int
    item_id: str
    rank: int
    score: float
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class SupposedList:
    """A list that was not published; `short_because` as in a RecommendationList."""

    neighbours: tuple[Neighbour, ...]
    items: tuple[Item, ...]
    short_because: str | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """An item that is on both lists at another rank, from 1."""

    item_id: str
    from_rank: int
    to_rank: int


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The list as it would be, `then`, beside the list `now`, both made in the same way.

    Where something is left out, both are made from the remembered events alone. `left_out` counts the remembered events
    that are left out, `added` those that are supposed; `profile_cosine` is that of the two profile vectors, None where
    one of them has no direction.
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
    entered: tuple[str, ...]
    left: tuple[str, ...]
    moved: tuple[Move, ...]


def read_what_if(raw: Json) -> WhatIf:
    """The answer to a question of what a list would be."""
    return WhatIf(
        user_id=raw["user_id"],
        answered_at=raw["answered_at"],
        model=raw["model"],
        profile_events=raw["profile_events"],
        left_out=raw["left_out"],
        added=raw["added"],
        profile_cosine=raw["profile_cosine"],
        now=_read_supposed(raw["now"]),
        then=_read_supposed(raw["then"]),
        entered=tuple(raw["entered"]),
        left=tuple(raw["left"]),
        moved=tuple(Move(move["item_id"], move["from_rank"], move["to_rank"]) for move in raw["moved"]),
    )


def _read_supposed(raw: Json) -> SupposedList:
    items = tuple(_read_item(item) for item in raw["items"])
    return SupposedList(read_neighbours(raw), items, raw.get("short_because"))


def read_list(raw: Json) -> RecommendationList:
    """A `recommendations` message."""
    source, profile, index = raw["source"], raw["profile"], raw["index"]
    return RecommendationList(
        rec_id=raw["rec_id"],
        user_id=raw["user_id"],
        generated_at=raw["generated_at"],
        cause=raw["cause"],
        source=Source(source["topic"], source["partition"], source["offset"], source["event_time"]),
        profile=ProfileSummary(profile["events"], profile["version"], profile["model"]),
        index=IndexSummary(index["epoch"], index["users"]),
        neighbours=read_neighbours(raw),
        items=tuple(_read_item(item) for item in raw["items"]),
        short_because=raw.get("short_because"),
    )


def read_explanation(raw: Json) -> Explanation:
    """The reasons of one item; each has its message as published, and its sentence."""
    return Explanation(
        user_id=raw["user_id"],
        rec_id=raw["rec_id"],
        generated_at=raw["generated_at"],
        item_id=raw["item_id"],
        rank=raw["rank"],
        score=raw["score"],
        reasons=tuple(_read_reason(reason["message"], reason["sentence"]) for reason in raw["reasons"]),
    )


def read_neighbours(raw: Json) -> tuple[Neighbour, ...]:
    """The neighbours of a list, or of an answer that holds nothing else."""
    return tuple(Neighbour(found["user_id"], found["similarity"]) for found in raw["neighbours"])


def _read_item(raw: Json) -> Item:
    return Item(raw["item_id"], raw["score"], tuple(_read_reason(reason) for reason in raw["reasons"]))


def _read_reason(raw: Json, sentence: str | None = None) -> Reason:
    return Reason(
        kind=raw["kind"],
        share=raw["share"],
        users=tuple(raw.get("users", ())),
        item_id=raw.get("item_id"),
        category=raw.get("category"),
        group=raw.get("group"),
        sentence=sentence,
    )


@dataclass(frozen=True, slots=True)
class RecentItem:
    """An item that attracted the user, how and when; `type` is None where the server does not know it."""

    item_id: str
    type: str | None
    timestamp: int


@dataclass(frozen=True, slots=True)
class Profile:
    """A user's profile. `vector` has unit length, or is all zeros; `recent_items` are oldest first.

    `details` is the whole answer, for fields that this version of the client has no name for.
    """

    user_id: str
    events: int
    version: int
    model: str
    recent_items: tuple[RecentItem, ...]
    vector: tuple[float, ...]
    last_event_time: int
    details: Json


@dataclass(frozen=True, slots=True)
class UserParts:
    """What was asked of one of many users; a part is None where it was not asked for or is not there."""

    list: RecommendationList | None = None
    profile: Profile | None = None
    neighbours: tuple[Neighbour, ...] | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """Where a record lies in its topic."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """All events are in Kafka, acknowledged by every replica in sync; `events` says where, in the order sent."""

    accepted: int
    events: tuple[Written, ...]


@dataclass(frozen=True, slots=True)
class ForgetReceipt:
    """The tombstone in the topic `topic` that makes the workers forget the user.

    From `deadline` on no saved file holds the user any more.
    """

    user_id: str
    topic: str
    partition: int
    offset: int
    requested_at: int
    deadline: int


def read_profile(raw: Json) -> Profile:
    """A profile."""
    return Profile(
        user_id=raw["user_id"],
        events=raw["events"],
        version=raw["version"],
        model=raw["model"],
        recent_items=tuple(RecentItem(i["item_id"], i["type"], i["timestamp"]) for i in raw["recent_items"]),
        vector=tuple(raw["vector"]),
        last_event_time=raw["last_event_time"],
        details=raw,
    )


def read_many(raw: Json) -> dict[str, UserParts | None]:
    """Parts of many users by their id; None for a user that the server does not know."""
    return {user_id: None if parts is None else _read_parts(parts) for user_id, parts in raw["users"].items()}


def _read_parts(raw: Json) -> UserParts:
    list_, profile, neighbours = raw.get("list"), raw.get("profile"), raw.get("neighbours")
    return UserParts(
        list=None if list_ is None else read_list(list_),
        profile=None if profile is None else read_profile(profile),
        neighbours=None if neighbours is None else read_neighbours({"neighbours": neighbours}),
    )


def read_accepted(raw: Json) -> Accepted:
    """The answer to sent events."""
    return Accepted(raw["accepted"], tuple(Written(event["partition"], event["offset"]) for event in raw["events"]))


def read_receipt(raw: Json) -> ForgetReceipt:
    """The answer to a request to forget."""
    return ForgetReceipt(
        user_id=raw["user_id"],
        topic=raw["topic"],
        partition=raw["partition"],
        offset=raw["offset"],
        requested_at=raw["requested_at"],
        deadline=raw["deadline"],
    )
