"""Lists that come without an event of their own: those that were shed and are owed, and reverse refreshes.

They travel in the transactions of the user's own partition, with a batch or alone, and are as exact as any other: what
is owed survives a restart by the note beside the committed offset (`CommitNote`), and so does their numbering.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streams.core.profile import FORGOTTEN
from streams.core.shedding import Debt, ListKind, OwedLists, Shedding, is_listed, list_kinds
from streams.core.updater import ACCEPTED
from streams.kafka.commit_note import CommitNote
from streams.recommend.asked import rows_of, with_stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.core.updater import ProfileUpdate
    from streams.recommend.engine import Engine

OWED_MAX = 50_000
"""Owed lists of a partition that are kept by name, 10 MB; those beyond are looked up when their turn comes."""


class Plan(NamedTuple):
    """How much of a batch is answered by lists."""

    shedding: Shedding = Shedding.NOTHING
    late_lists_max: int = 0
    """Owed lists, then reverse refreshes, to publish with it."""


ALL_LISTED = Plan()


class Choice(NamedTuple):
    """Whose lists a batch makes. First the touched users who get one now, then those whose list comes late."""

    listed: ProfileUpdate
    answered: NDArray[np.bool_]
    """(u,) which of the touched users get a list now."""
    kinds: NDArray[np.uint8]
    """(u,) `ListKind` of each touched user."""
    owed: list[int]
    """Store slots of the late lists that were owed."""
    reverse: list[int]
    """Store slots of the reverse refreshes."""


@dataclass(frozen=True, slots=True)
class Late:
    """What a batch changes about late lists, and what its transaction notes of it."""

    note: CommitNote
    numbered_from: int = 1
    """The number of its first late list."""
    shed: dict[str, Debt] = field(default_factory=dict)
    """Touched users without a list, in the order of their offsets, and what they are owed from now on."""
    shed_kinds: Counter[str] = field(default_factory=Counter)
    """How many of them, by what they did."""
    owed: Sequence[int] = ()
    """Store slots of owed lists that this transaction carries."""
    reverse: Sequence[int] = ()
    """Store slots of reverse refreshes that it carries."""
    paid: Sequence[Debt] = ()
    """What was owed to those who get a list in this transaction."""
    reverse_lists: int = 0
    """How many of `reverse` were not forgotten."""

    @property
    def lists(self) -> int:
        """How many lists are for users whom no event of the batch touched, at most."""
        return len(self.owed) + len(self.reverse)


class _Partition:
    """What is owed in one partition, and how many late lists it ever had."""

    def __init__(self, owed_max: int) -> None:
        self.owed = OwedLists(owed_max)
        self.published = 0


class LateLists:
    """Who is to get a late list, by partition. Called from the compute thread only."""

    def __init__(self, engine: Engine, owed_max: int = OWED_MAX) -> None:
        self.overflows = 0
        """Users who were shed while their partition had no room for a name; they are looked up instead."""
        self._engine = engine
        self._owed_max = owed_max
        self._partitions: dict[int, _Partition] = {}

    def take_up(self, partition: int, note: CommitNote, next_offset: int) -> int:
        """Begins with a partition whose profiles are in memory, as the log left it; returns how many lists are owed.

        After `note.owed_since` some may have their list: they get another rather than none.
        """
        state = self._partitions[partition] = _Partition(self._owed_max)
        state.published = note.late_lists
        if note.owed_since is not None:
            self._look_up(state.owed, partition, note.owed_since, next_offset - 1)
        if self._engine.reverse is not None:
            self._engine.reverse.own(partition)
        return len(state.owed)

    def give_up(self, partition: int) -> None:
        """Forgets what is owed, which the log knows, and whom a move of somebody else concerns."""
        self._partitions.pop(partition, None)
        if self._engine.reverse is not None:
            self._engine.reverse.disown(partition)

    def is_due(self, partition: int, now_ms: int) -> bool:
        """Whether a list of the partition is owed, or a reverse refresh waits and is allowed now."""
        reverse = self._engine.reverse
        return len(self._of(partition).owed) > 0 or (reverse is not None and reverse.is_due(partition, now_ms / 1000))

    def choose(self, update: ProfileUpdate, partition: int, now_ms: int, plan: Plan) -> Choice:
        """Touched users who are not shed; then, as far as the plan goes, who is owed a list, and reverse refreshes."""
        events, engine = update.events, self._engine
        accepted = update.verdicts == ACCEPTED
        kinds = list_kinds(events.types[accepted], events.rows[accepted], len(events.users))
        kinds = kinds[events.rows[update.last_events]]
        answered = is_listed(kinds, plan.shedding)
        touched = set(update.slots.tolist())
        owed = self._of(partition).owed.oldest(plan.late_lists_max, but=touched)
        reverse: list[int] = []
        if engine.reverse is not None:
            room = plan.late_lists_max - len(owed)
            reverse = engine.reverse.due(partition, room, now_ms / 1000, but=touched.union(owed))
        known = [slot for slot in owed + reverse if engine.store.user_ids[slot] != FORGOTTEN]
        listed = update if answered.all() else rows_of(update, np.flatnonzero(answered).astype(np.int32))
        listed = with_stored(listed, np.array(known, np.int32), engine.store, engine.encoder)
        return Choice(listed, answered, kinds, owed, reverse)

    def after(self, choice: Choice, update: ProfileUpdate, partition: int, sent_ms: Sequence[int]) -> Late:
        """What is so once the batch is committed; `sent_ms` (e,) says when Kafka got each event."""
        state, offsets = self._of(partition), update.events.offsets
        shed_rows = np.flatnonzero(~choice.answered)
        shed_rows = shed_rows[np.argsort(update.last_events[shed_rows])]
        shed = {
            update.users[row]: Debt(int(offsets[update.last_events[row]]), sent_ms[update.last_events[row]])
            for row in shed_rows.tolist()
        }
        paid = [*update.slots[choice.answered].tolist(), *choice.owed]
        since = state.owed.since(set(paid), [debt.offset for debt in shed.values()])
        late_lists = len(choice.listed.users) - int(choice.answered.sum())
        return Late(
            note=CommitNote(state.published + late_lists, since),
            numbered_from=state.published + 1,
            shed=shed,
            shed_kinds=Counter(ListKind(kind).name.lower() for kind in choice.kinds[shed_rows].tolist()),
            owed=choice.owed,
            reverse=choice.reverse,
            paid=state.owed.debts(paid),
            reverse_lists=sum(self._engine.store.user_ids[slot] != FORGOTTEN for slot in choice.reverse),
        )

    def unchanged(self, partition: int) -> Late:
        """For a batch that makes no list and owes none."""
        state = self._of(partition)
        return Late(CommitNote(state.published, state.owed.since()))

    def apply(self, late: Late, listed: Sequence[str], partition: int) -> int:
        """Takes over what is committed; returns how many lists the partition owes now."""
        state, store = self._of(partition), self._engine.store
        state.published = late.note.late_lists
        state.owed.settle([*store.slots(listed).tolist(), *late.owed])  # the latter may have been forgotten meanwhile
        before = state.owed.overflows
        state.owed.add(store.slots(list(late.shed)).tolist(), late.shed.values())
        self.overflows += state.owed.overflows - before
        if (beyond := state.owed.to_look_up) is not None:
            self._look_up(state.owed, partition, *beyond)
        return len(state.owed)

    def _of(self, partition: int) -> _Partition:
        return self._partitions.get(partition) or self._partitions.setdefault(partition, _Partition(self._owed_max))

    def _look_up(self, owed: OwedLists, partition: int, first: int, last: int) -> None:
        columns, users = self._engine.store.columns, len(self._engine.store)
        offsets = columns.last_offset[:users]
        found = np.flatnonzero((columns.partition[:users] == partition) & (offsets >= first) & (offsets <= last))
        owed.refill(found.astype(np.int32), offsets[found], last)
