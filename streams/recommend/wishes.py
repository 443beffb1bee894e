"""What is asked of lists, and the candidates that they are made of, in arrays that compiled loops read.

Shapes: u users, M candidates, d dimensions, p pins.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots

NONE = -1
CODES = 6
"""Brand, provider and four categories of an item, in this order."""


class DiversityBy(IntEnum):
    """How the novelty of an item beside others is measured."""

    MSD = 0
    MMR = 1
    DPP = 2


class Candidates(NamedTuple):
    """What may be in the lists."""

    items: Slots
    """(u, M) catalogue slots, padded with -1."""
    worth: Floats
    """(u, M) 0 where the item must not be in the list."""
    codes: Slots
    """(u, M, CODES) what caps count, -1 for none; (u, 0, CODES) without caps."""


class Facts(NamedTuple):
    """Of the items, by slot."""

    vectors: Floats
    """(items, d) unit vectors."""
    brand: Slots
    provider: Slots
    categories: Slots
    """(items, 4)"""


class Wishes(NamedTuple):
    """What is asked of every list."""

    diversity: float
    diversity_head: int
    """Places, from the first, in which it does not count."""
    diversity_by: int
    """A `DiversityBy`."""
    calibration: float
    capped: bool
    caps: NDArray[np.int32]
    """(3,) most items of a brand, a provider and a category; 0 is no cap."""
    pinned: Slots
    """(p,) items with a place of their own."""
    pinned_at: Slots
    """(p,) those places from 0, rising."""


def candidates_of(items: Slots, worth: Floats, facts: Facts, wishes: Wishes) -> Candidates:
    """These items (u, M), with what the wishes need to know of them."""
    if not wishes.capped or not len(facts.brand):
        return Candidates(items, worth, np.zeros((len(items), 0, CODES), np.int32))
    slots = np.maximum(items, 0)
    codes = np.empty((*items.shape, CODES), np.int32)
    codes[:, :, 0], codes[:, :, 1], codes[:, :, 2:] = facts.brand[slots], facts.provider[slots], facts.categories[slots]
    codes[items < 0] = NONE
    return Candidates(items, worth, codes)
