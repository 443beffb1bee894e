"""What is left out under overload: in which order, how stably, and that nobody is forgotten."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.events import EVENT_TYPES, EventType
from streams.core.shedding import (
    BATCH_EVENTS_MIN,
    LAG_TARGETS,
    RELEASE_SHARE,
    Batch,
    Debt,
    ListKind,
    OwedLists,
    Shedding,
    is_listed,
    list_kinds,
    next_batch_events,
    next_shedding,
)

lags = st.floats(0, 1e4)
targets = st.floats(0.01, 60)
levels = st.sampled_from(Shedding)
repeatable = settings(deadline=None, derandomize=True)


@repeatable
@given(levels, lags, lags, targets)
def test_a_longer_lag_never_sheds_less(level: Shedding, one: float, other: float, target_s: float) -> None:
    """Of two lags the longer sheds at least what the shorter does, whatever was shed before."""
    shorter, longer = sorted([one, other])
    assert next_shedding(level, shorter, target_s) <= next_shedding(level, longer, target_s)


@repeatable
@given(levels, levels, lags, targets)
def test_what_was_shed_is_given_back_later_than_it_was_taken(
    one: Shedding, other: Shedding, lag_s: float, target_s: float
) -> None:
    """More shed before means at least as much shed now, and no more than both the lag and the past call for."""
    less, more = sorted([one, other])
    assert next_shedding(less, lag_s, target_s) <= next_shedding(more, lag_s, target_s)
    assert next_shedding(more, lag_s, target_s) <= max(more, next_shedding(Shedding.NOTHING, lag_s, target_s))


@repeatable
@given(st.sampled_from([Shedding.REVERSE, Shedding.VIEWS, Shedding.CLICKS]), targets, st.floats(0.01, 0.99))
def test_a_level_holds_until_the_lag_has_halved(level: Shedding, target_s: float, share: float) -> None:
    """Between half of what sheds a kind and all of it, nothing changes; a lag that wavers there makes no flapping."""
    sheds_s = LAG_TARGETS[level - 1] * target_s
    between_s = sheds_s * (RELEASE_SHARE + share * (1 - RELEASE_SHARE))
    assert next_shedding(level, between_s, target_s) == level
    assert next_shedding(Shedding(level - 1), between_s, target_s) == level - 1
    assert next_shedding(level, sheds_s * RELEASE_SHARE * 0.99, target_s) < level
    assert next_shedding(Shedding(level - 1), sheds_s * 1.01, target_s) == level


@repeatable
@given(levels, targets)
def test_without_a_backlog_everybody_gets_a_list(level: Shedding, target_s: float) -> None:
    """A batch that takes all there is leaves nothing out."""
    assert next_shedding(level, 0.0, target_s) == Shedding.NOTHING


@repeatable
@given(levels)
def test_kinds_are_shed_in_order_and_actions_never(level: Shedding) -> None:
    """Reverse refreshes go first and cost no event its list, then views, then clicks."""
    listed = is_listed(np.array([ListKind.VIEW, ListKind.CLICK, ListKind.ACTION], np.uint8), level).tolist()
    assert listed == [level < Shedding.VIEWS, level < Shedding.CLICKS, True]


@repeatable
@given(st.lists(st.tuples(st.sampled_from(EventType), st.integers(0, 4)), max_size=30))
def test_a_user_is_as_important_as_the_most_important_event(events: list[tuple[EventType, int]]) -> None:
    """One purchase among views makes the list a purchase's; only looking and searching is a view's."""
    types = np.array([kind.code for kind, _ in events], np.uint8)
    kinds = list_kinds(types, np.array([row for _, row in events], np.int32), 5)
    looks = {EventType.VIEW, EventType.SEARCH, EventType.IMPRESSION}
    for row in range(5):
        done = {kind for kind, of in events if of == row}
        expected = ListKind.VIEW if done <= looks else ListKind.CLICK if done <= looks | {EventType.CLICK} else 2
        assert kinds[row] == expected
    assert len(EVENT_TYPES) == len(EventType)


@repeatable
@given(st.integers(1, 5000), st.integers(0, 6000), st.floats(0, 10), lags, lags, targets, st.integers(1, 5000))
def test_batches_grow_when_behind_and_keep_their_bounds(
    before: int, work: int, step_s: float, one: float, other: float, target_s: float, most: int
) -> None:
    """The next size is within its bounds, never smaller for a longer lag, and twice as large when behind."""
    before = min(before, most)
    shorter, longer = sorted([one, other])
    small = next_batch_events(before, Batch(work, step_s, shorter), target_s, most)
    large = next_batch_events(before, Batch(work, step_s, longer), target_s, most)
    assert min(BATCH_EVENTS_MIN, most) <= small <= large <= most
    if longer > target_s:
        assert large == min(most, max(BATCH_EVENTS_MIN, 2 * before))
    elif step_s > target_s / 2:
        assert large <= max(before, BATCH_EVENTS_MIN)


@repeatable
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True)), max_size=40),
)
def test_nobody_who_was_shed_is_forgotten(owed_max: int, batches: list[tuple[bool, list[int]]]) -> None:
    """However small the room, whoever's list was shed is named, or found by offset, until a list has come."""
    owed, last_offset, without, offset = OwedLists(owed_max), {}, set(), 0
    for is_shed, users in batches:
        for user in users:
            last_offset[user], offset = offset, offset + 1
        if is_shed:
            owed.add(users, [Debt(last_offset[user], None) for user in users])
            without.update(users)
        else:
            owed.settle(users)
            without.difference_update(users)
        since = owed.since()
        assert all(since is not None and last_offset[user] >= since for user in without)
    for _ in range(200):
        if (beyond := owed.to_look_up) is not None:
            found = [user for user, at in last_offset.items() if beyond[0] <= at <= beyond[1]]
            owed.refill(np.array(found, np.int32), np.array([last_offset[u] for u in found], np.int64), beyond[1])
        assert len(owed) <= owed_max
        paid = owed.oldest(2, but=())
        owed.settle(paid)
        without.difference_update(paid)
        if not paid and owed.to_look_up is None:
            break
    assert without == set()
    assert owed.since() is None
