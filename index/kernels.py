"""Loops that numpy cannot vectorise, compiled by numba. Importing compiles nothing; the first call does."""

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


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compiles `function` on its first call, without the GIL, and keeps the machine code on disk if it can.

    numba writes beside the source or, when that is read-only, into the user's cache folder. Where neither can
    be written (a container with a read-only root) the code lives in memory and each start compiles anew.
    `nnan`: scores are never NaN, which lets a maximum run in vector registers.
    """
    try:
        return cast("Callable[P, R]", njit(cache=True, nogil=True, fastmath={"nnan"})(function))
    except RuntimeError:
        return cast("Callable[P, R]", njit(nogil=True, fastmath={"nnan"})(function))


@compiled
def merge_top(
    scores: NDArray[np.float32],
    first_slot: int,
    best_scores: NDArray[np.float32],
    best_slots: NDArray[np.int32],
) -> None:
    """Merges a block of scores (q, w) of the slots `first_slot ..` into the best k so far of each query.

    `best_scores` (q, k) is best first and starts as -inf, `best_slots` as -1. Blocks come in the order of
    their slots, and only a strictly better score moves another: among equals the lowest slot stays ahead.
    Once k good ones are known, almost every chunk is dismissed by its maximum.
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
                place = last
                while place > 0 and row_scores[place - 1] < score:
                    row_scores[place] = row_scores[place - 1]
                    row_slots[place] = row_slots[place - 1]
                    place -= 1
                row_scores[place] = score
                row_slots[place] = first_slot + column
