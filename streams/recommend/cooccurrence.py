"""What follows what: for each item, those that people had shortly before or after it.

Learned from the stream, one event at a time. Two items of one user at distance d (1 = one right after the other) are
worth `weight / d`, forward, and a share of that backward; an old pair counts half after each half-life. What an item is
worth to a user is the sum over the user's last items j, `worth(j, item) / (distance * sqrt(mass out of j * mass into
item))`: the masses keep popular items from being near everything.

Memory: 8 bytes an entry and 16 an item, `8 * neighbours + 20` bytes an item in all; 64 neighbours are 532 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.core.profile import GROWTH, ROWS_MIN
from streams.recommend.candidates import Hidden
from streams.recommend.kernel import PLAIN, kernel

NOBODY = -1
SCALE_EXPONENT_MAX = 60.0
"""Half-lives after which stored weights are scaled down: 2 ** 60 is far from what float32 can hold."""


@dataclass(frozen=True, slots=True)
class CoOccurrenceConfig:
    """How pairs are counted.

    Raises:
        ValueError: a number is out of its range.
    """

    neighbours: int = 64
    """N: others remembered for each item; when a new one comes to a full row the lightest leaves."""
    window: int = 5
    """Items before a new one that are paired with it, and last items of a user that are asked."""
    backward: float = 0.5
    """What a pair is worth from the later item to the earlier one."""
    half_life_s: float = 90 * 86_400.0
    smoothing: float = 1.0
    """Added to the masses, in events of now: one chance meeting is no rule."""

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.window < 1:
            raise ValueError(f"neighbours and window must be at least 1, got {self.neighbours} and {self.window}")
        if not (self.half_life_s > 0 and self.smoothing > 0 and 0 <= self.backward <= 1):
            raise ValueError(
                "half_life_s and smoothing must be above 0 and backward from 0 to 1, got "
                f"{self.half_life_s}, {self.smoothing} and {self.backward}"
            )


class Pairs(NamedTuple):
    """The stored rows, one an item slot. Weights and masses are in events at the clock's origin."""

    others: Slots
    """(items, N)"""
    weights: Floats
    """(items, N)"""
    counts: NDArray[np.int32]
    """(items,) how many of the N places are in use."""
    mass_out: NDArray[np.float64]
    """(items,) sum of all that ever was added to the row, decayed, whether it is still in it or not."""
    mass_in: NDArray[np.float64]
    """(items,) sum of all that ever was added to other rows for this item, decayed."""


class Entered(NamedTuple):
    """Histories that grew: of each, the newest `fresh` are new. u users, R recent items."""

    items: Slots
    """(u, R) catalogue slots, oldest first, left-aligned."""
    weights: Floats
    """(u, R) how much each event counts; one of 0 or less is passed over."""
    times_s: NDArray[np.float64]
    """(u, R)"""
    counts: NDArray[np.int32]
    """(u,) how many of the R places are in use."""
    fresh: NDArray[np.int32]
    """(u,) how many of these are new, at most `counts`."""

    def newest(self) -> NDArray[np.bool_]:
        """(u, R) the places of what is new."""
        places = np.arange(self.items.shape[1])
        found: NDArray[np.bool_] = (places >= (self.counts - self.fresh)[:, None]) & (places < self.counts[:, None])
        return found


