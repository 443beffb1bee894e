"""Popularity by group of people."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streams.recommend.candidates import Hidden
from streams.recommend.cold_start import BUCKET, GroupTrend
from streams.recommend.cooccurrence import Entered

DAY_S = 86_400.0
NOW_S = 1_700_000_000.0
STUDENTS, GARDENERS, CROWD = 11, 23, 35
EVERYTHING = np.ones(50, np.bool_)


def folded(trend: GroupTrend, *events: tuple[list[int], int, float, float]) -> GroupTrend:
    """Events are (groups, item, weight, time)."""
    groups, items, weights, times_s = zip(*events, strict=True)
    trend.fold(np.array(groups, np.int32), np.array(items, np.int32), np.array(weights, np.float32), np.array(times_s))
    return trend


def codes(*users: list[int]) -> np.ndarray:
    return np.array(users, np.int32)


def test_users_get_what_their_group_turns_to() -> None:
    """Students read 1 and then 2, gardeners read 3; each gets the items of the own group, best first."""
    trend = folded(
        GroupTrend(),
        ([STUDENTS], 1, 2.0, NOW_S),
        ([STUDENTS], 2, 1.0, NOW_S),
        ([GARDENERS], 3, 1.0, NOW_S),
    )
    found = trend.propose(codes([STUDENTS], [GARDENERS]), EVERYTHING, 3)
    assert found.items.tolist() == [[1, 2, -1], [3, -1, -1]]
    assert_allclose(found.scores, [[2 / 3, 1 / 3, 0], [1, 0, 0]], rtol=1e-6)


def test_a_user_without_groups_or_of_unknown_ones_gets_nothing() -> None:
    """No token, and a token that nobody had before."""
    trend = folded(GroupTrend(), ([STUDENTS], 1, 1.0, NOW_S))
    found = trend.propose(codes([-1], [GARDENERS]), EVERYTHING, 2)
    assert_array_equal(found.items, np.full((2, 2), -1))
    assert_array_equal(found.scores, np.zeros((2, 2)))


def test_a_share_is_what_is_left_of_each_event_now() -> None:
    """Of two events a half-life apart the newer is worth two thirds of the group."""
    trend = folded(GroupTrend(DAY_S), ([STUDENTS], 1, 1.0, NOW_S - DAY_S), ([STUDENTS], 2, 1.0, NOW_S))
    found = trend.propose(codes([STUDENTS]), EVERYTHING, 2)
    assert found.items.tolist() == [[2, 1]]
    assert_allclose(found.scores, [[2 / 3, 1 / 3]], rtol=1e-6)


def test_the_order_of_arrival_does_not_matter() -> None:
    """A late event counts what it would have counted in time."""
    events = [([STUDENTS], item, 1.0 + item, NOW_S - item * DAY_S) for item in range(5)]
    asked = codes([STUDENTS]), np.arange(5, dtype=np.int32)[None]
    in_time, _ = folded(GroupTrend(DAY_S), *events).score(*asked)
    late, _ = folded(GroupTrend(DAY_S), *events[::-1]).score(*asked)
    assert_allclose(late, in_time, rtol=1e-6)


def test_a_large_group_says_more_than_a_handful_of_people() -> None:
    """One gardener's item against the item of a crowd, for a user of both groups."""
    events = [([GARDENERS], 3, 1.0, NOW_S)] + [([CROWD], 4, 1.0, NOW_S)] * 200
    trend = folded(GroupTrend(smoothing=20.0), *events)
    found = trend.propose(codes([GARDENERS, CROWD]), EVERYTHING, 2)
    assert found.items.tolist() == [[4, 3]]
    crowd, few = 200 / 220, 1 / 21
    assert_allclose(found.scores, [[crowd / (crowd + few), few / (crowd + few)]], rtol=1e-5)


