"""Rankings in the words of the public message."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import msgspec
import numpy as np
import pytest

from streams.core.recommendations import (
    Again,
    BecauseOf,
    NewIn,
    PopularAmong,
    PopularIn,
    Reason,
    RecommendedItem,
    Rising,
    SimilarUsers,
    TogetherWith,
    Trending,
)
from streams.recommend.explain import recommended_lists
from streams.recommend.request import Ranking, source_names

USERS = [f"u{slot}" for slot in range(5)]
ITEMS = [f"i{slot}" for slot in range(9)]
CATEGORIES = ["shoes", "hats"]
GROUPS = {77: "age:20"}
SOURCES = len(source_names([3600.0, 86_400.0]))
"""Two trends."""


def ranking(
    items: list[int],
    shares: list[list[float]],
    scores: list[float] | None = None,
    voters: list[list[int]] | None = None,
) -> Ranking:
    """One list; shares of fewer sources are of the first ones."""
    n = len(items)
    every = np.zeros((1, n, SOURCES), np.float32)
    for place, row in enumerate(shares):
        every[0, place, : len(row)] = row
    return Ranking(
        items=np.array([items], np.int32),
        scores=np.array([scores or [0.5] * n], np.float32),
        shares=every,
        short_because=np.zeros(1, np.uint8),
        voters=np.array([voters or [[4, 2, -1]] * n], np.int32),
        anchors=np.full((1, n), 8, np.int32),
        companions=np.full((1, n), 7, np.int32),
        groups=np.full((1, n), 77, np.int32),
        categories=np.full((1, n), 1, np.int32),
    )


def one_list(found: Ranking) -> list[RecommendedItem]:
    """The only list."""
    (items,) = recommended_lists(found, USERS, ITEMS, CATEGORIES, GROUPS)
    return items


def test_each_source_has_its_words_largest_first() -> None:
    """Eleven sources are nine kinds: the trends are one, and profile and tastes are one."""
    found = one_list(ranking([3], [[0.27, 0.13, 0.15, 0.1, 0.05, 0.02, 0.04, 0.03, 0.07, 0.06, 0.08]], [0.8125]))
    reasons = [
        SimilarUsers(["u4", "u2"], 0.27),
        BecauseOf("i8", 0.2),
        TogetherWith("i7", 0.15),
        Trending(0.14),
        PopularIn("hats", 0.1),
        Again(0.05),
        Rising(0.04),
        NewIn("hats", 0.03),
        PopularAmong("age:20", 0.02),
    ]
    assert found == [RecommendedItem("i3", 0.8125, reasons)]


def test_trends_too_small_alone_are_a_reason_together() -> None:
    """They are added before anything is judged too small to be told."""
    [item] = one_list(ranking([3], [[0.986, 0, 0, 0, 0, 0, 0, 0, 0, 0.007, 0.007]]))
    assert item.reasons == [SimilarUsers(["u4", "u2"], 0.986), Trending(0.014)]


def test_likeness_to_a_taste_is_told_as_likeness_to_the_users_own_item() -> None:
    """Whether the profile speaks beside it or not, in one reason; both too small alone are told together."""
    found = one_list(
        ranking(
            [3, 4, 5],
            [[0.4, 0, 0, 0, 0, 0, 0, 0, 0.6], [0.2, 0.5, 0, 0, 0, 0, 0, 0, 0.3], [0.988, 0.006] + [0] * 6 + [0.006]],
        )
    )
    like = [reason for item in found for reason in item.reasons if isinstance(reason, BecauseOf)]
    assert like == [BecauseOf("i8", 0.6), BecauseOf("i8", 0.8), BecauseOf("i8", 0.012)]


def test_every_order_of_shares_is_sorted() -> None:
    """All permutations of the first four kinds come out largest first, equals in the order of the sources."""
    shares = [list(row) for row in permutations([0.4, 0.3, 0.2, 0.1])] + [[0.25] * 4]
    found = one_list(ranking([1] * len(shares), shares))
    for item, row in zip(found, shares, strict=True):
        assert [round(reason.share, 6) for reason in item.reasons] == sorted(row, reverse=True)
    assert [type(reason) for reason in found[-1].reasons] == [SimilarUsers, BecauseOf, TogetherWith, PopularIn]


def test_small_reasons_go_to_the_largest() -> None:
    """Below one per cent nobody wants to read it; the sum stays 1."""
    [item] = one_list(ranking([3], [[0.004, 0.99, 0.0, 0.006]]))
    assert item.reasons == [BecauseOf("i8", 1.0)]


def test_rounded_shares_sum_to_one() -> None:
    """Random shares: the decimal digits of an item's reasons add up to 1, each is told in six, none is small."""
    shares = np.random.default_rng(5).dirichlet([0.3] * SOURCES, 2000)
    found = one_list(ranking([1] * 2000, shares.tolist()))
    assert max(len(item.reasons) for item in found) > 5
    for item in found:
        told = [reason.share for reason in item.reasons]
        assert sum(round(share * 1_000_000) for share in told) == 1_000_000
        assert all(share == round(share, 6) >= 0.01 for share in told)
        assert told == sorted(told, reverse=True)


