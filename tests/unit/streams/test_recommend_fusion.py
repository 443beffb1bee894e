"""Three scores become one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from streams.recommend.fusion import TREND_FLOOR, Fused, fuse

NONE = -np.inf


def fused(
    items: list[int],
    votes: list[float],
    cosines: list[float],
    masses: list[float],
    count: int = 3,
    weights: tuple[float, float, float] = (5.0, 3.0, 2.0),
) -> Fused:
    return fuse(
        np.array([items], np.int32),
        np.array([votes]),
        np.array([cosines], np.float32),
        np.array([masses]),
        weights,
        0.5,
        count,
    )


def test_each_source_is_measured_against_its_best() -> None:
    """Half the votes are worth .25, a cosine one temperature below the best .3/e, half the popularity .1."""
    found = fused([4, 7], [2.0, 1.0], [0.4, 0.9], [10.0, 9.0])
    expected = [0.5 + 0.3 / np.e + 0.2, 0.25 + 0.3 + 0.1]
    assert found.places.tolist() == [[0, 1, -1]]
    assert_allclose(found.scores, [[*expected, 0]], rtol=1e-6)
    assert_allclose(
        found.shares[0, :2],
        [np.array([0.5, 0.3 / np.e, 0.2]) / expected[0], np.array([0.25, 0.3, 0.1]) / expected[1]],
        rtol=1e-6,
    )


def test_the_best_of_everything_scores_one() -> None:
    """A score never exceeds 1."""
    assert_allclose(fused([4], [3.0], [0.2], [5.0]).scores, [[1, 0, 0]])


def test_a_source_that_says_nothing_has_no_share() -> None:
    """No votes, and a cosine at or below 0, leave the trend alone."""
    found = fused([4, 5], [0.0, 0.0], [0.0, -0.4], [5.0, 4.0])
    assert_allclose(found.shares[0, :2], [[0, 0, 1], [0, 0, 1]])
    assert_allclose(found.scores[0, :2], [0.2, 0.1])


def test_an_item_nobody_touched_still_has_a_score() -> None:
    """It ends the list with the smallest trend part, also when nothing was ever popular."""
    assert_allclose(fused([4, 5], [0, 0], [0, 0], [5.0, NONE]).scores[0, :2], [0.2, 0.2 * TREND_FLOOR])
    assert_allclose(fused([4], [0], [0], [NONE]).scores[0, 0], 0.2 * TREND_FLOOR)


def test_equal_scores_are_ordered_by_slot_and_cut() -> None:
    """Five equal candidates in any order: the three smallest slots."""
    found = fused([9, 3, 8, 1, 5], [1.0] * 5, [0.0] * 5, [0.0] * 5)
    assert found.places.tolist() == [[3, 1, 4]]


@pytest.mark.parametrize("seed", range(5))
def test_the_list_is_that_of_a_full_sort(seed: int) -> None:
    """Padding anywhere, many candidates: the same as sorting all of them."""
    rng = np.random.default_rng(seed)
    items = rng.permutation(200)[:80]
    items[rng.random(80) < 0.3] = -1
    votes, cosines, masses = rng.random(80).round(1), rng.normal(size=80), rng.normal(size=80)
    found = fused(items.tolist(), votes.tolist(), cosines.tolist(), masses.tolist(), count=20)
    everything = fused(items.tolist(), votes.tolist(), cosines.tolist(), masses.tolist(), count=80)
    assert found.places[0].tolist() == everything.places[0, :20].tolist()
    scores = everything.scores[0][everything.places[0] >= 0]
    assert len(scores) == (items >= 0).sum()
    assert (np.diff(scores) <= 0).all()
