"""What floors propose of their groups."""

from __future__ import annotations

import numpy as np

from streams.recommend.candidates import Hidden
from streams.recommend.floor_candidates import items_wanted, nearest_of_floors, popular_of_floors

GROUPS = np.array([1, 1, 2, 3, 0, 1], np.int32)
EVERYBODY = np.ones(6, np.bool_)
NOTHING_HIDDEN = Hidden(np.zeros(3, np.int32), np.zeros(0, np.int32))


def test_so_many_are_wanted_as_reach_the_share_twice_and_two_spare_ones() -> None:
    """Whole items, and no more than a list has."""
    assert items_wanted(np.array([0.02, 0.05, 0.3, 1.0]), 20).tolist() == [3, 4, 14, 20]


def test_the_nearest_of_each_wanted_group_are_proposed_to_each_user() -> None:
    """None of another group, none that is hidden or not like the profile at all, none for a user without direction."""
    towards = np.array([0.9, 0.8, 0.7, 0.6, 1.0, -0.9], np.float32)
    vectors = np.stack([towards, np.sqrt(1 - towards**2)], axis=1)
    users, rows = np.array([[1, 0], [1, 0]], np.float32), np.array([0], np.int32)
    wanted = np.array([2, 1], np.int32)
    found = nearest_of_floors(users, rows, vectors, EVERYBODY, GROUPS, NOTHING_HIDDEN, wanted)
    assert [sorted(each[0].tolist()) for each in found] == [[0, 1], [2]]
    assert all((each[1] == -1).all() for each in found)
    hidden = Hidden(np.array([0, 2, 2], np.int32), np.array([0, 2], np.int32))
    found = nearest_of_floors(users, rows, vectors, EVERYBODY, GROUPS, hidden, wanted)
    assert [sorted(each[0].tolist()) for each in found] == [[1, 3], [3]]
    found = nearest_of_floors(users, rows, vectors, EVERYBODY, GROUPS, hidden, np.array([0, 1], np.int32))
    assert len(found) == 1, "the first floor holds"


def test_the_popular_ones_of_each_group_have_had_an_event_and_are_available() -> None:
    """Best first, a row a floor, padded where the group has no more."""
    masses = np.array([1.0, 3.0, -np.inf, 2.0, 9.0, 8.0])
    available = np.array([True, True, True, True, True, False])
    assert popular_of_floors(masses, available, GROUPS, 2, 4).tolist() == [[1, 3, 0, -1], [3, -1, -1, -1]]
