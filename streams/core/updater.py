"""A micro-batch of events -> the touched users' new profiles, computed on copies.

Sizes: e events of the batch, u users touched by accepted events, d dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from streams.core.events import EVENT_TYPES, EventType
from streams.core.histories import Histories, encoded_histories
from streams.core.ports import EncoderEvents, Floats, ProfileEncoder, Slots
from streams.core.user_facts import start_states

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streams.core.catalogue import Catalogue
    from streams.core.events import Event
    from streams.core.profile import ProfileColumns, ProfileStore

NO_EVENT_ID = 0
RATING_NEUTRAL = 2.5
RATING_MAX = 5.0
RATING_ABS_MAX = 1e6
"""Any finite value may come; what is further out says no more and must fit a float32."""
ACCEPTED, DUPLICATE, APPLIED_BEFORE = 0, 1, 2
_EXCLUDING = frozenset({EventType.PURCHASE, EventType.DISLIKE})


@dataclass(frozen=True, slots=True)
class EventColumns:
    """The events of a batch in offset order, one array a field."""

    users: list[str]
    """The distinct users; `rows` points into it."""
    rows: Slots
    items: Slots
    types: NDArray[np.uint8]
    times_ms: NDArray[np.int64]
    offsets: NDArray[np.int64]
    event_ids: NDArray[np.uint64]
    weights: Floats
    ratings: Floats
    """NaN for events that are no rating."""

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class ProfileUpdate:
    """What a batch makes of the profiles; nothing is stored before `ProfileUpdater.apply`."""

    users: list[str]
    """(u,) users with at least one accepted event."""
    slots: Slots
    """(u,) their slots in the store, -1 when new."""
    columns: ProfileColumns
    """(u,) their profiles after the batch."""
    vectors: Floats
    """(u, d) unit vectors, zeros for a user without direction."""
    excluded: list[tuple[int, ...]]
    """(u,) items never recommended to them again: bought or disliked."""
    last_events: Slots
    """(u,) position in the batch of each user's last accepted event."""
    verdicts: NDArray[np.uint8]
    """(e,) ACCEPTED, DUPLICATE or APPLIED_BEFORE."""
    events: EventColumns


def _compiled(function: Callable[..., Any]) -> Any:
    """Compiles at the first call and keeps the machine code on disk, or in memory where no folder can be written."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:
        return njit(nogil=True)(function)


@_compiled
def _is_repeat(event_id, u, event_id_count, known_ids):  # type: ignore[no-untyped-def]
    """Whether the user's window holds the id; if not, it enters and the oldest leaves a full window."""
    count = event_id_count[u]
    for place in range(count):
        if known_ids[u, place] == event_id:
            return True
    if count == known_ids.shape[1]:
        known_ids[u, : count - 1] = known_ids[u, 1:].copy()
        count -= 1
    known_ids[u, count] = event_id
    event_id_count[u] = count + 1
    return False


@_compiled
def _fold(  # type: ignore[no-untyped-def]
    rows,
    items,
    types,
    times_ms,
    offsets,
    event_ids,
    weights,
    events,
    version,
    last_offset,
    last_time_ms,
    recent_total,
    recent_count,
    recent_items,
    recent_types,
    recent_times_s,
    event_id_count,
    known_ids,
    verdicts,
    gaps_s,
):
    """Applies the integer part of every event, in order, to the copied columns.

    A duplicate leaves no trace at all, not even its offset: a user whose batch is all duplicates is not stored, so
    a trace would depend on how the events fall into batches.
    """
    for e in range(len(rows)):
        u = rows[e]
        if offsets[e] <= last_offset[u]:
            verdicts[e] = APPLIED_BEFORE
            continue
        if event_ids[e] != NO_EVENT_ID and _is_repeat(event_ids[e], u, event_id_count, known_ids):
            verdicts[e] = DUPLICATE
            continue
        last_offset[u] = offsets[e]
        if events[u] > 0 and times_ms[e] > last_time_ms[u]:
            gaps_s[e] = (times_ms[e] - last_time_ms[u]) / 1000.0
        last_time_ms[u] = max(last_time_ms[u], times_ms[e])
        events[u] += 1
        version[u] += 1
        if weights[e] > 0.0:
            place = min(recent_count[u], recent_items.shape[1] - 1)
            if recent_count[u] > place:  # full: the oldest leaves
                recent_items[u, :place] = recent_items[u, 1:].copy()
                recent_types[u, :place] = recent_types[u, 1:].copy()
                recent_times_s[u, :place] = recent_times_s[u, 1:].copy()
            recent_items[u, place] = items[e]
            recent_types[u, place] = types[e]
            recent_times_s[u, place] = times_ms[e] // 1000
            recent_count[u] = place + 1
            recent_total[u] += 1


