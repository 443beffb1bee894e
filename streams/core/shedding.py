"""What a worker leaves out when it cannot keep up, and what it owes afterwards. Pure: lag and time are arguments.

Profiles are never left out; only lists are, and only until the worker has caught up.
"""

from __future__ import annotations

from enum import IntEnum
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streams.core.events import EVENT_TYPES, EventType

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from numpy.typing import NDArray

    from streams.core.ports import Slots

BATCH_EVENTS_MIN = 64
STEP_SHARE = 0.5
"""Of the freshness target: what one batch may take. The other half is for waiting while the one before runs."""
GROWTH_BEHIND, GROWTH_FULL, SHRINK_MAX = 2.0, 1.25, 0.5
LAG_TARGETS = (1.0, 2.0, 4.0)
"""Targets of lag from which on reverse refreshes, then views, then clicks get no list."""
RELEASE_SHARE = 0.5
"""A kind is listed again when the lag is below this share of what shed it."""
LATE_SHARE = 8
"""A batch that is full still takes one late list for every so many events, so that none waits for ever."""


class Shedding(IntEnum):
    """What gets no list now; each includes those before it."""

    NOTHING = 0
    REVERSE = 1
    """Refreshes whose cause is a neighbour."""
    VIEWS = 2
    """Lists of users who only looked: view, search, impression."""
    CLICKS = 3
    """Lists of users who only looked and clicked. All others always get theirs."""


class ListKind(IntEnum):
    """What is the most that a user did in a batch."""

    VIEW = 0
    CLICK = 1
    ACTION = 2


_KINDS = {EventType.VIEW: ListKind.VIEW, EventType.SEARCH: ListKind.VIEW, EventType.IMPRESSION: ListKind.VIEW}
_KINDS[EventType.CLICK] = ListKind.CLICK
_KIND_OF_CODE = np.array([_KINDS.get(kind, ListKind.ACTION) for kind in EVENT_TYPES], np.uint8)


def list_kinds(types: NDArray[np.uint8], rows: Slots, users: int) -> NDArray[np.uint8]:
    """(users,) the `ListKind` of each user, of events (e,) with these type codes and user rows."""
    kinds = np.zeros(users, np.uint8)
    np.maximum.at(kinds, rows, _KIND_OF_CODE[types])
    return kinds


def is_listed(kinds: NDArray[np.uint8], shedding: Shedding) -> NDArray[np.bool_]:
    """(users,) who gets a list now."""
    return kinds > shedding - Shedding.VIEWS  # the first kind is shed with VIEWS, the second with CLICKS


def next_shedding(shedding: Shedding, lag_s: float, target_s: float) -> Shedding:
    """What to leave out of a batch that leaves a record of this age behind; 0 when it takes all there is.

    Never less for a longer lag or for more shed before. What was shed once stays so until the lag has halved.
    """
    reached = sum(lag_s > targets * target_s for targets in LAG_TARGETS)
    held = sum(lag_s > RELEASE_SHARE * targets * target_s for targets in LAG_TARGETS)
    return Shedding(max(reached, min(shedding, held)))


class Batch(NamedTuple):
    """One batch as it went."""

    work: int
    """Records, and lists beside those of the records."""
    step_s: float
    """From the fetched records to the end of the transaction."""
    lag_s: float
    """Age of the record that it left behind, once this one is done; 0 when it took all there was."""


def next_batch_events(batch_events: int, batch: Batch, target_s: float, batch_events_max: int) -> int:
    """How many events the next batch may have: more when behind, fewer when one takes too much of the target.

    Between BATCH_EVENTS_MIN, or `batch_events_max` when that is less, and `batch_events_max`.
    """
    factor = 1.0
    step_s_max = STEP_SHARE * target_s
    if batch.lag_s > target_s:
        factor = GROWTH_BEHIND  # a larger batch costs less an event: one transaction, one list a user
    elif batch.step_s > step_s_max:
        factor = max(SHRINK_MAX, step_s_max / batch.step_s)
    elif batch.work >= batch_events:
        factor = GROWTH_FULL
    return min(batch_events_max, max(BATCH_EVENTS_MIN, int(batch_events * factor)))


