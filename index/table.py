"""Ids, slots and unit vectors: the one place where an index's rows live, and the rule by which threads share them.

Readers never wait for the writer. Whoever reads takes `VectorTable.view`, one reference to arrays that stay in place,
and chooses candidates by it. Rows change inside the arrays, and a newer view may share some of them, so what is said
about candidates comes from the newest view of the same layout and counts only when no write went on meanwhile
(`WriteGuard.read`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.errors import DimensionMismatch, UnknownId
from index.kernels import NOBODY, SCANNED
from index.results import Floats, Mask, Slots, VectorId
from index.room import zeroed
from index.slot_map import SlotMap

NORM_MIN = 1e-12
"""Shorter vectors have no direction."""
GROWTH = 1.5
BLOCK_ROWS = 4096
HOLES_MIN = 1024
"""Free rows below this number are never worth closing up."""
T = TypeVar("T")


class WriteGuard:
    """One writer at a time; readers go ahead without a lock and repeat what a write has crossed (a seqlock)."""

    TRIES = 3

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self.sequence = 0
        """Even when nobody writes; grows by two with every write."""

    @contextmanager
    def write(self) -> Iterator[None]:
        """Holds the lock; re-entrant in its thread."""
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self.sequence += 1
            try:
                yield
            finally:
                if self._depth == 1:
                    self.sequence += 1
                self._depth -= 1

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps writers out without writing."""
        with self._lock:
            yield

    def read(self, work: Callable[[], T]) -> T:
        """What `work` returns when no write goes on while it runs. It may run several times: it must not write."""
        for _ in range(self.TRIES):
            before = self.sequence
            if before % 2:
                break
            result = work()
            if self.sequence == before:
                return result
        with self._lock:
            return work()


class TableView(NamedTuple):
    """The arrays as of one moment. Rows at or above `high` were never used."""

    vectors: NDArray[Any]
    """(capacity, d) unit rows in float32, or (capacity,) rows in the table's own form; zeros where the slot is free."""
    ids: NDArray[np.object_]
    """(capacity,) None where the slot is free."""
    owner: Slots
    """(capacity,) see `index.kernels`."""
    high: int
    layout: int
    """Slots mean the same in all views of one layout; only closing up begins another."""


def float_row(dim: int) -> np.dtype[Any]:
    """A vector as it is: d times float32."""
    return np.dtype((np.float32, (dim,)))


