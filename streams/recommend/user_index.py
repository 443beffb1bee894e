"""The index of users by slot: what it must hold, and who is near. Shapes: u users, k neighbours, d dimensions."""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streams.core.ports import Floats, ProfileEncoder, Slots, VectorIndex
    from streams.core.profile import ProfileStore

ALIGN_USERS = 8192
"""Users whose vectors are computed and compared at once."""


def place(index: VectorIndex, slots: list[int], vectors: Floats) -> None:
    """Makes the index hold the users where their vectors (u, d) say; users without direction are not in it."""
    directed: NDArray[np.bool_] = np.asarray(vectors.any(axis=1))
    if directed.all():
        index.upsert(slots, vectors)
    else:
        index.upsert(list(compress(slots, directed.tolist())), vectors[directed])
        index.remove(list(compress(slots, (~directed).tolist())))


def align(index: VectorIndex, store: ProfileStore, encoder: ProfileEncoder) -> int:
    """Makes the index hold the store's users and nobody else, each where its state says. Returns how many left it.

    Vectors that the index has already are the same to the last bit or nearly, so that no graph is built anew.
    """
    slots = list(store.slot_of.values())
    known = set(slots)
    strays = [slot for slot in index.ids() if slot not in known]
    if strays:
        index.forget(strays)
    for first in range(0, len(slots), ALIGN_USERS):
        part = slots[first : first + ALIGN_USERS]
        place(index, part, encoder.vectors(store.columns.state[part]))
    return len(strays)


def nearest_users(index: VectorIndex, own: Slots, vectors: Floats, k: int) -> tuple[Slots, Floats]:
    """(u, k) slots of those nearest to the vectors (u, d), best first, and their cosines; padded with -1 and NaN.

    The users `own` (u,) themselves, -1 for one not stored yet, are not among them: one more than k is asked for, since
    an indexed user finds itself.
    """
    slots = np.full((len(own), k + 1), -1, np.int32)
    similarities = np.full((len(own), k + 1), np.nan, np.float32)
    if k and len(own) and len(index):
        matches = index.search(vectors, k + 1)
        found = ~np.isnan(matches.similarities)
        slots[found] = matches.ids[found].astype(np.int32)
        similarities[:] = matches.similarities
    return _without_self(slots, similarities, own)


def _without_self(slots: Slots, similarities: Floats, own: Slots) -> tuple[Slots, Floats]:
    """Drops the user itself from each row of k + 1 matches, else the last match."""
    is_self = (slots == own[:, None]) & (slots >= 0)
    drop = np.where(is_self.any(axis=1), is_self.argmax(axis=1), slots.shape[1] - 1)
    keep = np.arange(slots.shape[1]) != drop[:, None]
    shape = (len(slots), slots.shape[1] - 1)
    return slots[keep].reshape(shape), similarities[keep].reshape(shape)
