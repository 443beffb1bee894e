"""The exact scan: a block of queries against a block of rows, one GEMM and one merge at a time."""

from __future__ import annotations

import numpy as np

from index.kernels import ANYBODY, SCANNED, merge_top, rescore_top
from index.results import Floats, Mask, Slots

BLOCK_SCORES_MAX = 131_072
"""Scores of one block: 512 KB of float32, so that they are read back from the L2 cache."""
BLOCK_QUERIES_MAX = 64
GATHERED_SHARE_MAX = 0.5
"""Below this share of admitted rows, copying them together is cheaper than scanning them all."""
EVERY_SLOT = np.empty(0, np.int32)
NO_MASK = np.empty(0, np.bool_)


def empty_best(queries: int, k: int) -> tuple[Floats, Slots]:
    """Scores and slots (q, k) before anything was found."""
    return np.full((queries, k), -np.inf, np.float32), np.full((queries, k), -1, np.int32)


def scan(
    vectors: Floats,
    rows: int,
    queries: Floats,
    k: int,
    owner: Slots,
    *,
    slots: Slots = EVERY_SLOT,
    wanted: int = ANYBODY,
    allowed: Mask = NO_MASK,
    excluded: Slots | None = None,
) -> tuple[Floats, Slots]:
    """The best k among the first `rows` rows of `vectors`: scores and slots (q, k), best first, padded -inf and -1.

    Row i belongs to slot `slots[i]`, or to slot i when there are none. Only slots whose owner is `wanted` count.
    """
    if excluded is None:
        excluded = np.full(len(queries), -1, np.int32)
    best_scores, best_slots = empty_best(len(queries), k)
    for start in range(0, len(queries), BLOCK_QUERIES_MAX):
        part = slice(start, start + BLOCK_QUERIES_MAX)
        some = queries[part]
        width = max(BLOCK_SCORES_MAX // max(len(some), 1), 1)
        scores = np.empty(len(some) * min(width, max(rows, 1)), np.float32)
        for first in range(0, rows, width):
            last = min(first + width, rows)
            view = scores[: len(some) * (last - first)].reshape(len(some), last - first)
            np.matmul(some, vectors[first:last].T, out=view)
            merge_top(view, first, slots, owner, wanted, allowed, excluded[part], best_scores[part], best_slots[part])
    return best_scores, best_slots


def scan_admitted(
    vectors: Floats, high: int, queries: Floats, k: int, owner: Slots, allowed: Mask, excluded: Slots
) -> tuple[Floats, Slots]:
    """As `scan` over all rows; where few slots are allowed, only over those."""
    if len(allowed):
        admitted = np.flatnonzero(allowed[:high]).astype(np.int32)
        if len(admitted) < GATHERED_SHARE_MAX * high:
            gathered = vectors[admitted]
            return scan(gathered, len(admitted), queries, k, owner, slots=admitted, excluded=excluded)
    return scan(vectors, high, queries, k, owner, allowed=allowed, excluded=excluded)


def rescore(
    queries: Floats, vectors: Floats, owner: Slots, candidates: Slots, k: int, allowed: Mask, excluded: Slots
) -> tuple[Floats, Slots]:
    """The best k of each query's candidates (q, c) by the vectors as they are now."""
    best_scores, best_slots = empty_best(len(queries), k)
    rescore_top(queries, vectors, owner, candidates, allowed, excluded, best_scores, best_slots)
    return best_scores, best_slots


def warm_up(dim: int) -> None:
    """Compiles the kernels, so that the first search is as fast as the next."""
    nothing = np.zeros((1, dim), np.float32)
    owner = np.full(1, SCANNED, np.int32)
    scan(nothing, 1, nothing, 1, owner)
    rescore(nothing, nothing, owner, np.zeros((1, 1), np.int32), 1, NO_MASK, np.full(1, -1, np.int32))
