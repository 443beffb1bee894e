"""What the graphs hold of the rows that have moved since, in int8: so that the gate need not ask the graphs.

hnswlib gives vectors back number by number through Python, 4.7 µs a row; a thousand slightly moved rows would take
longer than all the rest of their upsert. A row's first move tells its anchor for nothing: it is where the row stood.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from index.results import Floats, Mask, Slots

NONE = -1
ROWS_MIN = 1024


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
        count = self._used + len(slots)
        if count > len(self._scales):  # room that waits is not mapped; growing step by step would copy again and again
            rows = max(len(self._row), count)
            codes, scales = np.zeros((rows, self._codes.shape[1]), np.int8), np.zeros(rows, np.float32)
            codes[: self._used], scales[: self._used] = self._codes[: self._used], self._scales[: self._used]
            self._codes, self._scales = codes, scales
        scales = np.abs(vectors).max(axis=1, initial=0.0) / 127.0
        self._codes[self._used : count] = np.rint(vectors / np.where(scales > 0, scales, 1.0)[:, None])
        self._scales[self._used : count] = scales
        self._row[slots] = np.arange(self._used, count, dtype=np.int32)
        self._used = count

    def cosines(self, slots: Slots, vectors: Floats) -> Floats:
        """Of each vector (n, d) to its slot's anchor, which must be there."""
        rows = self._row[slots]
        found: Floats = np.einsum("nd,nd->n", self._codes[rows].astype(np.float32), vectors) * self._scales[rows]
        return found

    def drop(self, slots: Slots) -> None:
        """These slots are held by another graph from now on. Their copies' room is not used again."""
        self._row[slots] = NONE
