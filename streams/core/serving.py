"""What the API gives out and takes in: plain values between Kafka's side and the web's. Times are epoch ms."""

from __future__ import annotations

from typing import Any

import msgspec


class RecentItem(msgspec.Struct, frozen=True):
    """An item that attracted the user, and when."""

    item_id: str
    type: str | None
    """None for a type that a newer version wrote."""
    timestamp: int


class ServedProfile(msgspec.Struct, frozen=True):
    """A user's profile as last committed. `recent_items` are oldest first, `vector` is a unit vector, or zeros."""

    user_id: str
    events: int
    version: int
    model: str
    last_event_time: int
    recent_items: list[RecentItem]
    vector: list[float]


class Place(msgspec.Struct, frozen=True):
    """Where a record lies in its topic."""

    partition: int
    offset: int


class RefusedEvent(msgspec.Struct, frozen=True):
    """The first event of a request that cannot count; nothing of the request was sent."""

    index: int
    reason: str
    message: str


class ForgetReceipt(msgspec.Struct, frozen=True):
    """That somebody asked to be forgotten: from `deadline` on no saved file holds the user any more."""

    user_id: str
    topic: str
    partition: int
    offset: int
    requested_at: int
    deadline: int


class WaitingLetter(msgspec.Struct, frozen=True):
    """A dead letter that waits. `partition` and `offset` are its own; `source` says where the record came from.

    `value` is the record as text, cut where `is_cut`.
    """

    partition: int
    offset: int
    reason: str
    message: str
    timestamp: int
    source: dict[str, Any]
    key: str | None
    value: str | None
    is_cut: bool


class WaitingLetters(msgspec.Struct, frozen=True):
    """How many dead letters wait, by reason, how many were sent back before, and the newest that wait."""

    waiting: int
    by_reason: dict[str, int]
    replayed_before: int
    letters: list[WaitingLetter]


class RefusedLetter(msgspec.Struct, frozen=True):
    """A dead letter that would be one again."""

    partition: int
    offset: int
    reason: str
    message: str


class ReplayedLetters(msgspec.Struct, frozen=True):
    """What became of the dead letters that were named: each is in one of the four."""

    replayed: list[Place]
    already_replayed: list[Place]
    refused: list[RefusedLetter]
    unknown: list[Place]
