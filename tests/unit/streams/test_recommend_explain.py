"""Rankings in the words of the public message."""

from __future__ import annotations

import numpy as np

from streams.core.recommendations import BecauseOf, RecommendedItem, SimilarUsers, Trending
from streams.recommend.explain import recommended_items, recommended_lists
from streams.recommend.request import Ranking

USERS = [f"u{slot}" for slot in range(5)]
ITEMS = [f"i{slot}" for slot in range(9)]


def ranking(
    items: list[int],
    shares: list[list[float]],
    scores: list[float] | None = None,
    voters: list[list[int]] | None = None,
) -> Ranking:
    n = len(items)
    return Ranking(
        items=np.array([items], np.int32),
        scores=np.array([scores or [0.5] * n], np.float32),
        shares=np.array([shares], np.float32),
        voters=np.array([voters or [[4, 2, -1]] * n], np.int32),
        anchors=np.full((1, n), 8, np.int32),
    )


def test_reasons_name_users_items_and_shares_largest_first() -> None:
    """Three sources are three reasons, whatever their order was."""
    found = recommended_items(ranking([3], [[0.3, 0.5, 0.2]], [0.8125]), 0, USERS, ITEMS)
    reasons = [BecauseOf("i8", 0.5), SimilarUsers(["u4", "u2"], 0.3), Trending(0.2)]
    assert found == [RecommendedItem("i3", 0.8125, reasons)]


def test_every_order_of_shares_is_sorted() -> None:
    """All permutations of three and of two reasons come out largest first."""
    shares = [[a, b, c] for a in (0.0, 0.2, 0.3, 0.5) for b in (0.0, 0.2, 0.3, 0.5) for c in (0.0, 0.2, 0.3, 0.5)]
    shares = [row for row in shares if 0.99 < sum(row) < 1.01]
    found = recommended_items(ranking([1] * len(shares), shares), 0, USERS, ITEMS)
    for item, row in zip(found, shares, strict=True):
        assert [round(reason.share, 6) for reason in item.reasons] == sorted(filter(None, row), reverse=True)


def test_small_reasons_go_to_the_largest() -> None:
    """Below one per cent nobody wants to read it; the sum stays 1."""
    [item] = recommended_items(ranking([3], [[0.004, 0.99, 0.006]]), 0, USERS, ITEMS)
    assert item.reasons == [BecauseOf("i8", 1.0)]


def test_rounded_shares_sum_to_one() -> None:
    """Random shares: the decimal digits of an item's reasons add up to 1."""
    shares = np.random.default_rng(5).dirichlet([0.3, 0.3, 0.3], 500)
    for item in recommended_items(ranking([1] * 500, shares.tolist()), 0, USERS, ITEMS):
        assert sum(round(reason.share * 1_000_000) for reason in item.reasons) == 1_000_000
        assert all(reason.share == round(reason.share, 6) >= 0.01 for reason in item.reasons)


def test_all_voters_are_named() -> None:
    """One, two or three users, in their order."""
    voters = [[1, -1, -1], [1, 0, -1], [1, 0, 3]]
    found = recommended_items(ranking([1, 2, 3], [[1, 0, 0]] * 3, voters=voters), 0, USERS, ITEMS)
    named = [reason.users for item in found for reason in item.reasons if isinstance(reason, SimilarUsers)]
    assert named == [["u1"], ["u1", "u0"], ["u1", "u0", "u3"]]


def test_lists_end_where_the_ranking_ends() -> None:
    """Padding makes no items; an empty ranking is an empty list; the tiniest score stays above 0."""
    short = ranking([3, -1], [[0, 0, 1], [0, 0, 0]], [1e-9, 0])
    assert recommended_lists(short, USERS, ITEMS) == [[RecommendedItem("i3", 1e-6, [Trending(1.0)])]]
    assert recommended_items(ranking([-1], [[0, 0, 0]]), 0, USERS, ITEMS) == []
