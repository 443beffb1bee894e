"""Overlap@k of the lists of a sample of users, before and after another model takes over."""

from __future__ import annotations

import numpy as np
import pytest

from streams.recommend.list_overlap import USERS_PER_SLICE, ListComparison, overlap_at_k, sample_users
from streams.recommend.next_model import NextModel
from tests.fakes_core import contents, event, learned, world
from tests.fakes_model import lived, trained


def lists(*rows: list[int]) -> np.ndarray:
    """Slots as a matrix."""
    return np.array(rows, np.int32)


def test_the_share_is_of_places_in_the_longer_list() -> None:
    """The order does not matter, empty places are none, and two empty lists have no overlap at all."""
    first = lists([1, 2, 3, 4], [1, 2, -1, -1], [-1, -1, -1, -1], [5, 6, 7, 8], [5, -1, -1, -1])
    second = lists([4, 9, 1, 8], [2, 3, 4, -1], [-1, -1, -1, -1], [1, 2, 3, 4], [-1, -1, -1, -1])
    found = overlap_at_k(first, second)
    assert found[[0, 1, 3, 4]] == pytest.approx([2 / 4, 1 / 3, 0.0, 0.0])
    assert np.isnan(found[2])


def test_the_sample_is_spread_bounded_and_always_the_same() -> None:
    """Nobody who was forgotten is in it."""
    found = lived(50)
    found.engine.forget(["u0", "u49"])
    drawn = sample_users(found.store, 10).tolist()
    assert drawn == sample_users(found.store, 10).tolist()
    assert len(drawn) <= 10
    assert max(np.diff(drawn)) <= 6
    everybody = {found.store.user_ids[slot] for slot in sample_users(found.store, 1000).tolist()}
    assert everybody == {f"u{n}" for n in range(1, 49)}


def test_without_another_model_all_stays_the_same_and_nothing_moves() -> None:
    """Making the lists changes neither profiles nor what was learned; a few users at a time."""
    found = lived(40)
    before, views = contents(found), learned(found)
    comparison = ListComparison(found.engine)
    calls = 0
    while comparison.before():
        calls += 1
    assert calls == -(-40 // USERS_PER_SLICE)
    while comparison.after():
        pass
    overlap = comparison.overlap()
    assert (overlap.neighbours, overlap.items, overlap.users) == (1.0, 1.0, 40)
    assert contents(found) == before
    assert learned(found) == views


def test_another_model_gives_other_neighbours() -> None:
    """Else the figure would say nothing. Histories are drawn, so that no two users are equally near."""
    found = world()
    drawn = np.random.default_rng(3).integers(0, 12, (40, 6))
    found.feed([event(f"u{user}", f"i{drawn[user, n]}", at_s=n) for user in range(40) for n in range(6)])
    comparison = ListComparison(found.engine)
    while comparison.before():
        pass
    NextModel(found.engine, trained()).switch_at_once()
    while comparison.after():
        pass
    overlap = comparison.overlap()
    assert overlap.neighbours is not None
    assert 0 < overlap.neighbours < 1


def test_who_moved_or_left_between_the_two_does_not_count() -> None:
    """Their lists changed for another reason."""
    found = lived(20)
    comparison = ListComparison(found.engine)
    while comparison.before():
        pass
    found.feed([event("u3", "i1", at_s=900), event("new", "i2", at_s=900)], 900)
    found.engine.forget(["u5"])
    while comparison.after():
        pass
    assert comparison.overlap().users == 18


def test_nobody_is_nothing() -> None:
    """An empty store has no figures, and asks for no list."""
    comparison = ListComparison(world().engine)
    assert not comparison.before()
    assert not comparison.after()
    overlap = comparison.overlap()
    assert (overlap.users, overlap.neighbours, overlap.items) == (0, None, None)
