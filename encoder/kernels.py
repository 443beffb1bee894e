"""Loops that numpy cannot vectorise, compiled by numba. Importing compiles nothing; the first call does."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compiles `function` on its first call, without the GIL, and keeps the machine code on disk if it can.

    numba writes beside the source or, when that is read-only, into the user's cache folder. Where neither can
    be written (a container with a read-only root) the code lives in memory and each start compiles anew.
    """
    try:
        return cast("Callable[P, R]", njit(cache=True, nogil=True)(function))
    except RuntimeError:
        return cast("Callable[P, R]", njit(nogil=True)(function))


@compiled
def decayed_sums(
    states: NDArray[np.float32],
    rows: NDArray[np.int32],
    item_vectors: NDArray[np.float32],
    weights: NDArray[np.float32],
    gaps_s: NDArray[np.float32],
    half_life_s: float,
) -> None:
    """For each event in order: `states[row] = states[row] * 2^(-gap/half_life) + weight * item_vector`.

    The factor is computed in float64 and rounded once, so that the result depends on nothing but the order.
    Inputs are trusted: the caller has checked shapes, finiteness and that each row exists.
    """
    for event in range(rows.shape[0]):
        state = states[rows[event]]
        item = item_vectors[event]
        kept = np.float32(2.0 ** (-np.float64(gaps_s[event]) / half_life_s))
        weight = weights[event]
        for axis in range(state.shape[0]):
            state[axis] = state[axis] * kept + weight * item[axis]
