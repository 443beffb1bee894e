"""What is popular among people like this one: the same decade of age, gender, occupation, country.

For users of whom nothing but their attributes is known. Each group of people (one attribute token) remembers the items
that its members turned to, by decayed popularity. An item is worth to a user the mean, over the user's groups, of its
share in the group; a group counts `n / (n + smoothing)`, n its decayed events, so that a handful of people is no crowd.

Stored are logarithms at time 0, as in `streams.recommend.trend`: nothing has to be aged, and the order of events does
not matter. A group's items are counted by Space-Saving (Metwally et al. 2005): when a new one comes to a full row, it
takes the place of the lightest and its mass, which is noted as possible error; what is told is the mass without the
error, so no item is told to be more popular than it is. Groups are named by hashes and live in buckets of eight; when a
ninth comes, the lightest of the bucket leaves.

Memory: 20 bytes an entry and 16 a group; 1,024 groups of 512 items are 10.5 MB, whatever comes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.recommend.candidates import Hidden
from streams.recommend.kernel import PLAIN, kernel
from streams.recommend.trend import log_gains

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.recommend.cooccurrence import Entered

NOBODY = -1
BUCKET = 8
"""Groups among which a new one is looked for a place."""
LEAST = 1e-300
"""Worth of an item whose share is lost in rounding: above 0, which means none."""
DAY_S = 86_400.0

Doubles = NDArray[np.float64]


class GroupItems(NamedTuple):
    """The stored rows, one a group: logarithms of decayed popularity at time 0, -inf for nothing."""

    codes: Slots
    """(G,) the group, -1 where the row is free."""
    totals: Doubles
    """(G,) of all that the group's members ever turned to, remembered or not."""
    counts: NDArray[np.int32]
    """(G,) how many of the N places are in use."""
    items: Slots
    """(G, N) catalogue slots, unordered."""
    masses: Doubles
    """(G, N) at least what the item has."""
    errors: Doubles
    """(G, N) how much of it may be another item's."""


class Proposals(NamedTuple):
    """Items for u users, best first, equals by slot."""

    items: Slots
    """(u, n) catalogue slots, padded with -1."""
    scores: Floats
    """(u, n) mean share in the user's groups, 0 to 1; 0 where there is no item."""


