"""The whole engine without a broker: events -> new profiles -> neighbours -> ranked lists; apply after commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streams.core.updater import ACCEPTED, ProfileUpdate, ProfileUpdater
from streams.recommend.ranker import Ranker
from streams.recommend.request import Ranking, RankRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.core.catalogue import Catalogue
    from streams.core.events import Event, Item
    from streams.core.ports import Floats, ItemEncoder, ProfileEncoder, Slots, VectorIndex
    from streams.core.profile import ProfileColumns, ProfileStore
    from streams.recommend.trend import Trend


Lap = Callable[[str], None]
ALIGN_USERS = 8192
"""Users whose vectors are computed and compared at once."""


def _no_lap(stage: str) -> None:
    """Nobody times this call."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """What a batch does: new profiles and, for each touched user, neighbours and a ranked list."""

    update: ProfileUpdate
    neighbour_slots: Slots
    """(u, k) best first, -1 padded, never the user itself."""
    similarities: Floats
    """(u, k) cosines, NaN padded."""
    ranking: Ranking | None
    """None when ranking is switched off or nobody was touched."""
    encoder: ProfileEncoder
    """What moved the profiles. When another one serves by the time of `apply`, the states are encoded anew."""


@dataclass(frozen=True, slots=True)
class Model:
    """The parts that belong together: vectors of the one are comparable with those of the others only."""

    profiles: ProfileEncoder
    items: ItemEncoder
    index: VectorIndex


class Currents(NamedTuple):
    """What an engine remembers beside the profiles, at one moment."""

    epoch: int
    stream_time_ms: int
    masses: NDArray[np.float64]
    """(items,) the trend's stored logarithms."""


