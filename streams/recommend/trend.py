"""What many people want right now: popularity that halves every half-life."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streams.core.profile import GROWTH, ROWS_MIN
from streams.recommend.kernel import PLAIN, kernel

if TYPE_CHECKING:
    from streams.core.ports import Floats, Slots

LOST_BELOW = -150.0
"""Powers of two that are no float32 any more."""


class Trend:
    """Decayed popularity of every catalogue slot, 8 bytes an item.

    An item's popularity at time t is the sum of `weight * 2 ** (-(t - event time) / half-life)`. Stored is its
    logarithm at time 0, `log2(sum of weight * 2 ** (event time / half-life))`: nothing has to be aged, nothing
    overflows, a late event counts what it would have counted in time, and the order of items does not depend on now.

    Not thread-safe: read and written in the compute thread only.
    """

    def __init__(self, half_life_s: float) -> None:
        if not half_life_s > 0:
            raise ValueError(f"the half-life must be above 0 seconds, got {half_life_s}")
        self.half_life_s = half_life_s
        self._masses = np.full(ROWS_MIN, -np.inf)

    def gains(self, weights: Floats, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """(e,) what events are worth in the stored form: log2 of weight times growth; -inf where a weight is <= 0."""
        return log_gains(weights, times_s, self.half_life_s)

    def fold(self, items: Slots, weights: Floats, times_s: NDArray[np.float64]) -> None:
        """Counts events; those with a weight of 0 or less do not count. All three are (events,).

        An empty call compiles the loop, so that the first event need not wait for it.

        Raises:
            ValueError: a slot is negative, or a weight or a time is not finite; nothing was counted.
        """
        if items.min(initial=0) < 0 or not (np.isfinite(times_s).all() and np.isfinite(weights).all()):
            raise ValueError("events need catalogue slots >= 0, finite weights and finite times; check them first")
        self.masses(int(items.max(initial=-1)) + 1)
        _fold(
            self._masses,
            np.require(items, np.int32, PLAIN),
            np.require(weights, np.float64, PLAIN),
            np.require(times_s, np.float64, PLAIN) / self.half_life_s,
        )

    def scores(self, now_s: float, items: Slots | None = None) -> NDArray[np.float64]:
        """Popularity at `now_s` of these items, or of all that have had room; 0 for those without events."""
        masses = self._masses if items is None else self.masses(int(items.max(initial=-1)) + 1)[items]
        return np.exp2(masses - now_s / self.half_life_s)

    def top(self, n: int, among: NDArray[np.bool_]) -> Slots:
        """The n >= 1 most popular slots where `among` holds, best first, equals by slot; all if there are fewer.

        Items without events come last, so that n items come back whenever `among` has them.
        """
        return top_slots(self.masses(len(among)), n, among)

    def restore(self, masses: NDArray[np.float64]) -> None:
        """Takes over the stored logarithms (items,) of a trend of the same half-life; nothing was counted before."""
        self.masses(len(masses))[:] = masses

    def masses(self, items: int) -> NDArray[np.float64]:
        """(items,) the stored logarithms of the first slots, -inf without events; a view until the next fold."""
        if items > len(self._masses):
            grown = np.full(max(items, int(len(self._masses) * GROWTH)), -np.inf)
            grown[: len(self._masses)] = self._masses
            self._masses = grown
        return self._masses[:items]


def log_gains(weights: Floats, times_s: NDArray[np.float64], half_life_s: float) -> NDArray[np.float64]:
    """(e,) log2 of what events are worth at time 0: of weight times growth; -inf where a weight is 0 or less."""
    with np.errstate(divide="ignore"):
        return np.log2(np.maximum(weights, 0).astype(np.float64)) + times_s / half_life_s


def top_slots(keys: NDArray[np.float64], n: int, among: NDArray[np.bool_]) -> Slots:
    """The n >= 1 slots of the largest keys where `among` holds, best first, equals by slot; all if there are fewer."""
    slots = np.flatnonzero(among)
    keys = keys[slots]
    if n < len(keys):
        least = np.partition(keys, len(keys) - n)[len(keys) - n]
        above = np.flatnonzero(keys > least)
        equal = np.flatnonzero(keys == least)[: n - len(above)]
        chosen = np.concatenate([above, equal])
        slots, keys = slots[chosen], keys[chosen]
    return slots[np.lexsort((slots, -keys))].astype(np.int32)


@kernel
def relative_popularity(masses: NDArray[np.float64], items: Slots) -> Floats:
    """(u, c) popularity of items (u, c) less that of the row's best, from the stored logarithms; 0 for -1."""
    found = np.zeros(items.shape, np.float32)
    for row in range(items.shape[0]):
        best = -np.inf
        for column in range(items.shape[1]):
            if items[row, column] >= 0:
                best = max(best, masses[items[row, column]])
        for column in range(items.shape[1]):
            if items[row, column] >= 0 and masses[items[row, column]] - best >= LOST_BELOW:
                found[row, column] = np.exp2(masses[items[row, column]] - best)
    return found


@kernel
def _fold(masses: NDArray[np.float64], items: Slots, weights: NDArray[np.float64], ages: NDArray[np.float64]) -> None:
    """Adds 2 ** (log2(weight) + age) to 2 ** mass without leaving the logarithm. `ages` are in half-lives."""
    for event in range(len(items)):
        weight = weights[event]
        if not weight > 0:
            continue
        gain = np.log2(weight) + ages[event]
        mass = masses[items[event]]
        high, low = max(mass, gain), min(mass, gain)
        masses[items[event]] = high + np.log2(1.0 + 2.0 ** (low - high))