def test_all_voters_are_named() -> None:
    """One, two or three users, in their order."""
    voters = [[1, -1, -1], [1, 0, -1], [1, 0, 3]]
    found = one_list(ranking([1, 2, 3], [[1.0]] * 3, voters=voters))
    named = [reason.users for item in found for reason in item.reasons if isinstance(reason, SimilarUsers)]
    assert named == [["u1"], ["u1", "u0"], ["u1", "u0", "u3"]]


def test_lists_end_where_the_ranking_ends() -> None:
    """Padding makes no items; an empty ranking is an empty list; the tiniest score stays above 0."""
    short = ranking([3, -1], [[0, 0, 0, 0, 0, 0, 0, 0, 0, 1]], [1e-9, 0])
    assert one_list(short) == [RecommendedItem("i3", 1e-6, [Trending(1.0)])]
    assert one_list(ranking([-1], [[]])) == []


def test_lists_of_several_users_stay_apart() -> None:
    """A short list between long ones, one without any item, and no users at all."""
    rows = [ranking([1, 2], [[1.0], [0, 1.0]]), ranking([-1, -1], [[]]), ranking([5, -1], [[0, 0, 1.0]])]
    together = Ranking(*(np.concatenate(columns) for columns in zip(*rows, strict=True)))
    lists = recommended_lists(together, USERS, ITEMS, CATEGORIES, GROUPS)
    assert lists == [one_list(row) for row in rows]
    assert [[item.item_id for item in items] for items in lists] == [["i1", "i2"], [], ["i5"]]
    nobody = Ranking(*(column[:0] for column in rows[0]))
    assert recommended_lists(nobody, USERS, ITEMS, CATEGORIES, GROUPS) == []


@pytest.mark.parametrize(
    "reason", [TogetherWith("i1", 0.5), PopularIn("hats", 0.5), NewIn("hats", 0.5), Again(0.5), Rising(0.5)]
)
def test_a_reader_of_two_kinds_can_read_every_kind(reason: Reason) -> None:
    """Each kind names itself and its share, so that one who knows two of them can tell or skip the others."""

    def told(sent: dict[str, Any]) -> str:
        match sent["kind"]:
            case "similar-users":
                return "{} {:.2f}".format(",".join(sent["users"]), sent["share"])
            case "because-of":
                return "{} {:.2f}".format(sent["item_id"], sent["share"])
            case _:
                return f"other {sent['share']:.2f}"

    item = RecommendedItem("i5", 0.8, [reason, SimilarUsers(["u9"], 0.3), BecauseOf("i2", 0.2)])
    sent = json.loads(msgspec.json.encode(item))["reasons"]
    assert [told(each) for each in sent] == ["other 0.50", "u9 0.30", "i2 0.20"]
