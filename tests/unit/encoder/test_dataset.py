"""EventTable and its splits: the order of columns, what is refused, and that no split shows the future."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from encoder.dataset import EventTable, EventTableBuilder, Queries, hold_out_last, leave_one_out, timeline
from encoder.errors import UnusableData

if TYPE_CHECKING:
    from collections.abc import Sequence

Log = list[tuple[int, int, int]]


def table_of(log: Sequence[tuple[int, int, int]]) -> EventTable:
    """A table of (user, item, time) events, all views."""
    builder = EventTableBuilder()
    for user, item, time_s in log:
        builder.add(f"u{user}", f"i{item}", "view", time_s)
    return builder.build()


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Logs of two users and two items at least, with equal times and users of a single event."""
    events = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5), st.integers(0, 12)), min_size=2))
    assume(len({user for user, _, _ in events}) > 1 and len({item for _, item, _ in events}) > 1)
    return events


@given(logs())
@settings(deadline=None, derandomize=True)
def test_events_stand_user_after_user_oldest_first(log: Log) -> None:
    """Each user's rows are that user's events by time, equal times in the order of the log; none is lost."""
    table = table_of(log)
    for user, name in enumerate(table.user_ids):
        rows = slice(table.offsets[user], table.offsets[user + 1])
        got = [
            (table.item_ids[item], time_s) for item, time_s in zip(table.items[rows], table.times_s[rows], strict=True)
        ]
        mine = [(f"i{item}", time_s) for who, item, time_s in log if f"u{who}" == name]
        assert got == sorted(mine, key=lambda event: event[1])
    assert len(table) == len(log)


@given(logs())
@settings(deadline=None, derandomize=True)
def test_leave_one_out_takes_the_last_two_events_of_long_histories_only(log: Log) -> None:
    """The last event is asked for, the one before chooses, all earlier ones and short histories are learned from."""
    table = table_of(log)
    lengths = np.diff(table.offsets)
    if lengths.max() < 3:
        with pytest.raises(UnusableData, match="No user of this log has three events"):
            leave_one_out(table)
        return
    split = leave_one_out(table)
    learned = split.train_mask(table)
    assert split.test.users.tolist() == np.flatnonzero(lengths >= 3).tolist()
    assert split.test.positions.tolist() == (table.offsets[1:][lengths >= 3] - 1).tolist()
    assert (split.valid.positions == split.test.positions - 1).all()
    assert np.flatnonzero(~learned).tolist() == sorted([*split.valid.positions, *split.test.positions])


@given(logs())
@settings(deadline=None, derandomize=True)
def test_holding_out_the_last_learns_everything_else(log: Log) -> None:
    """The last event of each user with two or more chooses the model; all others are learned from, none judges."""
    table = table_of(log)
    lengths = np.diff(table.offsets)
    if lengths.max() < 2:
        with pytest.raises(UnusableData, match="No user of this log has two events"):
            hold_out_last(table)
        return
    split = hold_out_last(table)
    assert np.flatnonzero(~split.train_mask(table)).tolist() == split.valid.positions.tolist()
    assert split.valid.positions.tolist() == (table.offsets[1:][lengths >= 2] - 1).tolist()
    assert split.valid.users.tolist() == np.flatnonzero(lengths >= 2).tolist()
    assert len(split.test) == 0


@given(logs())
@settings(deadline=None, derandomize=True)
def test_a_timeline_split_learns_nothing_of_the_future(log: Log) -> None:
    """All that is learned is older than all that chooses, and that older than all that judges, whoever did it."""
    table = table_of(log)
    try:
        split = timeline(table, 0.3, 0.3)
    except UnusableData:
        return
    learned = table.times_s[split.train_mask(table)]
    assert learned.max(initial=-1) < table.times_s[split.valid.positions].min()
    assert table.times_s[split.valid.positions].max() < table.times_s[split.test.positions].min()


@given(logs())
@settings(deadline=None, derandomize=True)
def test_a_timeline_split_asks_for_all_later_events_that_have_a_past(log: Log) -> None:
    """Learned rows are a prefix of each user's; of the others only those without an earlier event are not asked for."""
    table = table_of(log)
    try:
        split = timeline(table, 0.3, 0.3)
    except UnusableData:
        return
    asked = np.concatenate([split.valid.positions, split.test.positions])
    first = set(table.offsets[:-1].tolist())
    assert not first & set(asked.tolist())
    assert set(np.flatnonzero(~split.train_mask(table)).tolist()) - set(asked.tolist()) <= first
    assert (table.users[asked] == np.concatenate([split.valid.users, split.test.users])).all()
    assert ((table.offsets[:-1] <= split.train_ends) & (split.train_ends <= table.offsets[1:])).all()


def test_a_log_of_one_moment_has_no_timeline() -> None:
    """Without an order in time the split is refused and says so."""
    with pytest.raises(UnusableData, match="All events of this log happened at one time"):
        timeline(table_of([(0, 0, 5), (1, 1, 5), (0, 1, 5)]))


