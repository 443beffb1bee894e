"""Decayed popularity."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streams.recommend.trend import Trend

DAY_S = 86_400.0
NOW_S = 1_700_000_000.0


def folded(*events: tuple[int, float, float], half_life_s: float = DAY_S) -> Trend:
    trend = Trend(half_life_s)
    items, weights, times_s = zip(*events, strict=True)
    trend.fold(np.array(items, np.int32), np.array(weights, np.float32), np.array(times_s))
    return trend


def test_an_event_counts_half_after_the_half_life() -> None:
    """Weight 4, one half-life ago, is popularity 2; an item without events has 0."""
    trend = folded((3, 4.0, NOW_S - DAY_S))
    assert_allclose(trend.scores(NOW_S, np.array([3, 0], np.int32)), [2.0, 0.0], rtol=1e-9)


def test_events_of_one_item_add_up_with_their_own_ages() -> None:
    """Now and two half-lives ago: 1 + 1/4."""
    trend = folded((0, 1.0, NOW_S), (0, 1.0, NOW_S - 2 * DAY_S))
    assert_allclose(trend.scores(NOW_S)[0], 1.25, rtol=1e-9)


def test_a_late_event_counts_what_it_would_have_counted_in_time() -> None:
    """The order of arrival does not matter."""
    events = [(0, 2.0, NOW_S), (0, 3.0, NOW_S - DAY_S), (0, 1.0, NOW_S - 3 * DAY_S)]
    assert_allclose(folded(*events).scores(NOW_S)[0], folded(*events[::-1]).scores(NOW_S)[0], rtol=1e-9)
    assert_allclose(folded(*events).scores(NOW_S)[0], 2 + 1.5 + 0.125, rtol=1e-9)


def test_only_positive_weights_count() -> None:
    """A dislike, or an impression without weight, makes nothing popular."""
    assert_array_equal(folded((0, -3.0, NOW_S), (1, 0.0, NOW_S)).scores(NOW_S)[:2], [0.0, 0.0])


def test_years_of_a_short_half_life_do_not_overflow() -> None:
    """Two events ten years apart at a half-life of a minute: the old one fades, the new one counts."""
    ten_years_s = 3.2e8
    trend = folded((0, 1.0, NOW_S), (0, 1.0, NOW_S + ten_years_s), (1, 1.0, NOW_S), half_life_s=60.0)
    assert_allclose(trend.scores(NOW_S + ten_years_s)[:2], [1.0, 0.0], rtol=1e-6)


def test_top_orders_by_popularity_and_equals_by_slot() -> None:
    """The most popular first; of equals, and of items without events, the smaller slot first."""
    trend = folded((4, 1.0, NOW_S), (2, 1.0, NOW_S), (5, 9.0, NOW_S - DAY_S))
    everything = np.ones(7, np.bool_)
    assert trend.top(7, everything).tolist() == [5, 2, 4, 0, 1, 3, 6]
    for n in range(1, 8):
        assert trend.top(n, everything).tolist() == [5, 2, 4, 0, 1, 3, 6][:n]


def test_top_leaves_out_what_may_not_be_shown() -> None:
    """Only slots among the given ones come back."""
    trend = folded((0, 5.0, NOW_S), (1, 1.0, NOW_S))
    assert trend.top(3, np.array([False, True, True])).tolist() == [1, 2]


def test_it_grows_with_the_catalogue() -> None:
    """A slot far beyond the first rows is counted, and what was known stays."""
    trend = folded((1, 1.0, NOW_S))
    trend.fold(np.array([50_000], np.int32), np.array([2.0], np.float32), np.array([NOW_S]))
    assert_allclose(trend.scores(NOW_S, np.array([1, 50_000], np.int32)), [1.0, 2.0], rtol=1e-9)
    assert trend.masses(200_000).shape == (200_000,)


@pytest.mark.parametrize(("item", "weight", "time_s"), [(-1, 1.0, NOW_S), (0, np.nan, NOW_S), (0, 1.0, np.inf)])
def test_events_that_cannot_count_are_refused_whole(item: int, weight: float, time_s: float) -> None:
    """A negative slot or a number that is not finite: an error, and nothing was counted."""
    trend = Trend(DAY_S)
    with pytest.raises(ValueError, match="slots >= 0"):
        trend.fold(np.array([0, item], np.int32), np.array([1, weight], np.float32), np.array([NOW_S, time_s]))
    assert not trend.scores(NOW_S).any()


def test_a_half_life_must_be_positive() -> None:
    """Zero seconds is refused with the number that came."""
    with pytest.raises(ValueError, match=r"above 0 seconds, got 0"):
        Trend(0)


def test_an_empty_fold_changes_nothing() -> None:
    """No events, as at a warm-up."""
    trend = folded((1, 1.0, NOW_S))
    trend.fold(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.float64))
    assert_allclose(trend.scores(NOW_S)[:3], [0.0, 1.0, 0.0], rtol=1e-9)
