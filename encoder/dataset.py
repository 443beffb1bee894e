"""Events in columns, ordered by user and time, and the ways to split them for a fair test.

Sizes: e events, u users, i items, q queries. A *query* is one prediction: from a user's events before a
position, which item stands at that position?
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from encoder.errors import UnusableData

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

RATING = "rating"
USERS_MIN = 2
ITEMS_MIN = 2
TYPES_MAX = 255


@dataclass(frozen=True, slots=True)
class EventTable:
    """A log as columns, user after user, each user's events oldest first (equal times keep the log's order)."""

    user_ids: list[str]
    item_ids: list[str]
    type_names: tuple[str, ...]
    offsets: Ints
    """(u + 1,) the events of user n are the rows offsets[n] to offsets[n + 1]."""
    items: NDArray[np.int32]
    """(e,) row in `item_ids`."""
    types: NDArray[np.uint8]
    """(e,) row in `type_names`."""
    times_s: Ints
    """(e,) epoch seconds."""
    values: Floats
    """(e,) rating, price, quantity or dwell seconds; NaN where the event has none."""
    item_texts: list[str]
    """(i,) the words of each item, empty where there are none."""
    item_attributes: list[tuple[str, ...]]
    """(i,) tokens such as `brand:acme`."""
    user_attributes: list[tuple[str, ...]]
    """(u,) tokens such as `gender:f`."""

    def __len__(self) -> int:
        return len(self.items)

    @property
    def users(self) -> NDArray[np.int32]:
        """(e,) row in `user_ids` of each event."""
        return np.repeat(np.arange(len(self.user_ids), dtype=np.int32), np.diff(self.offsets))

    def of_types(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """(e,) whether the event is of one of these types.

        Raises:
            UnusableData: a type does not occur in this log.
        """
        unknown = sorted(set(names) - set(self.type_names))
        if unknown:
            raise UnusableData(
                f"There is no event of type {', '.join(unknown)} in this log; it has {', '.join(self.type_names)}."
            )
        return np.isin(self.types, [self.type_names.index(name) for name in names])

    def gaps_s(self) -> Floats:
        """(e,) seconds since the user's latest event before, 0 for the first and for late ones."""
        gaps = np.zeros(len(self), np.float32)
        gaps[1:] = np.maximum(0, np.diff(self.times_s))
        gaps[self.offsets[:-1][np.diff(self.offsets) > 0]] = 0
        return gaps

    def ratings(self) -> Floats:
        """(e,) values of rating events, NaN for all others."""
        rated = np.array([name == RATING for name in self.type_names], np.bool_)[self.types]
        return np.where(rated, self.values, np.float32(np.nan))

    def only(self, keep: NDArray[np.bool_]) -> EventTable:
        """The events marked in `keep` (e,); users, items and types stay, some perhaps without events."""
        counts = np.zeros(len(self.user_ids), np.int64)
        np.add.at(counts, self.users[keep], 1)
        return replace(
            self,
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            items=self.items[keep],
            types=self.types[keep],
            times_s=self.times_s[keep],
            values=self.values[keep],
        )


@dataclass(slots=True)
class EventTableBuilder:
    """Collects events in any order; `build` puts them in order. Items enter in the order they are first named.

    Args of the constructor: `known_items`, the vocabulary of a checkpoint that training goes on from: those items
    keep their rows and new ones come after them.
    """

    known_items: Sequence[str] = ()
    _users: dict[str, int] = field(default_factory=dict)
    _items: dict[str, int] = field(default_factory=dict)
    _types: dict[str, int] = field(default_factory=dict)
    _columns: tuple[array[int], array[int], array[int], array[int], array[float]] = field(
        default_factory=lambda: (array("i"), array("i"), array("B"), array("q"), array("f"))
    )
    _texts: dict[int, str] = field(default_factory=dict)
    _item_attributes: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _user_attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.known_items)) != len(self.known_items):
            raise ValueError("known_items names an item twice: a vocabulary gives each item one row.")
        self._items.update(zip(self.known_items, range(len(self.known_items)), strict=True))

    def __len__(self) -> int:
        return len(self._columns[0])

    def add(self, user_id: str, item_id: str, kind: str, time_s: int, value: float | None = None) -> None:
        """One event.

        Raises:
            UnusableData: the value is infinite or NaN (leave it out where there is none), or it is the 256th type.
        """
        if value is not None and not math.isfinite(value):
            raise UnusableData(
                f"The {kind} of item {item_id} by user {user_id} has the value {value}: "
                "expected a finite number, or none."
            )
        if kind not in self._types and len(self._types) == TYPES_MAX:
            raise UnusableData(
                f"{kind} is type number {TYPES_MAX + 1} of this log: expected at most {TYPES_MAX} types."
            )
        users, items, types, times, values = self._columns
        users.append(self._users.setdefault(user_id, len(self._users)))
        items.append(self._items.setdefault(item_id, len(self._items)))
        types.append(self._types.setdefault(kind, len(self._types)))
        times.append(time_s)
        values.append(math.nan if value is None else value)

    def describe_item(self, item_id: str, text: str, attributes: Sequence[str] = ()) -> None:
        """The words and attribute tokens of an item; an item without events enters the table too."""
        row = self._items.setdefault(item_id, len(self._items))
        self._texts[row], self._item_attributes[row] = text, tuple(attributes)

    def describe_user(self, user_id: str, attributes: Sequence[str]) -> None:
        """Attribute tokens of a user, before or after the user's events; passed over for a user without any."""
        self._user_attributes[user_id] = tuple(attributes)

    def build(self) -> EventTable:
        """The table.

        Raises:
            UnusableData: there are no events, or only one user or item, so that nothing can be compared.
        """
        if not len(self):
            raise UnusableData(
                "The log has no events: expected at least two users and two items; check FORMAT and PATH."
            )
        if len(self._users) < USERS_MIN or len(self._items) < ITEMS_MIN:
            raise UnusableData(
                f"The log has {len(self._users)} user(s) and {len(self._items)} item(s): "
                f"expected at least {USERS_MIN} and {ITEMS_MIN}, for there is nothing to tell apart."
            )
        users, items, types, times, values = (np.array(column) for column in self._columns)
        order = np.lexsort((times, users))
        counts = np.bincount(users, minlength=len(self._users))
        return EventTable(
            user_ids=list(self._users),
            item_ids=list(self._items),
            type_names=tuple(self._types),
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            items=items[order].astype(np.int32),
            types=types[order].astype(np.uint8),
            times_s=times[order].astype(np.int64),
            values=values[order].astype(np.float32),
            item_texts=[self._texts.get(row, "") for row in range(len(self._items))],
            item_attributes=[self._item_attributes.get(row, ()) for row in range(len(self._items))],
            user_attributes=[self._user_attributes.get(user, ()) for user in self._users],
        )