class Engine:
    """Owns the state in memory and the order in which it may change.

    `prepare` computes on copies; `apply` stores a committed refresh; `load` stores what the changelog says.
    Called from one thread.
    """

    def __init__(
        self,
        store: ProfileStore,
        catalogue: Catalogue,
        updater: ProfileUpdater,
        encoder: ProfileEncoder,
        index: VectorIndex,
        trend: Trend,
        ranker: Ranker | None,
        neighbour_candidates: int,
    ) -> None:
        self.store = store
        self.catalogue = catalogue
        self.encoder = encoder
        self.index = index
        self.epoch = 0
        self.forgotten = 0
        """Users forgotten since the start."""
        self.fallback: str | None = None
        """Why this encoder serves in place of the one that the settings name; None when it is that one."""
        self._updater = updater
        self._trend = trend
        self._ranker = ranker
        self._neighbour_candidates = neighbour_candidates
        self._stream_time_ms = 0

    def prepare(
        self, events: Sequence[Event], offsets: NDArray[np.int64], partition: int, lap: Lap = _no_lap
    ) -> Refresh:
        """New profiles and lists of the users that these events touch; changes nothing that is stored.

        `lap` is called with the stage's name as each one ends, so that a shell with a clock can time them.
        """
        update = self._updater.prepare(events, offsets, partition)
        lap("encode")
        neighbour_slots, similarities = self._neighbours(update)
        lap("search")
        ranking = None
        if self._ranker is not None and len(update.users):
            ranking = self._ranker.rank(self._request(update, neighbour_slots, similarities))
        lap("rank")
        return Refresh(update, neighbour_slots, similarities, ranking, self.encoder)

    def apply(self, refresh: Refresh) -> None:
        """Stores a refresh whose transaction is committed, whichever model it was prepared with."""
        update = refresh.update if refresh.encoder is self.encoder else self._encoded_anew(refresh.update)
        self._updater.apply(update)
        self._move(update.users, update.vectors)
        accepted = np.flatnonzero(update.verdicts == ACCEPTED)
        events = update.events
        self._fold_trend(events.items[accepted], events.weights[accepted], events.times_ms[accepted] / 1000.0)

    def load(self, user_ids: Sequence[str], columns: ProfileColumns, excluded: Sequence[tuple[int, ...]]) -> None:
        """Stores profiles read from the changelog; each user once. Older versions than stored are passed over."""
        slots = self.store.slots(user_ids)
        before = self.store.take(slots)
        newer = np.flatnonzero(columns.version > before.version).astype(np.int32)
        if not len(newer):
            return
        columns = columns.take(newer)
        users = [user_ids[row] for row in newer.tolist()]
        slots = self.store.put(users, columns)
        for slot, row in zip(slots.tolist(), newer.tolist(), strict=True):
            self.store.set_excluded(slot, excluded[row])
        self._move(users, self.encoder.vectors(columns.state))
        self._fold_recent(columns, columns.recent_total - before.recent_total[newer])

    def forget(self, user_ids: Sequence[str]) -> None:
        """Takes users out of memory, the index and every later neighbour list."""
        slots = self.store.forget(user_ids)
        if slots:
            self.index.forget(slots)
            self.forgotten += len(slots)
            self.epoch += 1

    @property
    def trend_half_life_s(self) -> float:
        """The half-life that the masses of `currents` belong to."""
        return self._trend.half_life_s

    def currents(self) -> Currents:
        """A copy of what is remembered beside the profiles, to be saved with them."""
        return Currents(self.epoch, self._stream_time_ms, self._trend.masses(len(self.catalogue)).copy())

    def restore(self, currents: Currents) -> None:
        """Takes over what was saved; catalogue and store were restored before, and no event was seen."""
        self.epoch, self._stream_time_ms = currents.epoch, currents.stream_time_ms
        self._trend.restore(currents.masses)

    def align_index(self) -> None:
        """Makes the index hold the store's users and nobody else, each where its state says.

        Vectors that the index has already are the same to the last bit or nearly, so that no graph is built anew.
        """
        slots = list(self.store.slot_of.values())
        known = set(slots)
        strays = [slot for slot in self.index.ids() if slot not in known]
        if strays:
            self.index.forget(strays)
            self.forgotten += len(strays)
        for first in range(0, len(slots), ALIGN_USERS):
            part = slots[first : first + ALIGN_USERS]
            place(self.index, part, self.encoder.vectors(self.store.columns.state[part]))

    def describe(self, items: Sequence[Item]) -> None:
        """Takes over what the items topic says."""
        self.catalogue.put(items)

    def reencode(self, columns: ProfileColumns) -> None:
        """Rebuilds the states of profiles that another model wrote."""
        self._updater.reencode(columns)

    @property
    def type_weights(self) -> Floats:
        """(codes,) how far an event of each type code moves a profile."""
        return self._updater.type_weights

    def serve(self, model: Model, states: Floats, item_vectors: Floats) -> tuple[object, ...]:
        """Puts another model into service: all of it or, with an error, nothing. The index of before is not closed.

        Returns what served before: to let go of word tables and matrices takes milliseconds that a caller may have
        elsewhere.

        Args:
            model: its index holds the vectors of `states`.
            states: (rows of the store's columns, S) of every user.
            item_vectors: (capacity of the catalogue, d) of every item.

        Raises:
            ValueError: the states or vectors have another shape; the old model serves.
        """
        self.store.check_states(states, model.profiles.state_width)
        items = self.catalogue.replace_vectors(model.items, item_vectors)
        former = (self.encoder, self.index, items, self.store.replace_states(states))
        self._updater.serve(model.profiles)
        self.encoder, self.index, self.fallback = model.profiles, model.index, None
        self.epoch += 1
        return former

    def warm_up(self) -> None:
        """Compiles what is compiled at first use, so that the first event does not wait for it: seconds, once."""
        self._updater.prepare([], np.empty(0, np.int64), 0)
        self._trend.fold(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.float64))
        if self._ranker is not None:
            self._ranker.warm_up()

    def _encoded_anew(self, update: ProfileUpdate) -> ProfileUpdate:
        """The model was replaced between a batch's computation and its commit."""
        self._updater.reencode(update.columns)
        return replace(update, vectors=self.encoder.vectors(update.columns.state))

    def _neighbours(self, update: ProfileUpdate) -> tuple[Slots, Floats]:
        """One more than wanted is asked for, since an indexed user finds itself."""
        k = self._neighbour_candidates
        slots = np.full((len(update.users), k + 1), -1, np.int32)
        similarities = np.full((len(update.users), k + 1), np.nan, np.float32)
        if k and len(update.users) and len(self.index):
            matches = self.index.search(update.vectors, k + 1)
            found = ~np.isnan(matches.similarities)
            slots[found] = matches.ids[found].astype(np.int32)
            similarities[:] = matches.similarities
        return _without_self(slots, similarities, update.slots)

    def _request(self, update: ProfileUpdate, neighbour_slots: Slots, similarities: Floats) -> RankRequest:
        sizes = [len(items) for items in update.excluded]
        latest_ms = int(update.events.times_ms.max(initial=0))
        return RankRequest(
            slots=update.slots,
            vectors=update.vectors,
            recent_items=update.columns.recent_items,
            recent_count=update.columns.recent_count,
            bought_offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
            bought_items=np.array([i for items in update.excluded for i in items], np.int32),
            neighbour_slots=neighbour_slots,
            neighbour_similarities=similarities,
            now_s=max(self._stream_time_ms, latest_ms) / 1000.0,
        )

    def _move(self, users: Sequence[str], vectors: Floats) -> None:
        """Indexes the users by their slots: the store's own int objects, for a million new ones would be 32 MB."""
        if users:
            place(self.index, [self.store.slot_of[user] for user in users], vectors)
            self.epoch += 1

    def _fold_recent(self, columns: ProfileColumns, entered: NDArray[np.int64]) -> None:
        """Counts, for the trend, those recent items that the stored profile did not have yet."""
        fresh = np.minimum(entered, columns.recent_count)
        places = np.arange(columns.recent_items.shape[1])
        newest = (places >= (columns.recent_count - fresh)[:, None]) & (places < columns.recent_count[:, None])
        self._fold_trend(
            columns.recent_items[newest],
            self._updater.weights_of(columns.recent_types[newest]),
            columns.recent_times_s[newest].astype(np.float64),
        )

    def _fold_trend(self, items: Slots, weights: Floats, times_s: NDArray[np.float64]) -> None:
        if len(items):
            self._trend.fold(items, weights, times_s)
            self._stream_time_ms = max(self._stream_time_ms, int(times_s.max() * 1000))


def place(index: VectorIndex, slots: list[int], vectors: Floats) -> None:
    """Makes the index hold the users where their vectors (u, d) say; users without direction are not in it."""
    directed: NDArray[np.bool_] = np.asarray(vectors.any(axis=1))
    if directed.all():
        index.upsert(slots, vectors)
    else:
        index.upsert(list(compress(slots, directed.tolist())), vectors[directed])
        index.remove(list(compress(slots, (~directed).tolist())))


def _without_self(slots: Slots, similarities: Floats, own: Slots) -> tuple[Slots, Floats]:
    """Drops the user itself from each row of k + 1 matches, else the last match."""
    is_self = (slots == own[:, None]) & (slots >= 0)
    drop = np.where(is_self.any(axis=1), is_self.argmax(axis=1), slots.shape[1] - 1)
    keep = np.arange(slots.shape[1]) != drop[:, None]
    shape = (len(slots), slots.shape[1] - 1)
    return slots[keep].reshape(shape), similarities[keep].reshape(shape)
