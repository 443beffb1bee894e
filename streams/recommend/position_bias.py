"""How likely people are to look at a place of a list at all, learned from lists in which two items were exchanged.

In a list that takes part in an experiment, a coin decides which of two items stands at the upper place of a pair and
which at the lower one. Over many such lists both places then hold equally good items, so reactions at the lower place
over reactions at the upper one tell how much less it is looked at (swap interventions: Joachims, Swaminathan, Schnabel,
"Unbiased learning-to-rank with biased feedback", 2017). The pairs are those of a heap, place k with place (k - 1) // 2:
the chance to look at any of P places, the propensity, is a product of log2(P) ratios at most, and no item moves to the
other end of a list. The ratio of each pair begins, with the weight of `PRIOR_REACTIONS` reactions, as that of the curve
log2(place + 2) ** -steepness, and one steepness is fitted to the reactions to all pairs: few are enough to tell a page
that shows three items from one that shows all.

Sizes: P places, l lessons.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from streams.recommend.shown_lists import PLACES, upper_place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streams.recommend.fusion import Doubles

PRIOR = 1.0 / np.log2(np.arange(PLACES) + 2.0)
"""The curve with a steepness of 1, as a discounted gain counts places."""
PRIOR_REACTIONS = 20.0
"""What the curve counts for in the ratio of each pair."""
STEEPNESS_MAX = 4.0
PROPENSITY_MIN = 0.05
"""No place is thought to be looked at less often: no lesson is repeated more than twentyfold."""
HALF_LIVES_REACTIONS = np.array([[20_000.0], [5_000.0], [5_000.0]])
"""Reactions, and reactions to tried pairs, after which one counts half: a page may change."""
NEWTON_STEPS = 8
_REACTED_FIRST = PRIOR**4 / (PRIOR**4).sum()
"""Where reactions are thought to fall before there are any: looked at less further down, and less good there."""
_UPPER = np.array([0, *map(upper_place, range(1, PLACES))])
_LOG_RATIO = np.log(PRIOR / PRIOR[_UPPER])


@dataclass(frozen=True)
class PositionBias:
    """What the reactions so far say of the places; the newest count most."""

    counts: Doubles
    """(3, PLACES) >= 0, as `ShownLists.react` returns them, decayed."""

    @classmethod
    def start(cls) -> PositionBias:
        """Without any reaction."""
        return cls(np.zeros((3, PLACES)))

    @classmethod
    def of(cls, counts: NDArray[np.generic]) -> PositionBias:
        """With saved counts.

        Raises:
            ValueError: they are of another shape, below 0 or not finite.
        """
        given = np.array(counts, np.float64)
        if given.shape != (3, PLACES) or not np.isfinite(given).all() or given.min() < 0:
            raise ValueError(f"expected finite counts of reactions (3, {PLACES}) of at least 0, got {given.shape}")
        return cls(given)

    def after(self, counts: Doubles) -> PositionBias:
        """With so many more reactions, (3, PLACES)."""
        if not counts.any():
            return self
        fresh = np.array([[counts[0].sum()], [counts[1:].sum()], [counts[1:].sum()]])
        return PositionBias(self.counts * 0.5 ** (fresh / HALF_LIVES_REACTIONS) + counts)

    @property
    def reactions(self) -> float:
        """How many there were, decayed."""
        return float(self.counts[0].sum())

    @cached_property
    def steepness(self) -> float:
        """Of the curve that fits the tried pairs best, 0..STEEPNESS_MAX; 1 unless they say otherwise (1 +- 1)."""
        _, upper, lower = self.counts
        steepness = 1.0
        for _ in range(NEWTON_STEPS):  # the logarithm of the posterior is concave
            chance = 1.0 / (1.0 + np.exp(-steepness * _LOG_RATIO))
            slope = _LOG_RATIO @ (lower - (upper + lower) * chance) - (steepness - 1.0)
            bend = _LOG_RATIO**2 @ ((upper + lower) * chance * (1.0 - chance)) + 1.0
            steepness = min(max(steepness + float(slope / bend), 0.0), STEEPNESS_MAX)
        return steepness

    @cached_property
    def propensities(self) -> Doubles:
        """(PLACES,) chance that a place is looked at, that of the first being 1; PROPENSITY_MIN..1, never rising."""
        ratio = np.exp(self.steepness * _LOG_RATIO)
        upper = self.counts[1] + PRIOR_REACTIONS / (1.0 + ratio)
        lower = self.counts[2] + PRIOR_REACTIONS * ratio / (1.0 + ratio)
        logs = np.zeros(PLACES)
        for place in range(1, PLACES):
            logs[place] = logs[_UPPER[place]] + np.log(lower[place] / upper[place])
        information = lower * upper / (lower + upper)  # inverse variance of the logarithm of a ratio
        falling = _falling(logs, information)
        bounded: Doubles = np.maximum(np.exp(falling - falling[0]), PROPENSITY_MIN)
        return bounded

    def lesson_weights(self, places: NDArray[np.integer]) -> Doubles:
        """(l,) what each lesson counts whose item stood at these places (-1: was not shown): 1 on average.

        The inverse of the propensity, over its mean over the reactions: who looked so far down stands for all who did
        not. What was not shown weighs 1.
        """
        inverse = 1.0 / self.propensities
        reacted = self.counts[0] + PRIOR_REACTIONS * _REACTED_FIRST
        mean = (reacted @ inverse) / reacted.sum()
        return np.where(places >= 0, inverse[places] / mean, 1.0)


def _falling(values: Doubles, weights: Doubles) -> Doubles:
    """The nearest sequence, by weighted squares, that never rises: pools neighbours that do (PAVA)."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pool = (value, weight, 1)
        while pools and pools[-1][0] < pool[0]:
            mean, mass, size = pools.pop()
            together = mass + pool[1]
            pool = ((mean * mass + pool[0] * pool[1]) / together, together, size + pool[2])
        pools.append(pool)
    return np.repeat([mean for mean, _, _ in pools], [size for _, _, size in pools])
