"""What share of a user's recent items each category has, and which of these categories the candidates belong to.

Shapes: u users, M candidates, R recent items, C = USER_CATEGORIES_MAX.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Slots
from streams.recommend.kernel import kernel

NONE = -1
USER_CATEGORIES_MAX = 32

Doubles = NDArray[np.float64]


class UserMixes(NamedTuple):
    """The users' categories, at most C each, and those of their candidates."""

    shares: Doubles
    """(u, C) of each of the user's categories; sum 1, or 0 for users without any."""
    local: Slots
    """(u, M, 4) those of the candidate's categories that the user has, as places in the mix, then -1."""
    sizes: NDArray[np.int32]
    """(u, M) categories of the candidate, known to the user or not."""


def no_mixes(users: int) -> UserMixes:
    """Nobody asks."""
    return UserMixes(np.zeros((users, 0)), np.zeros((users, 0, 4), np.int32), np.zeros((users, 0), np.int32))


def user_mixes(items: Slots, recent_items: Slots, recent_count: NDArray[np.int32], categories: Slots) -> UserMixes:
    """Of users with these candidates (u, M), -1 for none, and recent items (u, R), of which `recent_count` (u,) are.

    `categories` (items, 4) is by catalogue slot, padded with -1.
    """
    users, width = items.shape
    mixes = UserMixes(
        shares=np.zeros((users, USER_CATEGORIES_MAX)),
        local=np.full((users, width, 4), NONE, np.int32),
        sizes=np.zeros((users, width), np.int32),
    )
    _mix(items, recent_items, recent_count, categories, np.zeros(USER_CATEGORIES_MAX, np.int32), mixes)
    return mixes


@kernel
def _mix(
    items: Slots,
    recent_items: Slots,
    recent_count: NDArray[np.int32],
    categories: Slots,
    known: Slots,
    mixes: UserMixes,
) -> None:
    for row in range(len(items)):
        _know(recent_items[row], recent_count[row], categories, known, mixes.shares[row])
        _localise(items[row], categories, known, mixes.local[row], mixes.sizes[row])


@kernel
def _know(recent: Slots, recent_count: int, categories: Slots, known: Slots, shares: Doubles) -> None:
    """Writes the user's categories and their shares; those after the first USER_CATEGORIES_MAX are left out."""
    total = 0.0
    for local in range(USER_CATEGORIES_MAX):
        known[local] = NONE
    for place in range(recent_count):
        item = recent[place]
        size = _size(item, categories) if 0 <= item < len(categories) else 0
        for slot in range(size):
            local = _local(categories[item, slot], known)
            if local >= 0:
                known[local] = categories[item, slot]
                shares[local] += 1.0 / size
                total += 1.0 / size
    for local in range(USER_CATEGORIES_MAX):
        shares[local] /= max(total, 1.0 / 4)


@kernel
def _size(item: int, categories: Slots) -> int:
    size = 0
    while size < 4 and categories[item, size] >= 0:
        size += 1
    return size


@kernel
def _local(category: int, known: Slots) -> int:
    """The category's place in the mix, the next free one for a new category; -1 without one."""
    for local in range(USER_CATEGORIES_MAX):
        if known[local] == category or known[local] < 0:
            return local
    return NONE


@kernel
def _localise(items: Slots, categories: Slots, known: Slots, local: Slots, sizes: NDArray[np.int32]) -> None:
    for column in range(len(items)):
        item = items[column]
        if item < 0:
            continue
        size, found = _size(item, categories), 0
        sizes[column] = size
        for slot in range(size):
            place = _local(categories[item, slot], known)
            if place >= 0 and known[place] >= 0:
                local[column, found] = place
                found += 1
