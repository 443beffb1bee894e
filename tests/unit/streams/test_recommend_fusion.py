"""Many opinions become one score, and weights learn from what came."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streams.recommend.fusion import (
    HISTORY_SEGMENTS,
    LOG_RANGE,
    MISSED,
    TYPE_SEGMENTS,
    Fused,
    FusionConfig,
    FusionWeights,
    Lessons,
    Reserved,
    Segments,
    fuse,
    learn,
    source_ranks,
)

NEWCOMER = Segments(np.zeros(1, np.int32), np.zeros(1, np.uint8))


def weights_of(pairs: list[tuple[float, float]]) -> FusionWeights:
    """The shared part; the segments add nothing."""
    return FusionWeights.start(len(pairs), 1.0)._replace(shared=np.array(pairs, float))


def opinions(*columns: list[float]) -> np.ndarray:
    """(1, c, S) of one user, a list a source."""
    return np.array(columns, np.float32).T[None].copy()


def fused(
    items: list[int], worth: np.ndarray, weights: FusionWeights, count: int = 3, reserved: Reserved | None = None
) -> Fused:
    return fuse(np.array([items], np.int32), worth, weights, NEWCOMER, count, reserved)


def taught(
    items: list[int], worth: np.ndarray, target: int, weights: FusionWeights, config: FusionConfig | None = None
) -> Lessons:
    targets = np.array([target], np.int32)
    return learn(np.array([items], np.int32), worth, targets, weights, NEWCOMER, config or FusionConfig())


def test_an_opinion_counts_by_its_share_of_the_best_and_by_its_logarithm() -> None:
    """Half of the best is a = .5 and l = 1 - ln 2 / 6; a factor of exp(6) or more below it, l is 0."""
    found = fused([4, 7, 8], opinions([2.0, 1.0, 2 * np.exp(-7)]), weights_of([(3.0, 1.0)]))
    expected = [3 + 1, 3 / 2 + 1 - np.log(2) / LOG_RANGE, 3 * np.exp(-7)]
    assert found.places.tolist() == [[0, 1, 2]]
    assert_allclose(found.scores[0], np.array(expected) / 4, rtol=1e-5)


def test_a_score_is_the_sum_of_its_parts() -> None:
    """Each source's share is what it says times its weights; who says nothing has none."""
    worth = opinions([1.0, 0.5, 0.0], [0.0, 4.0, 2.0], [0.0, 0.0, 0.0])
    found = fused([1, 2, 3], worth, weights_of([(2.0, 0.0), (1.0, 0.0), (5.0, 0.0)]))
    assert found.places.tolist() == [[0, 1, 2]]
    assert_allclose(found.scores[0], np.array([2.0, 1.0 + 1.0, 0.5]) / 8)
    assert_allclose(found.shares[0], [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0]])


def test_an_item_that_nobody_knows_ends_the_list() -> None:
    """It has the smallest score and all of its shares from the last source, the trend of everybody."""
    found = fused([5, 3, 4], opinions([0.0, 0.0, 1.0], [0.0, 0.0, 0.0]), weights_of([(1.0, 0.0), (1.0, 0.0)]))
    assert found.places.tolist() == [[2, 1, 0]]
    assert_allclose(found.scores[0], [0.5, 1e-6, 1e-6])
    assert_allclose(found.shares[0], [[1, 0], [0, 1], [0, 1]])


def test_whom_no_weight_hears_is_still_named_by_the_source_that_says_most() -> None:
    """The reason is true, though the source counts nothing: no item is called trending by a trend that is silent."""
    worth = opinions([0.0, 1.0, 0.5], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0])
    found = fused([1, 2, 3], worth, weights_of([(0.0, 0.0)] * 3))
    assert found.places.tolist() == [[0, 1, 2]]
    assert_allclose(found.shares[0], [[0, 1, 0], [1, 0, 0], [0, 1, 0]])


