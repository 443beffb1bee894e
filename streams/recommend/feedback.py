"""Reactions to published lists: what was shown, who looked how far down, what a lesson counts for.

A reaction is an event that names the `rec_id` of a list that this worker published to the user, or one on an item that
an impression with such a `rec_id` says was seen. Any other event, as every event of a log that is replayed or fed, says
nothing of places: it is learned from as ever.

Sizes: u users, e events, l lessons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streams.core.events import EventType
from streams.core.updater import ACCEPTED
from streams.recommend.asked import NO_EVENT
from streams.recommend.exploration import drawn_pairs, tried
from streams.recommend.position_bias import PositionBias
from streams.recommend.shown_lists import NOT_NAMED, Names, ShownLists, names_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.core.events import Event
    from streams.core.ports import Slots
    from streams.core.profile import ProfileStore
    from streams.core.updater import ProfileUpdate
    from streams.recommend.fusion import Doubles
    from streams.recommend.request import Ranking
    from streams.recommend.rerank import Reranker


class NamedEvents(NamedTuple):
    """The accepted events of a batch that may be reactions. r of them."""

    positions: NDArray[np.intp]
    """(r,) in the batch, ascending."""
    users: Slots
    """(r,) slots in the profile store, -1 for one not stored yet."""
    names: Names
    items: Slots
    impressions: NDArray[np.bool_]


class ListFeedback:
    """What is remembered of published lists and learned from reactions to them. Called in the compute thread only.

    What was shown is kept in memory alone: a reaction to a list of before a restart teaches like any other event.

    Args:
        exploration: share of the lists that take part in an experiment; half of these have two items exchanged.
        list_items: places of a list.

    Raises:
        ValueError: the share is not one.
    """

    def __init__(self, exploration: float, list_items: int) -> None:
        if not 0 <= exploration <= 1:
            raise ValueError(f"exploration must be between 0 and 1, got {exploration}")
        self.exploration = exploration
        self.bias = PositionBias.start()
        self._shown = ShownLists(list_items)

    def explored(self, ranking: Ranking, listed: ProfileUpdate, reranker: Reranker) -> tuple[Ranking, Slots]:
        """The lists (u, n), some with a pair exchanged, and the lower place (u,) of the pair that each one tries."""
        pairs = drawn_pairs(listed.users, listed.columns.events, self.exploration, self._shown.places)
        if not pairs.lower.any():
            return ranking, pairs.lower
        return tried(ranking, pairs, reranker.exchangeable(ranking.items))

    def named(self, events: Sequence[Event], update: ProfileUpdate, store: ProfileStore) -> NamedEvents | None:
        """The events that may be reactions; None when none is."""
        rec_ids = [event.rec_id for event in events]
        if not self._shown.any_seen and all(rec_id is None for rec_id in rec_ids):
            return None
        names, columns = names_of(rec_ids), update.events
        wanted = (update.verdicts == ACCEPTED) & (self._shown.any_seen | (names.partitions != NOT_NAMED))
        rows = np.flatnonzero(wanted)
        return NamedEvents(
            rows,
            store.slots(columns.users)[columns.rows[rows]],
            Names(*(part[rows] for part in names)),
            columns.items[rows],
            columns.types[rows] == EventType.IMPRESSION.code,
        )

    def lesson_weights(self, named: NamedEvents | None, teaching: NDArray[np.intp]) -> Doubles | None:
        """(l,) what the lessons of these events of the batch count, 1 on average; None: each counts 1."""
        if named is None:
            return None
        rows = np.flatnonzero(np.isin(named.positions, teaching))
        names = Names(*(part[rows] for part in named.names))
        places = np.full(len(teaching), -1, np.int32)
        found = self._shown.find(named.users[rows], names, named.items[rows]).places
        places[np.searchsorted(teaching, named.positions[rows])] = found
        return self.bias.lesson_weights(places) if (places >= 0).any() else None

    def reacted(self, named: NamedEvents | None, *, counted: bool) -> None:
        """Takes in committed events; unless `counted`, what is known of the places stays."""
        if named is not None:
            counts = self._shown.react(named.users, named.names, named.items, named.impressions)
            self.bias = self.bias.after(counts) if counted else self.bias

    def published(self, users: Slots, listed: ProfileUpdate, items: Slots, lower: Slots, late_from: int) -> None:
        """Remembers committed lists (u, n) of users by their slots, named as `shown_lists.list_name` does.

        The late ones among them are numbered from `late_from`, in order.
        """
        late = listed.last_events == NO_EVENT
        numbers = np.where(late, late_from - 1 + np.cumsum(late), 0).astype(np.int64)
        columns = listed.columns
        names = Names(columns.partition.astype(np.int64), columns.last_offset, numbers)
        self._shown.published(users, names, items, lower)

    def forget(self, users: Slots) -> None:
        """Nothing is known any more of what these users were shown."""
        self._shown.forget(users)

    def warm_up(self) -> None:
        """Compiles what is compiled at first use."""
        self._shown.warm_up()
