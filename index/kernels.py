"""Loops that numpy cannot vectorise, compiled by numba. Importing compiles nothing; the first call does.

A slot is a row of the table. `owner` (capacity,) says by slot where its answer comes from: `NOBODY` when it is free,
`SCANNED` when it is compared exactly, else the tag of a graph. An empty `allowed` admits every slot, an empty `slots`
means that position and slot are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")

CHUNK = 16
"""Columns whose maximum is compared at once: one AVX-512 or two AVX2 registers."""
NOBODY = 0
SCANNED = 1
TAG_MIN = 2
"""The tags of graphs begin here."""
ANYBODY = -1
"""As `wanted` owner: every slot that is not free."""


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compiles `function` on its first call, without the GIL, and keeps the machine code on disk if it can.

    numba writes beside the source or, when that is read-only, into the user's cache folder. Where neither can
    be written (a container with a read-only root) the code lives in memory and each start compiles anew.
    `nnan`: scores are never NaN, which lets a maximum run in vector registers.
    """
    flags = {"nnan", "contract", "reassoc"}
    try:
        return cast("Callable[P, R]", njit(cache=True, nogil=True, fastmath=flags)(function))
    except RuntimeError:
        return cast("Callable[P, R]", njit(nogil=True, fastmath=flags)(function))


@compiled
def admits(
    slot: int,
    owner: NDArray[np.int32],
    wanted: int,
    allowed: NDArray[np.bool_],
    excluded: int,
) -> bool:
    """Whether a slot may stand in a result."""
    holder = owner[slot]
    if holder == NOBODY or slot == excluded:
        return False
    if holder != wanted and wanted != ANYBODY:  # noqa: PLR1714 - numba knows no mixed tuples
        return False
    return allowed.shape[0] == 0 or (slot < allowed.shape[0] and bool(allowed[slot]))


@compiled
def merge_top(
    scores: NDArray[np.float32],
    first: int,
    slots: NDArray[np.int32],
    owner: NDArray[np.int32],
    wanted: int,
    allowed: NDArray[np.bool_],
    excluded: NDArray[np.int32],
    best_scores: NDArray[np.float32],
    best_slots: NDArray[np.int32],
) -> None:
    """Merges a block of scores (q, w) of the positions `first ..` into the best k so far of each query.

    `best_scores` (q, k) is best first and starts as -inf, `best_slots` as -1; `excluded` (q,) holds one slot a
    query that never enters, or -1. Blocks come in the order of their positions, and only a strictly better score
    moves another: among equals the earliest stays ahead. Once k good ones are known, almost every chunk is
    dismissed by its maximum.
    """
    last = best_scores.shape[1] - 1
    columns = scores.shape[1]
    for query in range(scores.shape[0]):
        row = scores[query]
        row_scores = best_scores[query]
        row_slots = best_slots[query]
        for start in range(0, columns, CHUNK):
            stop = min(start + CHUNK, columns)
            top = row[start]
            for column in range(start, stop):
                top = max(top, row[column])
            if top <= row_scores[last]:
                continue
            for column in range(start, stop):
                score = row[column]
                if score <= row_scores[last]:
                    continue
                slot = first + column
                if slots.shape[0]:
                    slot = slots[slot]
                if not admits(slot, owner, wanted, allowed, excluded[query]):
                    continue
                place = last
                while place > 0 and row_scores[place - 1] < score:
                    row_scores[place] = row_scores[place - 1]
                    row_slots[place] = row_slots[place - 1]
                    place -= 1
                row_scores[place] = score
                row_slots[place] = slot


@compiled
def place(row_scores: NDArray[np.float32], row_slots: NDArray[np.int32], score: np.float32, slot: int) -> None:
    """Puts a slot where it belongs in a best-first row; a slot that is there already, or too low, changes nothing."""
    last = len(row_slots) - 1
    if row_slots[last] >= 0 and (score < row_scores[last] or (score == row_scores[last] and slot >= row_slots[last])):
        return
    for above in range(last + 1):
        if row_slots[above] == slot:
            return
    free = last
    while free > 0 and (
        row_slots[free - 1] < 0
        or row_scores[free - 1] < score
        or (row_scores[free - 1] == score and row_slots[free - 1] > slot)
    ):
        row_scores[free] = row_scores[free - 1]
        row_slots[free] = row_slots[free - 1]
        free -= 1
    row_scores[free] = score
    row_slots[free] = slot


@compiled
def rescore_top(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    owner: NDArray[np.int32],
    candidates: NDArray[np.int32],
    allowed: NDArray[np.bool_],
    excluded: NDArray[np.int32],
    best_scores: NDArray[np.float32],
    best_slots: NDArray[np.int32],
) -> None:
    """The best k of each query among its candidates (q, c), by their current vectors; -1 is no candidate.

    A slot that stands twice in a row counts once, a free, forbidden or excluded one not at all; of equal scores the
    lower slot comes first. `best_scores` (q, k) starts as -inf, `best_slots` as -1.
    """
    for query in range(queries.shape[0]):
        for column in range(candidates.shape[1]):
            slot = candidates[query, column]
            if slot < 0 or not admits(slot, owner, ANYBODY, allowed, excluded[query]):
                continue
            score = np.float32(0.0)
            for number in range(queries.shape[1]):
                score += queries[query, number] * vectors[slot, number]
            place(best_scores[query], best_slots[query], score, slot)


@compiled
def count_owned(
    candidates: NDArray[np.int32], owner: NDArray[np.int32], tag: int, allowed: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """How many of each row's candidates (q, c) still answer from the graph with this tag, and are allowed."""
    counts = np.zeros(candidates.shape[0], np.int32)
    for query in range(candidates.shape[0]):
        for column in range(candidates.shape[1]):
            slot = candidates[query, column]
            if slot >= 0 and admits(slot, owner, tag, allowed, -1):
                counts[query] += 1
    return counts


@compiled
def follow_chains(
    found: NDArray[np.int32],
    chain: NDArray[np.int32],
    owner: NDArray[np.int32],
    tag: int,
    allowed: NDArray[np.bool_],
    excluded: NDArray[np.int32],
    chained: NDArray[np.int32],
) -> None:
    """Fills `chained` (q, n) with slots that hang on the nodes found (q, c), nearest node first; -1 where none is left.

    Only those that still answer from the graph `tag`, and are allowed, take a place.
    """
    for query in range(found.shape[0]):
        places = 0
        for column in range(found.shape[1]):
            if found[query, column] < 0:
                continue
            slot = chain[found[query, column]]
            while slot >= 0 and places < chained.shape[1]:
                if admits(slot, owner, tag, allowed, excluded[query]):
                    chained[query, places] = slot
                    places += 1
                slot = chain[slot]
        chained[query, places:] = -1


@compiled
def hash_rows(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """A 64-bit hash of each row's bits (n, d): rows of other bits share one with a probability of 2^-64 a pair."""
    bits = vectors.view(np.uint32)
    hashes = np.empty(vectors.shape[0], np.uint64)
    for row in range(vectors.shape[0]):
        mixed = np.uint64(0x9E3779B97F4A7C15)
        for number in range(vectors.shape[1]):
            mixed = (mixed ^ np.uint64(bits[row, number])) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(29)
        hashes[row] = mixed
    return hashes