def test_a_timeline_without_returning_users_is_refused() -> None:
    """When only newcomers act after the cut there is nothing to predict."""
    with pytest.raises(UnusableData, match="nobody who was seen before it comes back"):
        timeline(table_of([(0, 0, 0), (0, 1, 1), (1, 0, 2), (2, 0, 9)]), 0.25, 0.25)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ([], "The log has no events"),
        ([(0, 0, 0), (0, 1, 1)], r"1 user\(s\) and 2 item\(s\)"),
        ([(0, 0, 0), (1, 0, 1)], r"2 user\(s\) and 1 item\(s\)"),
    ],
)
def test_logs_that_nothing_can_be_learned_from_are_refused(log: Log, message: str) -> None:
    """No events, one user or one item: a clear error."""
    with pytest.raises(UnusableData, match=message):
        table_of(log)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    """A rating of NaN or infinity names its user and item; nothing is added."""
    builder = EventTableBuilder()
    with pytest.raises(UnusableData, match=f"item i1 by user u1 has the value {value}"):
        builder.add("u1", "i1", "rating", 0, value)
    assert len(builder) == 0


def test_a_missing_value_is_nan_and_a_given_one_stays() -> None:
    """Events without a value hold NaN."""
    builder = EventTableBuilder()
    builder.add("u1", "i1", "view", 0)
    builder.add("u2", "i2", "rating", 0, 0.0)
    np.testing.assert_array_equal(builder.build().values, [np.nan, 0.0])


def test_known_items_keep_their_rows() -> None:
    """Items of a checkpoint come first, in its order, with or without events; new ones follow."""
    builder = EventTableBuilder(known_items=["old", "older"])
    for user, item in (("u1", "new"), ("u2", "older"), ("u1", "newest")):
        builder.add(user, item, "view", 0)
    assert builder.build().item_ids == ["old", "older", "new", "newest"]


def test_descriptions_come_to_their_items_and_users() -> None:
    """Texts and attributes stand at the item's row; an item without events enters, a user without events does not."""
    builder = EventTableBuilder()
    builder.add("u1", "i1", "view", 0)
    builder.add("u2", "i1", "view", 0)
    builder.describe_item("i2", "red lamp", ["brand:acme"])
    builder.describe_user("u2", ["gender:f"])
    builder.describe_user("stranger", ["gender:m"])
    table = builder.build()
    assert (table.item_texts, table.item_attributes) == (["", "red lamp"], [(), ("brand:acme",)])
    assert (table.user_ids, table.user_attributes) == (["u1", "u2"], [(), ("gender:f",)])


def test_gaps_are_seconds_since_the_same_users_event_before() -> None:
    """The first event of each user has no gap, whatever the user before did."""
    table = table_of([(0, 0, 10), (0, 1, 25), (1, 0, 5), (1, 1, 5), (1, 0, 6)])
    assert table.gaps_s().tolist() == [0, 15, 0, 0, 1]


def test_only_keeps_rows_and_leaves_users_without_events() -> None:
    """A user whose events are all left out stays, with an empty history; gaps close over the hole."""
    table = table_of([(0, 0, 0), (0, 1, 5), (0, 0, 9), (1, 0, 5), (2, 1, 7)])
    part = table.only(table.users != 1)
    part = part.only(np.array([True, False, True, True]))
    assert part.offsets.tolist() == [0, 2, 2, 3]
    assert part.users.tolist() == [0, 0, 2]
    assert part.times_s.tolist() == [0, 9, 7]
    assert part.gaps_s().tolist() == [0, 9, 0]


def test_events_are_found_by_type_and_an_unknown_type_is_refused() -> None:
    """`of_types` marks events of the named types; a type that does not occur is an error that lists those that do."""
    builder = EventTableBuilder()
    for user, item, kind in (("u1", "i1", "view"), ("u1", "i2", "buy"), ("u2", "i1", "like")):
        builder.add(user, item, kind, 0)
    table = builder.build()
    assert table.of_types(["view", "like"]).tolist() == [True, False, True]
    with pytest.raises(UnusableData, match="no event of type rent in this log; it has view, buy, like"):
        table.of_types(["rent"])


def test_only_ratings_are_ratings() -> None:
    """The value of a purchase is no rating, nor is a rating without a value."""
    builder = EventTableBuilder()
    for user, kind, value in (("u1", "purchase", 9.5), ("u1", "rating", 4.0), ("u2", "rating", None)):
        builder.add(user, f"i{user}", kind, 0, value)
    np.testing.assert_array_equal(builder.build().ratings(), np.array([np.nan, 4, np.nan], np.float32))


def test_queries_are_taken_by_row() -> None:
    """`take` keeps users and positions together."""
    taken = Queries(np.array([3, 4, 5], np.int32), np.array([30, 40, 50])).take(np.array([2, 0]))
    assert (taken.users.tolist(), taken.positions.tolist(), len(taken)) == ([5, 3], [50, 30], 2)
