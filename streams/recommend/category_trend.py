"""What is popular in the categories that a user comes from.

An item is worth `sum over its categories c of share of c in the user's last items * share of the item in c's decayed
popularity`. An item's popularity only grows in the trend's time-free form, so the best of a category are kept exactly
by looking at each item when it gets an event.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.core.profile import GROWTH, ROWS_MIN
from streams.recommend.candidates import Hidden
from streams.recommend.kernel import PLAIN, kernel

NOBODY = -1
KEPT = 64
"""Best items remembered for each category."""
USER_CATEGORIES_MAX = 32
RECENT_ASKED = 8
"""Last items of a user whose categories count, the newest most."""


class CategoryTops(NamedTuple):
    """Rows by category code."""

    items: Slots
    """(categories, KEPT) unordered."""
    counts: NDArray[np.int32]
    """(categories,) how many of the KEPT places are in use."""
    totals: NDArray[np.float64]
    """(categories,) log2 of the decayed popularity of all of the category's items, in the trend's form."""


class Mix(NamedTuple):
    """The categories of u users, at most USER_CATEGORIES_MAX each."""

    codes: Slots
    """(u, m) padded with -1."""
    shares: Floats
    """(u, m) sum 1."""


class CategoryTrend:
    """Best items of each category. Lives beside the trend whose masses it reads; not thread-safe.

    Memory: 268 bytes a category.
    """

    def __init__(self) -> None:
        self._tops = _empty(ROWS_MIN)

    @property
    def tops(self) -> CategoryTops:
        """The rows; views until the next fold."""
        return self._tops

    def recount(self, codes: Slots, masses: NDArray[np.float64], categories: Slots) -> None:
        """Counts these categories (c,) anew, some of whose items belong elsewhere now; -1 is none.

        One pass over the catalogue, however many categories there are: a row keeps its best items only, and who
        follows an item that left cannot be read from it.
        """
        self._make_room(int(codes.max(initial=NOBODY)) + 1)
        is_asked = np.zeros(len(self._tops.counts), np.bool_)
        is_asked[codes[codes >= 0]] = True
        _recount(self._tops, is_asked, masses, np.require(categories, np.int32, PLAIN))

    def fold(self, items: Slots, gains: NDArray[np.float64], masses: NDArray[np.float64], categories: Slots) -> None:
        """Counts events; call it after the trend counted them.

        Args:
            items: (e,) catalogue slots.
            gains: (e,) log2 of each event's worth in the trend's form (`Trend.gains`); -inf counts nothing.
            masses: (items,) the trend's.
            categories: (items, m) codes, padded with -1.
        """
        self._make_room(int(categories.max(initial=NOBODY)) + 1)
        _fold(
            self._tops,
            np.require(items, np.int32, PLAIN),
            np.require(gains, np.float64, PLAIN),
            masses,
            np.require(categories, np.int32, PLAIN),
        )

    def propose(
        self,
        mix: Mix,
        masses: NDArray[np.float64],
        available: NDArray[np.bool_],
        hidden: Hidden,
        n: int,
    ) -> Slots:
        """(u, n) the items worth most to each user, unordered, padded with -1: available ones, not hidden."""
        proposed = np.full((len(mix.codes), n), NOBODY, np.int32)
        _propose(self._tops, mix, masses, available, hidden, proposed)
        return proposed

    def score(
        self, mix: Mix, masses: NDArray[np.float64], categories: Slots, items: Slots
    ) -> tuple[Floats, NDArray[np.int32]]:
        """What the items (u, c) are worth to their users, and the category that says most of it, else -1."""
        worth = np.zeros(items.shape, np.float32)
        because = np.full(items.shape, NOBODY, np.int32)
        _score(self._tops, mix, masses, np.require(categories, np.int32, PLAIN), items, worth, because)
        return worth, because

    def _make_room(self, categories: int) -> None:
        if categories <= len(self._tops.counts):
            return
        grown = _empty(max(categories, int(len(self._tops.counts) * GROWTH)))
        for name, mine in self._tops._asdict().items():
            getattr(grown, name)[: len(mine)] = mine
        self._tops = grown


def category_mix(recent_items: Slots, recent_count: NDArray[np.int32], categories: Slots) -> Mix:
    """The categories of each user's last items; an item of several counts for each in part."""
    mix = Mix(
        np.full((len(recent_items), USER_CATEGORIES_MAX), NOBODY, np.int32),
        np.zeros((len(recent_items), USER_CATEGORIES_MAX), np.float32),
    )
    _mix(recent_items, recent_count, np.require(categories, np.int32, PLAIN), mix)
    return mix


def _empty(categories: int) -> CategoryTops:
    return CategoryTops(
        np.full((categories, KEPT), NOBODY, np.int32),
        np.zeros(categories, np.int32),
        np.full(categories, -np.inf),
    )


@kernel
def _mix(recent_items: Slots, recent_count: NDArray[np.int32], categories: Slots, mix: Mix) -> None:
    for user in range(len(recent_items)):
        used, total = 0, 0.0
        count = recent_count[user]
        for distance in range(1, min(RECENT_ASKED, count) + 1):
            item = recent_items[user, count - distance]
            if not 0 <= item < len(categories):
                continue
            own = 0
            while own < categories.shape[1] and categories[item, own] >= 0:
                own += 1
            for index in range(own):
                code = categories[item, index]
                place = 0
                while place < used and mix.codes[user, place] != code:
                    place += 1
                if place == USER_CATEGORIES_MAX:
                    continue
                if place == used:
                    mix.codes[user, place] = code
                    used += 1
                share = 1.0 / (distance * own)
                mix.shares[user, place] += share
                total += share
        for place in range(used):
            mix.shares[user, place] /= total


