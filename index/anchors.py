"""What the graphs hold of the rows that have moved since, in int8: so that the gate need not ask the graphs.

hnswlib gives vectors back number by number through Python, 4.7 µs a row; a thousand slightly moved rows would take
longer than all the rest of their upsert. A row's first move tells its anchor for nothing: it is where the row stood.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from index.results import Floats, Mask, Slots
from index.room import zeroed

NONE = -1
ROWS_MIN = 1024
GROWTH = 1.5


class Anchors:
    """By slot, an int8 copy of a vector; cosines to it are right within .01 radian at d = 64."""

    def __init__(self, dim: int, capacity: int) -> None:
        self._row: Slots = np.full(capacity, NONE, np.int32)
        self._codes: NDArray[np.int8] = np.zeros((ROWS_MIN, dim), np.int8)
        self._scales: Floats = np.zeros(ROWS_MIN, np.float32)
        self._used = 0

    @property
    def memory_bytes(self) -> int:
        """Of the copies and the table that finds them."""
        return self._codes[: self._used].nbytes + self._scales[: self._used].nbytes + self._row.nbytes

    def reserve(self, capacity: int) -> None:
        """Makes room for slots below `capacity`."""
        if capacity > len(self._row):
            self._row = np.concatenate([self._row, np.full(capacity - len(self._row), NONE, np.int32)])

    def missing(self, slots: Slots) -> Mask:
        """Which slots have none."""
        return np.asarray(self._row[slots] == NONE)

    def put(self, slots: Slots, vectors: Floats) -> None:
        """Anchors distinct slots that have none at unit vectors (n, d)."""
        scales = np.abs(vectors).max(axis=1, initial=0.0) / 127.0
        self._append(slots, np.rint(vectors / np.where(scales > 0, scales, 1.0)[:, None]), scales)

    def cosines(self, slots: Slots, vectors: Floats) -> Floats:
        """Of each vector (n, d) to its slot's anchor, which must be there."""
        rows = self._row[slots]
        found: Floats = np.einsum("nd,nd->n", self._codes[rows].astype(np.float32), vectors) * self._scales[rows]
        return found

    def take_over(self, other: Anchors, slots: Slots) -> None:
        """These distinct slots stand from now on where `other` anchors them, or have no anchor if it has none.

        The room of their former copies is not used again.
        """
        self._row[slots] = NONE
        anchored = slots[~other.missing(slots)]
        rows = other._row[anchored]
        self._append(anchored, other._codes[rows], other._scales[rows])

    def _append(self, slots: Slots, codes: NDArray[np.int8] | Floats, scales: Floats) -> None:
        count = self._used + len(slots)
        if count > len(self._scales):
            self._grow(max(len(self._row), int(GROWTH * count)))
        self._codes[self._used : count] = codes
        self._scales[self._used : count] = scales
        self._row[slots] = np.arange(self._used, count, dtype=np.int32)
        self._used = count

    def _grow(self, rows: int) -> None:
        """To room for every row at once: room that waits is not mapped, and growing by steps would copy every time."""
        codes, scales = zeroed(rows, (np.int8, self._codes.shape[1:])), zeroed(rows, np.float32)
        codes[: self._used], scales[: self._used] = self._codes[: self._used], self._scales[: self._used]
        self._codes, self._scales = codes, scales
