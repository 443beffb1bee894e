"""The rows beside the graphs, new or moved too far, kept together so that a scan reads them in one go."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from index.results import Floats, Slots

ROWS_MIN = 1024
GROWTH = 1.25


class DeltaView(NamedTuple):
    """The delta as of one moment; positions at or above `rows` are not in use."""

    vectors: Floats
    slots: Slots
    rows: int


class Delta:
    """Append-only copies of table rows; a slot that leaves is zeroed and stays until the delta is made anew."""

    def __init__(self, dim: int, slots: Slots, vectors: Floats) -> None:
        """Begins with these rows (n, d)."""
        capacity = max(ROWS_MIN, int(GROWTH * len(slots)))
        self.view = DeltaView(np.zeros((capacity, dim), np.float32), np.zeros(capacity, np.int32), 0)
        self._position: dict[int, int] = {}
        self.put(slots, vectors)

    def __len__(self) -> int:
        return len(self._position)

    @property
    def memory_bytes(self) -> int:
        """Of the copies."""
        return self.view.vectors.nbytes + self.view.slots.nbytes

    def slots(self) -> Slots:
        """All slots that answer from here."""
        return np.array(list(self._position), np.int32)

    def put(self, slots: Slots, vectors: Floats) -> None:
        """Adds or moves distinct slots."""
        view, get = self.view, self._position.get
        count = view.rows
        positions = []
        for slot in slots.tolist():
            position = get(slot)
            if position is None:
                position = self._position[slot] = count
                count += 1
            positions.append(position)
        if count > len(view.slots):
            view = self._grown(count)
        view.vectors[positions] = vectors
        view.slots[positions] = slots
        self.view = view._replace(rows=count)

    def drop(self, slots: Slots) -> None:
        """Zeroes the rows of those slots that are here."""
        pop = self._position.pop
        popped = (pop(slot, None) for slot in slots.tolist())
        positions = [position for position in popped if position is not None]
        self.view.vectors[positions] = 0.0

    def _grown(self, count: int) -> DeltaView:
        view, capacity = self.view, int(GROWTH * count)
        vectors = np.zeros((capacity, view.vectors.shape[1]), np.float32)
        slots = np.zeros(capacity, np.int32)
        vectors[: view.rows], slots[: view.rows] = view.vectors[: view.rows], view.slots[: view.rows]
        return DeltaView(vectors, slots, view.rows)
