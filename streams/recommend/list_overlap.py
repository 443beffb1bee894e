"""How much of people's lists stays as it was when another model takes over: overlap@k over a sample of users.

Lists are made as a batch makes them, but of nobody's events, and nothing of it is stored. A few users at a time, so
that each call holds the compute thread up for a moment only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streams.core.profile import FORGOTTEN
from streams.core.status import SwapOverlap
from streams.recommend.asked import rows_of, with_stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streams.core.ports import Slots
    from streams.core.profile import ProfileStore
    from streams.core.updater import ProfileUpdate
    from streams.recommend.engine import Engine

SAMPLE_USERS = 256
USERS_PER_SLICE = 8
"""Half a millisecond each with a thousand items: no longer than the switch itself."""
PLACES = 10


@dataclass(frozen=True, slots=True)
class _Lists:
    """The lists of a few users at one moment, catalogue and store slots, padded with -1."""

    slots: Slots
    """(u,)"""
    versions: NDArray[np.int64]
    """(u,)"""
    neighbours: Slots
    """(u, at most PLACES)"""
    items: Slots
    """(u, at most PLACES)"""


class ListComparison:
    """Lists of the same users before and after a switch. `before` and `after` belong to the compute thread."""

    def __init__(self, engine: Engine, users_max: int = SAMPLE_USERS) -> None:
        """Draws the sample; the model that serves now is the one of before."""
        self._engine = engine
        self._model_before = engine.encoder.name
        slots = sample_users(engine.store, users_max)
        self._waiting = [slots[first : first + USERS_PER_SLICE] for first in range(0, len(slots), USERS_PER_SLICE)]
        self._before: list[_Lists] = []
        self._after: list[_Lists] = []

    def before(self) -> bool:
        """Makes the lists of some more users; False when there are no more. To be called before the switch."""
        if len(self._before) == len(self._waiting):
            return False
        self._before.append(_lists(self._engine, self._waiting[len(self._before)]))
        return True

    def after(self) -> bool:
        """The same after the switch, without users who moved or left meanwhile: their lists changed for that."""
        if len(self._after) == len(self._before):
            return False
        then = self._before[len(self._after)]
        same = self._engine.store.columns.version[then.slots] == then.versions
        self._after.append(_lists(self._engine, then.slots[same]))
        return True

    def overlap(self) -> SwapOverlap:
        """What both have in common, of the users whose lists were made twice."""
        pairs = list(zip(self._before, self._after, strict=True))
        kept = [np.isin(then.slots, now.slots) for then, now in pairs]
        shares = {
            name: np.concatenate(
                [
                    np.zeros(0),
                    *(
                        overlap_at_k(getattr(then, name)[rows], getattr(now, name))
                        for (then, now), rows in zip(pairs, kept, strict=True)
                    ),
                ]
            )
            for name in ("neighbours", "items")
        }
        return SwapOverlap(
            before=self._model_before,
            users=sum(len(now.slots) for now in self._after),
            k=PLACES,
            neighbours=_mean(shares["neighbours"]),
            items=_mean(shares["items"]),
        )


def sample_users(store: ProfileStore, users_max: int) -> Slots:
    """Slots of at most `users_max` users with a profile, evenly spread: the same for the same store."""
    known = np.flatnonzero(store.columns.version[: len(store)])
    if len(known) > users_max:
        known = known[np.linspace(0, len(known) - 1, users_max).astype(np.intp)]
    return np.array([slot for slot in known.tolist() if store.user_ids[slot] != FORGOTTEN], np.int32)


def overlap_at_k(first: Slots, second: Slots) -> NDArray[np.float64]:
    """(u,) share of the places of two lists (u, k) and (u, l) that hold what is in both; NaN where both are empty.

    Places are counted in the longer list; -1 is no place.
    """
    common = ((first[:, :, None] == second[:, None, :]) & (first >= 0)[:, :, None]).sum(axis=(1, 2))
    longer = np.maximum((first >= 0).sum(axis=1), (second >= 0).sum(axis=1))
    shares = np.full(len(first), np.nan)
    np.divide(common, longer, out=shares, where=longer > 0)
    return shares


def _lists(engine: Engine, slots: Slots) -> _Lists:
    """Lists of users of the store as they are now."""

    def these(update: ProfileUpdate) -> ProfileUpdate:
        return with_stored(rows_of(update, np.empty(0, np.int32)), slots, engine.store, engine.encoder)

    made = engine.prepare([], np.empty(0, np.int64), 0, lessons=False, choose=these)
    items = np.zeros((len(slots), 0), np.int32) if made.ranking is None else made.ranking.items
    versions = engine.store.columns.version[slots].copy()
    return _Lists(slots, versions, made.neighbour_slots[:, :PLACES], items[:, :PLACES])


def _mean(shares: NDArray[np.float64]) -> float | None:
    known = shares[~np.isnan(shares)]
    return round(float(known.mean()), 4) if len(known) else None
