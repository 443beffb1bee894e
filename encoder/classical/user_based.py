"""Users like this one: from the user to neighbours to their items. Sizes: q queries, u users, i items, d dimensions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from encoder.classical.kernels import score_by_users, score_by_votes
from encoder.classical.sets import TrainingSets
from encoder.dataset import EventTable, Queries, Split
from encoder.metrics import Histories

Floats = NDArray[np.float32]
Rows = NDArray[np.int32]

VectorsAt = Callable[[EventTable, Queries], Floats]
"""Unit vectors (q, d) of the users from their events before each position; a position may be the user's end."""

SEARCHED_PER_BLOCK = 64


class UserKnn:
    """User-kNN: the cosine of the sets of items; each neighbour lends it to all items of its training set.

    A query's set is its history; nobody is their own neighbour. Sees the training part and the user's events
    before the query.

    Raises:
        ValueError: fewer than one neighbour is asked for.
    """

    name = "user-knn"

    def __init__(self, neighbours: int = 100) -> None:
        if neighbours < 1:
            raise ValueError(f"neighbours must be 1 or more, got {neighbours}.")
        self._neighbours = neighbours

    def fit(self, table: EventTable, split: Split) -> None:
        """Collects each user's items."""
        self._sets = TrainingSets.of(table, split)

    def scores(self, table: EventTable, queries: Queries) -> Floats:
        """(q, i); -inf for items that no neighbour had."""
        histories, sets = Histories.of(table, queries), self._sets
        scores = np.zeros((len(queries), len(table.item_ids)), np.float32)
        rows = (histories.items, histories.starts, histories.ends, queries.users)
        score_by_users(*rows, sets.starts, sets.items, sets.fan_starts, sets.fans, self._neighbours, scores)
        scores[scores == 0] = -np.inf
        return scores


class VectorUserKnn:
    """User-kNN over given vectors: each of the nearest users votes exp(similarity / tau) for the items it had.

    A vote for the n-th last of a neighbour's last `depth` training events is divided by sqrt(n), and an item's
    votes by (its training events + 1) ** `popularity_power`. Neighbours are represented by their vector at the end
    of the training part, the asking user by the vector at the query; nobody is their own neighbour. Sees what
    `vectors_at` sees, the training part, and the user's events before the query.

    Args of the constructor:
        vectors_at: unit vectors of users at positions.
        neighbours: of each query, at most.
        tau: a similarity lower by tau counts 1/e.
        depth: newest events of a neighbour that are counted.
        popularity_power: 0 counts votes as they are, 1 divides by popularity; this and `depth` did best on Beauty.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        vectors_at: VectorsAt,
        *,
        neighbours: int = 100,
        tau: float = 0.1,
        depth: int = 10,
        popularity_power: float = 0.3,
        name: str = "vector-user-knn",
    ) -> None:
        if neighbours < 1 or depth < 1 or not tau > 0 or not popularity_power >= 0:
            raise ValueError(
                "neighbours and depth must be 1 or more, tau positive and popularity_power 0 or more, got "
                f"{neighbours}, {depth}, {tau} and {popularity_power}."
            )
        self.name = name
        self._vectors_at, self._neighbours, self._tau = vectors_at, neighbours, tau
        self._depth, self._popularity_power = depth, popularity_power

    def fit(self, table: EventTable, split: Split) -> None:
        """Asks for the vectors of all users with training events."""
        self._users = np.flatnonzero(split.train_ends > table.offsets[:-1]).astype(np.int32)
        self._starts, self._ends = table.offsets[:-1][self._users], split.train_ends[self._users]
        self._vectors = self._vectors_at(table, Queries(self._users, self._ends))
        learned = table.items[split.train_mask(table)]
        counts = np.bincount(learned, minlength=len(table.item_ids))
        self._scales = ((counts + 1.0) ** -self._popularity_power).astype(np.float32)

    def scores(self, table: EventTable, queries: Queries) -> Floats:
        """(q, i); -inf for items that no neighbour had."""
        vectors = self._vectors_at(table, queries)
        scores = np.zeros((len(queries), len(table.item_ids)), np.float32)
        for first in range(0, len(queries), SEARCHED_PER_BLOCK):
            part = slice(first, first + SEARCHED_PER_BLOCK)
            nearest, similarities = self._nearest(vectors[part], queries.users[part])
            # relative to the best, or a small tau would overflow; not to be had: exp(-inf) = 0
            votes = np.exp((similarities - similarities.max(axis=1, keepdims=True)) / self._tau)
            score_by_votes(nearest, votes, table.items, self._starts, self._ends, self._depth, scores[part])
        scores *= self._scales
        scores[scores == 0] = -np.inf
        return scores

    def _nearest(self, vectors: Floats, askers: Rows) -> tuple[Rows, Floats]:
        """Rows (q, n) of `self._users` and their similarities, in no particular order."""
        similarities = vectors @ self._vectors.T
        places = np.searchsorted(self._users, askers)
        known = np.flatnonzero(np.append(self._users, -1)[places] == askers)
        similarities[known, places[known]] = -np.inf
        count = min(self._neighbours, len(self._users))
        nearest = np.argpartition(-similarities, count - 1, axis=1)[:, :count].astype(np.int32)
        return nearest, np.take_along_axis(similarities, nearest, axis=1)
