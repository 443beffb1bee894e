"""Profiles as columns: one row a user, one numpy array a field.

Sizes: u users, R recent items kept, W event ids kept, S encoder state width.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import repeat
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from streams.core.user_facts import UserFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.core.ports import Floats, Slots

NO_ITEM = -1
FORGOTTEN = ""
"""Stands in `ProfileStore.user_ids` for a user who was forgotten; no id is empty."""
GROWTH = 1.5
ROWS_MIN = 1024


@dataclass(frozen=True, slots=True)
class ProfileLayout:
    """Widths of the columns."""

    state_width: int
    recent_items: int
    event_id_window: int


@dataclass(slots=True)
class ProfileColumns:
    """The columns of u profiles. Recent items and event ids are left-aligned, oldest first."""

    events: NDArray[np.int64]
    """(u,) accepted events since the first."""
    version: NDArray[np.int64]
    """(u,) changes of the profile: accepted events plus re-encodings."""
    last_offset: NDArray[np.int64]
    """(u,) input offset of the last accepted event, -1 before the first; one at or below it is skipped (rule 6)."""
    last_time_ms: NDArray[np.int64]
    """(u,) largest event time, epoch ms."""
    partition: NDArray[np.int32]
    """(u,) input partition of the user, -1 before the first event."""
    recent_total: NDArray[np.int64]
    """(u,) events that ever entered the recent items; the others, as an impression or a dislike, only count."""
    recent_count: NDArray[np.int32]
    """(u,) how many of the R recent places are in use."""
    recent_items: NDArray[np.int32]
    """(u, R) catalogue slots, NO_ITEM where unused."""
    recent_types: NDArray[np.uint8]
    """(u, R) event type codes."""
    recent_times_s: NDArray[np.uint32]
    """(u, R) event times, epoch seconds."""
    event_id_count: NDArray[np.int32]
    """(u,) how many of the W places are in use."""
    event_ids: NDArray[np.uint64]
    """(u, W) 64-bit hashes of the last event ids."""
    state: Floats
    """(u, S) encoder state."""

    @classmethod
    def empty(cls, rows: int, layout: ProfileLayout) -> Self:
        """Rows of zeros, to be written with `put` or `clear`. Zeroed pages stay unmapped until they are written."""
        return cls(
            events=np.zeros(rows, np.int64),
            version=np.zeros(rows, np.int64),
            last_offset=np.zeros(rows, np.int64),
            last_time_ms=np.zeros(rows, np.int64),
            partition=np.zeros(rows, np.int32),
            recent_total=np.zeros(rows, np.int64),
            recent_count=np.zeros(rows, np.int32),
            recent_items=np.zeros((rows, layout.recent_items), np.int32),
            recent_types=np.zeros((rows, layout.recent_items), np.uint8),
            recent_times_s=np.zeros((rows, layout.recent_items), np.uint32),
            event_id_count=np.zeros(rows, np.int32),
            event_ids=np.zeros((rows, layout.event_id_window), np.uint64),
            state=np.zeros((rows, layout.state_width), np.float32),
        )

    def clear(self, rows: slice | Slots | NDArray[np.bool_]) -> None:
        """Turns rows into users without history."""
        for column in fields(self):
            getattr(self, column.name)[rows] = 0
        self.last_offset[rows] = -1
        self.partition[rows] = -1
        self.recent_items[rows] = NO_ITEM

    def take(self, rows: Slots) -> ProfileColumns:
        """A copy of the rows."""
        return ProfileColumns(**{c.name: getattr(self, c.name)[rows] for c in fields(self)})

    def put(self, rows: Slots, columns: ProfileColumns) -> None:
        """Writes copies back."""
        for column in fields(self):
            getattr(self, column.name)[rows] = getattr(columns, column.name)

    def resized(self, rows: int, layout: ProfileLayout) -> ProfileColumns:
        """The same profiles with room for `rows`."""
        larger = ProfileColumns.empty(rows, layout)
        used = len(self.events)
        for column in fields(self):
            getattr(larger, column.name)[:used] = getattr(self, column.name)
        return larger


class ProfileStore:
    """All profiles that this worker knows: its own partitions' and, by the changelog, everybody else's.

    Not thread-safe: read and written in the compute thread only.
    """

    def __init__(self, layout: ProfileLayout) -> None:
        self.layout = layout
        self.columns = ProfileColumns.empty(ROWS_MIN, layout)
        self.user_ids: list[str] = []
        """Ids by slot, FORGOTTEN where the user is gone."""
        self.slot_of: dict[str, int] = {}
        self.excluded: dict[int, tuple[int, ...]] = {}
        """Items never recommended again (bought or disliked) by user slot, oldest first; absent when none."""
        self.facts = UserFacts()
        """What people say of themselves: also of those who have no profile yet, and kept when a profile goes."""

    def __len__(self) -> int:
        return len(self.user_ids)

    def slots(self, user_ids: Sequence[str]) -> Slots:
        """Slots of the users, -1 for unknown ones."""
        return np.fromiter(map(self.slot_of.get, user_ids, repeat(-1)), np.int32, len(user_ids))

    def take(self, slots: Slots) -> ProfileColumns:
        """Copies of the profiles; slot -1 gives a user without history."""
        columns = self.columns.take(slots)
        columns.clear(slots < 0)
        return columns

    def put(self, user_ids: Sequence[str], columns: ProfileColumns) -> Slots:
        """Stores the profiles, adding users that are new, and returns their slots."""
        slots = self.slots(user_ids)
        for row in np.flatnonzero(slots < 0).tolist():
            slots[row] = self._add(user_ids[row])
        self.columns.put(slots, columns)
        return slots

    def set_excluded(self, slot: int, items: tuple[int, ...]) -> None:
        """Replaces the items that are never recommended to one user again."""
        if items:
            self.excluded[slot] = items
        else:
            self.excluded.pop(slot, None)

    def forget(self, user_ids: Sequence[str]) -> list[int]:
        """Empties the profiles of these users, drops their ids and returns the slots of those that were known.

        A slot is not given again, so that slots held elsewhere never point to somebody else; whoever comes back
        gets a new one.
        """
        known = [slot for user_id in user_ids if (slot := self.slot_of.pop(user_id, None)) is not None]
        self.columns.clear(np.array(known, np.int32))
        for slot in known:
            self.user_ids[slot] = FORGOTTEN
            self.excluded.pop(slot, None)
        return known

    def check_states(self, states: Floats, state_width: int) -> None:
        """Raises ValueError unless the encoder states are (rows of the columns, state_width)."""
        expected = (len(self.columns.events), state_width)
        if states.shape != expected:
            raise ValueError(f"expected states of the shape {expected}, got {states.shape}")

    def replace_states(self, states: Floats) -> Floats:
        """Takes over the encoder states (rows of the columns, S) of another model, of any width; returns the former.

        Raises:
            ValueError: the rows are more or fewer; nothing has changed.
        """
        self.check_states(states, states.shape[-1])
        former, self.columns.state = self.columns.state, states
        self.layout = replace(self.layout, state_width=states.shape[1])
        return former

    def restore(self, user_ids: list[str], columns: ProfileColumns, excluded: dict[int, tuple[int, ...]]) -> None:
        """Takes over a whole memory, one slot a user id, in order; the columns may have more rows, for growth.

        Raises:
            ValueError: this store is not empty, the rows are too few, or an id is there twice; nothing has changed.
        """
        slot_of = {user_id: slot for slot, user_id in enumerate(user_ids) if user_id != FORGOTTEN}
        if len(self) or len(columns.events) < max(len(user_ids), ROWS_MIN):
            raise ValueError(
                f"expected an empty store and {max(len(user_ids), ROWS_MIN)} rows or more, "
                f"got one of {len(self)} users and {len(columns.events)} rows"
            )
        if len(slot_of) + user_ids.count(FORGOTTEN) != len(user_ids):
            raise ValueError("the same user id is there twice")
        self.user_ids, self.slot_of, self.excluded, self.columns = user_ids, slot_of, excluded, columns

    def _add(self, user_id: str) -> int:
        slot = self.slot_of.get(user_id)
        if slot is not None:  # the same new user twice in one call
            return slot
        slot = len(self.user_ids)
        if slot == len(self.columns.events):
            self.columns = self.columns.resized(int(slot * GROWTH), self.layout)
        self.user_ids.append(user_id)
        self.slot_of[user_id] = slot
        return slot
