"""What stood where in the last published lists, by the names that reactions carry."""

from __future__ import annotations

import numpy as np
import pytest

from streams.recommend.shown_lists import (
    LOOK_BACK_LISTS,
    NO_LIST,
    NOT_NAMED,
    NOT_OURS,
    PLACES,
    Found,
    Names,
    ShownLists,
    list_name,
    names_of,
)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def publish(shown: ShownLists, user: int, name: str, items: list[int], lower: int = 0) -> None:
    """One list."""
    shown.published(ints(user), names_of([name]), np.array([items], np.int32), ints(lower))


def find(shown: ShownLists, user: int, name: str | None, item: int) -> Found:
    return shown.find(ints(user), names_of([name]), ints(item))


def react(shown: ShownLists, user: int, name: str | None, item: int, *, impression: bool = False) -> np.ndarray:
    return shown.react(ints(user), names_of([name]), ints(item), np.array([impression]))


@pytest.mark.parametrize(
    ("rec_id", "numbers"),
    [
        ("3-1881", (3, 1881, 0)),
        ("3-1881-7", (3, 1881, 7)),
        (None, (NOT_NAMED, 0, 0)),
        ("", (NOT_OURS, 0, 0)),
        ("48112", (NOT_OURS, 0, 0)),
        ("3-1881-7-2", (NOT_OURS, 0, 0)),
        ("a-1", (NOT_OURS, 0, 0)),
        ("3--1", (NOT_OURS, 0, 0)),
        ("٣-1", (NOT_OURS, 0, 0)),
        ("3-" + "9" * 30, (NOT_OURS, 0, 0)),
    ],
)
def test_names_are_read_as_they_are_written(rec_id: str | None, numbers: tuple[int, int, int]) -> None:
    """What this system would not write is another one's."""
    assert tuple(part.tolist() for part in names_of([rec_id])) == tuple([number] for number in numbers)
    if numbers[0] >= 0:
        assert list_name(*numbers) == rec_id


def test_an_item_is_found_in_the_list_that_is_named() -> None:
    """Not in the user's other lists, not in another user's, not by another name."""
    shown = ShownLists(3)
    publish(shown, 4, "0-7", [10, 11, 12])
    publish(shown, 4, "0-8", [11, 10, 13])
    publish(shown, 5, "0-9", [12, 11, -1])
    assert [find(shown, 4, name, 10).places[0] for name in ("0-7", "0-8", "0-9", "0-8-1", "1-8", "x", None)] == [
        0, 1, -1, -1, -1, -1, -1,
    ]  # fmt: skip
    assert find(shown, 4, "0-7", 13).places[0] == -1
    assert find(shown, 4, "0-7", 13).lists[0] == 0
    assert find(shown, 5, "0-9", 11) == (np.array([2]), np.array([1]))
    assert find(shown, 6, "0-9", 11).lists[0] == NO_LIST
    assert find(shown, -1, "0-9", 11).lists[0] == NO_LIST
    assert find(shown, 10**6, "0-9", 11).lists[0] == NO_LIST


def test_late_lists_of_one_event_are_told_apart() -> None:
    """By their numbers."""
    shown = ShownLists(2)
    for name, items in (("0-7", [1, 2]), ("0-7-1", [2, 1]), ("0-7-2", [3, 1])):
        publish(shown, 0, name, items)
    assert [find(shown, 0, name, 2).places[0] for name in ("0-7", "0-7-1", "0-7-2")] == [1, 0, -1]


def test_the_oldest_list_makes_room() -> None:
    """Of all users together; and a user's newest are looked through."""
    shown = ShownLists(1, lists=100)
    for offset in range(101):
        publish(shown, 0 if offset < 2 else 1 + offset % 2, f"0-{offset}", [offset])
    assert find(shown, 0, "0-0", 0).lists[0] == NO_LIST
    assert find(shown, 0, "0-1", 1).places[0] == 0
    publish(shown, 3, "0-101", [1])
    assert find(shown, 0, "0-1", 1).lists[0] == NO_LIST
    react(shown, 3, "0-101", 1, impression=True)
    assert find(shown, 0, "0-101", 1).lists[0] == NO_LIST  # what took the place is another user's
    assert find(shown, 0, None, 1).lists[0] == NO_LIST
    many = ShownLists(1)
    for offset in range(LOOK_BACK_LISTS + 1):
        publish(many, 0, f"0-{offset}", [offset])
    assert find(many, 0, "0-1", 1).places[0] == 0
    assert find(many, 0, "0-0", 0).lists[0] == NO_LIST


def test_the_first_reaction_to_each_item_of_a_list_counts() -> None:
    """By place; the item in the pair's upper or lower place also for the pair, others not."""
    shown = ShownLists(4)
    publish(shown, 0, "0-7", [10, 11, 12, 13], lower=3)
    found = [react(shown, 0, "0-7", item) for item in (13, 11, 10, 13)]
    assert [counts[0].nonzero()[0].tolist() for counts in found] == [[3], [1], [0], []]
    assert [counts[1].nonzero()[0].tolist() for counts in found] == [[], [3], [], []]
    assert [counts[2].nonzero()[0].tolist() for counts in found] == [[3], [], [], []]
    publish(shown, 0, "0-8", [13, 12, 11, 10])
    assert react(shown, 0, "0-8", 13).sum() == 1


def test_an_event_without_a_name_counts_for_what_was_seen() -> None:
    """After an impression that names the list; not the other items, and not in the name of another system."""
    shown = ShownLists(3)
    publish(shown, 0, "0-7", [10, 11, 12])
    assert react(shown, 0, None, 11).sum() == 0
    assert react(shown, 0, None, 11, impression=True).sum() == 0
    assert not shown.any_seen
    assert react(shown, 0, "0-7", 11, impression=True).sum() == 0
    assert shown.any_seen
    publish(shown, 0, "0-8", [11, 10, 12])
    assert find(shown, 0, None, 11).places[0] == 1
    assert find(shown, 0, None, 10).places[0] == -1
    assert find(shown, 0, "48112", 11).places[0] == -1
    assert react(shown, 0, None, 11)[0].nonzero()[0].tolist() == [1]
    assert react(shown, 0, "0-7", 11).sum() == 0


def test_a_forgotten_user_was_shown_nothing() -> None:
    """Their items are gone from memory; others keep theirs."""
    shown = ShownLists(2)
    publish(shown, 0, "0-7", [10, 11])
    publish(shown, 1, "0-8", [10, 11])
    publish(shown, 0, "0-9", [12, 11])
    shown.forget(ints(0, 5, 10**6))
    assert find(shown, 0, "0-7", 10).lists[0] == NO_LIST
    assert find(shown, 1, "0-8", 10).places[0] == 0
    assert (shown._lists.items[[0, 2]] == -1).all()


def test_long_lists_are_remembered_as_far_as_places_are_told_apart() -> None:
    """The 51st item is not."""
    shown = ShownLists(200)
    publish(shown, 0, "0-7", list(range(200)))
    assert [find(shown, 0, "0-7", item).places[0] for item in (0, PLACES - 1, PLACES)] == [0, PLACES - 1, -1]
    nothing = Names(*(np.zeros(0, np.int64),) * 3)
    assert shown.find(ints(), nothing, ints()).places.tolist() == []
