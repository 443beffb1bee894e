"""Three scores become one, and the parts that each source has in it. Shapes: u users, c candidates, n items."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.recommend.kernel import kernel

TREND_FLOOR = 1e-6
"""Trend part of an item that nobody touched: it can end a short list, and its score stays above 0."""


class Fused(NamedTuple):
    """The best n candidates of each user, best first, equals by slot."""

    places: Slots
    """(u, n) column of the candidate, -1 past the end."""
    scores: Floats
    """(u, n) in (0, 1]."""
    shares: Floats
    """(u, n, 3) parts of the score by source, in the order of the weights."""


def fuse(
    items: Slots,
    votes: NDArray[np.float64],
    cosines: Floats,
    trend_masses: NDArray[np.float64],
    weights: tuple[float, float, float],
    content_temperature: float,
    count: int,
) -> Fused:
    """Makes the sources' scores comparable for each user and mixes them.

    Each source's best item of the user gets 1 times the source's weight; the others get votes / best votes,
    exp((cosine - best cosine) / temperature) where the cosine is positive, and popularity / best popularity.
    Weights are scaled to sum to 1. `trend_masses` are logarithms (base 2). All inputs are (u, c); a candidate of
    -1 is none.
    """
    users = len(items)
    fused = Fused(
        places=np.full((users, count), -1, np.int32),
        scores=np.zeros((users, count), np.float32),
        shares=np.zeros((users, count, 3), np.float32),
    )
    scaled = np.array(weights, np.float64) / sum(weights)
    _fuse(items, votes, cosines, trend_masses, scaled, content_temperature, fused)
    return fused


@kernel
def _fuse(
    items: Slots,
    votes: NDArray[np.float64],
    cosines: Floats,
    trend_masses: NDArray[np.float64],
    weights: NDArray[np.float64],
    content_temperature: float,
    fused: Fused,
) -> None:
    parts = np.zeros((items.shape[1], 3), np.float64)
    for row in range(items.shape[0]):
        _weigh(items[row], votes[row], cosines[row], trend_masses[row], weights, content_temperature, parts)
        count = _select(items[row], parts, fused.places[row], fused.scores[row])
        for rank in range(count):
            part = parts[fused.places[row, rank]]
            total = part[0] + part[1] + part[2]
            for source in range(3):
                fused.shares[row, rank, source] = part[source] / total


@kernel
def _weigh(
    items: Slots,
    votes: NDArray[np.float64],
    cosines: Floats,
    trend_masses: NDArray[np.float64],
    weights: NDArray[np.float64],
    content_temperature: float,
    parts: NDArray[np.float64],
) -> None:
    """Writes each candidate's weighted parts (c, 3)."""
    votes_best, cosine_best, mass_best = 0.0, 0.0, -np.inf
    for column in range(len(items)):
        if items[column] >= 0:
            votes_best = max(votes_best, votes[column])
            cosine_best = max(cosine_best, float(cosines[column]))
            mass_best = max(mass_best, trend_masses[column])
    for column in range(len(items)):
        parts[column] = 0.0
        if votes[column] > 0:
            parts[column, 0] = weights[0] * votes[column] / votes_best
        if cosines[column] > 0:
            parts[column, 1] = weights[1] * np.exp((cosines[column] - cosine_best) / content_temperature)
        popularity = 0.0
        if trend_masses[column] > -np.inf:
            popularity = 2.0 ** (trend_masses[column] - mass_best)
        parts[column, 2] = weights[2] * max(popularity, TREND_FLOOR)


@kernel
def _select(items: Slots, parts: NDArray[np.float64], places: Slots, scores: Floats) -> int:
    """Writes the columns and the scores of the best, by insertion. Returns how many there are."""
    count = 0
    for column in range(len(items)):
        if items[column] < 0:
            continue
        score = np.float32(min(parts[column, 0] + parts[column, 1] + parts[column, 2], 1.0))
        rank = count
        while rank > 0 and (
            score > scores[rank - 1] or (score == scores[rank - 1] and items[column] < items[places[rank - 1]])
        ):
            rank -= 1
        if rank == len(places):
            continue
        for later in range(min(count, len(places) - 1), rank, -1):
            scores[later] = scores[later - 1]
            places[later] = places[later - 1]
        scores[rank] = score
        places[rank] = column
        count = min(count + 1, len(places))
    return count
