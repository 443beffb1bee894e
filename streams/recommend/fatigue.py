"""What users were shown and did not react to, so that it can pause."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streams.core.item_facts import grown
from streams.core.profile import GROWTH, ROWS_MIN
from streams.recommend.kernel import PLAIN, kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.core.ports import Floats, Slots

REMEMBERED = 48
"""Items remembered for each user; the one shown longest ago makes room."""
NO_ITEM = -1


class ShownItems(NamedTuple):
    """Rows by the slot of the user in the profile store."""

    items: Slots
    """(users, REMEMBERED) catalogue slots, unordered, -1 for none."""
    times: NDArray[np.uint8]
    """How often each was shown since the user's last reaction to it, or its last pause."""
    last_s: NDArray[np.uint32]
    """When it was counted last, epoch seconds."""


class Fatigue:
    """Counts what each user was shown. Memory: 432 bytes a user.

    Time is whatever clock the callers use, in epoch seconds; it may stand still but is taken to never go back.
    """

    def __init__(self) -> None:
        self._shown = _empty(ROWS_MIN)

    def tired(self, users: Slots, items: Slots, now_s: float, shown: int, rest_s: float) -> NDArray[np.bool_]:
        """(u, M) which of the items pause for the user: shown so often, and not as long ago as `rest_s`.

        Users and items may be -1: never tired.
        """
        found = np.zeros(items.shape, np.bool_)
        _tired(self._shown, np.require(users, np.int32, PLAIN), items, now_s, shown, rest_s, found)
        return found

    def show(
        self, users: Slots, items: Slots, times_s: NDArray[np.float64], shown: int, rest_s: float, spacing_s: float
    ) -> None:
        """Counts items (u, n) that users were shown at `times_s` (u,); once within `spacing_s`.

        An item that comes back after its pause starts anew.
        """
        highest = int(users.max(initial=-1))
        if highest >= len(self._shown.items):
            rows = max(highest + 1, int(len(self._shown.items) * GROWTH))
            items_column, times, last_s = self._shown
            self._shown = ShownItems(grown(items_column, rows, NO_ITEM), grown(times, rows, 0), grown(last_s, rows, 0))
        _show(
            self._shown,
            np.require(users, np.int32, PLAIN),
            np.require(items, np.int32, PLAIN),
            np.require(times_s, np.float64, PLAIN),
            shown,
            rest_s,
            spacing_s,
        )

    def react(self, users: Slots, items: Slots) -> None:
        """Users (e,) did something with these items (e,): their counts begin anew."""
        _react(self._shown, np.require(users, np.int32, PLAIN), np.require(items, np.int32, PLAIN))

    def forget(self, users: Slots) -> None:
        """Nothing is known any more of what these users were shown."""
        self._shown.items[users[users < len(self._shown.items)]] = NO_ITEM

    def rows(self, first: int, end: int) -> ShownItems:
        """A copy of the rows of these user slots."""
        copied, (items, times, last_s) = _empty(end - first), self._shown
        rows = len(items[first:end])
        copied.items[:rows], copied.times[:rows] = items[first:end], times[first:end]
        copied.last_s[:rows] = last_s[first:end]
        return copied

    def restore(self, shown: ShownItems) -> None:
        """Takes over saved rows in place of all that is known.

        Raises:
            ValueError: the columns do not fit each other or REMEMBERED; nothing has changed.
        """
        rows = len(shown.items)
        if any(column.shape != (rows, REMEMBERED) for column in shown):
            raise ValueError(f"expected columns of {REMEMBERED} places, got {[column.shape for column in shown]}")
        self._shown = _empty(max(rows, ROWS_MIN))
        self._shown.items[:rows], self._shown.times[:rows], self._shown.last_s[:rows] = shown


def joined(pieces: Sequence[ShownItems]) -> ShownItems:
    """Rows of consecutive slots as one, up to the last user who was shown anything."""
    items, times, last_s = (np.concatenate(columns) for columns in zip(*pieces, strict=True))
    rows = int(np.flatnonzero((items != NO_ITEM).any(axis=1)).max(initial=-1)) + 1
    return ShownItems(items[:rows], times[:rows], last_s[:rows])


def _empty(rows: int) -> ShownItems:
    shape = (rows, REMEMBERED)
    return ShownItems(np.full(shape, NO_ITEM, np.int32), np.zeros(shape, np.uint8), np.zeros(shape, np.uint32))


@kernel
def _tired(
    shown: ShownItems,
    users: Slots,
    items: Slots,
    now_s: float,
    shown_max: int,
    rest_s: float,
    found: NDArray[np.bool_],
) -> None:
    for row in range(len(users)):
        user = users[row]
        if not 0 <= user < len(shown.items):
            continue
        for place in range(shown.items.shape[1]):
            item = shown.items[user, place]
            if item >= 0 and shown.times[user, place] >= shown_max and now_s < shown.last_s[user, place] + rest_s:
                for column in range(items.shape[1]):
                    found[row, column] |= items[row, column] == item


@kernel
def _show(
    shown: ShownItems,
    users: Slots,
    items: Slots,
    times_s: Floats,
    shown_max: int,
    rest_s: float,
    spacing_s: float,
) -> None:
    for row in range(len(users)):
        for item in items[row]:
            if users[row] >= 0 and item >= 0:
                mine = shown.items[users[row]]
                _count(
                    mine, shown.times[users[row]], shown.last_s[users[row]], item, times_s[row], shown_max, rest_s,
                    spacing_s,
                )  # fmt: skip


@kernel
def _count(
    items: Slots,
    times: NDArray[np.uint8],
    last_s: NDArray[np.uint32],
    item: int,
    now_s: float,
    shown_max: int,
    rest_s: float,
    spacing_s: float,
) -> None:
    place = 0
    for other in range(len(items)):
        if items[other] == item:
            place = other
            break
        older = items[other] < 0 or (items[place] >= 0 and last_s[other] < last_s[place])
        if older and items[place] >= 0:
            place = other
    if items[place] != item or (times[place] >= shown_max and now_s >= last_s[place] + rest_s):
        items[place], times[place], last_s[place] = item, 1, np.uint32(now_s)
    elif now_s >= last_s[place] + spacing_s:
        times[place] = min(times[place] + 1, 255)
        last_s[place] = np.uint32(now_s)


@kernel
def _react(shown: ShownItems, users: Slots, items: Slots) -> None:
    for row in range(len(users)):
        if not 0 <= users[row] < len(shown.items):
            continue
        for place in range(shown.items.shape[1]):
            if shown.items[users[row], place] == items[row]:
                shown.items[users[row], place] = NO_ITEM
