"""The window of published lists that floors are measured by."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose

from streams.recommend.exposure import ExposureWindow


def lists(*exposures: tuple[float, float]) -> np.ndarray:
    """Exposure of one group and of all, list by list."""
    return np.array(exposures)


def test_shares_are_of_the_last_lists() -> None:
    """Older ones make room, in whatever portions they come."""
    window = ExposureWindow(1, 3)
    assert window.shares().tolist() == [0]
    window.record(lists((1, 2)))
    assert_allclose(window.shares(), [0.5])
    window.record(lists((0, 2), (0, 4)))
    assert_allclose(window.shares(), [1 / 8])
    window.record(lists((2, 2)))
    assert_allclose(window.shares(), [2 / 8])
    window.record(lists(*[(9, 9)] * 5, (1, 2), (1, 2), (0, 2)))
    assert_allclose(window.shares(), [1 / 3])


def test_the_least_share_is_what_lists_without_the_group_leave_of_it() -> None:
    """The oldest make room for them; a window that is not full yet keeps all that it has."""
    window = ExposureWindow(1, 3)
    assert_allclose(window.least_shares(1, 2.0), [0])
    window.record(lists((1, 2), (0, 2)))
    assert_allclose(window.least_shares(1, 2.0), [1 / 6])
    assert_allclose(window.least_shares(2, 2.0), [0 / 6])
    window.record(lists((2, 2), (1, 2)))  # the first one is gone
    assert_allclose(window.least_shares(0, 2.0), [3 / 6])
    assert_allclose(window.least_shares(1, 2.0), [3 / 6])
    assert_allclose(window.least_shares(2, 2.0), [1 / 6])
    assert_allclose(window.least_shares(9, 2.0), [0])


def test_empty_lists_are_none() -> None:
    """They show nothing and push nothing out."""
    window = ExposureWindow(1, 2)
    window.record(lists((1, 2), (0, 0), (1, 2)))
    window.record(lists((0, 0)))
    assert_allclose(window.shares(), [0.5])
    assert window.state().held == 2


def test_a_copy_leaves_the_window_as_it_is() -> None:
    """What is tried out before the commit may come to nothing."""
    window = ExposureWindow(1, 2)
    window.record(lists((1, 2)))
    state = window.state()
    state.window[:] = 7
    state.totals[:] = 7
    assert_allclose(window.shares(), [0.5])
    assert (state.head, state.held) == (1, 1)


def test_what_is_saved_is_recorded_again_in_its_order() -> None:
    """Also into a shorter window, which then holds the last ones."""
    window = ExposureWindow(1, 3)
    window.record(lists((1, 1), (2, 2), (3, 3), (4, 4)))
    assert window.saved()[:, 0].tolist() == [2, 3, 4]
    shorter = ExposureWindow(1, 2)
    shorter.record(window.saved())
    assert shorter.saved()[:, 0].tolist() == [3, 4]