class CoOccurrence:
    """Item-to-item rules of the stream. Not thread-safe: read and written in the compute thread only."""

    def __init__(self, config: CoOccurrenceConfig | None = None) -> None:
        self.config = config or CoOccurrenceConfig()
        self._pairs = _empty(ROWS_MIN, self.config.neighbours)
        self._origin_s = -np.inf
        """Stored weights are worth `2 ** ((origin - now) / half-life)` of themselves now."""
        self._latest_s = -np.inf

    @property
    def pairs(self) -> Pairs:
        """The rows; views until the next fold."""
        return self._pairs

    @property
    def origin_s(self) -> float:
        """The moment in whose events the weights are told; -inf before the first event."""
        return self._origin_s

    def fold(self, entered: Entered) -> None:
        """Pairs each new item with the `window` before it. A call without users compiles the loop."""
        if entered.fresh.any():
            newest = np.arange(entered.items.shape[1]) < entered.counts[:, None]
            self._make_room(int(entered.items[newest].max()) + 1)
            self._advance(float(entered.times_s[newest].max()))
        config = self.config
        _fold(
            self._pairs,
            _plain(entered),
            self._origin_s if np.isfinite(self._origin_s) else 0.0,
            config.half_life_s,
            config.window,
            config.backward,
        )

    def propose(
        self, recent_items: Slots, recent_count: NDArray[np.int32], available: NDArray[np.bool_], hidden: Hidden, n: int
    ) -> Slots:
        """(u, n) the items worth most to each user, unordered, padded with -1: available ones, not hidden."""
        self._make_room(max(len(available), int(recent_items.max(initial=-1)) + 1))
        proposed = np.full((len(recent_items), n), NOBODY, np.int32)
        _propose(
            self._pairs, recent_items, recent_count, self.config.window, self._smoothing(), available, hidden, proposed
        )
        return proposed

    def score(self, recent_items: Slots, recent_count: NDArray[np.int32], items: Slots) -> tuple[Floats, Slots]:
        """What each of the items (u, c) is worth to its user, and the recent item that says most of it, else -1.

        Both (u, c); 0 for items of -1.
        """
        self._make_room(max(int(items.max(initial=-1)), int(recent_items.max(initial=-1))) + 1)
        worth = np.zeros(items.shape, np.float32)
        because = np.full(items.shape, NOBODY, np.int32)
        _score(self._pairs, recent_items, recent_count, self.config.window, self._smoothing(), items, worth, because)
        return worth, because

    def restore(self, pairs: Pairs, origin_s: float, latest_s: float) -> None:
        """Takes over saved rows of the same configuration; nothing was folded before."""
        self._make_room(len(pairs.counts))
        for name, saved in pairs._asdict().items():
            getattr(self._pairs, name)[: len(saved)] = saved
        self._origin_s, self._latest_s = origin_s, latest_s

    @property
    def latest_s(self) -> float:
        """The latest event time that was folded; -inf before the first."""
        return self._latest_s

    def _smoothing(self) -> float:
        """One event of now, told in events at the origin."""
        if not np.isfinite(self._latest_s):
            return self.config.smoothing
        return float(self.config.smoothing * 2.0 ** ((self._latest_s - self._origin_s) / self.config.half_life_s))

    def _advance(self, latest_s: float) -> None:
        """Moves the origin before weights outgrow their type; a late event counts what it would have in time."""
        self._latest_s = max(self._latest_s, latest_s)
        if not np.isfinite(self._origin_s):
            self._origin_s = latest_s
        elapsed = (self._latest_s - self._origin_s) / self.config.half_life_s
        if elapsed > SCALE_EXPONENT_MAX:
            scale = 2.0**-elapsed
            for scaled in ("weights", "mass_out", "mass_in"):
                getattr(self._pairs, scaled)[:] *= scale
            self._origin_s = self._latest_s

    def _make_room(self, items: int) -> None:
        held = len(self._pairs.counts)
        if items > held:
            grown = _empty(max(items, int(held * GROWTH)), self.config.neighbours)
            for name, mine in self._pairs._asdict().items():
                getattr(grown, name)[:held] = mine
            self._pairs = grown


def _empty(items: int, neighbours: int) -> Pairs:
    return Pairs(
        others=np.full((items, neighbours), NOBODY, np.int32),
        weights=np.zeros((items, neighbours), np.float32),
        counts=np.zeros(items, np.int32),
        mass_out=np.zeros(items),
        mass_in=np.zeros(items),
    )


def _plain(entered: Entered) -> Entered:
    return Entered(
        np.require(entered.items, np.int32, PLAIN),
        np.require(entered.weights, np.float32, PLAIN),
        np.require(entered.times_s, np.float64, PLAIN),
        np.require(entered.counts, np.int32, PLAIN),
        np.require(entered.fresh, np.int32, PLAIN),
    )


@kernel
def _fold(pairs: Pairs, entered: Entered, origin_s: float, half_life_s: float, window: int, backward: float) -> None:
    for user in range(len(entered.counts)):
        count = entered.counts[user]
        for place in range(count - entered.fresh[user], count):
            item = entered.items[user, place]
            weight = entered.weights[user, place]
            if not weight > 0:
                continue
            weight *= 2.0 ** ((entered.times_s[user, place] - origin_s) / half_life_s)
            for distance in range(1, min(window, place) + 1):
                earlier = entered.items[user, place - distance]
                if earlier == item or earlier < 0:
                    continue
                worth = weight / distance
                _add(pairs, earlier, item, worth)
                pairs.mass_out[earlier] += worth
                pairs.mass_in[item] += worth
                _add(pairs, item, earlier, backward * worth)
                pairs.mass_out[item] += backward * worth
                pairs.mass_in[earlier] += backward * worth


