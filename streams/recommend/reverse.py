"""Whose neighbour list changes because somebody else moved, and who of them is refreshed next.

Sizes: u users, k neighbours in a list, m matches of a search (m > k). Memory: 3 k + 3 numbers of 4 bytes a user, 132
bytes at k = 10, in pages that stay unmapped until somebody of them is listed.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.recommend.kernel import PLAIN, kernel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

WAITING_S_MAX = 10.0
WAITING_MIN = 256
HOLDERS_MAX = 256
"""Of a user in very many lists, so many are looked at when the user moves."""
MARGIN = 1e-6
"""Cosines of two computations of the same pair differ by less."""
GROWTH = 1.5
ROWS_MIN = 1024
RIGHT_ANGLE = np.finfo(np.float32).tiny
"""Stands for a cosine of 0 where 0 says that there is none."""
NO_ROOM = np.float32(-2.0)
"""Below every cosine: a list that is not full takes anybody."""


class _Lists(NamedTuple):
    """The lists as they were published last. Places are `row * k + column`; 0 is nobody in all int columns."""

    slots: Slots
    """(rows, k) 1 + slot of each neighbour."""
    worst: Floats
    """(rows,) cosine of the last neighbour, NO_ROOM when the list is not full, 0 when no list is known."""
    runner_up: Floats
    """(rows,) cosine of the first who is not in the list, NO_ROOM when there was none."""
    first: Slots
    """(rows,) 1 + place of one list entry that names this user."""
    following: Slots
    """(rows, k) 1 + place of another entry that names the same user."""
    preceding: Slots
    """(rows, k) and the way back."""

    @classmethod
    def empty(cls, rows: int, k: int) -> _Lists:
        """Rows of users without a list."""
        wide, narrow = (rows, k), (rows,)
        return cls(
            slots=np.zeros(wide, np.int32),
            worst=np.zeros(narrow, np.float32),
            runner_up=np.zeros(narrow, np.float32),
            first=np.zeros(narrow, np.int32),
            following=np.zeros(wide, np.int32),
            preceding=np.zeros(wide, np.int32),
        )


class ReverseRefreshes:
    """Remembers the lists that this worker published, and queues those that a move makes wrong.

    x enters y's list when x found y and is nearer to y than the list's last; x leaves when it was in and is now
    further than the first who was not. Only users of partitions taken up by `own` are remembered and queued; a list
    that another worker published, or this one before a restart, is unknown until the next one.

    The queue holds each user once, at most what ten seconds of the budget publish; whoever finds no room is counted in
    `dropped`. Not thread-safe.
    """

    def __init__(self, neighbours: int, per_s: float) -> None:
        self.coalesced = 0
        """Refreshes that were not needed: the user waited already, or got a list before its turn came."""
        self.dropped = 0
        self._k = neighbours
        self._per_s = per_s
        self._waiting_max = max(WAITING_MIN, int(WAITING_S_MAX * per_s))
        self._waiting: dict[int, dict[int, None]] = {}
        self._owned = np.zeros(0, np.bool_)
        self._lists = _Lists.empty(ROWS_MIN, neighbours)
        self._tokens = max(1.0, per_s) if per_s else 0.0
        self._filled_s: float | None = None

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def room(self) -> int:
        """How many more users the budget could publish within a second."""
        return max(0, int(self._per_s) - len(self)) if self._waiting else 0

    def own(self, partition: int) -> None:
        """Takes a partition up."""
        if partition >= len(self._owned):
            self._owned = np.concatenate([self._owned, np.zeros(partition + 1 - len(self._owned), np.bool_)])
        self._owned[partition] = True
        self._waiting.setdefault(partition, {})

    def disown(self, partition: int) -> None:
        """Gives a partition up; nobody of it is queued any more."""
        if self._waiting.pop(partition, None) is not None:
            self._owned[partition] = False

    def clear(self) -> None:
        """Forgets all lists and everybody queued: another model's cosines cannot be compared with these."""
        self._lists = _Lists.empty(ROWS_MIN, self._k)
        for waiting in self._waiting.values():
            waiting.clear()

    def published(self, slots: Slots, matches: Slots, similarities: Floats, partitions: NDArray[np.int32]) -> None:
        """These users (u,) of these partitions got lists: the first k of their matches (u, m), padded with -1."""
        own = np.flatnonzero(self._is_owned(partitions))
        if not len(own) or matches.shape[1] < self._k:
            return
        self._make_room(int(max(slots.max(), matches.max())) + 1)
        for slot, partition in zip(slots[own].tolist(), partitions[own].tolist(), strict=True):
            self.coalesced += slot in self._waiting[partition]
            self._waiting[partition].pop(slot, None)
        _replace(_plain(slots[own]), _plain(matches[own]), _floats(similarities[own]), self._k, self._lists)

    def moved(self, slots: Slots, matches: Slots, similarities: Floats, partitions: NDArray[np.int32]) -> None:
        """These users (u,) moved, and this is who is near them now (u, m). Queues whose list they enter or leave.

        `partitions` is that of every user of the store, by slot.
        """
        if not self._waiting or not len(slots):
            return
        self._make_room(int(max(slots.max(), matches.max(initial=-1))) + 1)
        found = np.empty(len(slots) * (matches.shape[1] + HOLDERS_MAX), np.int32)
        count = _concerned(_plain(slots), _plain(matches), _floats(similarities), self._lists, found)
        self._queue(_once(found[:count]), partitions)

    def outgrown(
        self, slots: Slots, others_then: NDArray[np.int64], others_now: int, partitions: NDArray[np.int32]
    ) -> None:
        """Queues those of these users (u,) whose list was made among too few others (u,) to be full, if there are more.

        So the first users of all, who come in one batch, find each other, and what the others had. Nobody is queued
        more often than a list has places.
        """
        self._queue(slots[(others_then < self._k) & (others_then < others_now)].tolist(), partitions)

    def gone(self, slots: Iterable[int], partitions: NDArray[np.int32]) -> None:
        """These users were forgotten: their lists go, and whoever's list names them is queued."""
        known = np.array([slot for slot in slots if slot < len(self._lists.first)], np.int32)
        if not len(known):
            return
        found = np.empty(len(known) * HOLDERS_MAX, np.int32)
        count = _holders(known, self._lists, found)
        nobody = np.full((len(known), self._k), -1, np.int32)
        _replace(known, nobody, np.full(nobody.shape, np.nan, np.float32), self._k, self._lists)
        for waiting in self._waiting.values():
            for slot in known.tolist():
                waiting.pop(slot, None)
        self._queue(_once(found[:count]), partitions)

    def is_due(self, partition: int, now_s: float) -> bool:
        """Whether somebody of the partition is queued and the budget allows one more."""
        return bool(self._waiting.get(partition)) and self._budget(now_s) > 0

    def due(self, partition: int, count: int, now_s: float, but: Collection[int]) -> list[int]:
        """Up to `count` users whose turn it is, as the budget allows, without those in `but`; they stay queued.

        Two calls cannot spend the same part of the budget, whether its transaction is committed or not.
        """
        count = min(count, self._budget(now_s))
        found = list(islice((slot for slot in self._waiting.get(partition, ()) if slot not in but), max(0, count)))
        self._tokens -= len(found)
        return found

    def _budget(self, now_s: float) -> int:
        """Refreshes that may be published now: what a second allows at most, so that idle time is no licence."""
        if self._filled_s is not None:
            self._tokens += max(0.0, now_s - self._filled_s) * self._per_s
        self._filled_s = now_s
        self._tokens = min(self._tokens, max(1.0, self._per_s))
        return int(self._tokens)

    def _queue(self, slots: list[int], partitions: NDArray[np.int32]) -> None:
        count = len(self)
        for slot in slots:
            waiting = self._waiting.get(int(partitions[slot]))
            if waiting is None:
                continue
            if slot in waiting:
                self.coalesced += 1
            elif count >= self._waiting_max:
                self.dropped += 1
            else:
                waiting[slot] = None
                count += 1

    def _is_owned(self, partitions: NDArray[np.int32]) -> NDArray[np.bool_]:
        known = (partitions >= 0) & (partitions < len(self._owned))
        known[known] = self._owned[partitions[known]]
        return known

    def _make_room(self, rows: int) -> None:
        used = len(self._lists.first)
        if rows <= used:
            return
        larger = _Lists.empty(max(rows, int(used * GROWTH)), self._k)
        for column, former in zip(larger, self._lists, strict=True):
            column[:used] = former
        self._lists = larger