def test_reserved_places_go_to_the_best_of_a_group_behind_the_best_of_all() -> None:
    """Two of group 0 and one of group 1 are missing; who is of both counts for both; nobody comes twice."""
    worth = opinions([9.0, 8.0, 7.0, 6.0, 5.0, 4.0])
    reserved = Reserved(np.array([[1, 0, 0, 1, 3, 1]], np.int32), np.array([3, 1], np.int32))
    found = fused(list(range(6)), worth, weights_of([(1.0, 0.0)]), 2, reserved)
    assert found.places.tolist() == [[0, 1, 3, 4, -1, -1]]
    assert (np.diff(found.scores[0]) < 0)[:3].all()
    assert_allclose(found.shares[0, :4], 1)


def test_what_is_among_the_best_needs_no_place_of_its_own() -> None:
    """A group that has enough of its candidates among the best changes nothing; padding is nobody's candidate."""
    worth = opinions([9.0, 8.0, 7.0, 6.0])
    enough = Reserved(np.array([[1, 0, 1, 1]], np.int32), np.array([1], np.int32))
    assert fused([0, 1, 2, -1], worth, weights_of([(1.0, 0.0)]), 2, enough).places.tolist() == [[0, 1, -1]]
    more = enough._replace(least=np.array([3], np.int32))
    assert fused([0, 1, 2, -1], worth, weights_of([(1.0, 0.0)]), 2, more).places.tolist() == [[0, 1, 2, -1, -1]]


def test_weights_of_zero_make_a_list_all_the_same() -> None:
    """By slot, with scores above 0."""
    found = fused([9, 3], opinions([1.0, 2.0]), weights_of([(0.0, 0.0)]))
    assert found.places.tolist() == [[1, 0, -1]]
    assert_allclose(found.scores[0], [1e-6, 1e-6, 0])


def test_equal_scores_are_ordered_by_slot_and_cut() -> None:
    """Five equal candidates in any order: the three smallest slots; padding is nobody."""
    found = fused([9, -1, 3, 8, 1, 5], opinions([1.0, 9.0, 1.0, 1.0, 1.0, 1.0]), weights_of([(1.0, 0.0)]))
    assert found.places.tolist() == [[4, 2, 5]]


def test_weights_are_those_of_the_users_segments() -> None:
    """What the history and the last type add counts for their users alone, and never below 0."""
    weights = weights_of([(1.0, 0.0), (1.0, 0.0)])
    weights.by_history[2, 0, 0] = 1.0
    weights.by_type[7, 1, 0] = -9.0
    segments = Segments(np.array([0, 2, 0], np.int32), np.array([0, 0, 7], np.uint8))
    worth = np.repeat(opinions([1.0, 0.0], [0.0, 1.0]), 3, axis=0)
    found = fuse(np.array([[1, 2]] * 3, np.int32), worth, weights, segments, 2)
    assert_allclose(found.scores, [[0.5, 0.5], [2 / 3, 1 / 3], [1.0, 1e-6]])


@pytest.mark.parametrize(
    ("events", "segment"), [(0, 0), (2, 0), (3, 1), (9, 1), (10, 2), (49, 2), (50, 3), (10**12, 3)]
)
def test_histories_are_told_apart_by_their_length(events: int, segment: int) -> None:
    """Newcomers, short, long and very long ones."""
    found = Segments.of(np.array([events]), np.array([255], np.uint8))
    assert found.history.tolist() == [segment]
    assert segment < HISTORY_SEGMENTS


def test_all_sources_start_alike() -> None:
    """The sum is spread evenly over the plain shares; logarithms and segments start at 0."""
    weights = FusionWeights.start(4, 8.0)
    assert_array_equal(weights.shared, [[2, 0]] * 4)
    assert weights.by_history.shape == (HISTORY_SEGMENTS, 4, 2)
    assert weights.by_type.shape == (TYPE_SEGMENTS, 4, 2)
    assert not weights.by_history.any()
    assert not weights.by_type.any()


