"""Server-sent events from bytes, as the WHATWG's HTML standard has them. Pure.

httpx's own lines also end at U+2028 and its like, which JSON may hold as they are; hence bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nearstream_client.errors import UnreadableAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENT_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: its name and its data."""

    event: str
    data: str


@dataclass(slots=True)
class EventDecoder:
    """Turns chunks, cut anywhere, into events; lines end with LF or CRLF. Comments and unknown fields are passed over.

    Holds at most EVENT_BYTES_MAX bytes and one chunk: UnreadableAnswer for an event beyond.
    """

    _rest: bytes = b""
    _event: str = ""
    _data: list[str] = field(default_factory=list)
    _data_bytes: int = 0

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """The events that this chunk completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            event = self._line(line.removesuffix(b"\r"))
            if event is not None:
                yield event
        self._check(len(self._rest))

    def _line(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._ended()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._event = value.decode()
        elif name == b"data":
            self._data_bytes += len(value)
            self._check(0)
            self._data.append(value.decode())
        return None

    def _check(self, more: int) -> None:
        if self._data_bytes + more > EVENT_BYTES_MAX:
            raise UnreadableAnswer(f"Expected at most {EVENT_BYTES_MAX} bytes in one pushed event, got more.")

    def _ended(self) -> ServerEvent | None:
        event, data = self._event or "message", self._data
        self._event, self._data, self._data_bytes = "", [], 0
        return ServerEvent(event, "\n".join(data)) if data else None
