"""Which column of a table means what, and a row as an event."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streams.core.errors import RejectedRecord, RejectReason, UsageError
from streams.core.events import EVENT_ID_CHARS_MAX, ID_CHARS_MAX, Event, EventType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Row = list[str]


@dataclass(frozen=True, slots=True)
class Layout:
    """A table's columns by name. An empty name stands for a column that the log does not have."""

    user: str
    item: str
    timestamp: str
    milliseconds_of: Callable[[str], int]
    """Parses a timestamp to epoch ms; raises ValueError."""
    type: str = ""
    types: Mapping[str, EventType] = field(default_factory=dict)
    """What each value of the type column means; a row with another value is skipped."""
    constant_type: EventType | None = None
    """The type of every row of a log without a type column."""
    value: str = ""
    session: str = ""
    event_id: str = ""
    id_from_row: bool = False
    """Make `event_id` a digest of the whole row, so that exact duplicates are the same event."""
    columns: Sequence[str] = ()
    """Names in order, for a log without a header row."""
    delimiter: str = ","
    encoding: str = "utf-8"


class RowParser:
    """Rows of one table as events."""

    def __init__(self, layout: Layout, columns: Sequence[str], path: str) -> None:
        """Resolves the names of `layout` against the `columns` of `path`.

        Raises:
            UsageError: the table lacks a column that the layout names; all missing ones are listed.
        """
        present = {name.strip().removeprefix("\ufeff"): position for position, name in enumerate(columns)}
        wanted = (
            layout.user,
            layout.item,
            layout.timestamp,
            layout.type,
            layout.value,
            layout.session,
            layout.event_id,
        )
        missing = [name for name in wanted if name and name not in present]
        if missing:
            raise UsageError(
                f"{path} has no column {', '.join(map(repr, missing))}; its columns are "
                f"{', '.join(present) or 'none at all'}. Map them with --column FIELD=NAME."
            )
        self._layout = layout
        self._width = len(columns)
        self._user, self._item, self._timestamp = (present[name] for name in wanted[:3])
        self._type, self._value, self._session, self._event_id = (present.get(name) for name in wanted[3:])

    def parse(self, row: Row) -> Event:
        """The row as an event.

        Raises:
            RejectedRecord: the row has another width, a field that does not parse, or is not UTF-8.
        """
        if len(row) != self._width:
            raise _invalid(f"expected {self._width} columns, got {len(row)}")
        event_id = row_id(row) if self._layout.id_from_row else self._optional(row, self._event_id, EVENT_ID_CHARS_MAX)
        return Event(
            user_id=checked_id(row[self._user], "user"),
            item_id=checked_id(row[self._item], "item"),
            type=self._type_of(row),
            timestamp=self._milliseconds(row[self._timestamp]),
            event_id=event_id,
            value=self._value_of(row),
            session_id=self._optional(row, self._session, ID_CHARS_MAX),
        )

    def _type_of(self, row: Row) -> EventType:
        if self._type is None:
            assert self._layout.constant_type is not None  # a layout has one or the other
            return self._layout.constant_type
        kind = self._layout.types.get(row[self._type])
        if kind is None:
            known = ", ".join(self._layout.types)
            raise _invalid(f"event type {row[self._type]!r} is not mapped; mapped are {known}")
        return kind

    def _milliseconds(self, text: str) -> int:
        try:
            return self._layout.milliseconds_of(text)
        except (ValueError, OverflowError) as error:
            raise _invalid(f"timestamp {text!r}: {error}") from None

    def _value_of(self, row: Row) -> float | None:
        text = "" if self._value is None else row[self._value].strip()
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            raise _invalid(f"value {text!r} is not a number") from None
        if not math.isfinite(value):
            raise RejectedRecord(RejectReason.NOT_FINITE, f"value {text!r} is not finite")
        return value

    @staticmethod
    def _optional(row: Row, position: int | None, chars_max: int) -> str | None:
        text = "" if position is None else row[position]
        if len(text) > chars_max:
            raise _invalid(f"column {position} has {len(text)} characters, at most {chars_max} are allowed")
        return _utf8(text) or None


def row_id(row: Sequence[str]) -> str:
    """64 bits of a digest over all fields: equal rows have equal ids, others practically never.

    Raises:
        RejectedRecord: the row is not UTF-8.
    """
    return hashlib.blake2b(_encoded("\x1f".join(row)), digest_size=8).hexdigest()


def checked_id(text: str, what: str) -> str:
    """The text itself. Raises RejectedRecord when it cannot be an id: empty, too long, not UTF-8."""
    if not 0 < len(text) <= ID_CHARS_MAX:
        raise _invalid(f"{what} id has {len(text)} characters, 1 to {ID_CHARS_MAX} are allowed")
    return _utf8(text)


def _utf8(text: str) -> str:
    if not text.isascii():
        _encoded(text)
    return text


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise RejectedRecord(RejectReason.INVALID_UTF8, "the row is not UTF-8") from None


def _invalid(message: str) -> RejectedRecord:
    return RejectedRecord(RejectReason.INVALID_SCHEMA, message)