class VectorTable:
    """Growing columns with one slot an id. Every method that changes something is called inside `guard.write()`."""

    def __init__(self, row: np.dtype[Any], capacity: int) -> None:
        """`row` is the form of one vector; see `float_row`."""
        self.row = row
        self.guard = WriteGuard()
        self.view = self._empty(capacity, 0, 0)
        self.slot_of = SlotMap(self.view.ids)
        self.free: list[int] = []
        """Slots that a new id may take at once."""

    def __len__(self) -> int:
        return len(self.slot_of)

    @property
    def memory_bytes(self) -> int:
        """What the columns and the ids' map take; untouched room is not mapped, and not counted."""
        view = self.view
        row_bytes = self.row.itemsize + view.ids.itemsize + view.owner.itemsize
        return view.high * row_bytes + self.slot_of.memory_bytes(view.high)

    def slots(self, ids: Iterable[VectorId | None]) -> Slots:
        """The slot of each id, -1 for unknown ones."""
        return self.slot_of.find(ids if isinstance(ids, list) else list(ids))

    def known_slots(self, ids: Sequence[VectorId]) -> Slots:
        """The slot of each id.

        Raises:
            UnknownId: one is not there; the message names the first.
        """
        slots = self.slots(ids)
        if (slots < 0).any():
            raise UnknownId(f"No vector is stored under the id {ids[int((slots < 0).argmax())]!r}.")
        return slots

    def claim(self, ids: Sequence[VectorId]) -> Slots:
        """Slots for ids that are new and distinct: freed ones first, then the next unused."""
        reused = [self.free.pop() for _ in range(min(len(self.free), len(ids)))]
        fresh = len(ids) - len(reused)
        high = self.view.high
        self._reserve(high + fresh)
        slots = [*reused, *range(high, high + fresh)]
        taken = np.array(slots, np.int32)
        self.view.ids[taken] = np.fromiter(ids, np.object_, len(ids))
        self.slot_of.add(ids, taken)
        self.view.owner[taken] = SCANNED
        self.view = self.view._replace(high=high + fresh)
        return taken

    def adopt(self, rows: int, slots: Slots, ids: Sequence[VectorId], vectors: Floats) -> None:
        """Fills an empty table with rows at given distinct slots below `rows`; the slots between stay unused."""
        self._reserve(rows)
        view = self.view
        view.vectors[slots] = vectors
        view.ids[slots] = np.fromiter(ids, np.object_, len(ids))
        self.slot_of.add(ids, slots)
        view.owner[slots] = SCANNED
        self.view = view._replace(high=rows)

    def release(self, ids: Iterable[VectorId]) -> Slots:
        """Takes the known ones among the ids out, zeroing their rows; returns their slots, which the caller frees."""
        slots = np.unique(self.slots(ids))
        slots = slots[slots >= 0]
        self.slot_of.drop(slots)
        view = self.view
        view.vectors[slots] = 0.0
        view.ids[slots] = None
        view.owner[slots] = NOBODY
        return slots

    def close_up(self) -> None:
        """Moves all rows together when most of what is scanned would be holes. Slots change: no graph may exist."""
        holes = self.view.high - len(self)
        if holes < max(HOLES_MIN, len(self)):
            return
        used = np.flatnonzero(self.view.owner[: self.view.high] != NOBODY)
        size, capacity = len(used), max(HOLES_MIN, int(len(used) * GROWTH))
        view = self._empty(capacity, size, self.view.layout + 1)
        for new, old in zip(view[:3], self.view[:3], strict=True):
            new[:size] = old[used]
        slot_of = SlotMap(view.ids)
        slot_of.add(view.ids[:size].tolist(), np.arange(size, dtype=np.int32))
        self.slot_of = slot_of
        self.free = []
        self.view = view

    def _empty(self, capacity: int, high: int, layout: int) -> TableView:
        return TableView(
            zeroed(capacity, self.row),
            np.empty(capacity, np.object_),
            zeroed(capacity, np.int32),
            high,
            layout,
        )

    def _reserve(self, rows: int) -> None:
        capacity = len(self.view.owner)
        if rows <= capacity:
            return
        capacity = max(rows, int(capacity * GROWTH))
        grown = self._empty(capacity, self.view.high, self.view.layout)
        for new, old in zip(grown[:3], self.view[:3], strict=True):
            new[: grown.high] = old[: grown.high]
        self.view = grown
        self.slot_of.move_to(grown.ids)


def normalised(vectors: Floats, dim: int) -> tuple[Floats, NDArray[np.float64]]:
    """Unit rows (n, d) and the norms they had, in float64 so that no finite float32 overflows.

    Raises:
        DimensionMismatch: the shape is not (n, d).
    """
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise DimensionMismatch(f"Expected vectors of shape (n, {dim}), got {vectors.shape}.")
    unit = np.empty(vectors.shape, np.float32)
    norms = np.empty(len(vectors))
    for start in range(0, len(vectors), BLOCK_ROWS):  # so that a bulk load needs no second copy in float64
        part = slice(start, start + BLOCK_ROWS)
        wide = vectors[part].astype(np.float64)
        norms[part] = np.sqrt(np.einsum("nd,nd->n", wide, wide))
        sound = usable(norms[part])
        scales = np.divide(1.0, norms[part], out=np.zeros(len(wide)), where=sound)
        wide[~sound] = 0.0
        np.multiply(wide, scales[:, None], out=unit[part], casting="same_kind")
    return unit, norms


def usable(norms: NDArray[np.float64]) -> Mask:
    """Rows that have a direction."""
    return np.isfinite(norms) & (norms >= NORM_MIN)
