"""Who touched what, and in which ways: a set of user-item pairs that numpy holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int64]
Masks = NDArray[np.int32]

PENDING_MIN = 1 << 18
"""Additions that wait before the table is sorted anew; it also waits until they are half as many as its pairs."""
_ITEM_BITS = 32


class PairTable:
    """Distinct (user, item) pairs with a bit for each way in which the user touched the item.

    12 bytes a pair, three times that while it merges. Adding n events costs O(n log n) in all.
    """

    def __init__(self) -> None:
        self._keys: Keys = np.empty(0, np.int64)
        self._masks: Masks = np.empty(0, np.int32)
        self._pending: list[tuple[Keys, Masks]] = []
        self._pending_count = 0

    def add(self, users: Keys, items: Keys, ways: Keys) -> None:
        """Events (events,): codes of user and item below 2**31, number of the way below 31."""
        self._pending.append(((users << _ITEM_BITS) | items, np.left_shift(1, ways).astype(np.int32)))
        self._pending_count += len(users)
        if self._pending_count >= max(PENDING_MIN, len(self._keys) // 2):
            self._merge()

    def masks(self) -> Masks:
        """The bits of each distinct pair (pairs,), in no particular order."""
        self._merge()
        return self._masks

    def _merge(self) -> None:
        if not self._pending:
            return
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._pending)])
        masks = np.concatenate([self._masks, *(masks for _, masks in self._pending)])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        opens = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
        self._keys, self._masks = keys[opens], np.bitwise_or.reduceat(masks[order], opens)
        self._pending, self._pending_count = [], 0
