"""The candidates of each user and how strongly the neighbours vote for them. Shapes: u users, c candidates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.recommend.kernel import kernel
from streams.recommend.request import VOTERS_SHOWN

SIMILARITY_MIN = np.finfo(np.float32).tiny
"""The smallest similarity that is one."""

Doubles = NDArray[np.float64]


class Hidden(NamedTuple):
    """Items that must not be in a user's list: seen or bought. Row r hides `items[offsets[r]:offsets[r + 1]]`."""

    offsets: NDArray[np.int32]
    items: Slots


class Neighbourhood(NamedTuple):
    """The neighbours of each user and what they did."""

    slots: Slots
    """(u, k) rows of the columns below."""
    voices: Doubles
    """(u, k) weight of the neighbour's votes; one without a voice has 0."""
    recent_items: Slots
    """(users, R) oldest first."""
    recent_types: NDArray[np.uint8]
    recent_count: NDArray[np.int32]
    type_counts: NDArray[np.bool_]
    """(256,) events of this type are votes."""
    recency: Doubles
    """(R,) weight of the newest item, of the one before, ..."""


class Candidates(NamedTuple):
    """What may be in a user's list, unordered, padded with -1."""

    items: Slots
    """(u, c)"""
    votes: Doubles
    """(u, c) sum of the neighbours' votes."""
    voters: Slots
    """(u, c, 3) neighbours that added most, first the strongest, padded with -1."""


class _Scratch(NamedTuple):
    """Work arrays over items and votes, clean at the begin of each row."""

    barred: NDArray[np.bool_]
    """(items,) hidden from the row or not available."""
    voter_mark: NDArray[np.int32]
    """(items,) the last neighbour seen to have it."""
    total: Doubles
    """(items,) sum of the votes, 0 between rows."""
    place: Slots
    """(items,) column among the row's candidates, -1 between rows."""
    vote_item: Slots
    vote_neighbour: Slots
    vote_weight: Doubles
    voted: Slots
    """The items with votes, each once."""


def gather_candidates(
    neighbourhood: Neighbourhood,
    proposed: Slots,
    by_trend: Slots,
    hidden: Hidden,
    available: NDArray[np.bool_],
    per_source: int,
    limits: Slots | None = None,
) -> Candidates:
    """The union of what all sources propose, with the neighbours' votes for each item.

    The neighbours propose `per_source` items at most; `proposed` (u, p) comes from the other personal sources, padded
    with -1 and already without hidden items; `by_trend` (t, m) is shared by all users, a row a trend, best first,
    padded with -1: each user gets the first `limits` (t,) of a row that are not hidden, `per_source` without limits. No
    item comes twice.
    """
    users = len(neighbourhood.slots)
    limits = np.full(len(by_trend), per_source, np.int32) if limits is None else limits
    width = per_source + proposed.shape[1] + int(limits.sum())
    found = Candidates(
        items=np.full((users, width), -1, np.int32),
        votes=np.zeros((users, width)),
        voters=np.full((users, width, VOTERS_SHOWN), -1, np.int32),
    )
    items, votes_max = len(available), neighbourhood.slots.shape[1] * neighbourhood.recent_items.shape[1]
    scratch = _Scratch(
        barred=~available,
        voter_mark=np.zeros(items, np.int32),
        total=np.zeros(items),
        place=np.full(items, -1, np.int32),
        vote_item=np.zeros(votes_max, np.int32),
        vote_neighbour=np.zeros(votes_max, np.int32),
        vote_weight=np.zeros(votes_max),
        voted=np.zeros(votes_max, np.int32),
    )
    _gather(neighbourhood, proposed, by_trend, limits, hidden, available, per_source, scratch, found)
    return found


@kernel
def _gather(
    neighbourhood: Neighbourhood,
    proposed: Slots,
    by_trend: Slots,
    limits: Slots,
    hidden: Hidden,
    available: NDArray[np.bool_],
    per_source: int,
    scratch: _Scratch,
    found: Candidates,
) -> None:
    best_votes, best_items = np.empty(per_source, np.float64), np.empty(per_source, np.int32)
    for row in range(len(proposed)):
        own = hidden.items[hidden.offsets[row] : hidden.offsets[row + 1]]
        _bar(own, scratch.barred)
        votes, voted = _cast_votes(neighbourhood, row, scratch)
        best = 0
        for index in range(voted):
            item = scratch.voted[index]
            best = _offer(best_votes, best_items, best, scratch.total[item], item)
        count = _join(best_items[:best], row, 0, scratch, found)
        count = _join(proposed[row], row, count, scratch, found)
        for trend in range(len(by_trend)):
            count = _join_allowed(by_trend[trend], limits[trend], row, count, scratch, found)
        _name_voters(votes, row, scratch, found.voters)
        _clean(own, available, voted, found.items[row], scratch)


@kernel
def _bar(items: Slots, barred: NDArray[np.bool_]) -> None:
    for item in items:
        if 0 <= item < len(barred):
            barred[item] = True


@kernel
def _clean(own: Slots, available: NDArray[np.bool_], voted: int, candidates: Slots, scratch: _Scratch) -> None:
    for item in own:
        if 0 <= item < len(available):
            scratch.barred[item] = not available[item]
    for index in range(voted):
        scratch.total[scratch.voted[index]] = 0.0
    for item in candidates:
        if item >= 0:
            scratch.place[item] = -1


