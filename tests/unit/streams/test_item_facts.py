"""What is known of the items, as columns by catalogue slot."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streams.core.catalogue import Catalogue
from streams.core.events import Item
from streams.core.profile import GROWTH, ROWS_MIN
from tests.fakes_core import FakeItems


def catalogue(*items: Item) -> Catalogue:
    """With these items."""
    found = Catalogue(FakeItems())
    found.put(items)
    return found


def test_facts_are_columns_of_codes_with_names() -> None:
    """Same name, same code; what is not told is -1 or NaN."""
    facts = catalogue(
        Item("a", categories=["shoes", "red"], brand="x", provider="p", price=3.5),
        Item("b", categories=["red"], brand="x"),
        Item("c", provider="q"),
    ).facts
    assert facts.category_names == ["shoes", "red"]
    assert facts.categories.tolist() == [[0, 1, -1, -1], [1, -1, -1, -1], [-1, -1, -1, -1]]
    assert (facts.brand_names, facts.brand.tolist()) == (["x"], [0, 0, -1])
    assert (facts.provider_names, facts.provider.tolist()) == (["p", "q"], [0, -1, 1])
    assert facts.price[0] == 3.5
    assert np.isnan(facts.price[1:]).all()
    assert facts.attributes[1] == ["category:red", "brand:x"]
    assert facts.categories.flags.c_contiguous


def test_of_many_categories_the_first_four_are_kept() -> None:
    """Each once; empty names are none."""
    facts = catalogue(Item("a", categories=["a", "", "b", "a", "c", "d", "e"])).facts
    assert facts.categories.tolist() == [[0, 1, 2, 3]]
    assert facts.category_names == ["a", "b", "c", "d"]
    assert "category:e" in facts.attributes[0]


@pytest.mark.parametrize("price", [math.inf, math.nan, -1e300, 1e39])
def test_a_price_that_is_no_number_is_unknown(price: float) -> None:
    """So that price ranges never meet infinities."""
    assert np.isnan(catalogue(Item("a", price=price)).facts.price).all()


def test_the_last_word_replaces_the_facts() -> None:
    """Also where it takes something back."""
    found = catalogue(Item("a", categories=["shoes", "red"], brand="x", provider="p", price=3.5))
    found.put([Item("a", categories=["hats"], provider="q")])
    assert found.facts.categories.tolist() == [[2, -1, -1, -1]]
    assert found.facts.brand.tolist() == [-1]
    assert found.facts.provider.tolist() == [1]
    assert np.isnan(found.facts.price).all()


def test_an_item_of_which_nothing_is_known_has_a_row() -> None:
    """Rows are as many as the catalogue's."""
    found = catalogue(Item("a", brand="x"))
    found.slots(["b", "a", "c"])
    assert len(found.facts) == len(found) == 3
    assert found.facts.brand.tolist() == [0, -1, -1]
    assert found.facts.attributes[1] == ()


def test_changes_tell_which_rows_to_read_again() -> None:
    """A cache that knows the last change finds the rows that came or were written after it."""
    found = catalogue(Item("a"), Item("b"))
    known = found.facts.change
    assert (found.facts.changes <= known).all()
    found.put([Item("b", brand="x")])
    found.slots(["a", "c"])
    assert np.flatnonzero(found.facts.changes > known).tolist() == [1, 2]
    assert found.facts.changes.max() == found.facts.change


def test_facts_grow_with_the_catalogue() -> None:
    """Whether items come one by one or all at once."""
    found = catalogue(Item("first", categories=["c"], brand="x", provider="p", price=1.0))
    count = int(ROWS_MIN * GROWTH) + 5
    for number in range(ROWS_MIN + 1):
        found.slots([f"item-{number}"])
    found.put([Item(f"item-{number}", brand="y") for number in range(count)])
    assert found.facts.brand.tolist() == [0] + [1] * count
    assert found.facts.categories[0].tolist() == [0, -1, -1, -1]
    assert (found.facts.categories[1:] == -1).all()
    assert (found.facts.provider[1:] == -1).all()
    assert found.facts.price[0] == 1
    assert np.isnan(found.facts.price[1:]).all()


def test_codes_are_found_by_name() -> None:
    """Names that no item had are left out."""
    facts = catalogue(Item("a", categories=["c"], brand="x", provider="p"), Item("b", brand="y")).facts
    assert facts.brand_codes(["y", "nobody", "x"]) == [1, 0]
    assert facts.category_codes(["c", "d"]) == [0]
    assert facts.provider_codes(["x", "p"]) == [0]