def hash_event_id(event_id: str) -> int:
    """A 64-bit hash that is the same on every machine and never NO_EVENT_ID."""
    return xxh3_64_intdigest(event_id.encode()) or 1


class ProfileUpdater:
    """Moves profiles by events. Called from one thread."""

    def __init__(
        self,
        store: ProfileStore,
        catalogue: Catalogue,
        encoder: ProfileEncoder,
        type_weights: Mapping[EventType, float],
        excluded_items_max: int,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._encoder = encoder
        self._type_weights = np.zeros(len(EVENT_TYPES), np.float32)
        for kind, weight in type_weights.items():
            self._type_weights[kind.code] = weight
        self._excluded_items_max = excluded_items_max

    def prepare(self, events: Sequence[Event], offsets: NDArray[np.int64], partition: int) -> ProfileUpdate:
        """The profiles after the events, which are in offset order. Reads the store, changes only copies."""
        batch = self._columns_of(events, offsets)
        slots = self._store.slots(batch.users)
        columns = self._store.take(slots)
        excluded = [self._store.excluded.get(slot, ()) for slot in slots.tolist()]
        return self._moved(batch, slots, columns, excluded, partition)

    def prepare_from(
        self, profile: ProfileUpdate, events: Sequence[Event], offsets: NDArray[np.int64], partition: int
    ) -> ProfileUpdate:
        """What `prepare` would make of one user's events if the store held this profile of theirs; changes only copies.

        Raises:
            ValueError: an event is of somebody else, or of an item that the catalogue does not know.
        """
        if any([event.user_id] != profile.users for event in events):
            raise ValueError(f"expected events of the one user of the profile, which has {len(profile.users)}")
        unknown = [event.item_id for event in events if event.item_id not in self._catalogue.slot_of]
        if unknown:
            raise ValueError(f"expected items of the catalogue, got {unknown}: to look them up would add them")
        columns = profile.columns.take(np.zeros(1, np.int32))
        return self._moved(self._columns_of(events, offsets), profile.slots, columns, profile.excluded, partition)

    def _moved(
        self,
        batch: EventColumns,
        slots: Slots,
        columns: ProfileColumns,
        excluded: Sequence[tuple[int, ...]],
        partition: int,
    ) -> ProfileUpdate:
        """The profiles of the batch's users after it; `columns`, a copy of those before it, are changed."""
        self.begin(batch.users, columns)
        columns.last_offset[columns.partition != partition] = -1  # offsets of another partition say nothing here
        verdicts = np.zeros(len(batch), np.uint8)
        gaps_s = np.zeros(len(batch), np.float32)
        _fold(
            batch.rows,
            batch.items,
            batch.types,
            batch.times_ms,
            batch.offsets,
            batch.event_ids,
            batch.weights,
            columns.events,
            columns.version,
            columns.last_offset,
            columns.last_time_ms,
            columns.recent_total,
            columns.recent_count,
            columns.recent_items,
            columns.recent_types,
            columns.recent_times_s,
            columns.event_id_count,
            columns.event_ids,
            verdicts,
            gaps_s,
        )
        columns.partition[:] = partition
        accepted = np.flatnonzero(verdicts == ACCEPTED)
        self._encoder.step(
            columns.state,
            EncoderEvents(
                rows=batch.rows[accepted],
                item_vectors=self._catalogue.vectors[batch.items[accepted]],
                weights=batch.weights[accepted],
                gaps_s=gaps_s[accepted],
                types=batch.types[accepted],
                ratings=batch.ratings[accepted],
            ),
        )
        return self._touched(batch, slots, columns, excluded, verdicts, accepted)

    def apply(self, update: ProfileUpdate) -> Slots:
        """Stores a committed update and returns the users' slots."""
        slots = self._store.put(update.users, update.columns)
        for slot, excluded in zip(slots.tolist(), update.excluded, strict=True):
            if excluded:
                self._store.set_excluded(slot, excluded)
        return slots

    @property
    def type_weights(self) -> Floats:
        """(codes,) how far an event of each type code moves a profile; not to be changed."""
        return self._type_weights

    def serve(self, encoder: ProfileEncoder) -> None:
        """Moves profiles by another model from now on; the store's states must be its own."""
        self._encoder = encoder

    def weights_of(self, types: NDArray[np.uint8]) -> Floats:
        """How far an event of each type code moves a profile."""
        return self._type_weights[types]

    def begin(self, users: Sequence[str], columns: ProfileColumns) -> None:
        """Gives those of the users who have no event yet the state that their attributes say.

        Whose attributes come later keeps the state until it is rebuilt by `reencode`.
        """
        if not len(self._store.facts):
            return
        new = np.flatnonzero(columns.events == 0)
        columns.state[new] = start_states(self._encoder, self._store.facts.tokens([users[row] for row in new.tolist()]))

    def reencode(self, users: Sequence[str], columns: ProfileColumns) -> None:
        """Rebuilds encoder states from attributes and recent items, as the model now in service sees them."""
        columns.state = encoded_histories(
            Histories.of(columns),
            self._encoder,
            self._catalogue.vectors,
            self._type_weights,
            start_states(self._encoder, self._store.facts.tokens(users)),
        )

    def _columns_of(self, events: Sequence[Event], offsets: NDArray[np.int64]) -> EventColumns:
        user_ids = [e.user_id for e in events]
        users = list(dict.fromkeys(user_ids))
        row_of = dict(zip(users, range(len(users)), strict=True))
        types = np.array([e.type.code for e in events], np.uint8)
        weights = self._type_weights[types]
        ratings = np.full(len(events), np.nan, np.float32)
        rated = types == EventType.RATING.code
        if rated.any():
            given = [events[e].value for e in np.flatnonzero(rated).tolist()]
            values = np.array([math.nan if value is None else value for value in given])
            ratings[rated] = np.clip(values, -RATING_ABS_MAX, RATING_ABS_MAX)
            likings = np.where(np.isnan(ratings), RATING_MAX, ratings.astype(np.float64))  # rounded once, at the end
            scale = np.clip((likings - RATING_NEUTRAL) / (RATING_MAX - RATING_NEUTRAL), -1.0, 1.0)
            weights = np.where(rated, weights * scale, weights).astype(np.float32)
        return EventColumns(
            users=users,
            rows=np.fromiter(map(row_of.__getitem__, user_ids), np.int32, len(events)),
            items=self._catalogue.slots([e.item_id for e in events]),
            types=types,
            times_ms=np.array([e.timestamp for e in events], np.int64),
            offsets=offsets,
            event_ids=np.array([hash_event_id(e.event_id) if e.event_id else NO_EVENT_ID for e in events], np.uint64),
            weights=weights,
            ratings=ratings,
        )

    def _touched(
        self,
        batch: EventColumns,
        slots: Slots,
        columns: ProfileColumns,
        excluded_before: Sequence[tuple[int, ...]],
        verdicts: NDArray[np.uint8],
        accepted: NDArray[np.intp],
    ) -> ProfileUpdate:
        last_events = np.full(len(batch.users), -1, np.int32)
        last_events[batch.rows[accepted]] = accepted  # the last of several assignments stays
        touched = np.flatnonzero(last_events >= 0).astype(np.int32)
        if len(touched) < len(batch.users):
            columns = columns.take(touched)
        excluded = self._excluded_after(batch, excluded_before, accepted)
        return ProfileUpdate(
            users=[batch.users[row] for row in touched.tolist()],
            slots=slots[touched],
            columns=columns,
            vectors=self._encoder.vectors(columns.state),
            excluded=[excluded[row] for row in touched.tolist()],
            last_events=last_events[touched],
            verdicts=verdicts,
            events=batch,
        )

    def _excluded_after(
        self, batch: EventColumns, before: Sequence[tuple[int, ...]], accepted: NDArray[np.intp]
    ) -> list[tuple[int, ...]]:
        after = list(before)
        types = batch.types[accepted]
        excluding = np.isin(types, [kind.code for kind in _EXCLUDING])
        for e in accepted[excluding].tolist():
            row, item = int(batch.rows[e]), int(batch.items[e])
            after[row] = (*(i for i in after[row] if i != item), item)[-self._excluded_items_max :]
        return after
