"""Which row belongs to which word."""

from __future__ import annotations

import pytest

from encoder import vocabulary as module
from encoder.dataset import EventTable, EventTableBuilder
from encoder.vocabulary import ATTRIBUTES_PER_OWNER_MAX, Vocabulary


def log(
    items: dict[str, list[str]], types: tuple[str, ...] = ("view", "buy"), known: tuple[str, ...] = ()
) -> EventTable:
    builder = EventTableBuilder(known_items=known)
    for step, item in enumerate(items):
        builder.add(f"u{step % 2}", item, types[step % len(types)], step)
    for item, attributes in items.items():
        builder.describe_item(item, "", attributes)
    builder.describe_user("u0", ["country:fr", "age:30"])
    builder.describe_user("u1", ["country:fr"])
    return builder.build()


def test_a_log_gives_its_words() -> None:
    """Items and types keep the log's order; attributes that two owners share are kept, in alphabetical order."""
    words = Vocabulary.of(log({"b": ["z", "y", "own"], "a": ["y", "z"], "c": []}))
    assert words == Vocabulary(["b", "a", "c"], ["y", "z"], ["country:fr"], ["view", "buy"])
    assert words.item_rows == {"b": 0, "a": 1, "c": 2}


def test_a_token_twice_at_one_owner_is_of_one_owner() -> None:
    """Only owners are counted: a token that one item names twice is not shared."""
    assert Vocabulary.of(log({"a": ["x", "x"], "b": []})).item_attributes == []


def test_only_the_most_frequent_attributes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the rarest tokens fall away."""
    monkeypatch.setattr(module, "ATTRIBUTES_MAX", 2)
    words = Vocabulary.of(log({"a": ["x", "y", "z"], "b": ["x", "y", "z"], "c": ["z", "x"], "d": ["z"]}))
    assert words.item_attributes == ["x", "z"]


def test_a_grown_vocabulary_moves_no_row() -> None:
    """What is known keeps its row, what is new comes at the end; equal words change nothing."""
    first = Vocabulary.of(log({"b": ["m"], "a": ["m"]}))
    table = log({"a": ["c", "m"], "n": ["c", "m"], "b": []}, types=("like", "view"), known=("b", "a"))
    grown = first.extended(table)
    assert grown == Vocabulary(["b", "a", "n"], ["m", "c"], ["country:fr"], ["view", "buy", "like"])
    assert grown.extended(table) == grown


def test_a_smaller_bound_takes_no_row_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary with more attributes than are kept today grows no further, and loses none."""
    first = Vocabulary.of(log({"b": ["m", "n"], "a": ["m", "n"]}))
    monkeypatch.setattr(module, "ATTRIBUTES_MAX", 1)
    grown = first.extended(log({"a": ["c"], "b": ["c"]}, known=("b", "a")))
    assert grown.item_attributes == ["m", "n"]


def test_a_table_of_other_items_is_refused() -> None:
    """A table that was not built on the vocabulary would mix up the rows."""
    words = Vocabulary.of(log({"b": [], "a": []}))
    with pytest.raises(ValueError, match="not built on this vocabulary"):
        words.extended(log({"a": [], "b": []}))


def test_rows_of_attributes_start_at_one() -> None:
    """Unknown tokens are left out, owners without any get padding, and no owners give an empty array."""
    words = Vocabulary(["a"], ["x", "y"], ["m"], [])
    assert words.item_attribute_rows([["y", "new", "x"], [], ["new"]]).tolist() == [[2, 1], [0, 0], [0, 0]]
    assert words.user_attribute_rows([["m"], ["x"]]).tolist() == [[1], [0]]
    assert words.item_attribute_rows([]).shape == (0, 1)


def test_tokens_beyond_the_bound_are_not_read() -> None:
    """An owner's first 16 tokens count."""
    many = [f"t{number}" for number in range(ATTRIBUTES_PER_OWNER_MAX + 1)]
    words = Vocabulary(["a"], many, [], [])
    assert words.item_attribute_rows([many]).shape == (1, ATTRIBUTES_PER_OWNER_MAX)
    assert Vocabulary.of(log({"a": many, "b": many})).item_attributes == sorted(many[:-1])


def test_a_type_that_training_never_saw_is_row_zero() -> None:
    """Known types start at row 1."""
    assert Vocabulary(["a"], [], [], ["view", "buy"]).type_rows(["buy", "like", "view"]).tolist() == [2, 0, 1]


@pytest.mark.parametrize("part", ["items", "item_attributes", "user_attributes", "types"])
def test_a_word_twice_is_refused(part: str) -> None:
    """A word with two rows would be learned in one and read from the other."""
    words = {"items": ["a"], "item_attributes": [], "user_attributes": [], "types": []} | {part: ["a", "a"]}
    with pytest.raises(ValueError, match=f"names one of its {part} twice"):
        Vocabulary(**words)
