"""What is wrong with a record: the rules of the public topics, checked one by one in the order of `RejectReason`.

Every message says what was expected, what came (at most 200 characters of it) and what to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NoReturn, Protocol, TypeVar

import msgspec
import numpy as np

from streams.core.errors import RejectedRecord, RejectReason
from streams.core.events import (
    EVENT_BYTES_MAX,
    EVENT_TYPES,
    NESTING_MAX,
    PROPERTIES_BYTES_MAX,
    Event,
    EventMessage,
)

T = TypeVar("T")

Headers = Sequence[tuple[str, bytes | None]]

CAME_CHARS_MAX = 200

MESSAGES = msgspec.json.Decoder(EventMessage)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_FINER_UNITS = (("microseconds", 1000), ("nanoseconds", 1_000_000))
_STRING_IN_JSON = re.compile(rb'"(?:[^"\\]+|\\.)*+"?', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ](?:[01][0-9]|2[0-3]):[0-9]{2}:)([0-9]{2})"
    r"((?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2}))"
)
_ENUM_MESSAGE = re.compile(r"Invalid enum value (.*) - at `\$\.type`", re.DOTALL)
_STEP = np.zeros(256, np.int8)
_STEP[[ord("{"), ord("[")]] = 1
_STEP[[ord("}"), ord("]")]] = -1


class RawRecord(Protocol):
    """What the codec reads of a Kafka record; aiokafka's `ConsumerRecord` is one."""

    @property
    def key(self) -> bytes | None:
        """The id, in UTF-8, or whatever the producer sent."""
        ...

    @property
    def value(self) -> bytes | None:
        """None is a tombstone."""
        ...

    @property
    def offset(self) -> int:
        """Place in the partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Epoch ms, by the producer or the broker."""
        ...

    @property
    def headers(self) -> Headers:
        """Names and values in the order sent."""
        ...


class _PropertiesAsSent(msgspec.Struct, gc=False):
    properties: msgspec.Raw = msgspec.Raw()


_PROPERTIES = msgspec.json.Decoder(_PropertiesAsSent)


def examine_event(record: RawRecord, latest_ms: int) -> Event:
    """Checks one event rule by rule, in the order of `RejectReason`.

    Raises:
        RejectedRecord: the first rule that the record breaks.
    """
    value = checked_bytes(record.value, EVENT_BYTES_MAX)
    message = decode_checked(value, MESSAGES, "event")
    _check_properties(value)
    check_key(record.key, message.user_id, "user_id")
    came = message.timestamp
    timestamp = epoch_ms(came) if isinstance(came, str) else came
    if timestamp < 0:
        raise _invalid_timestamp(came)
    if timestamp > latest_ms:
        raise _future_timestamp(came, timestamp, latest_ms)
    return event_of(message, timestamp)


def event_of(message: EventMessage, timestamp: int) -> Event:
    """The message with its timestamp in epoch milliseconds."""
    return Event(
        message.user_id,
        message.item_id,
        message.type,
        timestamp,
        message.event_id,
        message.value,
        message.rec_id,
        message.session_id,
        message.properties,
    )


def epoch_ms(text: str) -> int:
    """Epoch milliseconds of an RFC 3339 timestamp, fractions cut to milliseconds; a leap second is the next second.

    Raises:
        RejectedRecord: the text is no RFC 3339 timestamp with an offset.
    """
    parts = _RFC_3339.fullmatch(text)
    if parts is None:
        raise _invalid_timestamp(text)
    leap = parts[2] == "60"
    try:
        moment = datetime.fromisoformat(f"{parts[1]}59{parts[3]}".upper() if leap else text.upper())
        elapsed = moment - _EPOCH
    except (ValueError, OverflowError):
        raise _invalid_timestamp(text) from None
    return elapsed // _MS + (1000 if leap else 0)


def checked_bytes(value: bytes | None, bytes_max: int) -> bytes:
    """The value when it is UTF-8 text of acceptable size and nesting: safe to hand to a JSON parser.

    Raises:
        RejectedRecord: it is not.
    """
    if not value:
        came = "no value (a tombstone)" if value is None else "0 bytes"
        raise RejectedRecord(RejectReason.EMPTY_VALUE, f"Expected a JSON object, came {came}. Send the whole message.")
    if len(value) > bytes_max:
        raise RejectedRecord(
            RejectReason.OVERSIZED,
            f"Expected at most {bytes_max} bytes, came {len(value)}. Send ids and short properties, not documents.",
        )
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise RejectedRecord(
            RejectReason.INVALID_UTF8,
            f"Expected UTF-8, came {_came(value[error.start : error.start + 8])} at byte {error.start}. "
            "Encode the message as UTF-8.",
        ) from None
    depth = nesting(value)
    if depth > NESTING_MAX:
        raise RejectedRecord(
            RejectReason.TOO_DEEP,
            f"Expected at most {NESTING_MAX} nested objects and arrays, came {depth}. Flatten the properties.",
        )
    return value


def nesting(value: bytes) -> int:
    """How many objects and arrays lie inside one another at most; brackets inside strings do not count."""
    bare = np.frombuffer(_STRING_IN_JSON.sub(b"", value), np.uint8)
    return int(np.cumsum(_STEP[bare], dtype=np.int32).max(initial=0))