@kernel
def _cast_votes(neighbourhood: Neighbourhood, row: int, scratch: _Scratch) -> tuple[int, int]:
    """Lists and sums the votes of the row's neighbours; each has one vote an item, for the newest event.

    Returns how many votes there are, and for how many items.
    """
    votes, voted = 0, 0
    neighbours = neighbourhood.slots.shape[1]
    for index in range(neighbours):
        voice = neighbourhood.voices[row, index]
        if not voice > 0:
            continue
        slot = neighbourhood.slots[row, index]
        mark = row * neighbours + index + 1
        count = neighbourhood.recent_count[slot]
        for age in range(count):
            item = neighbourhood.recent_items[slot, count - 1 - age]
            if not 0 <= item < len(scratch.barred) or scratch.voter_mark[item] == mark:
                continue
            scratch.voter_mark[item] = mark
            kind = neighbourhood.recent_types[slot, count - 1 - age]
            if scratch.barred[item] or not neighbourhood.type_counts[kind]:
                continue
            weight = voice * neighbourhood.recency[age]
            if scratch.total[item] == 0.0:
                scratch.voted[voted] = item
                voted += 1
            scratch.total[item] += weight
            scratch.vote_item[votes] = item
            scratch.vote_neighbour[votes] = slot
            scratch.vote_weight[votes] = weight
            votes += 1
    return votes, voted


@kernel
def _join(items: Slots, row: int, count: int, scratch: _Scratch, found: Candidates) -> int:
    """Adds items that the row does not have yet, with their votes. Returns how many the row has now."""
    for item in items:
        if item >= 0 and scratch.place[item] < 0:
            scratch.place[item] = count
            found.items[row, count] = item
            found.votes[row, count] = scratch.total[item]
            count += 1
    return count


@kernel
def _join_allowed(items: Slots, limit: int, row: int, count: int, scratch: _Scratch, found: Candidates) -> int:
    """Adds the first `limit` items that are not barred from the row. Returns how many the row has now."""
    taken = 0
    for index in range(len(items)):
        if taken == limit or items[index] < 0:
            break
        if not scratch.barred[items[index]]:
            count = _join(items[index : index + 1], row, count, scratch, found)
            taken += 1
    return count


@kernel
def _name_voters(votes: int, row: int, scratch: _Scratch, voters: Slots) -> None:
    """Keeps the strongest voters of each candidate; among equals the nearer neighbour, who comes first."""
    strength = np.zeros(voters.shape[1:], np.float64)
    for vote in range(votes):
        place = scratch.place[scratch.vote_item[vote]]
        if place < 0:
            continue
        rank = voters.shape[2]
        while rank > 0 and scratch.vote_weight[vote] > strength[place, rank - 1]:
            rank -= 1
        for later in range(voters.shape[2] - 1, rank, -1):
            strength[place, later] = strength[place, later - 1]
            voters[row, place, later] = voters[row, place, later - 1]
        if rank < voters.shape[2]:
            strength[place, rank] = scratch.vote_weight[vote]
            voters[row, place, rank] = scratch.vote_neighbour[vote]


@kernel
def keep_best(
    similarities: Floats,
    slots: Slots,
    rows: Slots,
    hidden: Hidden,
    eligible: NDArray[np.bool_],
    best: Floats,
    best_slots: Slots,
    best_count: NDArray[np.int32],
    limits: Slots,
) -> None:
    """Merges a block of similarities (rows, items) into the best of each user, where they are above 0.

    Row r of the block is user `rows[r]`, column c is item `slots[c]`; `best` and `best_slots` (u, c) are heaps of
    `best_count` entries, at most `limits` (u,), which are 1 to c for the users of the rows.
    """
    barred = ~eligible
    for index in range(len(rows)):
        row = rows[index]
        own = hidden.items[hidden.offsets[row] : hidden.offsets[row + 1]]
        _bar(own, barred)
        count, limit = best_count[row], limits[row]
        least = best[row, 0] if count == limit else SIMILARITY_MIN
        for column in range(len(slots)):
            similarity = similarities[index, column]
            if not similarity >= least:
                continue
            slot = slots[column]
            if not barred[slot]:
                count = _offer(best[row, :limit], best_slots[row, :limit], count, similarity, slot)
                if count == limit:
                    least = best[row, 0]
        best_count[row] = count
        for item in own:
            if 0 <= item < len(eligible):
                barred[item] = not eligible[item]


@kernel
def _offer(keys: NDArray[np.floating], slots: Slots, count: int, key: float, slot: int) -> int:
    """Puts an entry into the heap of the best if it belongs there; its root is the worst. Returns the new count."""
    if count < len(keys):
        place = count
        while place > 0:
            parent = (place - 1) // 2
            if not _worse(key, slot, keys[parent], slots[parent]):
                break
            keys[place], slots[place] = keys[parent], slots[parent]
            place = parent
        keys[place], slots[place] = key, slot
        return count + 1
    if _worse(keys[0], slots[0], key, slot):
        place = 0
        while 2 * place + 1 < count:
            child = 2 * place + 1
            if child + 1 < count and _worse(keys[child + 1], slots[child + 1], keys[child], slots[child]):
                child += 1
            if not _worse(keys[child], slots[child], key, slot):
                break
            keys[place], slots[place] = keys[child], slots[child]
            place = child
        keys[place], slots[place] = key, slot
    return count


@kernel
def _worse(key: float, slot: int, other_key: float, other_slot: int) -> bool:
    """Smaller, or as large with a later slot."""
    return key < other_key or (key == other_key and slot > other_slot)
