"""Who is where now: users that keep moving, the truth that every index is judged against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from index import Matches
from streams.bench.index.data import SLIGHT_COSINES, Floats, VectorSource, turned

Rows = NDArray[np.int64]

BATCH = 256
FAR_SHARE = 0.1
TIE = 1e-6
"""Similarities this close count as equal: float32 sums differ by their order."""
JUDGED_AT_ONCE = 32


class Population:
    """`vectors` (n, d) as of now; the id of a user is its row."""

    def __init__(self, vectors: Floats, source: VectorSource, rng: np.random.Generator) -> None:
        """Takes a copy of the vectors; `rng` alone decides what happens to them."""
        self.vectors = vectors.copy()
        self.changes = 0
        self._source = source
        self._rng = rng

    def __len__(self) -> int:
        return len(self.vectors)

    def change(self, count: int) -> Rows:
        """Moves `count` distinct random users, a tenth of them anywhere, the others slightly; returns their rows."""
        rows = self._rng.choice(len(self.vectors), count, replace=False)
        moved = moved_slightly(self.vectors[rows], self._rng)
        far = np.flatnonzero(self._rng.random(count) < FAR_SHARE)
        moved[far] = self._source.draw(len(far), self._rng)
        self.vectors[rows] = moved
        self.changes += count
        return rows


def moved_slightly(vectors: Floats, rng: np.random.Generator) -> Floats:
    """Each user's vector after one more event."""
    return turned(vectors, SLIGHT_COSINES, rng)


def next_vectors(vectors: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Queries (count, d): vectors of random users after one more event."""
    return moved_slightly(vectors[rng.integers(0, len(vectors), count)], rng)


def recall_of(matches: Matches, vectors: Floats, queries: Floats) -> float:
    """Share of the exact nearest among the current `vectors` that the matches name; a tie at the edge counts.

    Similarities are computed anew from `vectors`, so what an index believes about a user does not count; an id that
    is named twice counts once.
    """
    wanted = min(matches.ids.shape[1], len(vectors))
    rows = rows_of(matches)
    similarities = np.einsum("qkd,qd->qk", vectors[rows], queries)
    similarities[(rows < 0) | repeated(rows)] = -np.inf
    hits = similarities >= _edges(vectors, queries, wanted)[:, None] - TIE
    return float(np.minimum(hits.sum(axis=1), wanted).mean() / wanted)


def rows_of(matches: Matches) -> Rows:
    """Row numbers (q, k), -1 for padding."""
    return np.where(matches.ids == None, -1, matches.ids).astype(np.int64)  # noqa: E711 - elementwise


def found_itself(matches: Matches, rows: Rows, vectors: Floats) -> NDArray[np.bool_]:
    """Per query, whether the user of that row comes first, or one with exactly the same vector."""
    first = rows_of(matches)[:, 0]
    twins = (vectors[first] == vectors[rows]).all(axis=1)
    result: NDArray[np.bool_] = (first == rows) | (twins & (first >= 0))
    return result


def repeated(rows: Rows) -> NDArray[np.bool_]:
    """Per place (q, k), whether an earlier place of its row names the same id."""
    earlier = np.tri(rows.shape[1], k=-1, dtype=np.bool_)
    result: NDArray[np.bool_] = ((rows[:, :, None] == rows[:, None, :]) & earlier).any(axis=2)
    return result


def _edges(vectors: Floats, queries: Floats, k: int) -> Floats:
    """The k-th best similarity (q,) of each query."""
    edges = np.empty(len(queries), np.float32)
    for start in range(0, len(queries), JUDGED_AT_ONCE):
        part = slice(start, start + JUDGED_AT_ONCE)
        scores = queries[part] @ vectors.T
        edges[part] = np.partition(scores, len(vectors) - k, axis=1)[:, len(vectors) - k]
    return edges
