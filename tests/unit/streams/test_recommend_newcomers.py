"""Items without events: whose turn it is, and when their time is over."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from streams.recommend.candidates import Hidden
from streams.recommend.category_trend import category_mix
from streams.recommend.newcomers import Newcomers

HATS, SHOES = 0, 1
NONE = [-1, -1, -1, -1]


def of(*codes: int) -> list[int]:
    return [*codes, *NONE[len(codes) :]]


class Shop:
    """Items of these categories, of which item 0 is what every user had last."""

    def __init__(self, *categories: list[int]) -> None:
        self.categories = np.array(categories, np.int32)
        self.available = np.ones(len(categories), np.bool_)
        self.newcomers = Newcomers()
        self.introduce(*range(len(categories)))

    def introduce(self, *items: int) -> None:
        self.newcomers.introduce(np.array(items, np.int32), self.categories, self.available)

    def happen(self, *items: int) -> None:
        self.newcomers.fold(np.array(items, np.int32), np.ones(len(items), np.bool_), self.categories)

    def proposed(self, n: int, *hidden: int) -> list[int]:
        mix = category_mix(np.zeros((1, 1), np.int32), np.ones(1, np.int32), self.categories)
        kept = Hidden(np.array([0, len(hidden)], np.int32), np.array(hidden, np.int32))
        found = self.newcomers.propose(mix, self.available, kept, n)
        return [item for item in found[0].tolist() if item >= 0]


def test_the_newest_comes_first_and_every_event_passes_the_turn_on() -> None:
    """In as many events of the category as there are newcomers each of them was proposed in turn."""
    shop = Shop(*[of(HATS)] * 4)
    shop.happen(0)
    turns = []
    for _ in range(3):
        turns.append(shop.proposed(1))
        shop.happen(0)
    assert sorted(turns) == [[1], [2], [3]]
    assert shop.proposed(1) == turns[0]
    shop.categories = np.array([*shop.categories.tolist(), of(HATS)], np.int32)
    shop.available = np.ones(5, np.bool_)
    shop.introduce(4)
    assert shop.proposed(2) == [4, *turns[0]]


def test_an_event_ends_the_time_of_a_newcomer_in_all_of_its_categories() -> None:
    """For good: described anew it does not come back."""
    shop = Shop(of(HATS, SHOES), of(HATS, SHOES), of(SHOES))
    shop.happen(0, 1)
    shop.introduce(0, 1, 2)
    assert shop.newcomers.turns.counts[:2].tolist() == [0, 1]
    assert shop.newcomers.turns.heads[HATS] == -1
    assert shop.proposed(3) == [2]


def test_an_event_that_does_not_count_ends_nothing() -> None:
    """A dislike of a new item says nothing about its popularity."""
    shop = Shop(of(HATS), of(HATS))
    shop.newcomers.fold(np.array([1], np.int32), np.zeros(1, np.bool_), shop.categories)
    assert shop.newcomers.turns.counts[HATS] == 2


def test_what_moves_to_another_category_is_new_there() -> None:
    """And no longer where it was."""
    shop = Shop(of(HATS), of(SHOES), of(SHOES))
    shop.categories[1] = of(HATS)
    shop.introduce(1)
    assert shop.newcomers.turns.counts[:2].tolist() == [2, 1]
    assert sorted(shop.proposed(5)) == [0, 1]


def test_what_is_gone_or_hidden_is_not_proposed() -> None:
    """A withdrawn item leaves the ring and its chance to the others; one hidden from the user stays for them."""
    shop = Shop(*[of(HATS)] * 4)
    shop.available[3] = False
    shop.introduce(3)
    assert shop.newcomers.turns.counts[HATS] == 3
    assert sorted(shop.proposed(5, 0)) == [1, 2]
    shop.available[3] = True
    shop.introduce(3)
    assert sorted(shop.proposed(5, 0)) == [1, 2, 3]


def test_an_item_of_two_asked_categories_is_proposed_once() -> None:
    """Whichever is asked first."""
    shop = Shop(of(HATS, SHOES), of(HATS, SHOES), of(HATS, SHOES))
    assert sorted(shop.proposed(5, 0)) == [1, 2]


def test_the_likeliest_newcomers_come_first() -> None:
    """One of two in a small category before one of many in another that the user likes as well."""
    shop = Shop(of(HATS, SHOES), *[of(HATS)] * 9, of(SHOES))
    assert shop.proposed(1, 0) == [10]


def test_chances_follow_the_rule_of_succession() -> None:
    """Two of four events were firsts: the next is one with (2 + 1) / (4 + 2), divided among those who wait."""
    shop = Shop(*[of(HATS)] * 4, of(SHOES))
    shop.happen(0, 0, 1, 0)
    assert_allclose(shop.newcomers.chances(3), [0.25, 0.5, 0.0])


def test_a_newcomer_is_worth_its_chance_in_the_users_categories() -> None:
    """By the larger of which it is named; an item with events is worth nothing here, one of no known slot neither."""
    shop = Shop(of(HATS, SHOES), of(HATS, SHOES), of(HATS), of(SHOES))
    shop.happen(0)
    mix = category_mix(np.zeros((1, 1), np.int32), np.ones(1, np.int32), shop.categories)
    worth, because = shop.newcomers.score(mix, np.array([[0, 1, 2, 3, -1, 99]], np.int32))
    each = 2 / 3 / 2
    assert_allclose(worth, [[0, each, each / 2, each / 2, 0, 0]], rtol=1e-6)
    assert because.tolist() == [[-1, HATS, HATS, SHOES, -1, -1]]


@pytest.mark.parametrize("late", [False, True])
def test_saved_counts_come_back_with_the_categories(late: bool) -> None:
    """The same chances and the same newcomers, whether categories are known at once or later."""
    shop = Shop(*[of(HATS)] * 4, of(SHOES))
    shop.happen(0, 0, 1, 4)
    again = Newcomers()
    again.restore(shop.newcomers.events(5).copy())
    items = np.arange(5, dtype=np.int32)
    if late:
        again.introduce(items, np.full((5, 4), -1, np.int32), shop.available)
    again.categorise(items, shop.categories)
    again.introduce(items, shop.categories, shop.available)
    assert_allclose(again.chances(2), shop.newcomers.chances(2))
    assert again.turns.counts[:2].tolist() == [2, 0]
