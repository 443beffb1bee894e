"""Items that are described and that nobody had yet: how likely one comes next, and whose turn it is to be proposed.

Of a category's next event the chance to be some item's first is `(firsts + 1) / (events + 2)` (Laplace's rule of
succession), as long as it has such items at all; each of them has the same part of it. A category's newcomers stand in
a ring: the newest is the first to be proposed, and each event of the category passes the turn on by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.item_facts import CATEGORIES_KEPT, grown
from streams.core.ports import Floats, Slots
from streams.core.profile import GROWTH, ROWS_MIN
from streams.recommend.candidates import Hidden
from streams.recommend.kernel import PLAIN, kernel

if TYPE_CHECKING:
    from streams.recommend.category_trend import Mix

NOBODY = -1
LOOKED_AT = 4
"""Newcomers of a category looked at for each one wanted: some are hidden from the user, or not available."""

Doubles = NDArray[np.float64]


class Rings(NamedTuple):
    """Place `CATEGORIES_KEPT * item + k` stands for the item's k-th category."""

    events: NDArray[np.int32]
    """(items,) that said yes, ever."""
    within: Slots
    """(places,) code of the category in whose ring the place is, else -1."""
    after: Slots
    """(places,) the next place of the ring."""
    before: Slots
    """(places,) the one before."""


class Turns(NamedTuple):
    """Rows by category code."""

    heads: Slots
    """(categories,) whose turn it is, -1 in an empty ring."""
    counts: NDArray[np.int32]
    """(categories,) places in the ring."""
    events: NDArray[np.int64]
    """(categories,) of all of the category's items, ever."""
    firsts: NDArray[np.int64]
    """(categories,) how many of these were the first of their item."""


class Newcomers:
    """The newcomers of each category. Each event costs the same however many there are; not thread-safe.

    Memory: 52 bytes an item, 24 a category.
    """

    def __init__(self) -> None:
        self._rings = _no_rings(ROWS_MIN)
        self._turns = _no_turns(ROWS_MIN)

    @property
    def turns(self) -> Turns:
        """The rows by category; views until the next change."""
        return self._turns

    def events(self, items: int) -> NDArray[np.int32]:
        """(items,) how many events each of the first slots had, to be saved; a view until the next change."""
        self._make_room(items, 0)
        return self._rings.events[:items]

    def restore(self, events: NDArray[np.int32]) -> None:
        """Takes over saved counts; nothing was counted before, and categories follow by `categorise`."""
        self.events(len(events))[:] = events

    def introduce(self, items: Slots, categories: Slots, available: NDArray[np.bool_]) -> None:
        """What is now known of these items (e,): those without events are newcomers where they belong, if available.

        Args:
            items: catalogue slots.
            categories: (items, CATEGORIES_KEPT) codes, padded with -1.
            available: (items,) may be recommended.
        """
        self._make_room(len(categories), _codes(categories))
        _introduce(
            self._rings,
            self._turns,
            np.require(items, np.int32, PLAIN),
            np.require(categories, np.int32, PLAIN),
            np.require(available, np.bool_, PLAIN),
        )

    def fold(self, items: Slots, counted: NDArray[np.bool_], categories: Slots) -> None:
        """Counts events (e,) where `counted`; an item's first ends its time as a newcomer."""
        self._make_room(max(len(categories), int(items.max(initial=-1)) + 1), _codes(categories))
        _fold(
            self._rings,
            self._turns,
            np.require(items, np.int32, PLAIN),
            np.require(counted, np.bool_, PLAIN),
            np.require(categories, np.int32, PLAIN),
        )

    def categorise(self, items: Slots, categories: Slots, former: Slots | None = None) -> None:
        """Counts the events that these items (e,), each once, had so far for their categories of now.

        And no longer for those of before, `former` (e, m); None where none was known.
        """
        self._make_room(len(categories), _codes(categories))
        if former is not None:
            self._count(items, former, -1)
        self._count(items, categories[items], 1)

    def _count(self, items: Slots, codes: Slots, sign: int) -> None:
        of, _ = known = np.nonzero(codes >= 0)
        events = self._rings.events[items][of].astype(np.int64)
        np.add.at(self._turns.events, codes[known], sign * events)
        np.add.at(self._turns.firsts, codes[known], sign * (events > 0))

    def chances(self, categories: int) -> Doubles:
        """(categories,) for each single newcomer of each of the first, to be its next event; 0 where there is none."""
        self._make_room(0, categories)
        turns = self._turns
        first = np.where(turns.counts > 0, (turns.firsts + 1) / (turns.events + 2), 0.0)[:categories]
        chances: Doubles = first / np.maximum(turns.counts[:categories], 1)
        return chances

    def propose(self, mix: Mix, available: NDArray[np.bool_], hidden: Hidden, n: int) -> Slots:
        """(u, n) newcomers for each user, padded with -1: available ones, not hidden, none twice.

        First those of the category whose newcomers are the likeliest each: its share in the user's mix times the
        `chances` of each.
        """
        proposed = np.full((len(mix.codes), n), NOBODY, np.int32)
        each = self.chances(len(self._turns.heads))
        _propose(self._rings, self._turns, mix, each, available, hidden, proposed)
        return proposed

    def score(self, mix: Mix, items: Slots) -> tuple[Floats, NDArray[np.int32]]:
        """What the items (u, c) are worth to their users, and the category that says most of it, else -1.

        A newcomer is worth `sum over its categories of share in the user's mix * chance of each there`, others 0.
        """
        self._make_room(int(items.max(initial=NOBODY)) + 1, 0)
        worth = np.zeros(items.shape, np.float32)
        because = np.full(items.shape, NOBODY, np.int32)
        each = self.chances(len(self._turns.heads))
        _score(self._rings.within, mix, each, np.require(items, np.int32, PLAIN), worth, because)
        return worth, because

    def _make_room(self, items: int, categories: int) -> None:
        rings, turns = self._rings, self._turns
        if items > len(rings.events):
            rows = max(items, int(len(rings.events) * GROWTH))
            places = (grown(column, CATEGORIES_KEPT * rows, NOBODY) for column in rings[1:])
            self._rings = Rings(grown(rings.events, rows, 0), *places)
        if categories > len(turns.heads):
            rows = max(categories, int(len(turns.heads) * GROWTH))
            self._turns = Turns(
                grown(turns.heads, rows, NOBODY),
                grown(turns.counts, rows, 0),
                grown(turns.events, rows, 0),
                grown(turns.firsts, rows, 0),
            )


