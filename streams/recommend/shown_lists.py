"""Which item stood where in the last published lists: what a reaction that names a list is told by.

Sizes: L lists remembered, P places of each, e events, u users.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streams.core.item_facts import grown
from streams.core.profile import GROWTH, ROWS_MIN
from streams.recommend.kernel import PLAIN, kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.core.ports import Slots

PLACES = 50
"""Places of a list that are told apart; those further down are not remembered."""
LISTS_REMEMBERED = 1 << 18
"""Of all users together, 136 bytes each with 20 items a list; the oldest makes room."""
LOOK_BACK_LISTS = 64
"""A user's newest lists among which a name is looked for."""
NOT_NAMED = -1
NOT_OURS = -2
SEEN, REACTED = 1, 2
NO_LIST = -1
NO_PAIR = 0

_LIST_NAME = re.compile(r"(\d{1,9})-(\d{1,18})(?:-(\d{1,18}))?", re.ASCII)


class Names(NamedTuple):
    """Names of lists as numbers: see `list_name`."""

    partitions: NDArray[np.int64]
    """NOT_NAMED for an event that names no list, NOT_OURS for one that names another system's."""
    offsets: NDArray[np.int64]
    numbers: NDArray[np.int64]
    """0 for the list of an event."""


class Found(NamedTuple):
    """Where the items of events stood."""

    lists: NDArray[np.int64]
    """(e,) serial number of the list, NO_LIST where none is known."""
    places: NDArray[np.int32]
    """(e,) place of the item in it, 0 the first; -1 where it is not known or the item was not in it."""


class _Lists(NamedTuple):
    """A ring: the list with serial number s is in row s % L."""

    partitions: NDArray[np.int64]
    offsets: NDArray[np.int64]
    numbers: NDArray[np.int64]
    older: NDArray[np.int64]
    """Serial number of the same user's list before."""
    lower: NDArray[np.int32]
    """Lower place of the pair that was tried, NO_PAIR without one."""
    items: Slots
    """(L, P) padded with -1."""
    marks: NDArray[np.uint8]
    """(L, P) SEEN and REACTED."""


def list_name(partition: int, offset: int, number: int = 0) -> str:
    """The `rec_id` of a list: the place of its user's last event and, for a late list, its number in the partition."""
    return f"{partition}-{offset}-{number}" if number else f"{partition}-{offset}"


def names_of(rec_ids: Sequence[str | None]) -> Names:
    """What these `rec_id`s of events name."""
    found = np.zeros((3, len(rec_ids)), np.int64)
    found[0] = NOT_NAMED
    for row, rec_id in enumerate(rec_ids):
        if rec_id is not None:
            parts = _LIST_NAME.fullmatch(rec_id)
            found[:, row] = (NOT_OURS, 0, 0) if parts is None else [int(part or 0) for part in parts.groups()]
    return Names(*found)


