"""Training sequences as padded arrays. Sizes: b users, t events, m sampled negatives, i items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.dataset import EventTable, Split
from encoder.features import event_features

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

LENGTH_NOISE = 1.5
"""Sequences whose lengths differ by less than this may swap places, so that batches differ from epoch to epoch."""
UNIFORM_SHARE = 0.5
"""Of the negatives, the share drawn evenly; the others come as often as they do in the log."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some users' events and, behind each, the event that followed."""

    users: NDArray[np.intp]
    """(b,)"""
    items: Ints
    """(b, t) padded with 0"""
    types: Ints
    """(b, t) rows of the table's types"""
    features: Floats
    """(b, t, EVENT_FEATURES)"""
    targets: Ints
    """(b, t) the item of the next event, -1 where there is none"""
    target_types: Ints
    """(b, t)"""
    target_ratings: Floats
    """(b, t) NaN where the next event is no rating"""


class Sequences:
    """The users' learnable events, cut to the newest `length_max + 1`."""

    def __init__(self, table: EventTable, split: Split, length_max: int) -> None:
        self._table, self._ratings = table, table.ratings()
        self._features = event_features(table.gaps_s(), self._ratings)
        ends = split.train_ends
        starts = np.maximum(table.offsets[:-1], ends - length_max - 1)
        self.users = np.flatnonzero(ends - starts >= 2)
        """(n,) users with two learnable events or more"""
        self._starts, self._lengths = starts[self.users], (ends - starts)[self.users]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def predictions(self) -> int:
        """How many events are predicted in an epoch."""
        return int(self._lengths.sum()) - len(self)

    def epoch(self, users_per_batch: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All sequences once, in batches of similar length and random order."""
        order = np.argsort(self._lengths + rng.uniform(0, LENGTH_NOISE, len(self)), kind="stable")
        chunks = [order[first : first + users_per_batch] for first in range(0, len(order), users_per_batch)]
        for number in rng.permutation(len(chunks)).tolist():
            yield self.batch(chunks[number])

    def batch(self, rows: NDArray[np.intp]) -> Batch:
        """The sequences at these rows."""
        lengths = self._lengths[rows] - 1
        places = np.arange(int(lengths.max()))  # (t,)
        real = places < lengths[:, None]  # (b, t)
        source = np.where(real, self._starts[rows][:, None] + places, 0)
        table = self._table
        return Batch(
            users=self.users[rows],
            items=np.where(real, table.items[source], 0).astype(np.int64),
            types=np.where(real, table.types[source], 0).astype(np.int64),
            features=np.where(real[..., None], self._features[source], 0).astype(np.float32),
            targets=np.where(real, table.items[source + real], -1).astype(np.int64),
            target_types=np.where(real, table.types[source + real], 0).astype(np.int64),
            target_ratings=np.where(real, self._ratings[source + real], np.nan).astype(np.float32),
        )


class NegativeSampler:
    """Draws items to compare with: half evenly, half by how often they occur."""

    def __init__(self, items: NDArray[np.int32], item_count: int) -> None:
        frequency = np.bincount(items, minlength=item_count) / max(len(items), 1)
        self._q = UNIFORM_SHARE / item_count + (1.0 - UNIFORM_SHARE) * frequency
        self._cumulative = np.cumsum(self._q)
        self._cumulative /= self._cumulative[-1]

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Ints, Floats]:
        """`count` items, some perhaps twice, and log(count * probability) of each."""
        rows = np.searchsorted(self._cumulative, rng.random(count), side="right").astype(np.int64)
        return rows, np.log(count * self._q[rows]).astype(np.float32)
