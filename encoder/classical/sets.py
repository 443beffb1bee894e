"""Who had what in the training part, both ways round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.dataset import EventTable, Split

Ints = NDArray[np.int64]
Rows = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class TrainingSets:
    """The distinct items of each user and the users of each item; repeats count once."""

    starts: Ints
    """(u + 1,) the items of user n are the rows starts[n] to starts[n + 1] of `items`, in ascending order."""
    items: Rows
    fan_starts: Ints
    """(i + 1,) the users of item n are the rows fan_starts[n] to fan_starts[n + 1] of `fans`, in ascending order."""
    fans: Rows

    @classmethod
    def of(cls, table: EventTable, split: Split) -> TrainingSets:
        """Reads only events that may be learned from."""
        learned = split.train_mask(table)
        width = len(table.item_ids)
        pairs = np.unique(table.users[learned].astype(np.int64) * width + table.items[learned])
        users, items = pairs // width, pairs % width
        by_item = np.argsort(items, kind="stable")
        return cls(
            starts=_starts(users, len(table.user_ids)),
            items=items.astype(np.int32),
            fan_starts=_starts(items, width),
            fans=users[by_item].astype(np.int32),
        )


def _starts(rows: Ints, count: int) -> Ints:
    return np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))])