def test_the_reason_is_the_group_that_says_most() -> None:
    """Both groups know item 1, the students more of it; item 9 is nobody's."""
    trend = folded(
        GroupTrend(),
        ([STUDENTS], 1, 9.0, NOW_S),
        ([GARDENERS], 1, 1.0, NOW_S),
        ([GARDENERS], 2, 8.0, NOW_S),
    )
    worth, because = trend.score(codes([GARDENERS, STUDENTS]), np.array([[1, 9, 2, -1]], np.int32))
    assert because.tolist() == [[STUDENTS, -1, GARDENERS, -1]]
    assert worth[0, 0] > worth[0, 2] > worth[0, 1] == worth[0, 3] == 0


def test_proposals_are_available_and_not_hidden() -> None:
    """The best item is gone, the next one seen by the first user only."""
    trend = folded(GroupTrend(), *(([STUDENTS], item, 9.0 - item, NOW_S) for item in range(4)))
    available = EVERYTHING.copy()
    available[0] = False
    hidden = Hidden(np.array([0, 1, 1], np.int32), np.array([1], np.int32))
    found = trend.propose(codes([STUDENTS], [STUDENTS]), available, 2, hidden)
    assert found.items.tolist() == [[2, 3], [1, 2]]


def test_only_positive_weights_count() -> None:
    """A dislike makes nothing popular."""
    trend = folded(GroupTrend(), ([STUDENTS], 1, -1.0, NOW_S), ([STUDENTS], 2, 0.0, NOW_S))
    assert trend.propose(codes([STUDENTS]), EVERYTHING, 1).items.tolist() == [[-1]]


def test_frequent_items_survive_a_flood_of_rare_ones_and_none_is_overstated() -> None:
    """Of 8 places, 3,000 events of 3 frequent and 1,000 rare items: the frequent are kept, told at most as they are."""
    rng = np.random.default_rng(7)
    items = np.where(rng.random(3000) < 0.6, rng.integers(0, 3, 3000), rng.integers(3, 1003, 3000)).astype(np.int32)
    trend = GroupTrend(1e9, items=8)
    trend.fold(np.full((3000, 1), STUDENTS, np.int32), items, np.ones(3000, np.float32), np.full(3000, NOW_S))
    everything = np.ones(1003, np.bool_)
    found = trend.propose(codes([STUDENTS]), everything, 3)
    assert sorted(found.items[0].tolist()) == [0, 1, 2]
    worth, _ = trend.score(codes([STUDENTS]), np.arange(1003, dtype=np.int32)[None])
    truth = np.bincount(items, minlength=1003) / 3000
    assert (worth[0] <= truth + 1e-6).all()
    assert_allclose(worth[0, :3], truth[:3], atol=0.02)


def test_large_groups_survive_a_flood_of_groups_of_one() -> None:
    """16 rows: two real groups stay through 2,000 made-up ones."""
    trend = GroupTrend(groups=2 * BUCKET, items=4)
    for first in range(0, 2000, 100):
        folded(trend, *(([group, group], 1, 1.0, NOW_S) for group in [STUDENTS] * 9 + [GARDENERS] * 9))
        folded(trend, *(([100 + first + n, -1], 2, 1.0, NOW_S) for n in range(100)))
    found = trend.propose(codes([STUDENTS], [GARDENERS]), EVERYTHING, 1)
    assert found.items.tolist() == [[1], [1]]
    assert len(trend.rows.codes) == 2 * BUCKET


def test_it_agrees_with_counting_everything() -> None:
    """500 random events against plain sums (seed 3), as long as nothing has to leave."""
    rng = np.random.default_rng(3)
    groups = np.array([rng.choice(6, 3, replace=False) for _ in range(500)], np.int32)
    groups[rng.random((500, 3)) < 0.3] = -1
    items, weights = rng.integers(0, 40, 500).astype(np.int32), rng.random(500).astype(np.float32)
    times_s = NOW_S - rng.random(500) * 10 * DAY_S
    trend = GroupTrend(3 * DAY_S)
    for part in np.array_split(np.arange(500), 7):
        trend.fold(groups[part], items[part], weights[part], times_s[part])
    latest_s = times_s.max()
    mass, total = defaultdict(float), defaultdict(float)
    for row, item, weight, time_s in zip(groups.tolist(), items.tolist(), weights, times_s, strict=True):
        for group in row:
            mass[group, item] += weight * 2 ** ((time_s - latest_s) / (3 * DAY_S))
            total[group] += weight * 2 ** ((time_s - latest_s) / (3 * DAY_S))
    asked = codes([0, 4, -1], [5, 1, 2])
    worth, _ = trend.score(asked, np.tile(np.arange(40, dtype=np.int32), (2, 1)))
    for row, user in enumerate(asked.tolist()):
        confidence = {group: total[group] / (total[group] + 20) for group in user if group >= 0}
        expected = [
            sum(part * mass[group, item] / total[group] for group, part in confidence.items())
            / sum(confidence.values())
            for item in range(40)
        ]
        assert_allclose(worth[row], expected, rtol=1e-5, atol=1e-7)


