"""The compiled part of re-ranking: which candidates make the list, and in which order.

Greedy, place by place. The worth of candidate i beside those already chosen is

    (1 - c) * ((1 - d) * r_i + d * n_i) - c * g_i

with r the score relative to the user's best, n <= 0 the novelty (`Diversity`), g the change of the distance between the
categories of the list and those of the user, KL(p || 0.99 q + 0.01 p) (Steck, Calibrated recommendations, 2018), and d
and c the settings `diversity` and `calibration`. Novelty by MMR is minus the largest cosine to a chosen item (Carbonell
and Goldstein, 1998); by DPP it is the logarithm of what the chosen vectors leave unexplained of the item's own (fast
greedy MAP inference with r-weighted kernel, Chen et al., 2018).

Shapes: u users, M candidates, n places, d dimensions, F floors. One file, since a cached kernel may call kernels of its
own file only.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.recommend.kernel import kernel

NONE = -1
ANYWHERE, NOWHERE = -1, -2
SMOOTHING = 0.01
"""Share of the user's own mix in q, so that a category missing from the list is far away but not infinitely."""
USER_CATEGORIES_MAX = 32
UNEXPLAINED_MIN = 1e-6
"""Below it an item is a copy of what was chosen already; its novelty is the logarithm of this."""
RESERVE = 1.02
"""A floor is aimed at with 2 % more, so that the next list may lack candidates of the group without breaking it."""
CODES = 6
"""Brand, provider and four categories of an item, in this order."""

Doubles = NDArray[np.float64]


class Diversity(IntEnum):
    """How the novelty of an item beside others is measured."""

    MMR = 0
    DPP = 1


class Candidates(NamedTuple):
    """What may be in the lists."""

    items: Slots
    """(u, M) catalogue slots, padded with -1."""
    worth: Floats
    """(u, M) 0 where the item must not be in the list."""


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
    by_dpp: bool
    calibration: float
    capped: bool
    caps: NDArray[np.int32]
    """(3,) most items of a brand, a provider and a category; 0 is no cap."""
    pinned: Slots
    """(p,) items with a place of their own."""
    pinned_at: Slots
    """(p,) those places from 0, rising."""


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


class _Pool(NamedTuple):
    """One user's candidates, worth most first; k of them are chosen so far."""

    columns: Slots
    """(M,) where the candidate stands in the input."""
    relevance: Floats
    """(M,) worth / the user's largest."""
    barred: NDArray[np.bool_]
    """(M,) chosen already, or one too many under a cap."""
    codes: Slots
    """(M, CODES) what caps count; -1 without caps."""
    chosen: Slots
    """(n,) candidates in the order in which they were chosen."""


class _Novelty(NamedTuple):
    """How little one user's candidates resemble the chosen ones."""

    vectors: Floats
    """(M, d)"""
    novelty: Floats
    """(M,) <= 0"""
    cosines: Floats
    """(M,) to the one chosen last."""
    unexplained: Floats
    """(M,) DPP: squared length of what remains of the vector."""
    components: Floats
    """(n, M) DPP: parts along the chosen ones; rows of a Cholesky factor."""


class _Mix(NamedTuple):
    """One user's categories, at most USER_CATEGORIES_MAX, beside those of the chosen."""

    known: Slots
    """(C,) codes of the user's categories, then -1."""
    shares: Doubles
    """(C,) of each of the user's categories; sum 1."""
    masses: Doubles
    """(C,) how many chosen items each category has."""
    local: Slots
    """(M, 4) those of the candidate's categories that the user has, as places in the mix, then -1."""
    sizes: NDArray[np.int32]
    """(M,) categories of the candidate, known to the user or not."""
    occurs: NDArray[np.bool_]
    """(C, 5) a candidate of this category has so many in all."""
    table: Doubles
    """(C, 5) change of KL by an item of this category and so many in all, beside an item of none."""
    changes: Doubles
    """(M,) change of KL if the candidate comes next, beside an item of none."""


