"""What resembles the profile, by the items' own words.

Shapes: u users, n items in a list, c candidates, R recent items.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.recommend.candidates import Hidden, keep_best
from streams.recommend.kernel import kernel

ITEMS_PER_BLOCK = 4096
ROWS_PER_TILE = 32
"""Also the number of rows of every multiplication, so that a user's similarities do not depend on the others'."""


def guided_rows(vectors: Floats, recent_items: Slots, described: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(u,) the vector has a direction that comes from words: one of the recent items at least is described.

    The others' vectors are mixtures of random directions, in which every likeness is chance.
    """
    known = (recent_items >= 0) & (recent_items < len(described))
    worded = np.zeros(recent_items.shape, np.bool_)
    worded[known] = described[recent_items[known]]
    return np.logical_and(worded.any(axis=1), vectors.any(axis=1))


def propose_by_content(
    vectors: Floats,
    rows: Slots,
    item_vectors: Floats,
    eligible: NDArray[np.bool_],
    hidden: Hidden,
    count: int,
    limits: Slots | None = None,
) -> Slots:
    """(u, count) the eligible items of the largest positive cosine for each of `rows`, unordered, padded with -1.

    A user gets at most `limits` (u,) of them, 1 to `count` for those of the rows; without limits `count`.

    Exact. Blocked, so that the similarities of a tile stay in the cache; costs only what is eligible, since sparse
    blocks are packed before they are multiplied.
    """
    users = len(vectors)
    best = np.zeros((users, count), np.float32)
    best_slots = np.full((users, count), -1, np.int32)
    best_count = np.zeros(users, np.int32)
    limits = np.full(users, count, np.int32) if limits is None else limits
    queries = np.zeros((-(-len(rows) // ROWS_PER_TILE) * ROWS_PER_TILE, vectors.shape[1]), np.float32)
    queries[: len(rows)] = vectors[rows]
    memory = np.empty(ROWS_PER_TILE * ITEMS_PER_BLOCK, np.float32)
    for first in range(0, len(eligible), ITEMS_PER_BLOCK):
        slots, block = _block(item_vectors, eligible, first)
        similarities = memory[: ROWS_PER_TILE * len(slots)].reshape(ROWS_PER_TILE, len(slots))
        for start in range(0, len(rows) if len(slots) else 0, ROWS_PER_TILE):
            np.matmul(queries[start : start + ROWS_PER_TILE], block.T, out=similarities)
            tile = rows[start : start + ROWS_PER_TILE]
            keep_best(similarities, slots, tile, hidden, eligible, best, best_slots, best_count, limits)
    return best_slots


def _block(item_vectors: Floats, eligible: NDArray[np.bool_], first: int) -> tuple[Slots, Floats]:
    """Slots and vectors of one block: as they lie when most are eligible, packed when most are not."""
    end = min(first + ITEMS_PER_BLOCK, len(eligible))
    packed = np.flatnonzero(eligible[first:end]).astype(np.int32) + np.int32(first)
    if 2 * len(packed) < end - first:
        return packed, item_vectors[packed]
    return np.arange(first, end, dtype=np.int32), item_vectors[first:end]


@kernel
def cosines(
    vectors: Floats, guided: NDArray[np.bool_], items: Slots, item_vectors: Floats, eligible: NDArray[np.bool_]
) -> Floats:
    """(u, c) cosine of each candidate with the profile; 0 where the item or the profile has no words."""
    found = np.zeros(items.shape, np.float32)
    for row in range(items.shape[0]):
        if not guided[row]:
            continue
        for column in range(items.shape[1]):
            item = items[row, column]
            if item >= 0 and eligible[item]:
                found[row, column] = _dot(vectors[row], item_vectors[item])
    return found


class Among(NamedTuple):
    """Which of a user's recent items may be the nearest one of each item of a list."""

    members: NDArray[np.int8]
    """(u, R) the interest that a recent item belongs to, -1 for none."""
    wanted: NDArray[np.int8]
    """(u, n) the interest that the nearest item must belong to, -1 for any or none."""


def nearest_recent(
    items: Slots, recent_items: Slots, item_vectors: Floats, described: NDArray[np.bool_], among: Among | None = None
) -> Slots:
    """(u, n) the user's own recent item of the largest cosine with each item, the newer of equals; -1 without words.

    All recent items (u, R) may be it, or those `among` them.
    """
    if among is None:
        among = Among(np.full(recent_items.shape, -1, np.int8), np.full(items.shape, -1, np.int8))
    found = np.full(items.shape, -1, np.int32)
    _nearest_recent(items, recent_items, item_vectors, described, among, found)
    return found


@kernel
def _nearest_recent(
    items: Slots, recent_items: Slots, item_vectors: Floats, described: NDArray[np.bool_], among: Among, found: Slots
) -> None:
    for row in range(items.shape[0]):
        for column in range(items.shape[1]):
            item, wanted = items[row, column], among.wanted[row, column]
            if item < 0 or not described[item]:
                continue
            best = np.float32(-2)
            for place in range(recent_items.shape[1] - 1, -1, -1):
                recent = recent_items[row, place]
                if not 0 <= recent < len(described) or not described[recent]:
                    continue
                if wanted >= 0 and among.members[row, place] != wanted:
                    continue
                similarity = _dot(item_vectors[item], item_vectors[recent])
                if similarity > best:
                    best = similarity
                    found[row, column] = recent


@kernel
def _dot(left: Floats, right: Floats) -> np.float32:
    total = np.float32(0)
    for index in range(len(left)):
        total += left[index] * right[index]
    return total
