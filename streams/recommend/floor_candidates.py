"""Candidates of the groups that fairness floors watch: a floor lifts what is proposed, so it proposes its group's best.

Only what some source speaks for is proposed, so that the reasons of a lifted item are true: an item like the profile,
or one that people had. Shapes: u users, F floors, d dimensions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.recommend.candidates import Hidden
from streams.recommend.content import propose_by_content
from streams.recommend.trend import top_slots

SPARE = 2
"""Items more than twice a floor's share of a list: some are gone from the list by a cap, or tired."""


def items_wanted(shares: NDArray[np.float64], list_items: int) -> NDArray[np.int32]:
    """(F,) candidates that each user should have of each group, to reach these shares of lists of so many items."""
    wanted: NDArray[np.int32] = np.minimum(np.ceil(2 * shares * list_items) + SPARE, list_items).astype(np.int32)
    return wanted


def nearest_of_floors(
    vectors: Floats,
    rows: Slots,
    item_vectors: Floats,
    eligible: NDArray[np.bool_],
    groups: NDArray[np.int32],
    hidden: Hidden,
    wanted: NDArray[np.int32],
) -> list[Slots]:
    """For each floor with `wanted` (F,) above 0 so many of its group's items (u, wanted), nearest to the profiles.

    As `propose_by_content`, whose arguments these are. `groups` (items,): bit f is set in those of floor f's group.
    """
    return [
        propose_by_content(vectors, rows, item_vectors, eligible & _of_group(groups, floor), hidden, int(wanted[floor]))
        for floor in np.flatnonzero(wanted).tolist()
    ]


def popular_of_floors(
    masses: NDArray[np.float64], available: NDArray[np.bool_], groups: NDArray[np.int32], floors: int, n: int
) -> Slots:
    """(F, n) the most popular of each group by the logarithms `masses` (items,), best first, padded with -1.

    Only available items that ever had an event.
    """
    popular = np.full((floors, n), -1, np.int32)
    had = available & (masses > -np.inf)
    for floor in range(floors):
        best = top_slots(masses, n, had & _of_group(groups, floor))
        popular[floor, : len(best)] = best
    return popular


def _of_group(groups: NDArray[np.int32], floor: int) -> NDArray[np.bool_]:
    return (groups >> floor & 1).astype(np.bool_)