def select(
    candidates: Candidates,
    facts: Facts,
    wishes: Wishes,
    recent_items: Slots,
    recent_count: NDArray[np.int32],
    length: int,
) -> Slots:
    """(u, n) the columns of the chosen candidates, in their order, padded with -1; n is `length`."""
    users, width = candidates.items.shape
    places = np.full((users, length), NONE, np.int32)
    pool = _Pool(
        columns=np.zeros(width, np.int32),
        relevance=np.zeros(width, np.float32),
        barred=np.zeros(width, np.bool_),
        codes=np.full((width, CODES), NONE, np.int32),
        chosen=np.zeros(length, np.int32),
    )
    novelty = _Novelty(
        vectors=np.zeros((width, facts.vectors.shape[1]), np.float32),
        novelty=np.zeros(width, np.float32),
        cosines=np.zeros(width, np.float32),
        unexplained=np.zeros(width, np.float32),
        components=np.zeros((length, width), np.float32),
    )
    mix = _Mix(
        known=np.full(USER_CATEGORIES_MAX, NONE, np.int32),
        shares=np.zeros(USER_CATEGORIES_MAX),
        masses=np.zeros(USER_CATEGORIES_MAX),
        local=np.full((width, 4), NONE, np.int32),
        sizes=np.zeros(width, np.int32),
        occurs=np.zeros((USER_CATEGORIES_MAX, 5), np.bool_),
        table=np.zeros((USER_CATEGORIES_MAX, 5)),
        changes=np.zeros(width),
    )
    _select(candidates, facts, wishes, recent_items, recent_count, pool, novelty, mix, places)
    return places


@kernel
def _select(
    candidates: Candidates,
    facts: Facts,
    wishes: Wishes,
    recent_items: Slots,
    recent_count: NDArray[np.int32],
    pool: _Pool,
    novelty: _Novelty,
    mix: _Mix,
    places: Slots,
) -> None:
    for row in range(len(places)):
        items = candidates.items[row]
        count = _sort(items, candidates.worth[row], pool.columns, pool.relevance)
        for index in range(count):
            pool.barred[index] = False
        if wishes.capped:
            _code(items, count, facts, pool)
        if wishes.diversity > 0:
            _gather(items, count, pool.columns, facts.vectors, novelty)
        if wishes.calibration > 0:
            _know(recent_items[row], recent_count[row], facts.categories, mix)
            _localise(items, count, pool.columns, facts.categories, mix)
        _fill(items, count, wishes, pool, novelty, mix, places[row])
        _close_up(pool.columns, places[row])


@kernel
def _sort(items: Slots, worth: Floats, columns: Slots, relevance: Floats) -> int:
    """Lists the candidates that may be chosen, worth most first; equals stay in order. Returns how many."""
    count = 0
    for column in range(len(items)):
        if items[column] < 0 or not worth[column] > 0:
            continue
        place = count
        while place > 0 and worth[column] > worth[columns[place - 1]]:
            columns[place] = columns[place - 1]
            place -= 1
        columns[place] = column
        count += 1
    for index in range(count):
        relevance[index] = worth[columns[index]] / worth[columns[0]]
    return count


@kernel
def _code(items: Slots, count: int, facts: Facts, pool: _Pool) -> None:
    for index in range(count):
        item = items[pool.columns[index]]
        for field in range(CODES):
            pool.codes[index, field] = _code_of(item, field, facts)


@kernel
def _code_of(item: int, field: int, facts: Facts) -> int:
    if field == 0:
        return int(facts.brand[item])
    if field == 1:
        return int(facts.provider[item])
    return int(facts.categories[item, field - 2])


@kernel
def _gather(items: Slots, count: int, columns: Slots, vectors: Floats, novelty: _Novelty) -> None:
    for index in range(count):
        item = items[columns[index]]
        for axis in range(vectors.shape[1]):
            novelty.vectors[index, axis] = vectors[item, axis]
        novelty.novelty[index] = 0.0
        novelty.unexplained[index] = 1.0


@kernel
def _know(recent: Slots, recent_count: int, categories: Slots, mix: _Mix) -> None:
    """Writes the shares of the user's categories; those after the first USER_CATEGORIES_MAX are left out."""
    total = 0.0
    for local in range(USER_CATEGORIES_MAX):
        mix.known[local] = NONE
        mix.shares[local] = 0.0
        mix.masses[local] = 0.0
    for place in range(recent_count):
        item = recent[place]
        size = _size(item, categories) if 0 <= item < len(categories) else 0
        for slot in range(size):
            local = _local(categories[item, slot], mix.known)
            if local >= 0:
                mix.known[local] = categories[item, slot]
                mix.shares[local] += 1.0 / size
                total += 1.0 / size
    for local in range(USER_CATEGORIES_MAX):
        mix.shares[local] /= max(total, 1.0 / 4)


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
def _localise(items: Slots, count: int, columns: Slots, categories: Slots, mix: _Mix) -> None:
    for local in range(USER_CATEGORIES_MAX):
        for size in range(5):
            mix.occurs[local, size] = False
    for index in range(count):
        item = items[columns[index]]
        size = _size(item, categories)
        mix.sizes[index] = size
        found = 0
        for slot in range(4):
            mix.local[index, slot] = NONE
            local = _local(categories[item, slot], mix.known) if slot < size else NONE
            if local >= 0 and mix.known[local] >= 0:
                mix.local[index, found] = local
                mix.occurs[local, size] = True
                found += 1