class ShownLists:
    """Remembers lists by their users. Memory: a ring of LISTS_REMEMBERED lists, mapped as it fills, 8 bytes a user.

    Users are slots of the profile store. Not thread-safe.
    """

    def __init__(self, list_items: int, lists: int = LISTS_REMEMBERED) -> None:
        self.places = min(list_items, PLACES)
        """P"""
        self.any_seen = False
        """Whether an item was ever marked as seen: else an event without a name finds nothing."""
        self._published = 0
        self._newest = np.full(ROWS_MIN, NO_LIST, np.int64)
        self._lists = _Lists(
            partitions=np.zeros(lists, np.int64),
            offsets=np.zeros(lists, np.int64),
            numbers=np.zeros(lists, np.int64),
            older=np.zeros(lists, np.int64),
            lower=np.zeros(lists, np.int32),
            items=np.zeros((lists, self.places), np.int32),
            marks=np.zeros((lists, self.places), np.uint8),
        )

    def published(self, users: Slots, names: Names, items: Slots, lower: Slots) -> None:
        """Remembers committed lists (u, n) of catalogue slots; `lower` (u,) is the tried pair's lower place."""
        highest = int(users.max(initial=-1))
        if highest >= len(self._newest):
            self._newest = grown(self._newest, max(highest + 1, int(len(self._newest) * GROWTH)), NO_LIST)
        shown = np.require(items[:, : self.places], np.int32, PLAIN)
        _record(self._lists, self._newest, self._published, users, names, shown, np.require(lower, np.int32, PLAIN))
        self._published += len(users)

    def find(self, users: Slots, names: Names, items: Slots) -> Found:
        """Where the items (e,) stood for their users (e,): in the list that is named.

        An event that names none is looked for among what was marked as seen, in the newest list that has it so.
        """
        found = Found(np.full(len(users), NO_LIST, np.int64), np.full(len(users), -1, np.int32))
        _find(self._lists, self._newest, self._published, users, names, items, found)
        return found

    def react(self, users: Slots, names: Names, items: Slots, impressions: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Takes in committed events (e,), in order.

        Impressions that name a list mark their item as seen. Of the others, the first for each item of a list counts.

        Returns (3, PLACES): reactions by place; those to the upper item of a tried pair, by the lower place; those to
        the lower item.
        """
        counts = np.zeros((3, PLACES))
        self.any_seen |= _react(self._lists, self._newest, self._published, users, names, items, impressions, counts)
        return counts

    def forget(self, users: Slots) -> None:
        """Nothing is known any more of what these users were shown."""
        _forget(self._lists, self._newest, self._published, np.require(users, np.int32, PLAIN))

    def warm_up(self) -> None:
        """Compiles everything."""
        nobody, nothing = np.zeros(0, np.int32), names_of(())
        self.published(nobody, nothing, np.zeros((0, self.places), np.int32), nobody)
        self.find(nobody, nothing, nobody)
        self.react(nobody, nothing, nobody, np.zeros(0, np.bool_))
        self.forget(nobody)


def upper_place(lower: int) -> int:
    """The place that `lower` is compared with: its parent in a heap, so that a few ratios lead from the first to it."""
    return (lower - 1) // 2


@kernel
def _record(
    lists: _Lists, newest: NDArray[np.int64], published: int, users: Slots, names: Names, items: Slots, lower: Slots
) -> None:
    for row in range(len(users)):
        user = users[row]
        serial = published + row
        at = serial % len(lists.older)
        lists.partitions[at] = names.partitions[row]
        lists.offsets[at] = names.offsets[row]
        lists.numbers[at] = names.numbers[row]
        lists.lower[at] = lower[row]
        lists.marks[at] = 0
        lists.items[at] = -1
        lists.items[at, : items.shape[1]] = items[row]
        lists.older[at] = -1
        if user >= 0:
            lists.older[at] = newest[user]
            newest[user] = serial


@kernel
def _listed(
    lists: _Lists, newest: NDArray[np.int64], published: int, user: int, names: Names, row: int, item: int
) -> tuple[int, int]:
    """Serial number and place."""
    if names.partitions[row] == NOT_OURS or not 0 <= user < len(newest):
        return -1, -1
    serial = newest[user]
    for _ in range(LOOK_BACK_LISTS):
        if serial < 0 or serial < published - len(lists.older):
            break
        at = serial % len(lists.older)
        if names.partitions[row] == NOT_NAMED:
            for place in range(lists.items.shape[1]):
                if lists.items[at, place] == item and lists.marks[at, place] & SEEN:
                    return serial, place
        elif (
            lists.partitions[at] == names.partitions[row]
            and lists.offsets[at] == names.offsets[row]
            and lists.numbers[at] == names.numbers[row]
        ):
            for place in range(lists.items.shape[1]):
                if lists.items[at, place] == item:
                    return serial, place
            return serial, -1
        serial = lists.older[at]
    return -1, -1


@kernel
def _find(
    lists: _Lists, newest: NDArray[np.int64], published: int, users: Slots, names: Names, items: Slots, found: Found
) -> None:
    for row in range(len(users)):
        found.lists[row], found.places[row] = _listed(lists, newest, published, users[row], names, row, items[row])


@kernel
def _react(
    lists: _Lists,
    newest: NDArray[np.int64],
    published: int,
    users: Slots,
    names: Names,
    items: Slots,
    impressions: NDArray[np.bool_],
    counts: NDArray[np.float64],
) -> bool:
    """Whether an item was marked as seen."""
    seen = False
    for row in range(len(users)):
        serial, place = _listed(lists, newest, published, users[row], names, row, items[row])
        if place < 0:
            continue
        at = serial % len(lists.older)
        if impressions[row]:
            lists.marks[at, place] |= SEEN
            seen = True
        elif not lists.marks[at, place] & REACTED:
            lists.marks[at, place] |= REACTED
            counts[0, place] += 1
            lower = lists.lower[at]
            if lower != NO_PAIR and place == (lower - 1) // 2:
                counts[1, lower] += 1
            elif lower != NO_PAIR and place == lower:
                counts[2, lower] += 1
    return seen


@kernel
def _forget(lists: _Lists, newest: NDArray[np.int64], published: int, users: Slots) -> None:
    for user in users:
        if not 0 <= user < len(newest):
            continue
        serial = newest[user]
        while serial >= 0 and serial >= published - len(lists.older):
            lists.items[serial % len(lists.older)] = -1
            serial = lists.older[serial % len(lists.older)]
        newest[user] = -1
