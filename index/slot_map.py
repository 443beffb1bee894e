"""Which slot an id has: a hash table over the table's own column of ids.

A dict of ids takes some 84 bytes a row, the number that it gives included; this takes 4 for a tag and 6 to 16 for the
places. Open addressing with linear probing: a place holds a slot, a slot's tag tells whether its id is worth a look,
and only the id decides.

One thread changes it, any may read beside that: whatever a reader needs is in one reference, a slot is entered when its
id and tag stand, and what becomes too full is made anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.kernels import compiled
from index.results import Mask, Slots, VectorId
from index.room import zeroed

EMPTY = -1
GONE = -2
"""The place of an id that was taken out: a search goes on behind it."""
PLACES_MIN = 64
FULL_SHARE_MAX = 2 / 3
"""Of the places, those of taken-out ids included: then the places are made anew, half or less of them in use."""
TAG_BITS = 32
SPREAD = 0x9E3779B97F4A7C15
"""2^64 / golden ratio: Python hashes an int to itself, and multiples of a power of two must not share a place."""
WORD = (1 << 64) - 1
Tags = NDArray[np.uint32]


class _Columns(NamedTuple):
    """All that a reader needs, as of one moment."""

    places: Slots
    """(a power of two,) a slot, EMPTY or GONE."""
    tags: Tags
    """(capacity,) upper bits of each id's spread hash, by slot."""
    ids: NDArray[np.object_]
    """(capacity,) the table's column."""


class SlotMap:
    """From ids, strings or ints, to slots; equal ids are one, as in a dict."""

    def __init__(self, ids: NDArray[np.object_]) -> None:
        """Knows no id yet; `ids` (capacity,) is the column in which each slot's id is found."""
        self._columns = _Columns(np.full(PLACES_MIN, EMPTY, np.int32), zeroed(len(ids), np.uint32), ids)
        self._size = 0
        self._filled = 0
        """Places that are not EMPTY."""

    def __len__(self) -> int:
        return self._size

    def __contains__(self, vector_id: VectorId) -> bool:
        return _walk(self._columns, vector_id) != EMPTY

    def memory_bytes(self, slots: int) -> int:
        """Of places, and of tags below that many slots: more were never touched."""
        return self._columns.places.nbytes + self._columns.tags[:slots].nbytes

    def find(self, ids: Sequence[VectorId | None]) -> Slots:
        """The slot of each id, -1 for unknown ones."""
        columns = self._columns
        slots = np.empty(len(ids), np.int32)
        _probe(_tags(ids), columns.places, columns.tags, slots)
        found = np.flatnonzero(slots != EMPTY)
        if len(found):
            asked = np.fromiter(ids, np.object_, len(ids))
            same: Mask = columns.ids[slots[found]] == asked[found]
            for row in found[~same].tolist():  # another id of this tag stands ahead, or the writer has just been here
                slots[row] = _walk(columns, ids[row])
        return slots

    def add(self, ids: Sequence[VectorId], slots: Slots) -> None:
        """Enters distinct ids that are not there; they stand in the column already."""
        columns = self._columns
        columns.tags[slots] = _tags(ids)
        if self._filled + len(slots) > FULL_SHARE_MAX * len(columns.places):
            columns = self._emptied(self._size + len(slots))
        self._filled += _enter(slots, columns.places, columns.tags)
        self._size += len(slots)
        self._columns = columns

    def drop(self, slots: Slots) -> None:
        """Takes out the ids of distinct slots that are here."""
        _leave(slots, self._columns.places, self._columns.tags)
        self._size -= len(slots)

    def move_to(self, ids: NDArray[np.object_]) -> None:
        """The column has grown; slots mean what they meant.

        Who still reads the former columns must never meet a slot that they have no room for: places are copied as well.
        """
        tags = zeroed(len(ids), np.uint32)
        tags[: len(self._columns.tags)] = self._columns.tags
        self._columns = _Columns(self._columns.places.copy(), tags, ids)

    def _emptied(self, size: int) -> _Columns:
        """Places for that many ids, which hold those that are in now."""
        held = self._columns.places[self._columns.places >= 0]
        places = np.full(max(PLACES_MIN, 1 << (2 * size - 1).bit_length()), EMPTY, np.int32)
        self._filled = _enter(held, places, self._columns.tags)
        return self._columns._replace(places=places)


def warm_up() -> None:
    """Compiles the kernels, so that the first call is as fast as the next."""
    slots, first = SlotMap(np.full(1, "", np.object_)), np.zeros(1, np.int32)
    slots.add([""], first)
    slots.find([""])
    slots.drop(first)


def _tags(ids: Sequence[VectorId | None]) -> Tags:
    hashes = np.fromiter(map(hash, ids), np.int64, len(ids)).view(np.uint64)
    tags: Tags = ((hashes * np.uint64(SPREAD)) >> np.uint64(64 - TAG_BITS)).astype(np.uint32)
    return tags


def _walk(columns: _Columns, vector_id: VectorId | None) -> int:
    """The slot of one id, -1 for an unknown one, by comparing every id of its tag."""
    tag = ((hash(vector_id) & WORD) * SPREAD & WORD) >> (64 - TAG_BITS)
    last = len(columns.places) - 1
    place = tag >> (TAG_BITS - last.bit_length())
    while (slot := int(columns.places[place])) != EMPTY:
        if slot >= 0 and columns.tags[slot] == tag and columns.ids[slot] == vector_id:
            return slot
        place = (place + 1) & last
    return EMPTY


@compiled
def _bits(places: Slots) -> int:
    bits = 0
    while (1 << bits) < places.shape[0]:
        bits += 1
    return bits


@compiled
def _probe(asked: Tags, places: Slots, tags: Tags, slots: Slots) -> None:
    """Fills `slots` (n,) with the first slot that has each tag asked for (n,), -1 where none has."""
    last = places.shape[0] - 1
    shift = TAG_BITS - _bits(places)
    for row in range(asked.shape[0]):
        place = np.int64(asked[row]) >> shift
        slot = places[place]
        while slot != EMPTY and (slot == GONE or tags[slot] != asked[row]):
            place = (place + 1) & last
            slot = places[place]
        slots[row] = slot


@compiled
def _enter(slots: Slots, places: Slots, tags: Tags) -> int:
    """Gives each slot the first place that is free; returns how many of these were EMPTY."""
    last = places.shape[0] - 1
    shift = TAG_BITS - _bits(places)
    filled = 0
    for row in range(slots.shape[0]):
        place = np.int64(tags[slots[row]]) >> shift
        while places[place] >= 0:
            place = (place + 1) & last
        if places[place] == EMPTY:
            filled += 1
        places[place] = slots[row]
    return filled


@compiled
def _leave(slots: Slots, places: Slots, tags: Tags) -> None:
    """Marks the places of these slots, which must be in, as GONE."""
    last = places.shape[0] - 1
    shift = TAG_BITS - _bits(places)
    for row in range(slots.shape[0]):
        place = np.int64(tags[slots[row]]) >> shift
        while places[place] != slots[row]:
            place = (place + 1) & last
        places[place] = GONE