class GroupTrend:
    """Decayed popularity of items by group of people. Not thread-safe: read and written in the compute thread only.

    Args:
        half_life_s: after which an event counts half.
        groups: G, remembered at most; rounded up to whole buckets of eight.
        items: N, remembered for each; every item with more than 1 / N of its group's mass is among them.
        smoothing: events at which a group counts half.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self, half_life_s: float = 30 * DAY_S, groups: int = 1024, items: int = 512, smoothing: float = 20.0
    ) -> None:
        if not (half_life_s > 0 and smoothing > 0) or groups < 1 or items < 1:
            raise ValueError(
                "half_life_s and smoothing must be above 0, groups and items at least 1, got "
                f"{half_life_s}, {smoothing}, {groups} and {items}"
            )
        self.half_life_s = half_life_s
        self._smoothing = smoothing
        self._rows = _empty(-(-groups // BUCKET) * BUCKET, items)
        self._latest_s = -np.inf

    @property
    def rows(self) -> GroupItems:
        """The stored rows; views."""
        return self._rows

    def fold(self, group_codes: Slots, items: Slots, weights: Floats, times_s: Doubles) -> None:
        """Counts events; those with a weight of 0 or less, and those of users without groups, do not count.

        Args:
            group_codes: (e, g) the groups of each event's user, >= 0, padded with -1, none twice.
            items: (e,) catalogue slots.
            weights: (e,) how much each event counts.
            times_s: (e,) epoch seconds.

        Raises:
            ValueError: a weight or a time is not finite, or a slot is negative; nothing was counted.
        """
        if items.min(initial=0) < 0 or not (np.isfinite(times_s).all() and np.isfinite(weights).all()):
            raise ValueError("events need catalogue slots >= 0, finite weights and finite times; check them first")
        self._latest_s = max(self._latest_s, float(times_s.max(initial=-np.inf)))
        gains = log_gains(weights, times_s, self.half_life_s)
        _fold(
            self._rows,
            np.require(group_codes, np.int32, PLAIN),
            np.require(items, np.int32, PLAIN),
            np.require(gains, np.float64, PLAIN),
        )

    def fold_entered(self, group_codes: Slots, entered: Entered) -> None:
        """Counts the newest items of histories; `group_codes` (u, g) are those of the histories' users."""
        grouped: NDArray[np.bool_] = np.asarray((group_codes >= 0).any(axis=1))
        newest = entered.newest() & grouped[:, None]
        users, _ = np.nonzero(newest)
        self.fold(group_codes[users], entered.items[newest], entered.weights[newest], entered.times_s[newest])

    def propose(
        self, group_codes: Slots, available: NDArray[np.bool_], count: int, hidden: Hidden | None = None
    ) -> Proposals:
        """The `count` items worth most to users of these groups (u, g): available ones that are not hidden.

        Shorter than `count` where the groups know no more; empty for a user without a known group.
        """
        proposals = Proposals(
            np.full((len(group_codes), count), NOBODY, np.int32), np.zeros((len(group_codes), count), np.float32)
        )
        if hidden is None:
            hidden = Hidden(np.zeros(len(group_codes) + 1, np.int32), np.zeros(0, np.int32))
        _propose(
            self._rows,
            np.require(group_codes, np.int32, PLAIN),
            self._now,
            self._smoothing,
            np.require(available, np.bool_, PLAIN),
            Hidden(np.require(hidden.offsets, np.int32, PLAIN), np.require(hidden.items, np.int32, PLAIN)),
            _Sums.of(len(available)),
            proposals,
        )
        return proposals

    def score(self, group_codes: Slots, items: Slots) -> tuple[Floats, Slots]:
        """What the items (u, c) are worth to users of these groups (u, g), and the group that says most of it, else -1.

        Both (u, c); 0 for items of -1.
        """
        worth, because = np.zeros(items.shape, np.float32), np.full(items.shape, NOBODY, np.int32)
        _score(
            self._rows,
            np.require(group_codes, np.int32, PLAIN),
            self._now,
            self._smoothing,
            np.require(items, np.int32, PLAIN),
            _Sums.of(int(items.max(initial=-1)) + 1),
            worth,
            because,
        )
        return worth, because

    def forget(self, group_codes: Slots) -> None:
        """Empties the rows of these groups (n,), as when their last member is forgotten."""
        self._clear(np.flatnonzero(np.isin(self._rows.codes, group_codes[group_codes >= 0])))

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Copies of all arrays, by name; to be saved."""
        found: dict[str, NDArray[np.generic]] = {name: rows.copy() for name, rows in self._rows._asdict().items()}
        found["latest_s"] = np.array([self._latest_s])
        return found

    def restore(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Takes over saved arrays of the same half-life and sizes; nothing was counted before.

        Raises:
            KeyError: an array is missing.
            ValueError: the arrays are of other sizes.
        """
        for name, mine in self._rows._asdict().items():
            if columns[name].shape != mine.shape:
                raise ValueError(f"expected {name} of the shape {mine.shape}, got {columns[name].shape}")
        for name, mine in self._rows._asdict().items():
            mine[:] = columns[name]
        self._latest_s = float(np.asarray(columns["latest_s"], np.float64)[0])

    def warm_up(self) -> None:
        """Compiles the loops, so that the first event need not wait for them."""
        nobody = np.zeros((0, 1), np.int32)
        self.fold(nobody, nobody[:, 0], np.zeros(0, np.float32), np.zeros(0))
        self.propose(nobody, np.zeros(0, np.bool_), 1)
        self.score(nobody, nobody)

    @property
    def _now(self) -> float:
        """The latest event's time in half-lives."""
        return self._latest_s / self.half_life_s if np.isfinite(self._latest_s) else 0.0

    def _clear(self, rows: NDArray[np.intp]) -> None:
        nothing = _empty(len(rows), self._rows.items.shape[1])._asdict()
        for name, mine in self._rows._asdict().items():
            mine[rows] = nothing[name]


class _Sums(NamedTuple):
    """Work arrays over items, clean between users."""

    worth: Doubles
    strongest: Doubles
    """The largest part of the worth."""
    reason: Slots
    """The group that it comes from."""
    touched: Slots
    """Items with worth, each once."""

    @classmethod
    def of(cls, items: int) -> _Sums:
        return cls(np.zeros(items), np.zeros(items), np.full(items, NOBODY, np.int32), np.zeros(items, np.int32))


def _empty(groups: int, items: int) -> GroupItems:
    return GroupItems(
        codes=np.full(groups, NOBODY, np.int32),
        totals=np.full(groups, -np.inf),
        counts=np.zeros(groups, np.int32),
        items=np.full((groups, items), NOBODY, np.int32),
        masses=np.full((groups, items), -np.inf),
        errors=np.full((groups, items), -np.inf),
    )


@kernel
def _sum(first: float, second: float) -> float:
    """log2(2 ** first + 2 ** second); one of them is finite."""
    high, low = max(first, second), min(first, second)
    return high + math.log2(1.0 + 2.0 ** (low - high))


