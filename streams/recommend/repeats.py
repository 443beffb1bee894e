"""What a user may want again: the own recent items, the newest and the most frequent first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.recommend.kernel import kernel


@kernel
def repeat_worth(items: Slots, recent_items: Slots, recent_count: NDArray[np.int32]) -> Floats:
    """(u, c) sum of 1 / distance over the times that the item is among the user's recent ones; 1 is the newest."""
    worth = np.zeros(items.shape, np.float32)
    for user in range(items.shape[0]):
        count = recent_count[user]
        for column in range(items.shape[1]):
            item = items[user, column]
            if item < 0:
                continue
            for distance in range(1, count + 1):
                if recent_items[user, count - distance] == item:
                    worth[user, column] += 1.0 / distance
    return worth
