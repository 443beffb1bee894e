"""The compiled part of re-ranking: which candidates make the list, and in which order.

Greedy, place by place. The worth of candidate i beside those already chosen is

    (1 - c) * ((1 - d) * r_i + d * n_i) - c * g_i

with r the score relative to the user's best, n <= 0 the novelty, g the change of the distance between the categories
of the list and those of the user, KL(p || 0.99 q + 0.01 p) (Steck, Calibrated recommendations, 2018), and d and c the
settings `diversity` and `calibration`; in the first places, as many as `diversity_head` says, d is 0. Novelty is, by
MSD, the mean distance 1 - cosine to the chosen items, less 2, its largest (after Gollapudi and Sharma, 2009, who sum
them); by MMR minus the largest cosine to a chosen item (Carbonell and Goldstein, 1998); by DPP the logarithm of what
the chosen vectors leave unexplained of the item's own (fast greedy MAP inference with r-weighted kernel, Chen et al.,
2018).

Shapes: u users, M candidates, n places, d dimensions. One file, since a cached kernel may call kernels of its own file
only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.recommend.calibration import USER_CATEGORIES_MAX, UserMixes, no_mixes, user_mixes
from streams.recommend.kernel import kernel
from streams.recommend.wishes import CODES, Candidates, DiversityBy, Facts, Wishes

NONE = -1
SMOOTHING = 0.01
"""Share of the user's own mix in q, so that a category missing from the list is far away but not infinitely."""
UNEXPLAINED_MIN = 1e-6
"""Below it an item is a copy of what was chosen already; its novelty is the logarithm of this."""
MSD, MMR = int(DiversityBy.MSD), int(DiversityBy.MMR)
"""Kernels know plain numbers only."""

Doubles = NDArray[np.float64]


class _Pool(NamedTuple):
    """One user's candidates, worth most first; k of them are chosen so far."""

    columns: Slots
    """(M,) where the candidate stands in the input."""
    relevance: Floats
    """(M,) worth / the user's largest."""
    barred: NDArray[np.bool_]
    """(M,) chosen already, or one too many under a cap."""
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
    cosine_sums: Floats
    """(M,) MSD: to all that are chosen."""
    unexplained: Floats
    """(M,) DPP: squared length of what remains of the vector."""
    components: Floats
    """(n, M) DPP: parts along the chosen ones; rows of a Cholesky factor."""


class _Mix(NamedTuple):
    """The categories of the chosen beside those of one user; see `UserMixes`."""

    masses: Doubles
    """(C,) how many chosen items each of the user's categories has."""
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
        chosen=np.zeros(length, np.int32),
    )
    novelty = _Novelty(
        vectors=np.zeros((width, facts.vectors.shape[1]), np.float32),
        novelty=np.zeros(width, np.float32),
        cosines=np.zeros(width, np.float32),
        cosine_sums=np.zeros(width, np.float32),
        unexplained=np.zeros(width, np.float32),
        components=np.zeros((length, width), np.float32),
    )
    if wishes.calibration > 0:
        mixes = user_mixes(candidates.items, recent_items, recent_count, facts.categories)
    else:
        mixes = no_mixes(users)
    mix = _Mix(
        masses=np.zeros(USER_CATEGORIES_MAX),
        occurs=np.zeros((USER_CATEGORIES_MAX, 5), np.bool_),
        table=np.zeros((USER_CATEGORIES_MAX, 5)),
        changes=np.zeros(width),
    )
    _select(candidates, facts.vectors, wishes, mixes, pool, novelty, mix, places)
    return places


@kernel
def _select(
    candidates: Candidates,
    vectors: Floats,
    wishes: Wishes,
    mixes: UserMixes,
    pool: _Pool,
    novelty: _Novelty,
    mix: _Mix,
    places: Slots,
) -> None:
    for row in range(len(places)):
        user = UserMixes(mixes.shares[row], mixes.local[row], mixes.sizes[row])
        count = _sort(candidates.items[row], candidates.worth[row], pool.columns, pool.relevance)
        for index in range(count):
            pool.barred[index] = False
        if wishes.diversity > 0:
            _gather(candidates.items[row], count, pool.columns, vectors, novelty)
        if wishes.calibration > 0:
            _begin_mix(count, pool.columns, user, mix)
        _fill(candidates.items[row], candidates.codes[row], count, wishes, user, pool, novelty, mix, places[row])
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
def _gather(items: Slots, count: int, columns: Slots, vectors: Floats, novelty: _Novelty) -> None:
    for index in range(count):
        item = items[columns[index]]
        for axis in range(vectors.shape[1]):
            novelty.vectors[index, axis] = vectors[item, axis]
        novelty.novelty[index] = 0.0
        novelty.unexplained[index] = 1.0
        novelty.cosine_sums[index] = 0.0