@kernel
def _find(rows: GroupItems, code: int) -> int:
    """The row of the group, -1 where it has none."""
    first = (code % (len(rows.codes) // BUCKET)) * BUCKET
    for row in range(first, first + BUCKET):
        if rows.codes[row] == code:
            return row
    return NOBODY


@kernel
def _place(rows: GroupItems, code: int) -> int:
    """The row that the group has, or gets: a free one of its bucket, else the lightest one's."""
    row = _find(rows, code)
    if row >= 0:
        return row
    first = (code % (len(rows.codes) // BUCKET)) * BUCKET
    row = first
    for other in range(first, first + BUCKET):
        if rows.totals[other] < rows.totals[row]:  # a free one has -inf
            row = other
    rows.codes[row] = code
    rows.totals[row] = -np.inf
    rows.counts[row] = 0
    return row


@kernel
def _fold(rows: GroupItems, group_codes: Slots, items: Slots, gains: Doubles) -> None:
    for event in range(len(items)):
        if not gains[event] > -np.inf:
            continue
        for column in range(group_codes.shape[1]):
            code = group_codes[event, column]
            if code >= 0:
                row = _place(rows, code)
                rows.totals[row] = _sum(rows.totals[row], gains[event])
                _count(rows, row, items[event], gains[event])


@kernel
def _count(rows: GroupItems, row: int, item: int, gain: float) -> None:
    """Space-Saving: the item's place, a free one, or the lightest one's with its mass."""
    count = rows.counts[row]
    for place in range(count):
        if rows.items[row, place] == item:
            rows.masses[row, place] = _sum(rows.masses[row, place], gain)
            return
    if count < rows.items.shape[1]:
        place = count
        rows.counts[row] = count + 1
        rows.errors[row, place] = -np.inf
        rows.masses[row, place] = gain
    else:
        place = 0
        for other in range(count):
            if rows.masses[row, other] < rows.masses[row, place]:
                place = other
        rows.errors[row, place] = rows.masses[row, place]
        rows.masses[row, place] = _sum(rows.masses[row, place], gain)
    rows.items[row, place] = item


@kernel
def _weight(rows: GroupItems, row: int, now: float, smoothing: float) -> float:
    """How much the group counts: n / (n + smoothing)."""
    events: float = 2.0 ** (rows.totals[row] - now)
    return events / (events + smoothing)


@kernel
def _share(rows: GroupItems, row: int, place: int) -> float:
    """Of the group's mass, what is surely this item's."""
    total = rows.totals[row]
    share: float = 2.0 ** (rows.masses[row, place] - total)
    if rows.errors[row, place] > -np.inf:
        share -= 2.0 ** (rows.errors[row, place] - total)
    return share


@kernel
def _add_up(rows: GroupItems, groups: Slots, now: float, smoothing: float, sums: _Sums) -> tuple[int, float]:
    """What a user's groups say of their items, added to `sums`: how many items there are, and the groups' weights."""
    touched, total = 0, 0.0
    for code in groups:
        row = NOBODY if code < 0 else _find(rows, code)
        if row < 0:
            continue
        weight = _weight(rows, row, now, smoothing)
        total += weight
        for place in range(rows.counts[row]):
            item = rows.items[row, place]
            if item >= len(sums.worth):
                continue
            if sums.worth[item] == 0.0:
                sums.touched[touched] = item
                touched += 1
            part = max(weight * _share(rows, row, place), LEAST)
            sums.worth[item] += part
            if part > sums.strongest[item]:
                sums.strongest[item] = part
                sums.reason[item] = code
    return touched, total


@kernel
def _clean(sums: _Sums, touched: int) -> None:
    for item in sums.touched[:touched]:
        sums.worth[item] = 0.0
        sums.strongest[item] = 0.0
        sums.reason[item] = NOBODY


@kernel
def _propose(
    rows: GroupItems,
    group_codes: Slots,
    now: float,
    smoothing: float,
    available: NDArray[np.bool_],
    hidden: Hidden,
    sums: _Sums,
    proposals: Proposals,
) -> None:
    barred = ~available
    for user in range(len(group_codes)):
        touched, total = _add_up(rows, group_codes[user], now, smoothing, sums)
        if touched == 0:
            continue
        own = hidden.items[hidden.offsets[user] : hidden.offsets[user + 1]]
        for item in own:
            if 0 <= item < len(barred):
                barred[item] = True
        count = _best(sums.worth, sums.touched[:touched], barred, proposals.items[user])
        for rank in range(count):
            proposals.scores[user, rank] = sums.worth[proposals.items[user, rank]] / total
        for item in own:
            if 0 <= item < len(barred):
                barred[item] = not available[item]
        _clean(sums, touched)


@kernel
def _best(worth: Doubles, touched: Slots, barred: NDArray[np.bool_], best: Slots) -> int:
    """Fills in the slots of the largest worth, by insertion, among equals the smaller first; returns how many."""
    count = 0
    for item in touched:
        rank = count
        while rank > 0 and (
            worth[item] > worth[best[rank - 1]] or (worth[item] == worth[best[rank - 1]] and item < best[rank - 1])
        ):
            rank -= 1
        if barred[item] or rank == len(best):
            continue
        for later in range(min(count, len(best) - 1), rank, -1):
            best[later] = best[later - 1]
        best[rank] = item
        count = min(count + 1, len(best))
    return count


@kernel
def _score(
    rows: GroupItems,
    group_codes: Slots,
    now: float,
    smoothing: float,
    items: Slots,
    sums: _Sums,
    worth: Floats,
    because: Slots,
) -> None:
    for user in range(len(items)):
        touched, total = _add_up(rows, group_codes[user], now, smoothing, sums)
        if touched == 0:
            continue
        for column in range(items.shape[1]):
            item = items[user, column]
            if item >= 0:
                worth[user, column] = sums.worth[item] / total
                because[user, column] = sums.reason[item]
        _clean(sums, touched)
