"""What users were shown and did not react to."""

from __future__ import annotations

import numpy as np
import pytest

from streams.core.profile import ROWS_MIN
from streams.recommend.fatigue import NO_ITEM, REMEMBERED, Fatigue, ShownItems, joined

SHOWN, REST_S, SPACING_S = 2, 100.0, 10.0
NOW_S = 1_700_000_000.0


def show(fatigue: Fatigue, user: int, items: list[int], at_s: float) -> None:
    fatigue.show(
        np.array([user], np.int32), np.array([items], np.int32), np.array([NOW_S + at_s]), SHOWN, REST_S, SPACING_S
    )


def tired(fatigue: Fatigue, user: int, items: list[int], at_s: float) -> list[bool]:
    """Of the items of one user."""
    found = fatigue.tired(np.array([user], np.int32), np.array([items], np.int32), NOW_S + at_s, SHOWN, REST_S)
    return [bool(each) for each in found[0]]


def test_an_item_shown_too_often_pauses() -> None:
    """For that user only, and only that item."""
    fatigue = Fatigue()
    show(fatigue, 0, [5, 6], 0)
    assert tired(fatigue, 0, [5, 6], 0) == [False, False]
    show(fatigue, 0, [5, 7], 20)
    assert tired(fatigue, 0, [7, 5, 6, -1], 20) == [False, True, False, False]
    assert tired(fatigue, 1, [5], 20) == [False]


def test_the_pause_ends_and_counting_begins_anew() -> None:
    """After `rest_s` from the last time it counted."""
    fatigue = Fatigue()
    show(fatigue, 0, [5], 0)
    show(fatigue, 0, [5], 20)
    assert tired(fatigue, 0, [5], 119) == [True]
    assert tired(fatigue, 0, [5], 120) == [False]
    show(fatigue, 0, [5], 121)
    assert tired(fatigue, 0, [5], 121) == [False]
    show(fatigue, 0, [5], 140)
    assert tired(fatigue, 0, [5], 140) == [True]


def test_refreshes_within_the_spacing_count_once() -> None:
    """A list that is refreshed at every click was not seen at every click."""
    fatigue = Fatigue()
    for at_s in range(10):
        show(fatigue, 0, [5], at_s)
    assert tired(fatigue, 0, [5], 9) == [False]
    show(fatigue, 0, [5], 10)
    assert tired(fatigue, 0, [5], 10) == [True]


def test_a_reaction_ends_it() -> None:
    """Of that user to that item."""
    fatigue = Fatigue()
    for at_s in (0, 20):
        show(fatigue, 0, [5, 6], at_s)
        show(fatigue, 1, [5], at_s)
    fatigue.react(np.array([0, 9, -1], np.int32), np.array([5, 5, 5], np.int32))
    assert tired(fatigue, 0, [5, 6], 20) == [False, True]
    assert tired(fatigue, 1, [5], 20) == [True]


def test_the_items_shown_longest_ago_are_forgotten_first() -> None:
    """No user takes more than the places there are."""
    fatigue = Fatigue()
    for at_s in (0, 20):
        show(fatigue, 0, list(range(REMEMBERED)), at_s)
    show(fatigue, 0, [0], 40)
    show(fatigue, 0, list(range(100, 100 + REMEMBERED - 1)), 60)
    assert tired(fatigue, 0, list(range(REMEMBERED)), 60) == [True] + [False] * (REMEMBERED - 1)


def test_users_not_stored_are_never_tired() -> None:
    """They have no slot, or none that was shown anything."""
    fatigue = Fatigue()
    for at_s in (0, 20):
        show(fatigue, -1, [5], at_s)
    assert tired(fatigue, -1, [5], 20) == tired(fatigue, 10 * ROWS_MIN, [5], 20) == [False]


def test_columns_grow_with_the_users() -> None:
    """And keep what they hold."""
    fatigue = Fatigue()
    for at_s in (0, 20):
        show(fatigue, 0, [5], at_s)
        show(fatigue, 3 * ROWS_MIN, [6], at_s)
    assert tired(fatigue, 0, [5], 20) == tired(fatigue, 3 * ROWS_MIN, [6], 20) == [True]


def test_a_forgotten_user_leaves_nothing() -> None:
    """Also in what is saved."""
    fatigue = Fatigue()
    for at_s in (0, 20):
        show(fatigue, 1, [5], at_s)
    fatigue.forget(np.array([1, 10 * ROWS_MIN], np.int32))
    assert tired(fatigue, 1, [5], 20) == [False]
    assert (fatigue.rows(0, ROWS_MIN).items == NO_ITEM).all()


def test_what_is_saved_is_restored() -> None:
    """Copied in pieces, as far as there are rows or not; joined, rows up to the last user who was shown something."""
    fatigue = Fatigue()
    for at_s in (0, 20):
        show(fatigue, 2, [5], at_s)
    pieces = [fatigue.rows(first, first + 2) for first in (0, 2, 4, ROWS_MIN - 1, 2 * ROWS_MIN)]
    assert {len(column) for piece in pieces for column in piece} == {2}
    saved = joined(pieces)
    assert len(saved.items) == 3
    show(fatigue, 2, [9], 30)
    again = Fatigue()
    again.restore(saved)
    assert tired(again, 2, [5, 9], 20) == [True, False]
    show(again, 5, [1], 20)
    with pytest.raises(ValueError, match="expected columns of 48 places"):
        again.restore(ShownItems(saved.items[:, :3], saved.times, saved.last_s))
    assert tired(again, 2, [5], 20) == [True]
