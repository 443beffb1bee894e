"""Another model, made ready beside the one that serves, and the switch to it between two batches.

`changes` and `switch` belong to the compute thread and take a moment there; `take_in`, the work, belongs to one thread
outside it. Nothing that serves is touched before the switch, which is one call. Each item and user carries the number
of its last change as it was taken in, so that whatever moved meanwhile is found and taken in again.

Beside what serves, this holds one matrix of states, one of item vectors and one index, 8 bytes a user and 4 an item of
such numbers, and one slice of changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from streams.core.histories import Histories, encoded_histories
from streams.core.ports import Floats
from streams.core.profile import FORGOTTEN
from streams.core.user_facts import Tokens, start_states
from streams.recommend.user_index import place

if TYPE_CHECKING:
    from streams.core.catalogue import ItemWords
    from streams.recommend.engine import Engine, Model

T = TypeVar("T", bound=np.generic)

USERS_PER_SLICE = 1024
"""Histories copied in one job of the compute thread: 0.3 MB, under a millisecond."""
ITEMS_PER_SLICE = 256
"""Texts that no training saw take a transformer milliseconds each."""
SWITCH_CHANGES_MAX = 16
"""Users and items taken in by the switch itself, in the compute thread: at 32 recent items and 10 us an event, 5 ms."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What was not taken in yet or has changed since, copied. All items of these histories are in it, or taken in."""

    items: ItemWords
    slots: NDArray[np.int64]
    """(u,) users; with the forgotten ones, whose histories are empty."""
    ids: list[int]
    """(u,) the same slots as the store's own int objects, for the index."""
    gone: list[int]
    """Those of them who were forgotten."""
    versions: NDArray[np.int64]
    """(u,)"""
    histories: Histories
    tokens: list[Tokens]
    """(u,) what the users say of themselves."""
    user_rows: int
    """Rows of the store's columns."""
    item_rows: int
    """Items that the catalogue has room for."""
    is_full: bool
    """There may be more."""

    def __len__(self) -> int:
        return len(self.items.slots) + len(self.slots)


class NextModel:
    """States, item vectors and index of a model that does not serve yet."""

    def __init__(self, engine: Engine, model: Model) -> None:
        """Begins with nothing taken in; the model's index is empty and nobody else's."""
        self.model = model
        self._engine = engine
        self._type_weights = engine.type_weights
        self._states: Floats = np.zeros((0, model.profiles.state_width), np.float32)
        self._versions = np.zeros(0, np.int64)
        self._item_vectors: Floats = np.zeros((0, model.items.dim), np.float32)
        self._revisions = np.zeros(0, np.int32)
        self._cursor = 0
        """Where the next slice begins: who changes all the time must not keep the others waiting."""
        self._taken_in = 0
        self._former: tuple[object, ...] = ()
        """What served before the switch, kept so that it is let go of with this object: outside the compute thread."""

    @property
    def progress(self) -> float:
        """Share of all items and users that were taken in at least once, 0 to 1; from any thread."""
        total = len(self._engine.catalogue) + len(self._engine.store.slot_of)
        return min(1.0, self._taken_in / total) if total else 1.0

    def changes(self, users_max: int = USERS_PER_SLICE, items_max: int = ITEMS_PER_SLICE) -> Changes:
        """At most so many of what is to be taken in; users only once no more items wait. Empty when all is in."""
        engine = self._engine
        store, catalogue = engine.store, engine.catalogue
        items = catalogue.words_since(self._revisions, items_max)
        slots = self._stale_users(0 if len(items.slots) == items_max else users_max)
        if len(slots):
            self._cursor = int(slots[-1]) + 1
        ids, gone = [], []
        for slot in slots.tolist():
            user_id = store.user_ids[slot]
            if user_id == FORGOTTEN:
                gone.append(slot)
            ids.append(store.slot_of.get(user_id, slot))
        return Changes(
            items=items,
            slots=slots,
            ids=ids,
            gone=gone,
            versions=store.columns.version[slots],
            histories=Histories.of(store.columns, slots.astype(np.int32)),
            tokens=store.facts.tokens([store.user_ids[slot] for slot in slots.tolist()]),
            user_rows=len(store.columns.version),
            item_rows=catalogue.capacity,
            is_full=len(items.slots) == items_max or len(slots) == users_max,
        )

    def take_in(self, changes: Changes) -> None:
        """Encodes the items and users as they were when the changes were copied, and moves the index."""
        self._states = _with_rows(self._states, changes.user_rows)
        self._versions = _with_rows(self._versions, changes.user_rows)
        self._item_vectors = _with_rows(self._item_vectors, changes.item_rows)
        self._revisions = _with_rows(self._revisions, changes.item_rows)
        if len(changes.items.slots):
            self._take_in_items(changes.items)
        if len(changes.slots):
            self._take_in_users(changes)

    def switch(self, changes_max: int = SWITCH_CHANGES_MAX) -> Changes | None:
        """Takes in what is left and puts the model into service; more than `changes_max` are given back instead.

        An error leaves the model of before in service.
        """
        changes = self.changes()
        if len(changes) > changes_max:
            return changes
        self.take_in(changes)
        self._former = self._engine.serve(self.model, self._states, self._item_vectors)
        return None

    def switch_at_once(self) -> None:
        """Takes in whatever is left, in one go, and puts the model into service."""
        while (changes := self.switch()) is not None:
            self.take_in(changes)

    def _stale_users(self, users_max: int) -> NDArray[np.int64]:
        """Profiles that were stored have a version of 1 or more; 0 is somebody forgotten before being taken in."""
        versions = self._engine.store.columns.version[: len(self._engine.store)]
        stale = versions != 0
        compared = min(len(versions), len(self._versions))
        stale[:compared] = versions[:compared] != self._versions[:compared]
        slots = np.flatnonzero(stale)
        return np.roll(slots, -int(np.searchsorted(slots, self._cursor)))[:users_max]

    def _take_in_items(self, items: ItemWords) -> None:
        descriptions = [words.description for words in items.words]
        attributes = [words.attributes for words in items.words]
        self._item_vectors[items.slots] = self.model.items.encode(items.item_ids, descriptions, attributes)
        self._taken_in += int((self._revisions[items.slots] == 0).sum())
        self._revisions[items.slots] = items.revisions

    def _take_in_users(self, changes: Changes) -> None:
        profiles = self.model.profiles
        starts = start_states(profiles, changes.tokens)
        states = encoded_histories(changes.histories, profiles, self._item_vectors, self._type_weights, starts)
        self._states[changes.slots] = states
        if changes.gone:  # while they are known to the index: only then it erases them from its graphs too
            self.model.index.forget(changes.gone)
        place(self.model.index, changes.ids, self.model.profiles.vectors(states))
        self._taken_in += int((self._versions[changes.slots] == 0).sum())
        self._versions[changes.slots] = changes.versions


def _with_rows(column: NDArray[T], rows: int) -> NDArray[T]:
    """The column itself, or a longer copy that goes on with zeros."""
    if len(column) >= rows:
        return column
    longer = np.zeros((rows, *column.shape[1:]), column.dtype)
    longer[: len(column)] = column
    return longer
