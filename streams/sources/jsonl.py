"""Records already in our schema, one JSON object per line."""

from __future__ import annotations

import math
from typing import IO, TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from streams.core.errors import RejectedRecord, RejectReason, UsageError
from streams.core.events import (
    EVENT_BYTES_MAX,
    EVENT_ID_CHARS_MAX,
    ID_CHARS_MAX,
    PROPERTIES_BYTES_MAX,
    Event,
    EventType,
    Id,
    Item,
    User,
)
from streams.sources.files import STANDARD_INPUT, count_lines, find_beside, find_file, open_bytes
from streams.sources.ordering import by_time, noting_disorder
from streams.sources.port import Description, Skips
from streams.sources.timestamps import from_milliseconds, from_rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Parsed = TypeVar("Parsed")
Record = TypeVar("Record", Item, User)
LINE_BYTES_MAX = EVENT_BYTES_MAX
"""A longer line is skipped and never held whole."""
ShortId = Annotated[str, Meta(max_length=ID_CHARS_MAX)]


class WrittenEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as producers may write it: the time as epoch ms or RFC 3339."""

    user_id: Id
    item_id: Id
    type: EventType
    timestamp: int | str
    event_id: Annotated[str, Meta(max_length=EVENT_ID_CHARS_MAX)] | None = None
    value: float | None = None
    rec_id: ShortId | None = None
    session_id: ShortId | None = None
    properties: dict[str, Any] | None = None


class JsonLines:
    """`events.jsonl` with, in the same folder, `items.jsonl` and `users.jsonl` where they exist.

    A line that is not a valid event is skipped and counted. A file is put into time order, standard input is
    given out as it comes; `order` says otherwise.
    """

    def __init__(self, path: str, *, order: str | None = None) -> None:
        if order not in {None, "time", "log"}:
            raise UsageError(f"Order is `time` or `log`, not {order!r}.")
        self.name = "jsonl"
        self.skips = Skips()
        self._path = find_file(path, ["events.jsonl"])
        self._ordered = (path != STANDARD_INPUT) if order is None else order == "time"

    def describe(self) -> Description:
        """Lines of a small file; items and users are not counted ahead."""
        return Description(events=count_lines(self._path))

    def items(self) -> Iterator[Item]:
        """The valid lines of `items.jsonl` beside the log."""
        return self._side_records("items.jsonl", Item)

    def users(self) -> Iterator[User]:
        """The valid lines of `users.jsonl` beside the log."""
        return self._side_records("users.jsonl", User)

    def events(self) -> Iterator[Event]:
        """The valid lines of the log."""
        decoder = msgspec.json.Decoder(WrittenEvent)
        events = self._records(self._path, lambda line: _event(line, decoder))
        return by_time(noting_disorder(events, self.skips)) if self._ordered else events

    def _side_records(self, name: str, kind: type[Record]) -> Iterator[Record]:
        path = find_beside(self._path, [name])
        decoder = msgspec.json.Decoder(kind)
        return iter(()) if path is None else self._records(path, lambda line: _decoded(line, decoder))

    def _records(self, path: str, parse: Callable[[bytes], Parsed]) -> Iterator[Parsed]:
        with open_bytes(path) as stream:
            for number, line in enumerate(_bounded_lines(stream), 1):
                if line.isspace():
                    continue
                try:
                    yield parse(line)
                except RejectedRecord as rejected:
                    self.skips.add(path, number, rejected)


def _bounded_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines; of one that is too long only the start, just long enough to be seen as such."""
    while line := stream.readline(LINE_BYTES_MAX + 1):
        ended = len(line) <= LINE_BYTES_MAX or line.endswith(b"\n")
        yield line
        while not ended:
            rest = stream.readline(LINE_BYTES_MAX)
            ended = not rest or rest.endswith(b"\n")


def _decoded(line: bytes, decoder: msgspec.json.Decoder[Parsed]) -> Parsed:
    if len(line) > LINE_BYTES_MAX:
        raise RejectedRecord(RejectReason.OVERSIZED, f"more than {LINE_BYTES_MAX} bytes")
    try:
        return decoder.decode(line)
    except msgspec.ValidationError as error:
        raise RejectedRecord(RejectReason.INVALID_SCHEMA, str(error)) from None
    except UnicodeDecodeError as error:
        raise RejectedRecord(RejectReason.INVALID_UTF8, str(error)) from None
    except RecursionError:
        raise RejectedRecord(RejectReason.TOO_DEEP, "nested too deeply") from None
    except msgspec.DecodeError as error:
        raise RejectedRecord(RejectReason.NOT_JSON, str(error)) from None


def _event(line: bytes, decoder: msgspec.json.Decoder[WrittenEvent]) -> Event:
    written = _decoded(line, decoder)
    if written.value is not None and not math.isfinite(written.value):
        raise RejectedRecord(RejectReason.NOT_FINITE, f"value {written.value} is not finite")
    if written.properties is not None and len(msgspec.json.encode(written.properties)) > PROPERTIES_BYTES_MAX:
        raise RejectedRecord(RejectReason.OVERSIZED, f"properties above {PROPERTIES_BYTES_MAX} bytes")
    return Event(
        user_id=written.user_id,
        item_id=written.item_id,
        type=written.type,
        timestamp=_milliseconds(written.timestamp),
        event_id=written.event_id,
        value=written.value,
        rec_id=written.rec_id,
        session_id=written.session_id,
        properties=written.properties,
    )


def _milliseconds(timestamp: int | str) -> int:
    try:
        return from_rfc3339(timestamp) if isinstance(timestamp, str) else from_milliseconds(str(timestamp))
    except (ValueError, OverflowError) as error:
        raise RejectedRecord(RejectReason.INVALID_SCHEMA, f"timestamp {timestamp!r}: {error}") from None
