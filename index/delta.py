"""The rows beside the graphs, new or moved too far, kept together so that a scan reads them in one go."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from index.results import Floats, Slots
from index.room import zeroed
from index.table import float_row

GROWTH = 1.5
NONE = -1
RECENT_ROWS = 2048
"""As many as the worker changes at once, and more."""


class DeltaView(NamedTuple):
    """The delta as of one moment; positions at or above `rows` are not in use."""

    vectors: Floats
    slots: Slots
    rows: int


class Delta:
    """Append-only copies of table rows; a slot that leaves is zeroed and stays until the delta is made anew."""

    def __init__(self, table: Floats, slots: Slots, room: int) -> None:
        """Begins with these distinct rows of the table (capacity, d), with room for `room` more."""
        rows = len(slots)
        vectors, held = zeroed(rows + room, float_row(table.shape[1])), zeroed(rows + room, np.int32)
        np.take(table, slots, axis=0, out=vectors[:rows], mode="clip")  # the mode that copies once
        held[:rows] = slots
        self.view = DeltaView(vectors, held, rows)
        self._position: Slots = np.full(len(table), NONE, np.int32)
        self._position[slots] = np.arange(rows, dtype=np.int32)
        self._held = rows

    def __len__(self) -> int:
        return self._held

    @property
    def memory_bytes(self) -> int:
        """Of the copies and the table that finds them."""
        view = self.view
        return view.vectors[: view.rows].nbytes + view.slots[: view.rows].nbytes + self._position.nbytes

    def reserve(self, slots_max: int) -> None:
        """Makes room for slots below `slots_max`."""
        if (more := slots_max - len(self._position)) > 0:
            self._position = np.concatenate([self._position, np.full(more, NONE, np.int32)])

    def put(self, slots: Slots, vectors: Floats) -> None:
        """Adds or moves distinct slots."""
        view = self.view
        positions = self._position[slots]
        new = positions == NONE
        rows = view.rows + int(np.count_nonzero(new))
        positions[new] = np.arange(view.rows, rows, dtype=np.int32)
        self._position[slots] = positions
        self._held += rows - view.rows
        if rows > len(view.slots):
            view = self._grown(rows)
        view.vectors[positions] = vectors
        view.slots[positions] = slots
        self.view = view._replace(rows=rows)

    def drop(self, slots: Slots) -> None:
        """Zeroes the rows of those distinct slots that are here."""
        positions = self._position[slots]
        positions = positions[positions != NONE]
        self.view.vectors[positions] = 0.0
        self._position[slots] = NONE
        self._held -= len(positions)

    def _grown(self, rows: int) -> DeltaView:
        view, room = self.view, int(GROWTH * rows)
        vectors, slots = zeroed(room, float_row(view.vectors.shape[1])), zeroed(room, np.int32)
        vectors[: view.rows], slots[: view.rows] = view.vectors[: view.rows], view.slots[: view.rows]
        return DeltaView(vectors, slots, view.rows)


class Recent:
    """The rows that changed last, wherever they answer from: compared exactly, so that each is found at once.

    A graph finds almost every vector by itself, not every one. Older copies are overwritten; a copy that is out of date
    only brings up a candidate, which is scored by its current vector.
    """

    def __init__(self, dim: int) -> None:
        self.vectors: Floats = np.zeros((RECENT_ROWS, dim), np.float32)
        self.slots: Slots = np.zeros(RECENT_ROWS, np.int32)
        self._next = 0

    def put(self, slots: Slots, vectors: Floats) -> None:
        """Notes the last of these changed rows (n, d)."""
        slots, vectors = slots[-RECENT_ROWS:], vectors[-RECENT_ROWS:]
        places = (self._next + np.arange(len(slots))) % RECENT_ROWS
        self.vectors[places], self.slots[places] = vectors, slots
        self._next = int((self._next + len(slots)) % RECENT_ROWS)

    def drop(self, slots: Slots) -> None:
        """Zeroes the copies of these slots."""
        self.vectors[np.isin(self.slots, slots)] = 0.0
