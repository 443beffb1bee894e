"""What everybody likes: the same for all users, but on a news-like log hard to beat."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from encoder.classical.kernels import decayed_popularity
from encoder.dataset import EventTable, Queries, Split

Floats = NDArray[np.float32]

DAY_S = 86_400.0


class Popularity:
    """An item scores the number of its training events. Sees nothing else: neither the user nor later events."""

    name = "popularity"

    def fit(self, table: EventTable, split: Split) -> None:
        """Counts."""
        learned = table.items[split.train_mask(table)]
        self._counts = np.bincount(learned, minlength=len(table.item_ids)).astype(np.float32)

    def scores(self, table: EventTable, queries: Queries) -> Floats:  # noqa: ARG002 - the same for every query
        """(q, i); -inf for items without training events."""
        return np.tile(np.where(self._counts > 0, self._counts, -np.inf).astype(np.float32), (len(queries), 1))


class DecayedPopularity:
    """An item scores the number of its events, each halved for every half-life since.

    Sees *all* events of all users that are earlier than the query's time by a second or more, also those after
    the training part: it learns on, as a service does, and never from the future. On a log whose times are all
    the same it can tell nothing. Scores are log2 of the decayed counts.

    Raises:
        ValueError: the half-life is not a positive number of seconds.
    """

    def __init__(self, half_life_s: float = DAY_S) -> None:
        if not (math.isfinite(half_life_s) and half_life_s > 0):
            raise ValueError(f"half_life_s must be a positive number of seconds, got {half_life_s}.")
        self._half_life_s = half_life_s

    @property
    def name(self) -> str:
        """Names the half-life."""
        return f"decayed-popularity-{self._half_life_s / DAY_S:g}d"

    def fit(self, table: EventTable, split: Split) -> None:  # noqa: ARG002 - nothing is learned beforehand
        """Puts the log in order of time."""
        self._order = np.argsort(table.times_s, kind="stable")

    def scores(self, table: EventTable, queries: Queries) -> Floats:
        """(q, i); -inf for items without an earlier event."""
        times = (table.times_s - table.times_s.min()) / self._half_life_s
        asked = times[queries.positions]
        by_time = np.argsort(asked, kind="stable")
        ordered = np.empty((len(queries), len(table.item_ids)), np.float32)
        levels = np.full(len(table.item_ids), -np.inf)
        decayed_popularity(times[self._order], table.items[self._order], asked[by_time], levels, ordered)
        return ordered[np.argsort(by_time)]
