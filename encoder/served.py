"""Trained models as recommenders, to be judged beside the baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from encoder.baselines import EventColumns
from encoder.dataset import EventTable, Queries, Split
from encoder.inference import UserEncoder

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

USERS_PER_BLOCK = 4096


class ServedModel:
    """What a worker computes: each user's events are streamed, one after the other, through the serving code."""

    def __init__(
        self,
        encoder: UserEncoder,
        *,
        name: str | None = None,
        type_weights: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Takes a loaded encoder.

        Args:
            encoder: loaded with the table's `type_names` as its event types.
            name: stands in the report instead of the model's own.
            type_weights: how far an event of a type moves a profile, 1 where it is not named; only means read it.
        """
        self._encoder, self._type_weights = encoder, type_weights
        self._name = name or encoder.profiles.name
        self._items: Floats = np.zeros((0, encoder.profiles.dim), np.float32)

    @property
    def name(self) -> str:
        """Stands in the report."""
        return self._name

    def fit(self, table: EventTable, split: Split) -> None:  # noqa: ARG002 - it was trained before
        """Encodes the catalogue; learns nothing."""
        self._items = self._encoder.items.encode(table.item_ids, table.item_texts, table.item_attributes)
        weights = np.array([self._type_weights.get(name, 1.0) for name in table.type_names], np.float32)
        self._weights, self._users = weights[table.types], table.users
        self._gaps_s, self._ratings = table.gaps_s(), table.ratings()

    @property
    def items(self) -> Floats:
        """(i, d) vectors of the catalogue, after `fit`."""
        return self._items

    def scores(self, table: EventTable, queries: Queries) -> Floats:
        """(q, i) cosines of the user's vector before each query and all items."""
        return self.users(table, queries) @ self._items.T

    def users(self, table: EventTable, queries: Queries) -> Floats:
        """(q, d) vectors of the users just before each query."""
        profiles = self._encoder.profiles
        found = np.zeros((len(queries), profiles.dim), np.float32)
        wanted = np.unique(queries.users)
        for first in range(0, len(wanted), USERS_PER_BLOCK):
            users = wanted[first : first + USERS_PER_BLOCK]
            states = profiles.initial_states([table.user_attributes[user] for user in users.tolist()])
            row_of = np.full(len(table.user_ids), -1, np.int32)
            row_of[users] = np.arange(len(users))
            asked = np.flatnonzero(row_of[queries.users] >= 0)
            places = queries.positions[asked] - table.offsets[queries.users[asked]]
            for place, rows in _rounds(table, users, int(places.max())):
                due = asked[places == place]
                found[due] = profiles.vectors(states[row_of[queries.users[due]]])
                if len(rows):
                    profiles.step(states, self._at(table, rows, row_of))
        return found

    def _at(self, table: EventTable, rows: Ints, row_of: NDArray[np.int32]) -> EventColumns:
        return EventColumns(
            rows=row_of[self._users[rows]],
            item_vectors=self._items[table.items[rows]],
            weights=self._weights[rows],
            gaps_s=self._gaps_s[rows],
            types=table.types[rows],
            ratings=self._ratings[rows],
        )


def _rounds(table: EventTable, users: NDArray[np.int32], last: int) -> Iterator[tuple[int, Ints]]:
    """For each place in a history, the rows of all users' events there, up to the place of the last query."""
    starts, ends = table.offsets[users], table.offsets[users + 1]
    for place in range(last + 1):
        rows = starts + place
        yield place, rows[rows < ends] if place < last else np.zeros(0, np.int64)
