"""Counts events as they pass: who, what, which type, when."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streams.core.events import EVENT_TYPES
from streams.sources.pairs import PairTable

if TYPE_CHECKING:
    from collections.abc import Hashable

    from streams.core.events import Event

Counts = NDArray[np.int64]

HOUR_MS = 3_600_000
BLOCK_EVENTS = 1 << 16
"""Events noted in lists before numpy counts them."""


class Tally:
    """Counts of a log. Memory grows with users, items, distinct pairs and hours, not with events.

    Exact repeats are looked for among events of the same millisecond, which is where a log in time order has them.
    """

    def __init__(self) -> None:
        self.users: dict[str, int] = {}
        """Code of each user, by first appearance."""
        self.items: dict[str, int] = {}
        self.pairs = PairTable()
        self.types: Counts = np.zeros(len(EVENT_TYPES), np.int64)
        """(types,) events of each type code."""
        self.hours: Counter[int] = Counter()
        """Events in each hour since 1970."""
        self.first_ms = self.last_ms = 0
        self.duplicates = 0
        self.unsorted = 0
        """Events older than the one before them."""
        self.user_events: Counts = np.zeros(0, np.int64)
        """(users,) events of each user, by code."""
        self.item_events: Counts = np.zeros(0, np.int64)
        """(items,) events of each item, by code."""
        self._block: list[tuple[int, int, int, int]] = []
        self._moment_ms: int | None = None
        self._of_moment: set[Hashable] = set()

    def add(self, event: Event) -> None:
        """Counts one event."""
        user = self.users.setdefault(event.user_id, len(self.users))
        item = self.items.setdefault(event.item_id, len(self.items))
        self._block.append((user, item, event.type.code, event.timestamp // HOUR_MS))
        if event.timestamp != self._moment_ms:
            self._next_moment(event.timestamp)
        same = (user, event.event_id or (item, event.type, event.value, event.session_id))
        if same in self._of_moment:
            self.duplicates += 1
        self._of_moment.add(same)
        if len(self._block) == BLOCK_EVENTS:
            self._count_block()

    def finish(self) -> None:
        """Counts what waits. Only after this are the fields complete."""
        self._count_block()

    def _next_moment(self, time_ms: int) -> None:
        if self._moment_ms is None:
            self.first_ms = self.last_ms = time_ms
        elif time_ms < self._moment_ms:
            self.unsorted += 1
        self.first_ms, self.last_ms = min(self.first_ms, time_ms), max(self.last_ms, time_ms)
        self._moment_ms = time_ms
        self._of_moment.clear()

    def _count_block(self) -> None:
        if not self._block:
            return
        users, items, types, hours = np.array(self._block, np.int64).T
        self._block = []
        self.user_events = _sum(self.user_events, np.bincount(users, minlength=len(self.users)))
        self.item_events = _sum(self.item_events, np.bincount(items, minlength=len(self.items)))
        self.types += np.bincount(types, minlength=len(EVENT_TYPES))
        self.pairs.add(users, items, types)
        for hour, count in zip(*np.unique(hours, return_counts=True), strict=True):
            self.hours[int(hour)] += int(count)


def _sum(before: Counts, more: Counts) -> Counts:
    """Adds the shorter counts to the longer ones."""
    more[: len(before)] += before
    return more
