"""Any table, by a mapping of its columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.core.errors import UsageError
from streams.core.events import EventType
from streams.sources.files import STANDARD_INPUT, find_file
from streams.sources.layout import Layout
from streams.sources.table import TableSource
from streams.sources.timestamps import TIMESTAMP_FORMATS

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELDS = {
    "user": "user_id",
    "item": "item_id",
    "timestamp": "timestamp",
    "type": "type",
    "value": "value",
    "session": "session_id",
    "event_id": "event_id",
}
"""Fields that can be mapped, and the column each is read from unless told otherwise."""
_OPTIONAL = ("value", "session", "event_id")


def csv_log(
    path: str,
    *,
    column: Mapping[str, str] | None = None,
    timestamp_format: str = "ms",
    type_map: Mapping[str, str] | None = None,
    event_type: str | None = None,
    delimiter: str = ",",
    order: str | None = None,
) -> TableSource:
    """A CSV file with a header row, or `-`.

    Args:
        path: the file, or `-`.
        column: field -> column name, over `FIELDS`. Value, session and event id are read only when mapped.
        timestamp_format: `s`, `ms` or `rfc3339`.
        type_map: value of the type column -> event type; without it the values must be ours.
        event_type: the type of every row; then the log needs no type column.
        delimiter: between two fields.
        order: `time` sorts, `log` keeps the rows as they come; default `time` for a file, `log` for `-`.

    Raises:
        UsageError: an option is not usable.
    """
    if timestamp_format not in TIMESTAMP_FORMATS:
        raise UsageError(f"No timestamp format {timestamp_format!r}; there are {', '.join(TIMESTAMP_FORMATS)}.")
    if len(delimiter) != 1:
        raise UsageError(f"The delimiter is one character, not {delimiter!r}.")
    if order not in {None, "time", "log"}:
        raise UsageError(f"Order is `time` or `log`, not {order!r}.")
    named = dict(column or {})
    if event_type is not None and (type_map or "type" in named):
        raise UsageError("Give either one type for all rows or a type column with its mapping, not both.")
    columns = _columns(named)
    layout = Layout(
        user=columns["user"],
        item=columns["item"],
        timestamp=columns["timestamp"],
        milliseconds_of=TIMESTAMP_FORMATS[timestamp_format],
        type=columns["type"] if event_type is None else "",
        types=_types(type_map),
        constant_type=None if event_type is None else event_type_named(event_type),
        value=columns["value"],
        session=columns["session"],
        event_id=columns["event_id"],
        delimiter=delimiter,
    )
    ordered = (path != STANDARD_INPUT) if order is None else order == "time"
    return TableSource("csv", find_file(path, ["events.csv"]), layout, ordered=ordered)


def _columns(named: Mapping[str, str]) -> dict[str, str]:
    """The column of each field; empty for an optional one that is not named."""
    unknown = set(named) - set(FIELDS)
    if unknown:
        raise UsageError(f"No such field: {', '.join(sorted(unknown))}. Fields are {', '.join(FIELDS)}.")
    return {field: named.get(field, "" if field in _OPTIONAL else FIELDS[field]) for field in FIELDS}


def event_type_named(word: str) -> EventType:
    """The type of this name. Raises UsageError that lists them."""
    try:
        return EventType(word)
    except ValueError:
        raise UsageError(f"No event type {word!r}; types are {', '.join(EventType)}.") from None


def _types(type_map: Mapping[str, str] | None) -> dict[str, EventType]:
    if type_map:
        return {written: event_type_named(meant) for written, meant in type_map.items()}
    return {kind.value: kind for kind in EventType}