def test_weights_go_by_the_names_of_their_sources() -> None:
    """In another order, one gone, one new: that one begins with 0 in every part, the others are as they were."""
    rng = np.random.default_rng(1)
    weights = FusionWeights(*(rng.uniform(1, 9, part.shape) for part in FusionWeights.start(3, 8.0)))
    found = weights.for_sources(["profile", "gone", "trend"], ["trend", "new", "profile"])
    for mine, before in zip(found, weights, strict=True):
        assert_array_equal(mine[..., 0, :], before[..., 2, :])
        assert_array_equal(mine[..., 2, :], before[..., 0, :])
        assert not mine[..., 1, :].any()
        assert mine.shape == before.shape
    for mine, same in zip(weights.for_sources("abc", "abc"), weights, strict=True):
        assert_array_equal(mine, same)
        assert mine is not same


def test_weights_of_strangers_are_refused() -> None:
    """Nothing can be said of sources none of which was known, nor of weights that are not of these names."""
    weights = FusionWeights.start(2, 8.0)
    with pytest.raises(ValueError, match=r"some of the sources \['new'\], got those of \['a', 'b'\]"):
        weights.for_sources(["a", "b"], ["new"])
    with pytest.raises(ValueError, match="expected weights of 3 sources, got those of 2"):
        weights.for_sources(["a", "b", "c"], ["a"])


def test_a_source_without_weight_rises_with_the_first_lesson_that_it_foretold() -> None:
    """Its gradient does not depend on where it begins, so that 0 is no trap."""
    worth = opinions([1.0, 1.0], [0.2, 1.0])
    found = taught([4, 7], worth, 7, weights_of([(4.0, 0.0), (0.0, 0.0)]))
    assert (found.weights.shared[1] > 0).all()
    assert_array_equal(found.weights.shared[0], [4.0, 0.0])


def test_a_lesson_raises_the_chance_of_what_came() -> None:
    """And leaves the weights that were handed in as they are."""
    weights, worth = weights_of([(1.0, 0.0), (1.0, 0.0)]), opinions([1.0, 0.2], [0.1, 1.0])
    before = weights.copy()
    first = taught([4, 7], worth, 7, weights)
    second = taught([4, 7], worth, 7, first.weights)
    assert second.chances[0] > first.chances[0]
    for mine, old in zip(weights, before, strict=True):
        assert_array_equal(mine, old)


def test_a_step_is_the_gradient_of_the_log_loss() -> None:
    """Two candidates of equal utility: chance 1/2, so each weight moves by rate * half the difference of the shares."""
    config = FusionConfig(learning_rate=0.1, log_learning_rate=0.0)
    worth = opinions([1.0, 0.5], [0.5, 1.0])
    found = taught([4, 7], worth, 7, weights_of([(1.0, 0.0), (1.0, 0.0)]), config)
    assert_allclose([found.ranks[0], found.chances[0], found.top_chances[0]], [0.5, 0.5, 0.5])
    step = 0.1 * 0.5 * 0.5
    assert_allclose(found.weights.shared[:, 0], [1 - step, 1 + step])
    assert_allclose(found.weights.by_history[0, :, 0], [-step, step])
    assert_allclose(found.weights.by_type[0, :, 0], [-step, step])
    assert not found.weights.by_history[1:].any()
    assert not found.weights.by_type[1:].any()


def test_what_was_no_candidate_teaches_nothing() -> None:
    """It is counted as missed, and the chance of the best is told all the same."""
    weights = weights_of([(1.0, 0.0)])
    found = taught([4, -1], opinions([1.0, 1.0]), 7, weights)
    assert (found.ranks[0], found.chances[0], found.top_chances[0]) == (MISSED, 0.0, 1.0)
    assert_array_equal(found.weights.shared, weights.shared)
    nobody = taught([-1, -1], opinions([1.0, 1.0]), 7, weights)
    assert (nobody.ranks[0], nobody.chances[0], nobody.top_chances[0]) == (MISSED, 0.0, 0.0)