def decode_checked(value: bytes, decoder: msgspec.json.Decoder[T], what: str) -> T:
    """Decodes what `checked_bytes` let through; `what` names the schema file in `docs/schema`.

    Raises:
        RejectedRecord: the value is no JSON, holds a number that is not finite, or has another shape.
    """
    try:
        return decoder.decode(value)
    except msgspec.ValidationError as error:
        fault = str(error)
    except msgspec.DecodeError as error:
        _check_grammar(value.decode())
        _raise_unreadable(value.decode(), str(error))
    _check_grammar(value.decode())
    if "out of range" in fault:
        raise RejectedRecord(
            RejectReason.NOT_FINITE,
            f"Expected finite numbers, came one too large to hold: {_clipped(fault)}. Send a smaller number, or none.",
        )
    unknown_type = _ENUM_MESSAGE.fullmatch(fault)
    if unknown_type is not None:
        raise RejectedRecord(
            RejectReason.INVALID_SCHEMA,
            f"Expected `type` to be one of {', '.join(EVENT_TYPES)}; came {_clipped(unknown_type[1])}. "
            "Send one of these types.",
        )
    raise RejectedRecord(
        RejectReason.INVALID_SCHEMA,
        f"Expected {what} schema v1 (docs/schema/{what}.json), came another shape: {_clipped(fault)}. "
        "Correct that field.",
    )


def _check_grammar(text: str) -> None:
    """Raises RejectedRecord unless the text is JSON. Its nesting was checked, so the parser cannot run out of stack."""

    def not_finite(token: str) -> NoReturn:
        raise RejectedRecord(
            RejectReason.NOT_FINITE,
            f"Expected finite numbers, came {token}, which JSON does not have. Leave the field out instead.",
        )

    try:
        json.loads(text, parse_constant=not_finite, parse_int=len, parse_float=len)
    except json.JSONDecodeError as error:
        near = text[error.pos : error.pos + 20]
        raise RejectedRecord(
            RejectReason.NOT_JSON,
            f"Expected a JSON object, came text that breaks off or strays at character {error.pos}: {error.msg}, "
            f"near {_came(near)}. Serialise the message with a JSON library.",
        ) from None


def _raise_unreadable(text: str, fault: str) -> NoReturn:
    """For text that passes as JSON and still cannot be read: half a surrogate pair, which UTF-8 cannot carry."""
    if _SURROGATE_ESCAPE.search(text):
        raise RejectedRecord(
            RejectReason.INVALID_UTF8,
            "Expected whole characters, came an escape of half a surrogate pair (\\ud800 to \\udfff). "
            "Escape characters beyond \\uffff as two halves, or not at all.",
        )
    raise RejectedRecord(
        RejectReason.NOT_JSON,
        f"Expected a JSON object, came text that cannot be read: {_clipped(fault)}. "
        "Serialise the message with a JSON library.",
    )


def _check_properties(value: bytes) -> None:
    if len(value) <= PROPERTIES_BYTES_MAX:
        return
    size = len(bytes(_PROPERTIES.decode(value).properties))
    if size > PROPERTIES_BYTES_MAX:
        raise RejectedRecord(
            RejectReason.OVERSIZED,
            f"Expected `properties` of at most {PROPERTIES_BYTES_MAX} bytes, came {size}. Send less in it.",
        )


def check_key(key: bytes | None, expected: str, field: str) -> None:
    """Raises RejectedRecord unless the key is the id that the message carries in `field`."""
    if key == expected.encode():
        return
    came = "no key" if key is None else _came(key.decode(errors="backslashreplace"))
    raise RejectedRecord(
        RejectReason.KEY_MISMATCH,
        f"Expected the key to be the `{field}` {_came(expected)}, came {came}. Send the id as the key, in UTF-8.",
    )


def checked_tombstone(key: bytes | None, field: str) -> str:
    """The id that a tombstone names. Raises RejectedRecord when it names none."""
    try:
        named = key.decode() if key is not None else ""
    except UnicodeDecodeError:
        named = ""
    if not named:
        raise RejectedRecord(
            RejectReason.KEY_MISMATCH,
            f"Expected a tombstone to carry the `{field}` as key, in UTF-8, came {_came(key)}. Send the id as the key.",
        )
    return named


def _invalid_timestamp(came: int | str) -> RejectedRecord:
    return RejectedRecord(
        RejectReason.INVALID_SCHEMA,
        f"Expected `timestamp` as epoch milliseconds since 1970 or RFC 3339 with an offset, came {_came(came)}. "
        "Send for example 1700000000123 or 2023-11-14T22:13:20.123Z.",
    )


def _future_timestamp(came: int | str, timestamp: int, latest_ms: int) -> RejectedRecord:
    finer = next((unit for unit, per_ms in _FINER_UNITS if timestamp // per_ms <= latest_ms), None)
    advice = f"It looks like {finer}: send milliseconds." if isinstance(came, int) and finer else "Check the clock."
    return RejectedRecord(
        RejectReason.FUTURE_TIMESTAMP,
        f"Expected `timestamp` at most one hour ahead (up to {latest_ms}), came {_came(came)}. {advice}",
    )


def _came(came: object) -> str:
    return _clipped(repr(came))


def _clipped(text: str) -> str:
    return text if len(text) <= CAME_CHARS_MAX else f"{text[: CAME_CHARS_MAX - 1]}…"