@kernel
def _fill(items: Slots, count: int, wishes: Wishes, pool: _Pool, novelty: _Novelty, mix: _Mix, places: Slots) -> None:
    """Pins come first, so that the others are chosen beside them; then the best for each place that is left."""
    pins, chosen = len(wishes.pinned), 0
    for step in range(pins + len(places)):
        if step < pins:
            index = _find(items, count, wishes.pinned[step], pool)
            at = wishes.pinned_at[step]
        else:
            at = step - pins
            if places[at] >= 0:
                continue
            if wishes.calibration > 0:
                _weigh_mix(count, chosen, mix)
            index = _best(count, wishes.diversity, wishes.calibration, pool, novelty.novelty, mix.changes)
        if index < 0 and step >= pins:
            break
        if index >= 0:
            places[at] = index
            _take(index, count, chosen, wishes, pool, novelty, mix)
            chosen += 1


@kernel
def _find(items: Slots, count: int, item: int, pool: _Pool) -> int:
    """The candidate that is this item, -1 where it is none or barred."""
    for index in range(count):
        if items[pool.columns[index]] == item and not pool.barred[index]:
            return index
    return NONE


@kernel
def _close_up(columns: Slots, places: Slots) -> None:
    """Turns candidates into their columns, and moves them up to where nobody is."""
    end = 0
    for place in range(len(places)):
        index = places[place]
        places[place] = NONE
        if index >= 0:
            places[end] = columns[index]
            end += 1


@kernel
def _best(count: int, diversity: float, calibration: float, pool: _Pool, novelty: Floats, changes: Doubles) -> int:
    """The candidate worth most beside the chosen ones, the first among equals; -1 when none is left."""
    best, best_value = NONE, -np.inf
    by_relevance, by_novelty = (1.0 - calibration) * (1.0 - diversity), (1.0 - calibration) * diversity
    for index in range(count):
        if pool.barred[index]:
            continue
        value = by_relevance * pool.relevance[index]
        if calibration == 0 and value <= best_value:
            break  # relevance falls from here on, and novelty is at most 0
        if by_novelty > 0:
            value += by_novelty * novelty[index]
        if calibration > 0:
            value -= calibration * changes[index]
        if value > best_value:
            best, best_value = index, value
    return best


@kernel
def _take(index: int, count: int, chosen: int, wishes: Wishes, pool: _Pool, novelty: _Novelty, mix: _Mix) -> None:
    """Counts a candidate as chosen."""
    pool.chosen[chosen] = index
    pool.barred[index] = True
    if wishes.capped:
        _bar(index, count, chosen, wishes.caps, pool)
    if wishes.diversity > 0:
        _compare(index, count, novelty)
        if wishes.by_dpp:
            _explain(index, count, chosen, novelty)
    if wishes.calibration > 0:
        for slot in range(4):
            if mix.local[index, slot] >= 0:
                mix.masses[mix.local[index, slot]] += 1.0 / mix.sizes[index]


@kernel
def _bar(index: int, count: int, chosen: int, caps: NDArray[np.int32], pool: _Pool) -> None:
    """Bars every candidate that would be one too many beside the chosen ones, of whom `index` is the last."""
    for field in range(CODES):
        code, kind = pool.codes[index, field], min(field, 2)
        if code < 0 or caps[kind] == 0:
            continue
        same = 0
        for other in range(chosen + 1):
            same += _coded(pool.codes, pool.chosen[other], kind, code)
        if same >= caps[kind]:
            for other in range(count):
                pool.barred[other] |= _coded(pool.codes, other, kind, code)


@kernel
def _coded(codes: Slots, index: int, kind: int, code: int) -> bool:
    """The candidate's brand (kind 0), provider (1) or one of its categories (2) has this code."""
    found = False
    for field in range(kind, CODES if kind == 2 else kind + 1):
        found |= codes[index, field] == code
    return found


@kernel
def _compare(index: int, count: int, novelty: _Novelty) -> None:
    """Cosines of all candidates to this one, and what they make of the novelty by MMR."""
    vectors, dim = novelty.vectors, novelty.vectors.shape[1]
    for other in range(count):
        cosine = np.float32(0)
        for axis in range(dim):
            cosine += vectors[other, axis] * vectors[index, axis]
        novelty.cosines[other] = cosine
        novelty.novelty[other] = min(novelty.novelty[other], -min(cosine, np.float32(1)))


