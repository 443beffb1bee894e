"""From scores to figures: hand-made cases, and properties that every ranking must have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from encoder.metrics import (
    CUTOFFS,
    FIGURES,
    Histories,
    attribute_diversity,
    bootstrap_intervals,
    coverage,
    exposures,
    gini,
    novelty,
    rank,
    ranking_figures,
    vector_diversity,
)

QUANTISED = st.integers(-3, 3).map(float) | st.just(-np.inf)
MATRICES = nps.arrays(np.float32, nps.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=QUANTISED)


def ranks_of(scores: list[list[float]], targets: list[int], seen: list[list[int]] | None = None) -> list[float]:
    """Ranks in plain lists."""
    histories = seen or [[] for _ in targets]
    ends = np.cumsum([len(history) for history in histories])
    starts = ends - [len(history) for history in histories]
    items = np.array([item for history in histories for item in history], np.int32)
    masked = Histories(items, starts.astype(np.int64), ends.astype(np.int64))
    return rank(np.array(scores, np.float32), np.array(targets, np.int32), masked).ranks.tolist()


def figures_of(ranks: list[float]) -> dict[str, list[float]]:
    """Columns by name."""
    columns = ranking_figures(np.array(ranks, np.float64)).T
    return {name: column.tolist() for name, column in zip(FIGURES, columns, strict=True)}


def test_a_rank_counts_the_items_with_higher_scores() -> None:
    """The best item has rank 1, the worst rank i."""
    assert ranks_of([[0.1, 0.9, 0.5]] * 3, [1, 2, 0]) == [1, 2, 3]


def test_seen_items_take_no_part() -> None:
    """Items of the history are passed over, in each query only its own; the target itself is never masked."""
    scores = [[4, 3, 2, 1]] * 3
    assert ranks_of(scores, [3, 3, 3], [[0, 1, 0], [], [2, 3]]) == [2, 4, 3]


@pytest.mark.parametrize("score", [0.0, -np.inf, 7.0])
def test_equal_scores_share_the_middle_of_their_places(score: float) -> None:
    """A constant score gives every target the middle rank, also when it says that nothing can be judged."""
    assert ranks_of([[score] * 5] * 2, [0, 4]) == [3, 3]
    assert ranks_of([[score] * 5], [2], [[0, 1]]) == [2]


def test_items_that_cannot_be_judged_come_last_and_enter_no_list() -> None:
    """-inf stands behind every number, and lists end before it."""
    scores = np.array([[-np.inf, 2, -np.inf, 5]], np.float32)
    ranked = rank(scores, np.array([0], np.int32), Histories.none(1), list_length=4)
    assert ranked.ranks.tolist() == [3.5]
    assert ranked.lists.tolist() == [[3, 1, -1, -1]]


def test_lists_hold_the_best_unseen_items_in_order() -> None:
    """A list is sorted by score, equal ones by row, without what the user has seen."""
    scores = np.array([[1, 5, 3, 5, 4, 9]], np.float32)
    masked = Histories(np.array([5], np.int32), np.array([0]), np.array([1]))
    assert rank(scores, np.array([0], np.int32), masked, list_length=3).lists.tolist() == [[1, 3, 4]]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("item", [0, 1, 2])
def test_scores_that_are_no_order_are_refused(wrong: float, item: int) -> None:
    """NaN or +inf anywhere, even at a seen item, is an error that names the query."""
    scores = np.zeros((2, 3), np.float32)
    scores[1, item] = wrong
    masked = Histories(np.array([2], np.int32), np.array([0, 0]), np.array([1, 1]))
    with pytest.raises(ValueError, match="scores of query 1 of 2 hold NaN or"):
        rank(scores, np.array([0, 0], np.int32), masked)


def test_scores_without_a_row_for_each_target_are_refused() -> None:
    """Shapes that do not fit are named."""
    with pytest.raises(ValueError, match=r"got the shape \(2, 3\) for 1 targets and 1 histories"):
        rank(np.zeros((2, 3), np.float32), np.zeros(1, np.int32), Histories.none(1))


def test_the_history_of_a_query_is_its_users_rows_before_it() -> None:
    """`contain` looks at these rows only, not at the target's own or other users'."""
    histories = Histories(np.array([7, 8, 7, 9], np.int32), np.array([0, 0, 2]), np.array([2, 1, 2]))
    assert histories.contain(np.array([7, 8, 7], np.int32)).tolist() == [True, False, False]


def test_figures_follow_their_definitions() -> None:
    """HR, NDCG and MRR of ranks 1, 3, 5.5 and 21, by hand; a rank of 5.5 is outside the first 5."""
    figures = figures_of([1, 3, 5.5, 21])
    assert figures["hr@5"] == [1, 1, 0, 0]
    assert figures["hr@20"] == [1, 1, 1, 0]
    assert figures["ndcg@10"] == pytest.approx([1, 0.5, 1 / np.log2(6.5), 0])
    assert figures["mrr@10"] == pytest.approx([1, 1 / 3, 1 / 5.5, 0])


@given(MATRICES, st.randoms(use_true_random=False))
@settings(deadline=None, derandomize=True)
def test_the_order_of_items_changes_no_rank(scores: np.ndarray, random: object) -> None:
    """Ranks do not depend on which row an item has, ties and -inf included."""
    items = scores.shape[1]
    order = np.random.default_rng(random.randint(0, 99)).permutation(items)  # type: ignore[attr-defined]
    targets = np.arange(len(scores), dtype=np.int32) % items
    plain = rank(scores, targets, Histories.none(len(scores))).ranks
    moved = rank(scores[:, order], np.argsort(order)[targets].astype(np.int32), Histories.none(len(scores))).ranks
    assert plain.tolist() == moved.tolist()


@given(MATRICES)
@settings(deadline=None, derandomize=True)
def test_the_ranks_of_all_items_sum_to_those_of_a_strict_order(scores: np.ndarray) -> None:
    """Mid-ranks share places without making any up: over all targets they sum to 1 + 2 + ... + i."""
    items = scores.shape[1]
    targets = np.arange(items, dtype=np.int32)
    for row in scores:
        ranks = rank(np.tile(row, (items, 1)), targets, Histories.none(items)).ranks
        assert ranks.sum() == items * (items + 1) / 2


@given(nps.arrays(np.float64, 20, elements=st.integers(2, 60).map(lambda twice: twice / 2)))
@settings(deadline=None, derandomize=True)
def test_longer_lists_never_lower_a_figure_and_better_ranks_never_either(ranks: np.ndarray) -> None:
    """Every figure grows with k and falls with the rank, and hr >= ndcg >= mrr."""
    figures = ranking_figures(np.sort(ranks)).reshape(len(ranks), 3, len(CUTOFFS))
    assert (np.diff(figures, axis=2) >= 0).all()
    assert (np.diff(figures, axis=0) <= 0).all()
    assert (np.diff(figures, axis=1) <= 0).all()


def test_coverage_is_the_share_of_items_in_lists() -> None:
    """Padding is no item."""
    exposed = exposures(np.array([[0, 2], [2, -1]], np.int32), 4)
    assert exposed.tolist() == [1, 0, 2, 0]
    assert coverage(exposed) == 0.5


def test_gini_runs_from_alike_to_one_item_only() -> None:
    """0 when all items are shown alike, (i - 1) / i when one item takes all; NaN when nothing is shown."""
    assert gini(np.array([3, 3, 3, 3])) == 0
    assert gini(np.array([0, 0, 8, 0])) == 0.75
    assert gini(np.array([1, 2, 3])) == pytest.approx(2 / 9)
    assert np.isnan(gini(np.zeros(3, np.int64)))


def test_novelty_is_the_mean_surprise_of_what_is_shown() -> None:
    """Shares of 4/8, 2/8, 1/8, 1/8 (one added to each count) are 1, 2, 3 and 3 bits."""
    counts = np.array([3, 1, 0, 0])
    assert novelty(np.array([1, 0, 0, 0]), counts) == 1
    assert novelty(np.array([2, 1, 0, 1]), counts) == pytest.approx((2 * 1 + 2 + 3) / 4)
    assert np.isnan(novelty(np.zeros(4, np.int64), counts))


def test_diversity_of_vectors_is_one_minus_the_mean_cosine() -> None:
    """Pairs count once, lengths of vectors do not, lists of one item are left out; a zero vector is like no other."""
    vectors = np.array([[2, 0], [0, 3], [5, 5], [0, 0]], np.float32)
    half = np.sqrt(0.5)
    assert vector_diversity(np.array([[0, 1, 2]], np.int32), vectors) == pytest.approx(1 - 2 * half / 3)
    assert vector_diversity(np.array([[0, 2, -1], [1, -1, -1]], np.int32), vectors) == pytest.approx(1 - half)
    assert vector_diversity(np.array([[0, 3]], np.int32), vectors) == pytest.approx(1)
    assert np.isnan(vector_diversity(np.array([[0, -1]], np.int32), vectors))


def test_diversity_of_attributes_equals_that_of_their_vectors() -> None:
    """Sets of tokens give the same as vectors of ones and zeros, repeats of a token and items without any included."""
    attributes = [("a", "b"), ("b", "c", "d"), (), ("a",), ("b", "b", "a")]
    vectors = np.array([[token in tokens for token in "abcd"] for tokens in attributes], np.float32)
    lists = np.array([[0, 1, 2], [4, 3, -1], [1, -1, -1], [2, 4, 0], [3, 1, 0]], np.int32)
    assert attribute_diversity(lists, attributes) == pytest.approx(vector_diversity(lists, vectors))
    assert np.isnan(attribute_diversity(lists[2:3], attributes))


def test_bootstrap_draws_users_not_queries() -> None:
    """A user's equal queries count as one observation: the interval is as wide as with one query each."""
    users = np.arange(50, dtype=np.int32)
    values = (users % 2).astype(np.float64)[:, None]
    once = bootstrap_intervals(values, users, np.random.default_rng(1))
    often = bootstrap_intervals(np.repeat(values, 30, axis=0), np.repeat(users, 30), np.random.default_rng(1))
    np.testing.assert_allclose(once, often)
    assert 0.3 < once[0, 0] < 0.5 < once[0, 1] < 0.7


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 200 samples about 95 % have the true mean in their interval (91 to 99 %)."""
    rng = np.random.default_rng(5)
    users = np.arange(60, dtype=np.int32)
    held = 0
    for _ in range(200):
        low, high = bootstrap_intervals(rng.normal(3.0, 1.0, (60, 1)), users, rng, resamples=200)[0]
        held += low <= 3.0 <= high
    assert 182 <= held <= 198


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    """The column a - b varies less than a, for both are judged on the same users; equal generators agree."""
    rng = np.random.default_rng(9)
    easy = rng.random(300)
    values = np.stack([easy + 0.01, easy, easy + 0.01 - easy], axis=1)
    users = np.arange(300, dtype=np.int32)
    ends = bootstrap_intervals(values, users, np.random.default_rng(0))
    assert np.ptp(ends[2]) < np.ptp(ends[0]) / 100
    np.testing.assert_array_equal(ends, bootstrap_intervals(values, users, np.random.default_rng(0)))


def test_an_interval_of_nothing_is_refused() -> None:
    """No queries, no interval."""
    with pytest.raises(ValueError, match="There are no queries"):
        bootstrap_intervals(np.zeros((0, 2)), np.zeros(0, np.int32), np.random.default_rng(0))
