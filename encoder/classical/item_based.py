"""Items that go together: from the user's items to their neighbours. Sizes: q queries, i items, n neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.classical.kernels import (
    common_counts,
    item_cosines,
    rule_masses,
    rule_weights,
    score_by_items,
    sum_rows,
)
from encoder.classical.sets import TrainingSets
from encoder.dataset import EventTable, Queries, Split
from encoder.errors import UnusableData
from encoder.metrics import Histories

Floats = NDArray[np.float32]
Rows = NDArray[np.int32]

NEIGHBOURS_MAX = 1000
"""Kept for each item: 8 KB an item."""
EASE_ITEMS_MAX = 20_000
"""EASE inverts a dense (i, i) matrix: 1.6 GB at this number, thrice that on the way, and the cube of it in time."""
BLOCK_INVERTED_MAX = 512
EVERYTHING = 1 << 30


@dataclass(frozen=True, slots=True)
class ItemNeighbours:
    """The heaviest neighbours of each item, in no particular order."""

    columns: Rows
    """(i, n)"""
    weights: Floats
    """(i, n) positive"""
    lengths: Rows
    """(i,) how many of the n there are."""

    @classmethod
    def empty(cls, items: int, neighbours: int) -> ItemNeighbours:
        """Room for `neighbours` of each of `items` items."""
        width = min(neighbours, items)
        return cls(np.zeros((items, width), np.int32), np.zeros((items, width), np.float32), np.zeros(items, np.int32))

    def scores(self, histories: Histories, depth: int) -> Floats:
        """(q, i): over the last `depth` events of each history, the neighbours' weights / position from the end.

        -inf for items that neighbour none of them.
        """
        scores = np.zeros((len(histories.starts), len(self.lengths)), np.float32)
        rows = (histories.items, histories.starts, histories.ends)
        score_by_items(*rows, depth, self.columns, self.weights, self.lengths, scores)
        scores[scores == 0] = -np.inf
        return scores


class ItemKnn:
    """Item-kNN: cosine of two items over the users who had both in the training part.

    A query's history counts whole, each event divided by its position from the end. Sees the training part and the
    user's events before the query.

    Raises:
        ValueError: fewer than one neighbour is asked for.
    """

    name = "item-knn"

    def __init__(self, neighbours: int = NEIGHBOURS_MAX) -> None:
        self._width = _checked("neighbours", neighbours)

    def fit(self, table: EventTable, split: Split) -> None:
        """Finds each item's neighbours."""
        sets = TrainingSets.of(table, split)
        self._near = ItemNeighbours.empty(len(table.item_ids), self._width)
        columns, weights, lengths = self._near.columns, self._near.weights, self._near.lengths
        item_cosines(sets.starts, sets.items, sets.fan_starts, sets.fans, columns, weights, lengths)

    def scores(self, table: EventTable, queries: Queries) -> Floats:
        """(q, i); -inf for items that never occurred beside one of the user's."""
        return self._near.scores(Histories.of(table, queries), EVERYTHING)


class CooccurrenceRules:
    """Rules between items a few events apart: 1/distance, both ways, divided by the root of both items' masses.

    An item's mass is the sum of all its 1/distance; one is added to it, so that what was seen once stays uncertain.
    The last `depth` events of a query's history count, each divided by its position from the end. Sees the training
    part and the user's events before the query.

    Raises:
        ValueError: a number is below one.
    """

    name = "co-occurrence-rules"

    def __init__(self, window: int = 5, depth: int = 10, neighbours: int = NEIGHBOURS_MAX) -> None:
        self._window, self._depth = _checked("window", window), _checked("depth", depth)
        self._width = _checked("neighbours", neighbours)

    def fit(self, table: EventTable, split: Split) -> None:
        """Finds each item's neighbours."""
        starts, ends = table.offsets[:-1], split.train_ends
        learned = np.flatnonzero(split.train_mask(table))
        places = learned[np.argsort(table.items[learned], kind="stable")]
        counts = np.bincount(table.items[learned], minlength=len(table.item_ids))
        place_starts = np.concatenate([[0], np.cumsum(counts)])
        masses = np.zeros(len(table.item_ids))
        rule_masses(table.items, starts, ends, self._window, masses)
        self._near = near = ItemNeighbours.empty(len(table.item_ids), self._width)
        places_of = (place_starts, places, table.users[places])
        kept = (near.columns, near.weights, near.lengths)
        rule_weights(table.items, starts, ends, places_of, self._window, masses, *kept)

    def scores(self, table: EventTable, queries: Queries) -> Floats:
        """(q, i); -inf for items that never occurred near one of the user's."""
        return self._near.scores(Histories.of(table, queries), self._depth)


class Ease:
    """EASE (Steck, WWW 2019): each item predicted from all others by ridge regression, in closed form.

    A query's history is a set. Sees the training part and the user's events before the query. Memory and time
    grow with the square and the cube of the number of items.

    Raises:
        ValueError: the regularisation is not positive.
    """

    name = "ease"

    def __init__(self, regularisation: float = 100.0) -> None:
        if not 0 < regularisation < np.inf:
            raise ValueError(f"regularisation must be a positive number, got {regularisation}.")
        self._regularisation = regularisation

    def fit(self, table: EventTable, split: Split) -> None:
        """Inverts the matrix of co-occurrence.

        Raises:
            UnusableData: there are more items than fit in memory.
        """
        items = len(table.item_ids)
        if items > EASE_ITEMS_MAX:
            raise UnusableData(
                f"EASE needs a dense matrix of items by items: expected at most {EASE_ITEMS_MAX:,} items, the log has "
                f"{items:,}. Leave EASE out, or drop rare items."
            )
        sets = TrainingSets.of(table, split)
        gram = np.zeros((items, items), np.float32)
        common_counts(sets.starts, sets.items, gram)
        gram[np.diag_indices(items)] += self._regularisation
        self._weights = _inverse(gram)
        self._weights /= -np.diag(self._weights).copy()
        np.fill_diagonal(self._weights, 0.0)

    def scores(self, table: EventTable, queries: Queries) -> Floats:
        """(q, i) finite."""
        histories = Histories.of(table, queries)
        scores = np.zeros((len(queries), len(table.item_ids)), np.float32)
        sum_rows(histories.items, histories.starts, histories.ends, self._weights, scores)
        return scores


def _inverse(matrix: Floats) -> Floats:
    """Of a symmetric positive definite matrix, by halves (Schur complement): a third of the time of `linalg.inv`."""
    size = len(matrix)
    if size <= BLOCK_INVERTED_MAX:
        return np.linalg.inv(matrix)
    half = size // 2
    upper, below = _inverse(matrix[:half, :half]), matrix[half:, :half]
    carried: Floats = below @ upper
    explained: Floats = carried @ below.T
    lower = _inverse(matrix[half:, half:] - explained)
    mixed = lower @ carried
    inverse = np.empty_like(matrix)
    inverse[half:, half:], inverse[half:, :half], inverse[:half, half:] = lower, -mixed, -mixed.T
    inverse[:half, :half] = upper + carried.T @ mixed
    return inverse


def _checked(name: str, number: int) -> int:
    if number < 1:
        raise ValueError(f"{name} must be 1 or more, got {number}.")
    return number
