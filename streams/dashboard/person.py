"""One person on the page: what they did beside what they get, with every reason as a sentence. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from streams.core.recommendations import (
    SHORT_SENTENCES,
    Again,
    BecauseOf,
    NewIn,
    PopularAmong,
    PopularIn,
    Reason,
    Recommendation,
    Rising,
    SimilarUsers,
    TogetherWith,
    Trending,
)
from streams.dashboard.interests import Interests, interests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streams.core.observation import SeenRecord, UserObservation

    Titles = Callable[[str], str | None]

PersonState = Literal["found", "searching", "unknown", "gone", "unreadable"]
NAMED_USERS_MAX = 2
RAW_CHARS_MAX = 2000
PLAIN_SENTENCES: dict[type[Again | Rising | Trending], str] = {
    Again: "This user had it lately and may want it again.",
    Rising: "Many more people have it lately than before.",
    Trending: "Many people have it right now.",
}


class SentEvent(msgspec.Struct, frozen=True):
    """As much of an input record as the page shows, read as leniently as can be."""

    item_id: str
    type: str
    timestamp: int | str
    value: float | None = None


class EventView(msgspec.Struct, frozen=True):
    """An input record of the person. `timestamp` is as sent, `raw` its text, cut; `weight` is what its type counts;
    `type` is None when the record cannot be read."""

    partition: int
    offset: int
    received_at: int
    type: str | None = None
    item_id: str | None = None
    title: str | None = None
    timestamp: int | str | None = None
    value: float | None = None
    weight: float | None = None
    raw: str = ""


class ReasonView(msgspec.Struct, frozen=True):
    """Why an item is on the list; `share` is this reason's part of the score, 0 to 1."""

    kind: str
    text: str
    share: float


class ItemView(msgspec.Struct, frozen=True):
    """A recommended item, best first."""

    item_id: str
    title: str | None
    score: float
    reasons: list[ReasonView]


class NeighbourView(msgspec.Struct, frozen=True):
    """A similar user; `similarity` is the cosine."""

    user_id: str
    similarity: float


class ListView(msgspec.Struct, frozen=True):
    """The current list, with the witnesses of freshness and of exactly-once effect."""

    rec_id: str
    generated_at: int
    cause: str
    source_partition: int
    source_offset: int
    event_time: int
    profile_events: int
    model: str
    index_users: int
    index_epoch: int
    neighbours: list[NeighbourView]
    items: list[ItemView]
    short_because: str | None
    """A sentence where there are fewer items than asked for."""


class Person(msgspec.Struct, frozen=True):
    """The answer to a look-up; `message` says in a sentence what the state means. Events are newest first, `before`
    is the list that `list` replaced, where it is still known."""

    user_id: str
    state: PersonState
    search: str
    message: str
    now: int
    events: list[EventView]
    list: ListView | None = None
    before: ListView | None = None
    interests: Interests | None = None


def person(seen: UserObservation, title_of: Titles, now_ms: int, weights: Mapping[str, float] | None = None) -> Person:
    """Everything that the page shows of one user; `weights` of event types by word, for the timeline.

    A list of an unknown schema gives the state `unreadable`.
    """
    events = [event_view(record, title_of, weights or {}) for record in reversed(seen.events)]
    before = None
    try:
        current = _list_view(seen.recommendation, title_of)
        before = _list_view(seen.before, title_of)
        state = _state(seen)
        message = _message(seen)
    except msgspec.MsgspecError as error:
        current, state = None, "unreadable"
        message = f"The list of this user cannot be read by this version of the page: {error}."
    moved = interests(seen.profiles, title_of)
    return Person(seen.user_id, state, seen.search, message, now_ms, events, current, before, moved)


def event_view(record: SeenRecord, title_of: Titles, weights: Mapping[str, float]) -> EventView:
    """An input record for reading; one that is not a readable event keeps its place with no type."""
    raw = (record.value or b"")[:RAW_CHARS_MAX].decode(errors="replace")
    try:
        sent = msgspec.json.decode(record.value or b"", type=SentEvent)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return EventView(record.partition, record.offset, record.timestamp, raw=raw)
    return EventView(
        record.partition,
        record.offset,
        record.timestamp,
        type=sent.type,
        item_id=sent.item_id,
        title=title_of(sent.item_id),
        timestamp=sent.timestamp,
        value=sent.value,
        weight=weights.get(sent.type),
        raw=raw,
    )


def reason_sentence(reason: Reason, title_of: Titles) -> str:
    """The reason as a person would say it."""
    match reason:
        case SimilarUsers():
            return _similar_users_sentence(reason.users)
        case BecauseOf():
            return f"Resembles “{title_of(reason.item_id) or reason.item_id}”, which this user had."
        case TogetherWith():
            return f"Often goes together with “{title_of(reason.item_id) or reason.item_id}”, which this user had."
        case PopularIn() | NewIn():
            word = "Popular" if isinstance(reason, PopularIn) else "New"
            return f"{word} in “{reason.category}”, which this user looks at."
        case PopularAmong():
            return f"Popular among people with “{reason.group}”, as this user."
        case _:
            return PLAIN_SENTENCES[type(reason)]


def _similar_users_sentence(users: list[str]) -> str:
    named, more = users[:NAMED_USERS_MAX], len(users) - NAMED_USERS_MAX
    if not named:
        return "Similar users had it."
    if more > 0:
        return f"{', '.join(named)} and {more} more similar users had it."
    if len(named) == 1:
        return f"{named[0]}, a similar user, had it."
    return f"{' and '.join(named)}, similar users, had it."


def _list_view(record: SeenRecord | None, title_of: Titles) -> ListView | None:
    if record is None or record.value is None:
        return None
    found = msgspec.json.decode(record.value, type=Recommendation)
    return ListView(
        rec_id=found.rec_id,
        generated_at=found.generated_at,
        cause=found.cause,
        source_partition=found.source.partition,
        source_offset=found.source.offset,
        event_time=found.source.event_time,
        profile_events=found.profile.events,
        model=found.profile.model,
        index_users=found.index.users,
        index_epoch=found.index.epoch,
        neighbours=[NeighbourView(n.user_id, n.similarity) for n in found.neighbours],
        items=[
            ItemView(
                item.item_id,
                title_of(item.item_id),
                item.score,
                [ReasonView(str(r.__struct_config__.tag), reason_sentence(r, title_of), r.share) for r in item.reasons],
            )
            for item in found.items
        ],
        short_because=SHORT_SENTENCES[found.short_because] if isinstance(found.short_because, str) else None,
    )


def _state(seen: UserObservation) -> PersonState:
    if seen.recommendation is not None and seen.recommendation.value is None:
        return "gone"
    if seen.recommendation is not None or seen.events:
        return "found"
    return "searching" if seen.search in {"searching", "busy"} else "unknown"


def _message(seen: UserObservation) -> str:
    if seen.recommendation is not None:
        return "" if seen.recommendation.value is not None else "The list of this user was deleted."
    missing = "list" if seen.events else "events and no list"
    return {
        "none": f"There is no {missing} of this user yet.",
        "searching": "Looking back through this user's partition…",
        "busy": "Other look-ups are running; this one starts as soon as one of them ends.",
        "finished": f"There is no {missing} of this user in the topics.",
        "timed-out": f"No {missing} of this user in the newest part of the topics; older records were not searched.",
        "failed": "Kafka did not answer while looking back; asking again tries anew.",
    }[seen.search]