@kernel
def _fold(
    tops: CategoryTops, items: Slots, gains: NDArray[np.float64], masses: NDArray[np.float64], categories: Slots
) -> None:
    for event in range(len(items)):
        item = items[event]
        if not gains[event] > -np.inf or item >= len(categories):
            continue
        for index in range(categories.shape[1]):
            code = categories[item, index]
            if code < 0:
                break
            _add(tops, code, gains[event])
            _enter(tops, code, item, masses)


@kernel
def _recount(tops: CategoryTops, is_asked: NDArray[np.bool_], masses: NDArray[np.float64], categories: Slots) -> None:
    for code in range(len(is_asked)):
        if is_asked[code]:
            tops.counts[code] = 0
            tops.totals[code] = -np.inf
    for item in range(len(categories)):
        if not masses[item] > -np.inf:
            continue
        for code in categories[item]:
            if code >= 0 and is_asked[code]:
                _add(tops, code, masses[item])
                _enter(tops, code, item, masses)


@kernel
def _add(tops: CategoryTops, code: int, gain: float) -> None:
    high, low = max(tops.totals[code], gain), min(tops.totals[code], gain)
    tops.totals[code] = high + np.log2(1.0 + 2.0 ** (low - high))


@kernel
def _enter(tops: CategoryTops, code: int, item: int, masses: NDArray[np.float64]) -> None:
    count = tops.counts[code]
    least = 0
    for place in range(count):
        if tops.items[code, place] == item:
            return
        if masses[tops.items[code, place]] < masses[tops.items[code, least]]:
            least = place
    if count < KEPT:
        tops.items[code, count] = item
        tops.counts[code] = count + 1
    elif masses[item] > masses[tops.items[code, least]]:
        tops.items[code, least] = item


@kernel
def _propose(
    tops: CategoryTops,
    mix: Mix,
    masses: NDArray[np.float64],
    available: NDArray[np.bool_],
    hidden: Hidden,
    proposed: Slots,
) -> None:
    worth = np.zeros(len(available), np.float64)
    touched = np.zeros(USER_CATEGORIES_MAX * KEPT, np.int32)
    barred = ~available
    for user in range(len(mix.codes)):
        own = hidden.items[hidden.offsets[user] : hidden.offsets[user + 1]]
        for item in own:
            if 0 <= item < len(barred):
                barred[item] = True
        asked = 0
        for place in range(USER_CATEGORIES_MAX):
            code = mix.codes[user, place]
            if 0 <= code < len(tops.counts):
                asked = _ask(tops, code, mix.shares[user, place], masses, barred, worth, touched, asked)
        _best(worth, touched[:asked], proposed[user])
        worth[touched[:asked]] = 0.0
        for item in own:
            if 0 <= item < len(barred):
                barred[item] = not available[item]


@kernel
def _ask(
    tops: CategoryTops,
    code: int,
    share: float,
    masses: NDArray[np.float64],
    barred: NDArray[np.bool_],
    worth: NDArray[np.float64],
    touched: Slots,
    asked: int,
) -> int:
    """Adds what a category says of its best, and lists those that had nothing yet. Returns how many are listed."""
    for index in range(tops.counts[code]):
        item = tops.items[code, index]
        if item >= len(barred) or barred[item]:
            continue
        part = share * 2.0 ** (masses[item] - tops.totals[code])
        if part == 0.0:  # thousands of half-lives old
            continue
        if worth[item] == 0.0:
            touched[asked] = item
            asked += 1
        worth[item] += part
    return asked


@kernel
def _best(worth: NDArray[np.float64], touched: Slots, best: Slots) -> None:
    """The slots of the largest worth, by insertion; among equals the smaller."""
    count = 0
    for item in touched:
        rank = count
        while rank > 0 and (
            worth[item] > worth[best[rank - 1]] or (worth[item] == worth[best[rank - 1]] and item < best[rank - 1])
        ):
            rank -= 1
        if rank == len(best):
            continue
        for later in range(min(count, len(best) - 1), rank, -1):
            best[later] = best[later - 1]
        best[rank] = item
        count = min(count + 1, len(best))


@kernel
def _score(
    tops: CategoryTops,
    mix: Mix,
    masses: NDArray[np.float64],
    categories: Slots,
    items: Slots,
    worth: Floats,
    because: NDArray[np.int32],
) -> None:
    share_of = np.zeros(len(tops.counts), np.float64)
    for user in range(len(items)):
        for place in range(USER_CATEGORIES_MAX):
            code = mix.codes[user, place]
            if 0 <= code < len(share_of):
                share_of[code] = mix.shares[user, place]
        for column in range(items.shape[1]):
            item = items[user, column]
            if 0 <= item < len(categories) and masses[item] > -np.inf:
                worth[user, column], because[user, column] = _worth_of(
                    masses[item], categories[item], share_of, tops.totals
                )
        for place in range(USER_CATEGORIES_MAX):
            code = mix.codes[user, place]
            if 0 <= code < len(share_of):
                share_of[code] = 0.0


@kernel
def _worth_of(
    mass: float, codes: Slots, share_of: NDArray[np.float64], totals: NDArray[np.float64]
) -> tuple[float, int]:
    """What one item is worth to a user of these shares, and the category that says most of it."""
    worth, strongest, because = 0.0, 0.0, NOBODY
    for code in codes:
        if not 0 <= code < len(share_of) or share_of[code] == 0.0:
            continue
        part = share_of[code] * 2.0 ** (mass - totals[code])
        worth += part
        if part > strongest:
            strongest, because = part, code
    return worth, because
