"""Whose lists a batch makes: some of the users it touched, and users of the store whose turn has come."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np

from streams.core.profile import ProfileColumns
from streams.core.updater import ProfileUpdate

if TYPE_CHECKING:
    from streams.core.ports import ProfileEncoder, Slots
    from streams.core.profile import ProfileStore

NO_EVENT = -1
"""In `last_events`: the user is in the store as the update says, and no event of the batch moved the profile."""


def rows_of(update: ProfileUpdate, rows: Slots) -> ProfileUpdate:
    """Some users of an update, with the events of all."""
    chosen = rows.tolist()
    return replace(
        update,
        users=[update.users[row] for row in chosen],
        slots=update.slots[rows],
        columns=update.columns.take(rows),
        vectors=update.vectors[rows],
        excluded=[update.excluded[row] for row in chosen],
        last_events=update.last_events[rows],
    )


def with_stored(update: ProfileUpdate, slots: Slots, store: ProfileStore, encoder: ProfileEncoder) -> ProfileUpdate:
    """The update and, after its users, these of the store as they are; none of them is in both."""
    if not len(slots):
        return update
    columns = store.take(slots)
    chosen = slots.tolist()
    return replace(
        update,
        users=update.users + [store.user_ids[slot] for slot in chosen],
        slots=np.concatenate([update.slots, slots]),
        columns=_joined(update.columns, columns),
        vectors=np.concatenate([update.vectors, encoder.vectors(columns.state)]),
        excluded=update.excluded + [store.excluded.get(slot, ()) for slot in chosen],
        last_events=np.concatenate([update.last_events, np.full(len(slots), NO_EVENT, np.int32)]),
    )


def _joined(first: ProfileColumns, second: ProfileColumns) -> ProfileColumns:
    pairs = {c.name: (getattr(first, c.name), getattr(second, c.name)) for c in fields(ProfileColumns)}
    return ProfileColumns(**{name: np.concatenate(pair) for name, pair in pairs.items()})
