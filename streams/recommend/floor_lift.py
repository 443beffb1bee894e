"""Fairness floors: items of groups that get less exposure than their least share are moved up in lists.

Shapes: u users, M candidates, n places, F floors. One file of kernels: see `streams.recommend.kernel`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.recommend.kernel import kernel
from streams.recommend.wishes import CODES, Candidates, Wishes

NONE = -1
ANYWHERE, NOWHERE = -1, -2
RESERVE = 1.02
"""A floor is aimed at with 2 % more, so that the next list may lack candidates of the group without breaking it."""

Doubles = NDArray[np.float64]


class Floors(NamedTuple):
    """Least shares of exposure over a window of lists, and what the window holds."""

    shares: Doubles
    """(F,)"""
    groups: NDArray[np.int32]
    """(items,) bit f: the item belongs to group f."""
    list_share_max: float
    weights: Doubles
    """(n,) exposure of each place."""
    window: Doubles
    """(lists, F + 1) a ring: exposure of each group, and last of all items."""
    totals: Doubles
    """(F + 1,) sums of the window."""


class _Group(NamedTuple):
    """The candidates of a group that is to be lifted, worth most first."""

    columns: Slots
    """(M,)"""
    kinds: Slots
    """(M,) where it may enter the list: ANYWHERE, NOWHERE, or only for an item of the same brand, ... (0, 1, 2)."""
    codes: Slots
    """(M,) that brand, provider or category; the cap of it is reached."""
    listed: Slots
    """(n, CODES) what caps count in the list."""


def lift(candidates: Candidates, wishes: Wishes, floors: Floors, head: int, held: int, places: Slots) -> None:
    """Moves items of groups that fall below their floor up in `places` (u, n), list after list, as far as needed.

    `floors.window` holds `held` lists, the next goes to `head`; window and totals are written as if all lists were
    published. Pins stay, caps hold, and no group is lifted at the cost of another one's floor.
    """
    width = candidates.items.shape[1]
    listed = np.zeros((places.shape[1], CODES), np.int32)
    group = _Group(np.zeros(width, np.int32), np.zeros(width, np.int32), np.zeros(width, np.int32), listed)
    _lift(candidates, wishes, floors, head, held, group, places)


@kernel
def _lift(
    candidates: Candidates,
    wishes: Wishes,
    floors: Floors,
    head: int,
    held: int,
    group: _Group,
    places: Slots,
) -> None:
    lists, bits = floors.window.shape[0], len(floors.shares)
    need, have = np.zeros(bits), np.zeros(bits + 1)
    for row in range(len(places)):
        if places[row, 0] < 0:
            continue
        _exposures(candidates.items[row], places[row], floors, have)
        for bit in range(bits + 1):
            floors.totals[bit] -= floors.window[head, bit] if held == lists else 0.0
        for bit in range(bits):
            wanted = RESERVE * floors.shares[bit] * (floors.totals[bits] + have[bits]) - floors.totals[bit]
            need[bit] = min(wanted, floors.list_share_max * have[bits])
        for bit in range(bits):
            if have[bit] < need[bit]:
                _lift_group(
                    bit, candidates.items[row], candidates.worth[row], candidates.codes[row], wishes, floors, need,
                    have, group, places[row],
                )  # fmt: skip
        for bit in range(bits + 1):
            floors.window[head, bit] = have[bit]
            floors.totals[bit] += have[bit]
        head, held = (head + 1) % lists, min(held + 1, lists)


@kernel
def _exposures(items: Slots, places: Slots, floors: Floors, have: Doubles) -> None:
    groups = len(floors.shares)
    for group in range(groups + 1):
        have[group] = 0.0
    for place in range(len(places)):
        if places[place] < 0:
            break
        have[groups] += floors.weights[place]
        for group in range(groups):
            if _belongs(items[places[place]], group, floors.groups):
                have[group] += floors.weights[place]


@kernel
def _belongs(item: int, group: int, groups: NDArray[np.int32]) -> bool:
    return bool((groups[item] >> group) & 1)


@kernel
def _lift_group(
    bit: int,
    items: Slots,
    worth: Floats,
    codes: Slots,
    wishes: Wishes,
    floors: Floors,
    need: Doubles,
    have: Doubles,
    group: _Group,
    places: Slots,
) -> None:
    """Exchanges one item after the other for one of the group, until it has what it needs or none is possible.

    Each time the exchange that costs least worth for each exposure gained: the difference of the two items' worth,
    wherever they stand.
    """
    count = _members(bit, items, worth, floors.groups, group.columns)
    _admit(count, codes, wishes, group, places)
    for _ in range(len(places) ** 2):
        place, source, column = _cheapest(bit, count, items, worth, codes, wishes, floors, need, have, group, places)
        if place < 0:
            break
        _exchange(items, place, source, column, places, floors, have)
        if have[bit] >= need[bit]:
            break
        if source < 0:
            _admit(count, codes, wishes, group, places)


@kernel
def _members(bit: int, items: Slots, worth: Floats, groups: NDArray[np.int32], columns: Slots) -> int:
    """Lists the columns of the group's candidates, worth most first. Returns how many."""
    count = 0
    for column in range(len(items)):
        if items[column] < 0 or not worth[column] > 0 or not _belongs(items[column], bit, groups):
            continue
        place = count
        while place > 0 and worth[column] > worth[columns[place - 1]]:
            columns[place] = columns[place - 1]
            place -= 1
        columns[place] = column
        count += 1
    return count