@kernel
def _add(pairs: Pairs, row: int, other: int, worth: float) -> None:
    """Adds to the entry; a new one takes the place of the lightest of a full row that it outweighs.

    Old entries lose half of their weight each half-life, so no row stays closed to what has become frequent since.
    """
    count = pairs.counts[row]
    lightest = 0
    for place in range(count):
        if pairs.others[row, place] == other:
            pairs.weights[row, place] += worth
            return
        if pairs.weights[row, place] < pairs.weights[row, lightest]:
            lightest = place
    if count < pairs.others.shape[1]:
        pairs.others[row, count] = other
        pairs.weights[row, count] = worth
        pairs.counts[row] = count + 1
    elif worth >= pairs.weights[row, lightest]:
        pairs.others[row, lightest] = other
        pairs.weights[row, lightest] = worth


@kernel
def _propose(
    pairs: Pairs,
    recent_items: Slots,
    recent_count: NDArray[np.int32],
    window: int,
    smoothing: float,
    available: NDArray[np.bool_],
    hidden: Hidden,
    proposed: Slots,
) -> None:
    total = np.zeros(len(available), np.float64)
    touched = np.zeros(window * pairs.others.shape[1], np.int32)
    barred = ~available
    best = np.zeros(proposed.shape[1], np.float64)
    for user in range(len(recent_items)):
        own = hidden.items[hidden.offsets[user] : hidden.offsets[user + 1]]
        for item in own:
            if 0 <= item < len(barred):
                barred[item] = True
        asked = 0
        for distance in range(1, min(window, recent_count[user]) + 1):
            recent = recent_items[user, recent_count[user] - distance]
            share = 1.0 / (distance * np.sqrt(pairs.mass_out[recent] + smoothing))
            asked = _ask(pairs, recent, share, barred, total, touched, asked)
        found = 0
        for item in touched[:asked]:
            found = _keep(best, proposed[user], found, total[item] / np.sqrt(pairs.mass_in[item] + smoothing), item)
            total[item] = 0.0
        for item in own:
            if 0 <= item < len(barred):
                barred[item] = not available[item]


@kernel
def _ask(
    pairs: Pairs,
    recent: int,
    share: float,
    barred: NDArray[np.bool_],
    total: NDArray[np.float64],
    touched: Slots,
    asked: int,
) -> int:
    """Adds what one item's row says of others, and lists those that had nothing yet. Returns how many are listed."""
    for place in range(pairs.counts[recent]):
        item = pairs.others[recent, place]
        if item >= len(barred) or barred[item] or pairs.weights[recent, place] == 0.0:
            continue
        if total[item] == 0.0:
            touched[asked] = item
            asked += 1
        total[item] += share * pairs.weights[recent, place]
    return asked


@kernel
def _keep(keys: NDArray[np.float64], slots: Slots, count: int, key: float, slot: int) -> int:
    """Puts an entry into the heap of the best, whose root is the worst; among equals the smaller slot stays."""
    if count < len(keys):
        place = count
        count += 1
        while place > 0:
            parent = (place - 1) // 2
            if keys[parent] < key or (keys[parent] == key and slots[parent] > slot):
                break
            keys[place], slots[place] = keys[parent], slots[parent]
            place = parent
    elif keys[0] < key or (keys[0] == key and slots[0] > slot):
        place = 0
        while 2 * place + 1 < count:
            child = 2 * place + 1
            other = child + 1
            if other < count and (
                keys[other] < keys[child] or (keys[other] == keys[child] and slots[other] > slots[child])
            ):
                child = other
            if key < keys[child] or (key == keys[child] and slot > slots[child]):
                break
            keys[place], slots[place] = keys[child], slots[child]
            place = child
    else:
        return count
    keys[place], slots[place] = key, slot
    return count


@kernel
def _score(
    pairs: Pairs,
    recent_items: Slots,
    recent_count: NDArray[np.int32],
    window: int,
    smoothing: float,
    items: Slots,
    worth: Floats,
    because: Slots,
) -> None:
    place_of = np.full(len(pairs.counts), -1, np.int32)
    strongest = np.zeros(items.shape[1], np.float64)
    for user in range(len(items)):
        for column in range(items.shape[1]):
            strongest[column] = 0.0
            if items[user, column] >= 0:
                place_of[items[user, column]] = column
        count = recent_count[user]
        for distance in range(1, min(window, count) + 1):
            recent = recent_items[user, count - distance]
            share = 1.0 / (distance * np.sqrt(pairs.mass_out[recent] + smoothing))
            for place in range(pairs.counts[recent]):
                column = place_of[pairs.others[recent, place]]
                if column < 0:
                    continue
                part = share * pairs.weights[recent, place]
                worth[user, column] += part / np.sqrt(pairs.mass_in[items[user, column]] + smoothing)
                if part > strongest[column]:
                    strongest[column] = part
                    because[user, column] = recent
        for column in range(items.shape[1]):
            if items[user, column] >= 0:
                place_of[items[user, column]] = -1