def test_only_the_newest_items_of_histories_with_groups_are_folded() -> None:
    """Of three histories: one grew by 1 of 2 items, one by 2, one belongs to nobody's group."""
    entered = Entered(
        items=np.array([[1, 2], [3, 4], [5, 6]], np.int32),
        weights=np.ones((3, 2), np.float32),
        times_s=np.full((3, 2), NOW_S),
        counts=np.array([2, 2, 2], np.int32),
        fresh=np.array([1, 2, 2], np.int32),
    )
    trend = GroupTrend()
    trend.fold_entered(codes([STUDENTS, -1], [GARDENERS, STUDENTS], [-1, -1]), entered)
    worth, _ = trend.score(codes([STUDENTS], [GARDENERS]), np.tile(np.arange(7, dtype=np.int32), (2, 1)))
    assert np.flatnonzero(worth[0]).tolist() == [2, 3, 4]
    assert np.flatnonzero(worth[1]).tolist() == [3, 4]


def test_saved_arrays_bring_it_back() -> None:
    """The restored one answers alike, and goes on alike; other sizes are refused."""
    first, second = GroupTrend(groups=16, items=4), GroupTrend(groups=16, items=4)
    folded(first, *(([STUDENTS, GARDENERS], item % 7, 1.0, NOW_S + item) for item in range(30)))
    saved = first.columns()
    second.restore(saved)
    for trend in (first, second):
        folded(trend, ([STUDENTS, GARDENERS], 6, 5.0, NOW_S + 99))
    asked = codes([STUDENTS, GARDENERS]), np.arange(7, dtype=np.int32)[None]
    assert_array_equal(first.score(*asked)[0], second.score(*asked)[0])
    assert saved["totals"].max() < second.rows.totals.max()  # what was saved is a copy
    with pytest.raises(ValueError, match=r"expected codes of the shape \(1024,\), got \(16,\)"):
        GroupTrend().restore(saved)


def test_a_forgotten_group_leaves_nothing() -> None:
    """The others stay."""
    trend = folded(GroupTrend(), ([STUDENTS], 1, 1.0, NOW_S), ([GARDENERS], 2, 1.0, NOW_S))
    trend.forget(np.array([STUDENTS, -1], np.int32))
    found = trend.propose(codes([STUDENTS], [GARDENERS]), EVERYTHING, 1)
    assert found.items.tolist() == [[-1], [2]]
    assert STUDENTS not in trend.rows.codes


@pytest.mark.parametrize("fault", ["slot", "weight", "time"])
def test_an_event_that_is_no_event_counts_nothing_at_all(fault: str) -> None:
    """Neither does the sound one beside it."""
    trend = GroupTrend()
    items = np.array([1, -1 if fault == "slot" else 2], np.int32)
    weights = np.array([1, np.nan if fault == "weight" else 1], np.float32)
    times_s = np.array([NOW_S, np.inf if fault == "time" else NOW_S])
    with pytest.raises(ValueError, match="finite"):
        trend.fold(codes([STUDENTS], [STUDENTS]), items, weights, times_s)
    assert (trend.rows.codes == -1).all()


@pytest.mark.parametrize("sizes", [{"half_life_s": 0.0}, {"smoothing": 0.0}, {"groups": 0}, {"items": 0}])
def test_sizes_out_of_range_are_refused(sizes: dict[str, float]) -> None:
    """With the numbers that came."""
    with pytest.raises(ValueError, match="got"):
        GroupTrend(**sizes)