@kernel
def _begin_mix(count: int, columns: Slots, user: UserMixes, mix: _Mix) -> None:
    mix.masses[:] = 0.0
    mix.occurs[:] = False
    for index in range(count):
        column = columns[index]
        for slot in range(4):
            if user.local[column, slot] < 0:
                break
            mix.occurs[user.local[column, slot], user.sizes[column]] = True


@kernel
def _fill(
    items: Slots,
    codes: Slots,
    count: int,
    wishes: Wishes,
    user: UserMixes,
    pool: _Pool,
    novelty: _Novelty,
    mix: _Mix,
    places: Slots,
) -> None:
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
                _weigh_mix(count, chosen, pool.columns, user, mix)
            diversity = wishes.diversity if at >= wishes.diversity_head else 0.0
            index = _best(count, diversity, wishes.calibration, pool, novelty.novelty, mix.changes)
        if index < 0 and step >= pins:
            break
        if index >= 0:
            places[at] = index
            _take(index, count, chosen, codes, wishes, user, pool, novelty, mix)
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
def _take(
    index: int,
    count: int,
    chosen: int,
    codes: Slots,
    wishes: Wishes,
    user: UserMixes,
    pool: _Pool,
    novelty: _Novelty,
    mix: _Mix,
) -> None:
    """Counts a candidate as chosen."""
    pool.chosen[chosen] = index
    pool.barred[index] = True
    if wishes.capped:
        _bar(index, count, chosen, codes, wishes.caps, pool)
    if wishes.diversity > 0:
        _compare(index, count, novelty)
        if wishes.diversity_by == MSD:
            _average(count, chosen + 1, novelty)
        elif wishes.diversity_by == MMR:
            _find_nearest(count, novelty)
        else:
            _explain(index, count, chosen, novelty)
    if wishes.calibration > 0:
        column = pool.columns[index]
        for slot in range(4):
            if user.local[column, slot] >= 0:
                mix.masses[user.local[column, slot]] += 1.0 / user.sizes[column]


@kernel
def _bar(index: int, count: int, chosen: int, codes: Slots, caps: NDArray[np.int32], pool: _Pool) -> None:
    """Bars every candidate that would be one too many beside the chosen ones, of whom `index` is the last."""
    for field in range(CODES):
        code, kind = codes[pool.columns[index], field], min(field, 2)
        if code < 0 or caps[kind] == 0:
            continue
        same = 0
        for other in range(chosen + 1):
            same += _coded(codes, pool.columns[pool.chosen[other]], kind, code)
        if same >= caps[kind]:
            for other in range(count):
                pool.barred[other] |= _coded(codes, pool.columns[other], kind, code)


@kernel
def _coded(codes: Slots, column: int, kind: int, code: int) -> bool:
    """The candidate's brand (kind 0), provider (1) or one of its categories (2) has this code."""
    found = False
    for field in range(kind, CODES if kind == 2 else kind + 1):
        found |= codes[column, field] == code
    return found


@kernel
def _compare(index: int, count: int, novelty: _Novelty) -> None:
    """Cosines of all candidates to this one."""
    vectors, dim = novelty.vectors, novelty.vectors.shape[1]
    for other in range(count):
        cosine = np.float32(0)
        for axis in range(dim):
            cosine += vectors[other, axis] * vectors[index, axis]
        novelty.cosines[other] = cosine


@kernel
def _average(count: int, chosen: int, novelty: _Novelty) -> None:
    """What the cosines to the one chosen last make of the novelty by MSD; `chosen` are chosen with it."""
    for other in range(count):
        novelty.cosine_sums[other] += novelty.cosines[other]
        novelty.novelty[other] = min(np.float32(-1) - novelty.cosine_sums[other] / np.float32(chosen), np.float32(0))


@kernel
def _find_nearest(count: int, novelty: _Novelty) -> None:
    """The same by MMR."""
    for other in range(count):
        novelty.novelty[other] = min(novelty.novelty[other], -min(novelty.cosines[other], np.float32(1)))


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
def _weigh_mix(count: int, chosen: int, columns: Slots, user: UserMixes, mix: _Mix) -> None:
    """What the KL distance gains or loses by each candidate. An item of no known category changes it by 0 here."""
    for local in range(USER_CATEGORIES_MAX):
        share = user.shares[local]
        if share == 0.0:
            break
        without = (1.0 - SMOOTHING) * mix.masses[local] / (chosen + 1) + SMOOTHING * share
        for size in range(1, 5):
            if mix.occurs[local, size]:
                mix.table[local, size] = -share * np.log(1.0 + (1.0 - SMOOTHING) / (size * (chosen + 1) * without))
    for index in range(count):
        column, change = columns[index], 0.0
        for slot in range(4):
            if user.local[column, slot] < 0:
                break
            change += mix.table[user.local[column, slot], user.sizes[column]]
        mix.changes[index] = change