class SloBatcher:
    """Keeps one partition's freshness at a target by the size of its batches and by what they leave out.

    A target of 0 is none: batches are as large as they may, and nothing is ever shed.
    """

    def __init__(self, target_s: float, batch_events_max: int) -> None:
        self.batch_events = batch_events_max
        """Most events of the next batch. It begins with the most, for whatever waits at the start."""
        self.shedding = Shedding.NOTHING
        self._target_s = target_s
        self._batch_events_max = batch_events_max
        self._step_s = 0.0
        self._lag_s = 0.0

    def fetched(self, left_behind_s: float | None) -> None:
        """Decides on a batch. `left_behind_s` is the age of its last record when more wait, None when none do."""
        self._lag_s = 0.0 if left_behind_s is None else left_behind_s + self._step_s
        if self._target_s:
            self.shedding = next_shedding(self.shedding, self._lag_s, self._target_s)

    def late_lists_max(self, events: int) -> int:
        """How many owed and reverse lists a batch of so many events may carry besides."""
        if self.shedding:
            return 0
        return max(self.batch_events - events, self.batch_events // LATE_SHARE, 1)

    def committed(self, work: int, step_s: float) -> None:
        """Learns from a batch; `work` counts its records and its late lists."""
        self._step_s = step_s
        if self._target_s:
            batch = Batch(work, step_s, self._lag_s)
            self.batch_events = next_batch_events(self.batch_events, batch, self._target_s, self._batch_events_max)


class Debt(NamedTuple):
    """A list that was shed."""

    offset: int
    """Of the user's last event then."""
    sent_ms: int | None
    """When Kafka got that event, epoch ms; None when that is not known any more."""


class OwedLists:
    """The users of one partition whose list was shed, the longest waiting first, each once, by store slot.

    At most `owed_max` are named. Of those beyond, only the range of their offsets is kept: whoever's last event lies
    in it is owed a list, and is looked up by `refill` once those before have theirs. So nobody is left out.
    """

    def __init__(self, owed_max: int) -> None:
        self.overflows = 0
        """Users who were shed while there was no room."""
        self._owed_max = owed_max
        self._debts: dict[int, Debt] = {}
        self._beyond: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._debts)

    def __contains__(self, slot: int) -> bool:
        return slot in self._debts

    @property
    def to_look_up(self) -> tuple[int, int] | None:
        """First and last offset of those who found no room, as soon as `refill` may be called for them."""
        return None if self._debts else self._beyond

    def oldest(self, count: int, but: Collection[int]) -> list[int]:
        """Up to `count` slots, longest waiting first, without those in `but`."""
        return list(islice((slot for slot in self._debts if slot not in but), count))

    def since(self, settled: Collection[int] = (), shed_offsets: Iterable[int] = ()) -> int | None:
        """The smallest offset of an event whose list would be owed after this change; None when nothing would be.

        Everybody who is owed a list has a last event at or after it.
        """
        offsets = list(shed_offsets)
        offsets += [next((debt.offset for slot, debt in self._debts.items() if slot not in settled), -1)]
        offsets += [] if self._beyond is None else [self._beyond[0]]
        return min((offset for offset in offsets if offset >= 0), default=None)

    def debts(self, slots: Iterable[int]) -> list[Debt]:
        """What these users are owed."""
        return [debt for slot in slots if (debt := self._debts.get(slot)) is not None]

    def settle(self, slots: Iterable[int]) -> None:
        """These users have their list."""
        for slot in slots:
            self._debts.pop(slot, None)

    def add(self, slots: Iterable[int], debts: Iterable[Debt]) -> None:
        """These users were shed, in the order of their offsets. Who waits already keeps the place."""
        for slot, debt in zip(slots, debts, strict=True):
            if slot in self._debts:
                continue
            if len(self._debts) < self._owed_max:
                self._debts[slot] = debt
                continue
            self.overflows += 1
            first, last = self._beyond or (debt.offset, debt.offset)
            self._beyond = min(first, debt.offset), max(last, debt.offset)

    def refill(self, slots: Slots, offsets: NDArray[np.int64], last: int) -> None:
        """Names those who were looked up: users (u,) whose last event is at these offsets, none after `last`."""
        order = np.argsort(offsets, kind="stable")
        taken, rest = order[: self._owed_max], order[self._owed_max :]
        pairs = zip(slots[taken].tolist(), offsets[taken].tolist(), strict=True)
        self._debts = {slot: Debt(offset, None) for slot, offset in pairs}
        self._beyond = (int(offsets[rest[0]]), last) if len(rest) else None
