"""Which lists try what their order is worth, and how: one pair of items may stand the other way round.

Chance is a function of the user and of how many events the profile has taken in, so that the same events give the same
lists in a replay, after a restart and through Kafka. Sizes: u users, n items in a list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from xxhash import xxh3_64_intdigest

from streams.recommend.request import Ranking
from streams.recommend.shown_lists import NO_PAIR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.core.ports import Slots

NOT_MOVABLE = -1


class Pairs(NamedTuple):
    """What is tried in each list."""

    lower: Slots
    """(u,) the lower place of the pair, NO_PAIR where the list takes no part; the upper one is (lower - 1) // 2."""
    exchanged: NDArray[np.bool_]
    """(u,) the two items change places: by a coin that knows nothing of them."""


def drawn_pairs(users: Sequence[str], events: NDArray[np.int64], exploration: float, places: int) -> Pairs:
    """Draws a share `exploration` of the users' lists of so many places, and a pair and a coin for each of them."""
    nobody = Pairs(np.full(len(users), NO_PAIR, np.int32), np.zeros(len(users), np.bool_))
    if exploration <= 0 or places < 2 or not len(users):
        return nobody
    seeds = np.fromiter((xxh3_64_intdigest(user.encode()) for user in users), np.uint64, len(users))
    first = _mixed(seeds + events.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    second = _mixed(first)
    takes_part = (first >> np.uint64(11)) * 2.0**-53 < exploration
    lower = 1 + (second % np.uint64(places - 1)).astype(np.int32)
    return Pairs(np.where(takes_part, lower, NO_PAIR).astype(np.int32), takes_part & (second >> np.uint64(63) == 1))


def tried(ranking: Ranking, pairs: Pairs, kinds: Slots) -> tuple[Ranking, Slots]:
    """The lists with the pairs tried in them, and the lower place (u,) of each pair that takes part.

    Args:
        kinds: (u, n) places of one list may change places if their kinds are equal, and not NOT_MOVABLE. A pair that
            may not takes no part, exchanged or not.
    """
    upper = np.maximum(pairs.lower - 1, 0) // 2
    rows = np.arange(len(pairs.lower))
    mine, others = kinds[rows, upper], kinds[rows, pairs.lower]
    lower = np.where((mine == others) & (mine != NOT_MOVABLE), pairs.lower, NO_PAIR).astype(np.int32)
    moved = np.flatnonzero(pairs.exchanged & (lower != NO_PAIR))
    if not len(moved):
        return ranking, lower
    above, below = upper[moved], lower[moved]
    columns = ranking._asdict()
    for name, column in columns.items():
        if name != "short_because":
            columns[name] = column.copy()
            columns[name][moved, above], columns[name][moved, below] = column[moved, below], column[moved, above]
    return Ranking(**columns), lower


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Bits that look like chance: the finaliser of splitmix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
