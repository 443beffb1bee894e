"""The catalogue: items by slot, with vectors that follow what is known of them."""

from __future__ import annotations

import numpy as np
import pytest

from streams.core.catalogue import Catalogue, Words
from streams.core.events import Item
from streams.core.ports import Floats
from streams.core.profile import GROWTH, ROWS_MIN
from tests.fakes_core import DIM, FakeItems


def catalogue() -> tuple[Catalogue, FakeItems]:
    """An empty catalogue and its encoder."""
    items = FakeItems()
    return Catalogue(items), items


def encoded(item_ids: list[str], descriptions: list[str]) -> Floats:
    """What the encoder says of items without attributes."""
    return FakeItems().encode(item_ids, descriptions, [()] * len(item_ids))


def test_an_item_seen_only_in_events_has_its_own_direction() -> None:
    """It may be recommended, but its vector says nothing about what it is."""
    found, encoder = catalogue()
    assert found.slots(["a", "b", "a"]).tolist() == [0, 1, 0]
    assert encoder.encoded == ["a", "b"]
    assert np.array_equal(found.vectors, encoded(["a", "b"], ["", ""]))
    assert found.available.tolist() == [True, True]
    assert found.described.tolist() == [False, False]


def test_known_items_are_not_encoded_again() -> None:
    """Only the first sight of an item costs an encoding."""
    found, encoder = catalogue()
    found.slots(["a"])
    assert found.slots(["b", "a"]).tolist() == [1, 0]
    assert encoder.encoded == ["a", "b"]


def test_words_move_the_vector_and_not_the_slot() -> None:
    """A description that comes after the first event replaces the random direction in place."""
    found, _ = catalogue()
    found.slots(["a", "b"])
    found.put([Item("b", title="red shoes"), Item("c", title="blue shoes", available=False)])
    assert found.item_ids == ["a", "b", "c"]
    assert found.slot_of == {"a": 0, "b": 1, "c": 2}
    assert np.array_equal(found.vectors, encoded(["a", "b", "c"], ["", "red shoes", "blue shoes"]))
    assert found.described.tolist() == [False, True, True]
    assert found.available.tolist() == [True, True, False]


def test_of_an_item_given_twice_the_last_word_counts() -> None:
    """One batch of the items topic may hold several versions."""
    found, _ = catalogue()
    found.put([Item("a", title="old", available=False), Item("b"), Item("a", title="new")])
    assert found.item_ids == ["a", "b"]
    assert np.array_equal(found.vectors[0], encoded(["a"], ["new"])[0])
    assert found.available.tolist() == [True, True]
    assert found.described.tolist() == [True, False]


def test_words_may_be_taken_back() -> None:
    """An item without title, categories, tags and text is no longer described."""
    found, _ = catalogue()
    found.put([Item("a", title="shoes")])
    found.put([Item("a", price=3.0)])
    assert found.described.tolist() == [False]
    assert np.array_equal(found.vectors, encoded(["a"], [""]))


def test_what_is_gone_keeps_its_vector_and_is_recommended_no_more() -> None:
    """Events on a withdrawn item still move profiles; only a new description brings it back."""
    found, _ = catalogue()
    found.put([Item("a", title="shoes")])
    before = found.vectors.copy()
    found.withdraw(["a"])
    assert found.slots(["a"]).tolist() == [0]
    assert found.available.tolist() == [False]
    assert np.array_equal(found.vectors, before)
    found.put([Item("a", title="shoes")])
    assert found.available.tolist() == [True]


def test_a_tombstone_that_comes_first_is_remembered() -> None:
    """After a restart the items topic is read before the profiles that mention the item."""
    found, _ = catalogue()
    found.withdraw(["gone"])
    found.slots(["gone", "here"])
    assert found.available.tolist() == [False, True]