@kernel
def _explain(index: int, count: int, chosen: int, novelty: _Novelty) -> None:
    """Takes out of every candidate what this one explains: a row of the Cholesky factor, and the novelty by DPP."""
    components, unexplained = novelty.components, novelty.unexplained
    length = unexplained[index]
    for other in range(count):
        components[chosen, other] = novelty.cosines[other]
    for former in range(chosen):
        part = components[former, index]
        for other in range(count):
            components[chosen, other] -= part * components[former, other]
    scale = np.float32(1 / np.sqrt(length)) if length > UNEXPLAINED_MIN else np.float32(0)
    for other in range(count):
        component = components[chosen, other] * scale
        components[chosen, other] = component
        unexplained[other] = max(unexplained[other] - component * component, np.float32(UNEXPLAINED_MIN))
        novelty.novelty[other] = np.log(unexplained[other])


@kernel
def _weigh_mix(count: int, chosen: int, mix: _Mix) -> None:
    """What the KL distance gains or loses by each candidate. An item of no known category changes it by 0 here."""
    for local in range(USER_CATEGORIES_MAX):
        share = mix.shares[local]
        if share == 0.0:
            break
        without = (1.0 - SMOOTHING) * mix.masses[local] / (chosen + 1) + SMOOTHING * share
        for size in range(1, 5):
            if mix.occurs[local, size]:
                mix.table[local, size] = -share * np.log(1.0 + (1.0 - SMOOTHING) / (size * (chosen + 1) * without))
    for index in range(count):
        change = 0.0
        for slot in range(4):
            if mix.local[index, slot] < 0:
                break
            change += mix.table[mix.local[index, slot], mix.sizes[index]]
        mix.changes[index] = change


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


def lift(
    candidates: Candidates, facts: Facts, wishes: Wishes, floors: Floors, head: int, held: int, places: Slots
) -> None:
    """Moves items of groups that fall below their floor up in `places` (u, n), list after list, as far as needed.

    `floors.window` holds `held` lists, the next goes to `head`; window and totals are written as if all lists were
    published. Pins stay, caps hold, and no group is lifted at the cost of another one's floor.
    """
    width = candidates.items.shape[1]
    listed = np.zeros((places.shape[1], CODES), np.int32)
    group = _Group(np.zeros(width, np.int32), np.zeros(width, np.int32), np.zeros(width, np.int32), listed)
    _lift(candidates, facts, wishes, floors, head, held, group, places)


@kernel
def _lift(
    candidates: Candidates,
    facts: Facts,
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
                    bit, candidates.items[row], candidates.worth[row], facts, wishes, floors, need, have, group,
                    places[row],
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
    facts: Facts,
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
    _admit(count, items, facts, wishes, group, places)
    for _ in range(len(places) ** 2):
        place, source, column = _cheapest(bit, count, items, worth, facts, wishes, floors, need, have, group, places)
        if place < 0:
            break
        _exchange(items, place, source, column, places, floors, have)
        if have[bit] >= need[bit]:
            break
        if source < 0:
            _admit(count, items, facts, wishes, group, places)


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
def _admit(count: int, items: Slots, facts: Facts, wishes: Wishes, group: _Group, places: Slots) -> None:
    """Says of each candidate of the group how it could enter the list as it is now."""
    if wishes.capped:
        for place in range(len(places)):
            for field in range(CODES):
                item = items[max(places[place], 0)]
                group.listed[place, field] = _code_of(item, field, facts) if places[place] >= 0 else NONE
    for index in range(count):
        column = group.columns[index]
        group.kinds[index] = NOWHERE if _holds(places, column) else ANYWHERE
        if wishes.capped and group.kinds[index] == ANYWHERE:
            for field in range(CODES):
                kind, code = min(field, 2), _code_of(items[column], field, facts)
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
    facts: Facts,
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
                comes = _outsider(items[column], least, count, worth, facts, group)
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
def _outsider(leaves: int, least: float, count: int, worth: Floats, facts: Facts, group: _Group) -> int:
    """The column of the group's item worth most, above `least`, that could enter where `leaves` stands, or -1."""
    for index in range(count):
        column, kind = group.columns[index], group.kinds[index]
        if not worth[column] > least:
            break
        if kind == ANYWHERE or (kind >= 0 and _has(leaves, kind, group.codes[index], facts)):
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
def _has(item: int, kind: int, code: int, facts: Facts) -> bool:
    """The item's brand (kind 0), provider (1) or one of its categories (2) has this code."""
    found = False
    for field in range(kind, CODES if kind == 2 else kind + 1):
        found |= _code_of(item, field, facts) == code
    return found
