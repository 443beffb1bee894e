"""A stretch of a log: its past, or what comes after."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.core.events import Event, Item, User
    from streams.sources.port import Description, Skips, Source


class Stretch:
    """A `Source`: the events of another one from number `first` up to, not including, number `end`.

    Items and users are all of the log's, or none with `events_only`. Each event's time is moved by `shift_ms`.
    A first pass reads over what lies before the stretch; memory does not grow with it.
    """

    def __init__(
        self,
        source: Source,
        first: int = 0,
        end: int | None = None,
        *,
        shift_ms: int = 0,
        events_only: bool = False,
    ) -> None:
        if first < 0 or (end is not None and end < first):
            raise ValueError(f"A stretch runs from 0 or later to its end, got {first} to {end}.")
        self.name = source.name
        self._source, self._first, self._end = source, first, end
        self._shift_ms, self._events_only = shift_ms, events_only

    @property
    def skips(self) -> Skips:
        """Those of the whole log."""
        return self._source.skips

    def describe(self) -> Description:
        """The counts of the stretch, as far as those of the log are known."""
        whole = self._source.describe()
        end = min((count for count in (whole.events, self._end) if count is not None), default=None)
        events = None if end is None else max(0, end - self._first)
        if self._events_only:
            return whole._replace(events=events, items=0, users=0)
        return whole._replace(events=events)

    def items(self) -> Iterator[Item]:
        """The log's catalogue, or nothing."""
        return iter(()) if self._events_only else self._source.items()

    def users(self) -> Iterator[User]:
        """The log's users, or nobody."""
        return iter(()) if self._events_only else self._source.users()

    def events(self) -> Iterator[Event]:
        """The events of the stretch, oldest first."""
        for event in islice(self._source.events(), self._first, self._end):
            yield msgspec.structs.replace(event, timestamp=event.timestamp + self._shift_ms)