@dataclass(frozen=True, slots=True)
class Queries:
    """Predictions to be made: the item at `positions[n]`, from the events of the same user before it."""

    users: NDArray[np.int32]
    """(q,)"""
    positions: Ints
    """(q,) rows of the table, at least one after the user's first; the row behind the last asks for the future."""

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, rows: NDArray[np.intp]) -> Queries:
        """The same queries at these rows."""
        return Queries(self.users[rows], self.positions[rows])


@dataclass(frozen=True, slots=True)
class Split:
    """What may be learned from, what chooses the model, what judges it. Later parts may read all earlier events."""

    protocol: str
    train_ends: Ints
    """(u,) of each user, the first row of the table that may not be learned from."""
    valid: Queries
    test: Queries

    def train_mask(self, table: EventTable) -> NDArray[np.bool_]:
        """(e,) whether the event may be learned from."""
        return np.arange(len(table)) < np.repeat(self.train_ends, np.diff(table.offsets))


def leave_one_out(table: EventTable) -> Split:
    """Of each user with three events or more the last is to be found, the one before it chooses the model.

    Users with fewer are learned from only.

    Raises:
        UnusableData: no user has three events.
    """
    starts, ends = table.offsets[:-1], table.offsets[1:]
    long_enough = np.flatnonzero(ends - starts >= 3).astype(np.int32)
    if not len(long_enough):
        raise UnusableData(
            "No user of this log has three events: leave-one-out needs one each to learn, choose and judge."
        )
    train_ends = ends.copy()
    train_ends[long_enough] -= 2
    last = ends[long_enough] - 1
    return Split("loo", train_ends, Queries(long_enough, last - 1), Queries(long_enough, last))


def hold_out_last(table: EventTable) -> Split:
    """Everything is learned from but the last event of each user with two or more, which choose the model.

    For a model that is to be served: nothing is kept for a test.

    Raises:
        UnusableData: no user has two events.
    """
    starts, ends = table.offsets[:-1], table.offsets[1:]
    long_enough = np.flatnonzero(ends - starts >= 2).astype(np.int32)
    if not len(long_enough):
        raise UnusableData("No user of this log has two events: a next event needs one before it.")
    train_ends = ends.copy()
    train_ends[long_enough] -= 1
    nobody = Queries(np.zeros(0, np.int32), np.zeros(0, np.int64))
    return Split("latest", train_ends, Queries(long_enough, ends[long_enough] - 1), nobody)


def timeline(table: EventTable, test_share: float = 0.1, valid_share: float = 0.1) -> Split:
    """One cut in time for all: what came after it is to be found, event by event, each user's past being known.

    The last `test_share` of all events judge; of those before, the last `valid_share` choose the model. Events of
    users without an earlier one are not asked for. This is the honest protocol: nothing of the future is learned.

    Raises:
        UnusableData: all events happened at one moment, or none after the cut belongs to a known user.
    """
    test_from = int(np.quantile(table.times_s, 1.0 - test_share, method="higher"))
    before = table.times_s[table.times_s < test_from]
    if not len(before):
        raise UnusableData(
            "All events of this log happened at one time, or the log tells their order only: a timeline split needs "
            "times; judge it by leave-one-out."
        )
    valid_from = int(np.quantile(before, 1.0 - valid_share, method="higher"))
    has_past = np.ones(len(table), np.bool_)
    has_past[table.offsets[:-1][np.diff(table.offsets) > 0]] = False
    users = table.users
    rows_valid = np.flatnonzero((table.times_s >= valid_from) & (table.times_s < test_from) & has_past)
    rows_test = np.flatnonzero((table.times_s >= test_from) & has_past)
    if not len(rows_valid) or not len(rows_test):
        raise UnusableData(
            "After the cut in time nobody who was seen before it comes back: there is nothing to predict."
        )
    learned = np.bincount(users[table.times_s < valid_from], minlength=len(table.user_ids))
    return Split(
        "timeline",
        table.offsets[:-1] + learned,
        Queries(users[rows_valid], rows_valid),
        Queries(users[rows_test], rows_test),
    )
