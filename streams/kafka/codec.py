"""Bytes of the public topics to checked records, and back.

Decoding never raises on bad bytes: each record is either accepted or rejected with a reason. A sound event costs one
call of msgspec's decoder and a few comparisons; only a record in doubt is examined step by step to find what is wrong.
Both paths accept the same records; `tests/properties/test_codec_fuzz.py` holds them to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.core.errors import RejectedRecord, RejectReason
from streams.core.events import (
    DESCRIPTION_BYTES_MAX,
    FUTURE_MS_MAX,
    NESTING_MAX,
    PROPERTIES_BYTES_MAX,
    Event,
    EventMessage,
    Item,
    User,
)
from streams.core.recommendations import Recommendation
from streams.kafka.examine import (
    MESSAGES,
    Headers,
    RawRecord,
    check_key,
    checked_bytes,
    checked_tombstone,
    decode_checked,
    epoch_ms,
    event_of,
    examine_event,
)

__all__ = [
    "DecodedBatch",
    "DecodedDescriptions",
    "Headers",
    "RawRecord",
    "Rejected",
    "decode_events",
    "decode_items",
    "decode_recommendation",
    "decode_users",
    "encode_description",
    "encode_event",
    "encode_recommendation",
]

D = TypeVar("D", Item, User)


class Rejected(NamedTuple):
    """A record that cannot count: its place in the decoded sequence, and why."""

    position: int
    reason: RejectReason
    message: str


class DecodedBatch(NamedTuple):
    """Every record of a batch is in `positions` or in `rejects`, both in the order of the records."""

    events: list[Event]
    positions: NDArray[np.int64]
    """(events,) place of each accepted event in the records."""
    rejects: list[Rejected]


class DecodedDescriptions(NamedTuple, Generic[D]):
    """The last word of a batch on each item or user; an id is in `upserts` or in `tombstones`, never in both."""

    upserts: list[D]
    tombstones: list[str]
    rejects: list[Rejected]


_EVENTS = msgspec.json.Decoder(Event)
_ITEMS = msgspec.json.Decoder(Item)
_USERS = msgspec.json.Decoder(User)
_RECOMMENDATIONS = msgspec.json.Decoder(Recommendation)
_ENCODER = msgspec.json.Encoder()


def decode_events(records: Sequence[RawRecord], now_ms: int) -> DecodedBatch:
    """Decodes and validates a batch of the topic `events`. Never raises on bad input.

    `now_ms` judges timestamps: one more than an hour ahead of it is rejected, a late one counts.
    """
    latest_ms = now_ms + FUTURE_MS_MAX
    events: list[Event] = []
    positions: list[int] = []
    rejects: list[Rejected] = []
    for position, record in enumerate(records):
        event = _sound_event(record, latest_ms)
        if event is None:
            try:
                event = examine_event(record, latest_ms)
            except RejectedRecord as reject:
                rejects.append(Rejected(position, reject.reason, reject.message))
                continue
        events.append(event)
        positions.append(position)
    return DecodedBatch(events, np.array(positions, np.int64), rejects)


def decode_items(records: Sequence[RawRecord]) -> DecodedDescriptions[Item]:
    """Decodes a batch of the topic `items`; an empty value means that the item is gone. Never raises on bad input."""
    return _decode_descriptions(records, _ITEMS, "item_id")


def decode_users(records: Sequence[RawRecord]) -> DecodedDescriptions[User]:
    """Decodes a batch of the topic `users`; an empty value means: forget this user. Never raises on bad input."""
    return _decode_descriptions(records, _USERS, "user_id")


def decode_recommendation(value: bytes | None) -> Recommendation:
    """Decodes a record of the topic `recommendations`.

    Raises:
        RejectedRecord: the bytes are no recommendation of schema v1.
    """
    return decode_checked(checked_bytes(value, DESCRIPTION_BYTES_MAX), _RECOMMENDATIONS, "recommendation")


def encode_event(event: EventMessage) -> bytes:
    """The JSON of an event, without the fields that are not set."""
    return _ENCODER.encode(event)


def encode_description(description: Item | User) -> bytes:
    """The JSON of an item or a user, without the fields at their default."""
    return _ENCODER.encode(description)


def encode_recommendation(recommendation: Recommendation) -> bytes:
    """The JSON of a list, numbers as given: ranking rounds them, whole batches at once.

    Raises:
        ValueError: a number is not finite, which JSON cannot carry.
    """
    value = _ENCODER.encode(recommendation)
    # msgspec writes null for NaN and infinity, and no field of a list may be null; an id may well hold the word.
    if b"null" in value and not _is_recommendation(value):
        raise ValueError(
            f"Expected finite similarities, scores and shares in list {recommendation.rec_id!r}, came NaN or infinity. "
            "The encoder or the ranking that produced them is at fault."
        )
    return value


def _is_recommendation(value: bytes) -> bool:
    try:
        _RECOMMENDATIONS.decode(value)
    except msgspec.ValidationError:
        return False
    return True


def _sound_event(record: RawRecord, latest_ms: int) -> Event | None:
    """The event when the record is beyond doubt, else None: the caller then examines it."""
    value = record.value
    if value is None or len(value) > PROPERTIES_BYTES_MAX or value.count(b"{") + value.count(b"[") > NESTING_MAX:
        return None
    try:
        if not value.isascii():
            value.decode()  # msgspec skips the strings of unknown fields unread
        event = _EVENTS.decode(value)
    except msgspec.DecodeError:
        return _with_text_timestamp(record, latest_ms)
    except UnicodeDecodeError:
        return None
    if not 0 <= event.timestamp <= latest_ms or record.key != event.user_id.encode():
        return None
    return event


def _with_text_timestamp(record: RawRecord, latest_ms: int) -> Event | None:
    """The event when all that kept it from the fastest way is a timestamp written as text."""
    try:
        message = MESSAGES.decode(record.value or b"")
        if not isinstance(message.timestamp, str):
            return None
        timestamp = epoch_ms(message.timestamp)
    except (msgspec.DecodeError, RejectedRecord):
        return None
    if not 0 <= timestamp <= latest_ms or record.key != message.user_id.encode():
        return None
    return event_of(message, timestamp)


def _decode_descriptions(
    records: Sequence[RawRecord], decoder: msgspec.json.Decoder[D], id_field: str
) -> DecodedDescriptions[D]:
    latest: dict[str, D | None] = {}
    rejects: list[Rejected] = []
    for position, record in enumerate(records):
        try:
            if record.value is None:
                latest[checked_tombstone(record.key, id_field)] = None
                continue
            described = decode_checked(checked_bytes(record.value, DESCRIPTION_BYTES_MAX), decoder, id_field[:-3])
            described_id: str = getattr(described, id_field)
            check_key(record.key, described_id, id_field)
            latest[described_id] = described
        except RejectedRecord as reject:
            rejects.append(Rejected(position, reject.reason, reject.message))
    upserts = [described for described in latest.values() if described is not None]
    tombstones = [described_id for described_id, described in latest.items() if described is None]
    return DecodedDescriptions(upserts, tombstones, rejects)