def _codes(categories: Slots) -> int:
    """How many rows the largest code needs."""
    return int(categories.max(initial=NOBODY)) + 1


def _no_rings(items: int) -> Rings:
    places = (np.full(CATEGORIES_KEPT * items, NOBODY, np.int32) for _ in Rings._fields[1:])
    return Rings(np.zeros(items, np.int32), *places)


def _no_turns(categories: int) -> Turns:
    return Turns(
        np.full(categories, NOBODY, np.int32),
        np.zeros(categories, np.int32),
        np.zeros(categories, np.int64),
        np.zeros(categories, np.int64),
    )


@kernel
def _introduce(rings: Rings, turns: Turns, items: Slots, categories: Slots, available: NDArray[np.bool_]) -> None:
    for item in items:
        for index in range(categories.shape[1]):
            place, code = CATEGORIES_KEPT * item + index, categories[item, index]
            belongs = code >= 0 and rings.events[item] == 0 and available[item]
            if rings.within[place] >= 0 and not (belongs and rings.within[place] == code):
                _leave(rings, turns, place)
            if belongs and rings.within[place] < 0:
                _join(rings, turns, place, code)


@kernel
def _fold(rings: Rings, turns: Turns, items: Slots, counted: NDArray[np.bool_], categories: Slots) -> None:
    for event in range(len(items)):
        item = items[event]
        if not counted[event]:
            continue
        first = rings.events[item] == 0
        rings.events[item] += 1
        for index in range(CATEGORIES_KEPT):
            place = CATEGORIES_KEPT * item + index
            if first and rings.within[place] >= 0:
                _leave(rings, turns, place)
            known = item < len(categories) and index < categories.shape[1]
            code = categories[item, index] if known else NOBODY
            if code < 0:
                continue
            turns.events[code] += 1
            turns.firsts[code] += first
            if turns.heads[code] >= 0:
                turns.heads[code] = rings.after[turns.heads[code]]