@kernel
def _admit(count: int, codes: Slots, wishes: Wishes, group: _Group, places: Slots) -> None:
    """Says of each candidate of the group how it could enter the list as it is now."""
    if wishes.capped:
        for place in range(len(places)):
            for field in range(CODES):
                group.listed[place, field] = codes[places[place], field] if places[place] >= 0 else NONE
    for index in range(count):
        column = group.columns[index]
        group.kinds[index] = NOWHERE if _holds(places, column) else ANYWHERE
        if wishes.capped and group.kinds[index] == ANYWHERE:
            for field in range(CODES):
                kind, code = min(field, 2), codes[column, field]
                if code >= 0 and wishes.caps[kind] > 0 and _count(group.listed, kind, code) >= wishes.caps[kind]:
                    group.kinds[index] = kind if group.kinds[index] == ANYWHERE else NOWHERE
                    group.codes[index] = code


@kernel
def _count(listed: Slots, kind: int, code: int) -> int:
    """How many of the list have this brand (kind 0), provider (1) or category (2)."""
    same = 0
    for place in range(len(listed)):
        for field in range(kind, CODES if kind == 2 else kind + 1):
            same += listed[place, field] == code
    return int(same)


@kernel
def _cheapest(
    bit: int,
    count: int,
    items: Slots,
    worth: Floats,
    codes: Slots,
    wishes: Wishes,
    floors: Floors,
    need: Doubles,
    have: Doubles,
    group: _Group,
    places: Slots,
) -> tuple[int, int, int]:
    """The best exchange: the place, where the group's item comes from (-1: outside the list), its column.

    The place is -1 when no exchange is possible.
    """
    best_place, best_source, best_column, best_cost, below = NONE, NONE, NONE, np.inf, NONE
    outside = _best_outside(count, worth, group)
    for place in range(len(places) - 1, -1, -1):
        column = places[place]
        if column < 0 or _holds(wishes.pinned, items[column]):
            continue
        if _belongs(items[column], bit, floors.groups):
            below = place if below < 0 or worth[column] > worth[places[below]] else below
            continue
        for source in (below, NONE):
            least, comes = worth[column] - best_cost, NONE
            if source >= 0 and worth[places[source]] > least:
                comes = places[source]
            elif source < 0 and outside > least:
                comes = _outsider(column, least, count, worth, codes, group)
            if comes >= 0 and _spares_others(items[column], items[comes], place, source, floors, need, have):
                best_place, best_source, best_column = place, source, comes
                best_cost = max(0.0, worth[column] - worth[comes])
    return best_place, best_source, best_column


@kernel
def _best_outside(count: int, worth: Floats, group: _Group) -> float:
    """What the group's item worth most is worth that could enter the list anywhere, 0 without one."""
    for index in range(count):
        if group.kinds[index] != NOWHERE:
            return float(worth[group.columns[index]])
    return 0.0


@kernel
def _outsider(leaves: int, least: float, count: int, worth: Floats, codes: Slots, group: _Group) -> int:
    """The column of the group's item worth most, above `least`, that could take the place of `leaves`, or -1."""
    for index in range(count):
        column, kind = group.columns[index], group.kinds[index]
        if not worth[column] > least:
            break
        if kind == ANYWHERE or (kind >= 0 and _coded(codes, leaves, kind, group.codes[index])):
            return int(column)
    return NONE


@kernel
def _exchange(items: Slots, place: int, source: int, column: int, places: Slots, floors: Floors, have: Doubles) -> None:
    """Puts a column to a place; what was there goes to where it came from, -1 for out of the list."""
    moved = floors.weights[place] - (floors.weights[source] if source >= 0 else 0.0)
    for bit in range(len(floors.shares)):
        if _belongs(items[column], bit, floors.groups):
            have[bit] += moved
        if _belongs(items[places[place]], bit, floors.groups):
            have[bit] -= moved
    if source >= 0:
        places[source] = places[place]
    places[place] = column


@kernel
def _holds(items: Slots, item: int) -> bool:
    found = False
    for index in range(len(items)):
        found |= items[index] == item
    return found


@kernel
def _spares_others(
    leaves: int, comes: int, place: int, source: int, floors: Floors, need: Doubles, have: Doubles
) -> bool:
    """No group is pushed below what it needs by the exchange of `leaves` at `place` for `comes`."""
    moved = floors.weights[place] - (floors.weights[source] if source >= 0 else 0.0)
    for group in range(len(need)):
        loses = _belongs(leaves, group, floors.groups) and not _belongs(comes, group, floors.groups)
        if loses and have[group] - moved < need[group]:
            return False
    return True


@kernel
def _coded(codes: Slots, column: int, kind: int, code: int) -> bool:
    """The candidate's brand (kind 0), provider (1) or one of its categories (2) has this code."""
    found = False
    for field in range(kind, CODES if kind == 2 else kind + 1):
        found |= codes[column, field] == code
    return found