def _plain(slots: Slots) -> Slots:
    return np.require(slots, np.int32, PLAIN)


def _floats(values: Floats) -> Floats:
    return np.require(values, np.float32, PLAIN)


def _once(slots: Slots) -> list[int]:
    """Each slot once, in the order of its first place."""
    return list(dict.fromkeys(slots.tolist()))


@kernel
def _replace(rows: Slots, matches: Slots, similarities: Floats, k: int, lists: _Lists) -> None:
    """The list of each row is now the first k of its matches; entries of before are unlinked from whom they named."""
    for index in range(len(rows)):
        row = rows[index]
        for column in range(k):
            _unlink(row, column, k, lists)
        held = 0
        for place in range(matches.shape[1]):
            slot = matches[index, place]
            if slot < 0:
                continue
            if held == k:
                held += 1
                lists.runner_up[row] = similarities[index, place]
                break
            lists.worst[row] = similarities[index, place]
            _link(row, held, slot, k, lists)
            held += 1
        if held < k:
            lists.worst[row] = NO_ROOM
        elif lists.worst[row] == 0.0:
            lists.worst[row] = RIGHT_ANGLE
        if held <= k:
            lists.runner_up[row] = NO_ROOM


@kernel
def _unlink(row: int, column: int, k: int, lists: _Lists) -> None:
    named = lists.slots[row, column]
    if named == 0:
        return
    before, after = lists.preceding[row, column], lists.following[row, column]
    if before == 0:
        lists.first[named - 1] = after
    else:
        lists.following[(before - 1) // k, (before - 1) % k] = after
    if after != 0:
        lists.preceding[(after - 1) // k, (after - 1) % k] = before
    lists.slots[row, column] = 0
    lists.preceding[row, column] = 0
    lists.following[row, column] = 0


@kernel
def _link(row: int, column: int, slot: int, k: int, lists: _Lists) -> None:
    place, after = row * k + column, lists.first[slot]
    lists.slots[row, column] = slot + 1
    lists.following[row, column] = after
    lists.preceding[row, column] = 0
    lists.first[slot] = place + 1
    if after != 0:
        lists.preceding[(after - 1) // k, (after - 1) % k] = place + 1


@kernel
def _concerned(slots: Slots, matches: Slots, similarities: Floats, lists: _Lists, found: Slots) -> int:
    """Whose lists the movers enter or leave, into `found`; returns how many, some of them twice."""
    count = 0
    for index in range(len(slots)):
        mover = slots[index]
        for place in range(matches.shape[1]):
            other = matches[index, place]
            if (
                other >= 0
                and lists.worst[other] != 0.0
                and similarities[index, place] > lists.worst[other] + MARGIN
                and not _names(lists, other, mover)
            ):
                found[count] = other
                count += 1
        count = _leaves(mover, matches[index], similarities[index], lists, found, count)
    return count


@kernel
def _leaves(mover: int, matches: Slots, similarities: Floats, lists: _Lists, found: Slots, count: int) -> int:
    """Adds whoever's list names the mover although somebody else is nearer now.

    A holder whom the mover did not find is at most as similar as the last whom it did find.
    """
    k = lists.slots.shape[1]
    most = NO_ROOM
    if len(matches) and matches[-1] >= 0:
        most = similarities[-1]
    entry, seen = lists.first[mover], 0
    while entry != 0 and seen < HOLDERS_MAX:
        holder = (entry - 1) // k
        similarity = most
        for place in range(len(matches)):
            if matches[place] == holder:
                similarity = similarities[place]
                break
        if similarity < lists.runner_up[holder] - MARGIN:
            found[count] = holder
            count += 1
        entry = lists.following[holder, (entry - 1) % k]
        seen += 1
    return count


@kernel
def _holders(slots: Slots, lists: _Lists, found: Slots) -> int:
    k, count = lists.slots.shape[1], 0
    for slot in slots:
        entry, seen = lists.first[slot], 0
        while entry != 0 and seen < HOLDERS_MAX:
            found[count] = (entry - 1) // k
            count += 1
            entry = lists.following[(entry - 1) // k, (entry - 1) % k]
            seen += 1
    return count


@kernel
def _names(lists: _Lists, row: int, slot: int) -> bool:
    for named in lists.slots[row]:  # noqa: SIM110 - numba compiles no generator
        if named == slot + 1:
            return True
    return False