@kernel
def _join(rings: Rings, turns: Turns, place: int, code: int) -> None:
    """At the head: what is new is proposed at once."""
    head = turns.heads[code]
    if head < 0:
        rings.after[place], rings.before[place] = place, place
    else:
        last = rings.before[head]
        rings.after[place], rings.before[place] = head, last
        rings.after[last], rings.before[head] = place, place
    rings.within[place] = code
    turns.heads[code] = place
    turns.counts[code] += 1


@kernel
def _leave(rings: Rings, turns: Turns, place: int) -> None:
    code, after, before = rings.within[place], rings.after[place], rings.before[place]
    rings.after[before], rings.before[after] = after, before
    rings.within[place] = NOBODY
    turns.counts[code] -= 1
    if turns.counts[code] == 0:
        turns.heads[code] = NOBODY
    elif turns.heads[code] == place:
        turns.heads[code] = after


@kernel
def _propose(
    rings: Rings,
    turns: Turns,
    mix: Mix,
    each: Doubles,
    available: NDArray[np.bool_],
    hidden: Hidden,
    proposed: Slots,
) -> None:
    barred = ~available
    asked = np.zeros(mix.codes.shape[1], np.bool_)
    for user in range(len(mix.codes)):
        own = hidden.items[hidden.offsets[user] : hidden.offsets[user + 1]]
        for item in own:
            if 0 <= item < len(barred):
                barred[item] = True
        asked[:] = False
        count = 0
        while count < proposed.shape[1]:
            column = _likeliest(mix.codes[user], mix.shares[user], each, asked)
            if column < 0:
                break
            asked[column] = True
            count = _take(rings, turns, mix.codes[user, column], barred, proposed[user], count)
        for item in proposed[user, :count]:
            barred[item] = not available[item]
        for item in own:
            if 0 <= item < len(barred):
                barred[item] = not available[item]


@kernel
def _likeliest(codes: Slots, shares: NDArray[np.float32], each: Doubles, asked: NDArray[np.bool_]) -> int:
    """The column of the category, not asked yet, whose single newcomer is the likeliest; -1 where none has any."""
    best, most = NOBODY, 0.0
    for column in range(len(codes)):
        code = codes[column]
        if 0 <= code < len(each) and not asked[column] and shares[column] * each[code] > most:
            best, most = column, shares[column] * each[code]
    return best


@kernel
def _take(rings: Rings, turns: Turns, code: int, barred: NDArray[np.bool_], proposed: Slots, count: int) -> int:
    """Adds newcomers of a category from its head on, and bars them from being taken again. Returns how many are."""
    place = turns.heads[code]
    for _ in range(min(turns.counts[code], LOOKED_AT * (len(proposed) - count))):
        item = place // CATEGORIES_KEPT
        if item < len(barred) and not barred[item]:
            proposed[count] = item
            barred[item] = True
            count += 1
            if count == len(proposed):
                break
        place = rings.after[place]
    return count


@kernel
def _score(within: Slots, mix: Mix, each: Doubles, items: Slots, worth: Floats, because: NDArray[np.int32]) -> None:
    share_of = np.zeros(len(each), np.float64)
    for user in range(len(items)):
        for place in range(mix.codes.shape[1]):
            code = mix.codes[user, place]
            if 0 <= code < len(each):
                share_of[code] = mix.shares[user, place]
        for column in range(items.shape[1]):
            item = items[user, column]
            if item >= 0:
                worth[user, column], because[user, column] = _worth_of(within, item, share_of, each)
        for place in range(mix.codes.shape[1]):
            code = mix.codes[user, place]
            if 0 <= code < len(each):
                share_of[code] = 0.0


@kernel
def _worth_of(within: Slots, item: int, share_of: Doubles, each: Doubles) -> tuple[float, int]:
    """What one item is worth to a user of these shares, and the category that says most of it."""
    worth, strongest, because = 0.0, 0.0, NOBODY
    for place in range(CATEGORIES_KEPT * item, CATEGORIES_KEPT * (item + 1)):
        code = within[place]
        if code < 0:
            continue
        part = share_of[code] * each[code]
        worth += part
        if part > strongest:
            strongest, because = part, code
    return worth, because
