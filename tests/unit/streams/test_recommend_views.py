"""What is learned from everybody: the same whoever tells it, and in whatever portions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streams.recommend.cooccurrence import Entered
from streams.recommend.views import Views

NOW_S, HALF_LIVES_S, ITEMS, RECENT, WINDOW = 1_700_000_000.0, (3600.0, 86_400.0, 864_000.0), 20, 16, 5


def categories() -> np.ndarray:
    """Of each item one or two, of every fourth none."""
    found = np.full((ITEMS, 4), -1, np.int32)
    found[:, 0] = np.arange(ITEMS) % 3
    found[::5, 1] = 3
    found[::4] = -1
    return found


def history(rng: np.random.Generator) -> list[tuple[int, float, float]]:
    """Items, weights and times of one user."""
    return [(int(rng.integers(0, ITEMS)), float(rng.choice([1.0, 3.0])), NOW_S + 600.0 * n) for n in range(RECENT)]


def entered(histories: list[list[tuple[int, float, float]]], fresh: list[int]) -> Entered:
    """Histories of which the newest are new."""
    counts = np.array([len(each) for each in histories], np.int32)
    padded = np.array([each + [(-1, 0.0, 0.0)] * (RECENT - len(each)) for each in histories]).reshape(-1, RECENT, 3)
    return Entered(
        padded[:, :, 0].astype(np.int32),
        padded[:, :, 1].astype(np.float32),
        padded[:, :, 2],
        counts,
        np.array(fresh, np.int32),
    )


def told(portion: int, users: int = 5) -> Views:
    """Views after the histories of some users, told in portions of so many events a user."""
    views, histories = Views(HALF_LIVES_S), [history(np.random.default_rng(user)) for user in range(users)]
    for end in range(portion, RECENT + portion, portion):
        so_far = [each[:end] for each in histories]
        fresh = [min(end, RECENT) - (end - portion)] * users
        views.fold(entered(so_far, fresh), categories())
    return views


@pytest.mark.parametrize("portion", [2, 5, RECENT])
def test_portions_do_not_matter(portion: int) -> None:
    """Event by event, some at a time, or each history at once."""
    one, other = told(1), told(portion)
    for trend, same in zip(one.trends, other.trends, strict=True):
        assert_allclose(same.masses(ITEMS), trend.masses(ITEMS), rtol=1e-12)
    recent = np.arange(WINDOW, dtype=np.int32)[None]
    asked = (recent, np.array([WINDOW], np.int32), np.arange(ITEMS, dtype=np.int32)[None])
    assert (one.together.score(*asked)[0] > 0).sum() > ITEMS / 2
    assert_allclose(other.together.score(*asked)[0], one.together.score(*asked)[0], rtol=1e-5)
    for mine_, others_ in zip(one.by_category.tops, other.by_category.tops, strict=True):
        if mine_.ndim == 1:
            assert_allclose(others_, mine_, rtol=1e-12)
        else:
            assert_array_equal(np.sort(others_, axis=1), np.sort(mine_, axis=1))


def test_only_what_is_new_counts() -> None:
    """The older places of a history were counted when they were new; a fresh count of 0 is nothing."""
    views = Views(HALF_LIVES_S)
    events = [(0, 1.0, NOW_S), (1, 1.0, NOW_S), (2, 2.0, NOW_S)]
    views.fold(entered([events, events], [1, 0]), categories())
    assert np.flatnonzero(np.isfinite(views.trends[0].masses(ITEMS))).tolist() == [2]
    assert views.by_category.tops.counts[:4].tolist() == [0, 0, 1, 0]
    worth, _ = views.together.score(
        np.array([[0, 1]], np.int32), np.array([2], np.int32), np.array([[0, 1, 2]], np.int32)
    )
    assert (worth[0] > 0).tolist() == [False, False, True]


def test_what_wakes_up_rises_before_what_always_was() -> None:
    """Equally popular of late; the one that also was long ago rises less, and what never was does not at all."""
    views = Views(HALF_LIVES_S)
    old = [(0, 8.0, NOW_S - 400_000.0)]
    views.fold(entered([old, [(0, 1.0, NOW_S)], [(1, 1.0, NOW_S)]], [1, 1, 1]), categories())
    rising = views.rising(3)
    assert rising[1] > rising[0] > rising[2] == -np.inf


def test_the_middle_trend_ranks_categories() -> None:
    """Neither the hour's hit nor what was popular all year."""
    assert Views(HALF_LIVES_S).category_trend.half_life_s == HALF_LIVES_S[1]


def test_saved_columns_are_copies_that_come_back() -> None:
    """Later events do not reach them; restored, they go on as the views of before."""
    views = told(1)
    saved = views.columns(ITEMS)
    again = Views(HALF_LIVES_S)
    again.restore(saved)
    again.categorise(np.arange(ITEMS, dtype=np.int32), categories())
    late = entered([[(3, 1.0, NOW_S), (7, 1.0, NOW_S + 9e6)]], [2])
    views.fold(late, categories())
    assert any((saved[name] != column).any() for name, column in views.columns(ITEMS).items())
    again.fold(late, categories())
    for name, column in again.columns(ITEMS).items():
        assert_array_equal(column, views.columns(ITEMS)[name], err_msg=name)
    assert_allclose(again.by_category.tops.totals, views.by_category.tops.totals, rtol=1e-12)
    assert_array_equal(again.by_category.tops.counts, views.by_category.tops.counts)


def test_a_missing_column_is_an_error() -> None:
    """Views of other half-lives cannot be taken over."""
    with pytest.raises(KeyError, match="trend/60"):
        Views([60.0, 120.0]).restore(told(1).columns(ITEMS))


def test_warming_up_leaves_no_trace() -> None:
    """It compiles, and counts nothing."""
    views = Views(HALF_LIVES_S)
    views.warm_up()
    for name, column in views.columns(ITEMS).items():
        assert_array_equal(column, Views(HALF_LIVES_S).columns(ITEMS)[name], err_msg=name)
