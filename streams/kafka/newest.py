"""The newest record of each key of a compacted topic, as far as memory allows. No Kafka client in here."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiokafka import ConsumerRecord

ENTRY_BYTES = 200
"""Of the table, beside key and value."""


class Entry(NamedTuple):
    """The newest record of a key; `value` is None where there is none, or a tombstone."""

    offset: int
    value: bytes | None


class NewestRecords:
    """A table by key, bounded by bytes: what was neither written nor asked for the longest goes first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._bytes = 0
        self._next: dict[int, int] = {}
        self._watchers: dict[bytes, set[Callable[[], None]]] = {}
        self.is_complete = True
        """Whether every key of what was read is here: nothing had to go yet."""

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, records: Iterable[ConsumerRecord]) -> None:
        """Takes in what follows in the topic, each partition in order, and tells whoever watches one of the keys.

        A partition that begins anew is another topic of the same name: all of it is forgotten first.
        """
        for record in records:
            if record.offset < self._next.get(record.partition, 0):
                self._clear()
            self._next[record.partition] = record.offset + 1
            if record.key is None:
                continue
            self._put(record.key, Entry(record.offset, record.value))
            for wake in self._watchers.get(record.key, ()):
                wake()

    def get(self, key: bytes) -> Entry | None:
        """What is known of a key; None: nothing, so ask the topic unless `is_complete`."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def found(self, key: bytes, entry: Entry) -> Entry:
        """Takes in what was looked up in the topic, unless something newer came meanwhile; returns the newest."""
        known = self._entries.get(key)
        if known is not None and known.offset >= entry.offset:
            return known
        self._put(key, entry)
        return entry

    def watch(self, key: bytes, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls `wake` after each new record of the key; returns what ends that."""
        self._watchers.setdefault(key, set()).add(wake)

        def end() -> None:
            watching = self._watchers[key]
            watching.discard(wake)
            if not watching:
                del self._watchers[key]

        return end

    def _put(self, key: bytes, entry: Entry) -> None:
        before = self._entries.pop(key, None)
        if before is not None:
            self._bytes -= _size(key, before)
        if entry.value is None and self.is_complete:
            return  # of who is forgotten not even the name stays, unless a look-up could bring back what was before
        self._entries[key] = entry
        self._bytes += _size(key, entry)
        while self._bytes > self._bytes_max:
            oldest, gone = self._entries.popitem(last=False)
            self._bytes -= _size(oldest, gone)
            self.is_complete = False

    def _clear(self) -> None:
        self._entries.clear()
        self._next.clear()
        self._bytes = 0
        self.is_complete = True


def _size(key: bytes, entry: Entry) -> int:
    return ENTRY_BYTES + len(key) + len(entry.value or b"")
