"""Exact cosine search: every query meets every vector. The judge of faster indexes, and the server of small ones.

Shapes: n rows, q queries, d dimensions, k neighbours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from index.config import IndexConfig
from index.errors import DimensionMismatch, InvalidNeighbours, NonFiniteQuery, RejectReason, UnknownId
from index.kernels import merge_top
from index.results import Floats, IndexStats, Matches, RejectedRow, UpsertReport, VectorId

NORM_MIN = 1e-12
"""Shorter vectors have no direction."""
GROWTH = 1.5
BLOCK_SCORES_MAX = 131_072
"""Scores of one block: 512 KB of float32, so that they are read back from the L2 cache."""
BLOCK_QUERIES_MAX = 64


class ExactIndex:
    """Unit vectors in one growing float32 array; ids are strings or ints.

    What a call changed, the next search sees. Not thread-safe: call it from one thread. Ids take a slot when
    they enter; `remove` moves the last vector into the gap, so the stored rows stay dense. Among equal
    similarities the lower slot comes first. Memory: 4·d + 8 bytes a row of capacity, plus the id's dict entry.
    """

    def __init__(self, config: IndexConfig) -> None:
        """An empty index; its code is compiled on return, so the first search is as fast as the next."""
        self._dim = config.dim
        self._vectors: Floats = np.zeros((config.capacity_initial, config.dim), np.float32)
        self._ids: NDArray[np.object_] = np.empty(config.capacity_initial, np.object_)
        self._slots: dict[VectorId, int] = {}
        self._epoch = 0
        self._best(np.zeros((1, config.dim), np.float32), 1)

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, vector_id: VectorId) -> bool:
        return vector_id in self._slots

    def vector(self, vector_id: VectorId) -> Floats:
        """A copy of the unit vector (d,) stored under the id.

        Raises:
            UnknownId: there is none.
        """
        if (slot := self._slots.get(vector_id)) is None:
            raise UnknownId(f"No vector is stored under the id {vector_id!r}.")
        stored: Floats = self._vectors[slot]
        return stored.copy()

    def stats(self) -> IndexStats:
        """Size, capacity, memory and epoch, as of now."""
        memory_bytes = self._vectors.nbytes + self._ids.nbytes + sys.getsizeof(self._slots)
        return IndexStats(len(self._slots), len(self._vectors), memory_bytes, self._epoch)

    def upsert(self, ids: Sequence[VectorId], vectors: Floats) -> UpsertReport:
        """Adds or moves the vectors (n, d), normalised; of an id given twice the last row counts.

        Good rows go in. A row that is not finite or has no direction is reported by its position, and what the
        index held under its id stays as it was.

        Raises:
            DimensionMismatch: the shape is not (len(ids), d); nothing has changed.
        """
        rows, norms = self._normalised(vectors)
        if len(rows) != len(ids):
            raise DimensionMismatch(f"Expected one vector per id, got {len(ids)} ids, {len(rows)} vectors.")
        rejected = _rejected(norms)
        if rejected:
            good = np.flatnonzero(_usable(norms))
            ids, rows = [ids[position] for position in good.tolist()], rows[good]
        distinct = dict.fromkeys(ids)
        added = self._claim(distinct)
        if distinct:
            self._vectors[[self._slots[vector_id] for vector_id in ids]] = rows
            self._epoch += 1
        return UpsertReport(added, len(distinct) - added, rejected)

    def remove(self, ids: Sequence[VectorId]) -> int:
        """Takes the ids out, zeroing their bytes; returns how many were there. Unknown ones are left alone."""
        removed = sum(self._remove_one(vector_id) for vector_id in ids)
        self._epoch += removed > 0
        return removed

    def search(self, vectors: Floats, k: int) -> Matches:
        """The k most similar ids of each query (q, d), by cosine, best first: `Matches` of shape (q, k).

        Rows are padded with None and NaN where the index holds fewer than k; a query of zeros has no direction
        and gets padding only.

        Raises:
            InvalidNeighbours: k is below 1.
            DimensionMismatch: the shape is not (q, d).
            NonFiniteQuery: a query holds NaN or infinity; the message names its row.
        """
        if k < 1:
            raise InvalidNeighbours(f"k must be 1 or more, got {k}.")
        queries, norms = self._normalised(vectors)
        if not np.isfinite(norms).all():
            row = int(np.isfinite(norms).argmin())
            raise NonFiniteQuery(f"Query {row} of {len(norms)} holds NaN or infinity; drop it before the call.")
        best_scores, best_slots = self._best(queries, min(k, max(len(self), 1)))
        best_slots[norms < NORM_MIN] = -1
        ids = np.full((len(queries), k), None, np.object_)
        similarities = np.full((len(queries), k), np.nan, np.float32)
        found = best_slots >= 0
        width = best_slots.shape[1]
        ids[:, :width][found] = self._ids[best_slots[found]]
        similarities[:, :width][found] = np.clip(best_scores[found], -1.0, 1.0)
        return Matches(ids, similarities)

    def _best(self, queries: Floats, k: int) -> tuple[Floats, NDArray[np.int32]]:
        """Scores and slots (q, k), best first, padded with -inf and -1."""
        best_scores = np.full((len(queries), k), -np.inf, np.float32)
        best_slots = np.full((len(queries), k), -1, np.int32)
        for start in range(0, len(queries), BLOCK_QUERIES_MAX):
            part = slice(start, start + BLOCK_QUERIES_MAX)
            self._scan(queries[part], best_scores[part], best_slots[part])
        return best_scores, best_slots

    def _scan(self, queries: Floats, best_scores: Floats, best_slots: NDArray[np.int32]) -> None:
        """Walks the stored rows in blocks whose scores fit the cache: one GEMM and one merge each."""
        size = len(self._slots)
        block = max(BLOCK_SCORES_MAX // len(queries), 1)
        scores = np.empty(len(queries) * min(block, max(size, 1)), np.float32)
        for start in range(0, max(size, 1), block):
            stop = min(start + block, size)
            view = scores[: len(queries) * (stop - start)].reshape(len(queries), stop - start)
            np.matmul(queries, self._vectors[start:stop].T, out=view)
            merge_top(view, start, best_scores, best_slots)

    def _normalised(self, vectors: Floats) -> tuple[Floats, NDArray[np.float64]]:
        """Unit rows and the norms they had, in float64 so that no finite float32 overflows."""
        if vectors.ndim != 2 or vectors.shape[1] != self._dim:
            raise DimensionMismatch(f"Expected vectors of shape (n, {self._dim}), got {vectors.shape}.")
        wide = vectors.astype(np.float64)
        norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))
        usable = _usable(norms)
        scales = np.divide(1.0, norms, out=np.zeros_like(norms), where=usable)
        unit = np.multiply(wide, scales[:, None], out=np.zeros_like(wide), where=usable[:, None])
        return unit.astype(np.float32), norms

    def _claim(self, distinct: Iterable[VectorId]) -> int:
        """Gives the new ones among distinct ids the next slots; returns how many they were."""
        new = [vector_id for vector_id in distinct if vector_id not in self._slots]
        size = len(self._slots)
        self._reserve(size + len(new))
        self._ids[size : size + len(new)] = new
        self._slots.update(zip(new, range(size, size + len(new)), strict=True))
        return len(new)

    def _reserve(self, size: int) -> None:
        capacity = len(self._vectors)
        if size <= capacity:
            return
        capacity = max(size, int(capacity * GROWTH))
        # zeroed memory is mapped page by page when it is written: room that waits costs nothing
        vectors = np.zeros((capacity, self._dim), np.float32)
        vectors[: len(self._vectors)] = self._vectors
        ids = np.empty(capacity, np.object_)
        ids[: len(self._ids)] = self._ids
        self._vectors, self._ids = vectors, ids

    def _remove_one(self, vector_id: VectorId) -> bool:
        if (slot := self._slots.pop(vector_id, None)) is None:
            return False
        last = len(self._slots)
        if slot != last:
            self._vectors[slot] = self._vectors[last]
            self._ids[slot] = self._ids[last]
            self._slots[self._ids[slot]] = slot
        self._vectors[last] = 0.0
        self._ids[last] = None
        return True


def _rejected(norms: NDArray[np.float64]) -> tuple[RejectedRow, ...]:
    bad = np.flatnonzero(~_usable(norms)).tolist()
    return tuple(
        RejectedRow(row, RejectReason.ZERO_NORM if np.isfinite(norms[row]) else RejectReason.NON_FINITE) for row in bad
    )


def _usable(norms: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.isfinite(norms) & (norms >= NORM_MIN)