def test_nothing_is_nothing() -> None:
    """Empty calls change nothing."""
    found, _ = catalogue()
    assert found.slots([]).tolist() == []
    found.put([])
    found.withdraw([])
    assert len(found) == 0
    assert found.vectors.shape == (0, DIM)


def test_thousands_of_items_outgrow_the_first_rows() -> None:
    """Growing keeps slots, vectors and flags, whether items come one by one or all at once."""
    found, _ = catalogue()
    found.put([Item("first", title="words", available=False)])
    ids = [f"item-{number}" for number in range(int(ROWS_MIN * GROWTH) + 5)]
    for item_id in ids[: ROWS_MIN + 1]:
        found.slots([item_id])
    assert found.slots(ids).tolist() == list(range(1, len(ids) + 1))
    assert found.described.tolist() == [True] + [False] * len(ids)
    assert found.available.tolist() == [False] + [True] * len(ids)
    assert np.array_equal(found.vectors, encoded(["first", *ids], ["words", *[""] * len(ids)]))


def test_one_call_may_bring_more_items_than_growth_foresees() -> None:
    """A batch far larger than the room is stored whole."""
    found, _ = catalogue()
    ids = [f"item-{number}" for number in range(ROWS_MIN * 4)]
    assert found.slots(ids).tolist() == list(range(len(ids)))
    assert len(found.vectors) == len(ids)


def test_ids_are_any_text() -> None:
    """Unicode ids are kept apart and come back as they were."""
    ids = ["é", "e\u0301", "商品", "👟", " ", "x" * 256]
    found, _ = catalogue()
    assert found.slots(ids).tolist() == list(range(len(ids)))
    assert found.item_ids == ids


def test_words_are_told_again_once_they_change() -> None:
    """Of every item when nothing is known of them; then of those that came or got other words, so many at a time."""
    found, _ = catalogue()
    found.slots(["a", "b", "c"])
    found.put([Item("b", title="shoes", brand="x")])
    first = found.words_since(np.zeros(0, np.int32), 2)
    assert first.item_ids == ["a", "b"]
    assert first.words == [Words("", ()), Words("shoes x", ["brand:x"])]
    revisions = np.zeros(2, np.int32)
    revisions[first.slots] = first.revisions
    assert found.words_since(revisions, 9).item_ids == ["c"]
    found.put([Item("a", title="hats")])
    found.withdraw(["b"])
    assert found.words_since(revisions, 9).item_ids == ["a", "c"]


def test_vectors_of_another_encoder_come_with_it() -> None:
    """What is put after that is encoded by it; vectors of another shape are refused."""
    found, _ = catalogue()
    found.slots(["a"])
    other = FakeItems()
    with pytest.raises(ValueError, match="expected vectors of the shape"):
        found.replace_vectors(other, np.ones((1, DIM), np.float32))
    assert np.array_equal(found.vectors, encoded(["a"], [""]))
    found.replace_vectors(other, np.ones((found.capacity, DIM), np.float32))
    found.slots(["b"])
    assert found.vectors[0].tolist() == [1.0] * DIM
    assert other.encoded == ["b"]


def test_a_catalogue_is_restored_by_its_ids() -> None:
    """Same slots, directions of their own until their words come, and the next item gets the next slot."""
    found, _ = catalogue()
    found.restore(["b", "a"])
    assert found.slots(["a", "c", "b"]).tolist() == [1, 2, 0]
    assert np.array_equal(found.vectors[:2], encoded(["b", "a"], ["", ""]))


@pytest.mark.parametrize(("known", "item_ids"), [(["x"], ["a"]), ([], ["a", "a"])])
def test_only_distinct_ids_enter_an_empty_catalogue(known: list[str], item_ids: list[str]) -> None:
    """Else slots would mean other items than they did."""
    found, _ = catalogue()
    found.slots(known)
    with pytest.raises(ValueError, match="expected an empty catalogue and distinct ids"):
        found.restore(item_ids)
    assert found.item_ids == known