def test_lessons_of_a_batch_follow_each_other() -> None:
    """One call with two rows ends where two calls with one row end."""
    weights, worth = weights_of([(1.0, 0.5), (1.0, 0.0)]), opinions([1.0, 0.2], [0.1, 1.0])
    items, targets = np.array([[4, 7]] * 2, np.int32), np.array([7, 4], np.int32)
    both = Segments(np.array([0, 0], np.int32), np.array([0, 0], np.uint8))
    together = learn(items, np.repeat(worth, 2, axis=0), targets, weights, both, FusionConfig())
    apart = taught([4, 7], worth, 4, taught([4, 7], worth, 7, weights).weights)
    for one, other in zip(together.weights, apart.weights, strict=True):
        assert_allclose(one, other, rtol=1e-12)


def test_movements_add_up() -> None:
    """Two batches that were prepared from the same weights both count, in whichever order they are applied."""
    start = weights_of([(1.0, 0.0), (1.0, 0.0)])
    worth = opinions([1.0, 0.2], [0.1, 1.0])
    first, second = (taught([4, 7], worth, target, start).weights for target in (4, 7))
    one, other = start.moved(start, first).moved(start, second), start.moved(start, second).moved(start, first)
    for mine, same, begun, a, b in zip(one, other, start, first, second, strict=True):
        assert_allclose(mine, same, rtol=1e-12)
        assert_allclose(mine, a + b - begun, rtol=1e-12)
    for mine, a in zip(start.moved(start, first), first, strict=True):
        assert_allclose(mine, a, rtol=1e-12)


def test_no_step_and_no_weight_exceeds_its_bound() -> None:
    """Whatever the rate: a step of .2 at most, weights from 0 to 3, what segments add from -3 to 3."""
    config = FusionConfig(learning_rate=1e6, log_learning_rate=1e6, start=2.0, step_max=0.2, weight_max=3.0)
    weights, worth = weights_of([(1.0, 1.0), (1.0, 1.0)]), opinions([1.0, 0.2], [0.1, 1.0])
    for _ in range(40):
        after = taught([4, 7], worth, 7, weights, config).weights
        for mine, old in zip(after, weights, strict=True):
            assert np.abs(mine - old).max() <= 0.2 + 1e-12
            assert np.abs(mine).max() <= 3.0
        assert after.shared.min() >= 0
        weights = after
    assert_allclose(weights.shared[1], [3.0, 3.0])
    assert_allclose(weights.shared[0], [0.0, 0.0], atol=1e-12)


def test_a_frozen_fusion_judges_and_stays() -> None:
    """Rates of 0 are allowed: ranks and chances come, the weights do not move."""
    frozen = FusionConfig(learning_rate=0.0, log_learning_rate=0.0)
    weights = weights_of([(1.0, 0.0)])
    found = taught([4, 7], opinions([1.0, 0.2]), 7, weights, frozen)
    assert found.ranks[0] == 1
    assert_array_equal(found.weights.shared, weights.shared)


def test_sources_are_ranked_alone() -> None:
    """By their own opinion on the item that came; equals in the middle; missed where they say nothing of it."""
    worth = opinions([3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0])
    items = np.array([[4, 7, -1]], np.int32)
    assert source_ranks(items, worth, np.array([7], np.int32)).tolist() == [[1.0, 0.5, MISSED]]
    assert source_ranks(items, worth, np.array([9], np.int32)).tolist() == [[MISSED] * 3]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"learning_rate": -0.1}, "learning rates must be at least 0"),
        ({"log_learning_rate": float("nan")}, "learning rates must be at least 0"),
        ({"start": 0.0}, "start and step_max above 0"),
        ({"step_max": 0.0}, "start and step_max above 0"),
        ({"weight_max": 7.0}, "weight_max must be at least start, got 7.0 and 8.0"),
    ],
)
def test_numbers_out_of_range_are_refused(changes: dict[str, float], complaint: str) -> None:
    """With what was expected and what came."""
    with pytest.raises(ValueError, match=complaint):
        FusionConfig(**changes)
