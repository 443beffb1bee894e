"""Ids to slots: a dict's answers from a hash table that shares the ids with their column."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from index.slot_map import EMPTY, PLACES_MIN, SlotMap

PRIME = 2**61 - 1
"""Python hashes an int to its remainder by this."""


def column(capacity: int) -> np.ndarray:
    return np.empty(capacity, np.object_)


def filled(ids: list[int | str]) -> SlotMap:
    """Slot i holds the i-th id."""
    held = column(len(ids))
    held[:] = ids
    slots = SlotMap(held)
    slots.add(ids, np.arange(len(ids), dtype=np.int32))
    return slots


def test_ids_are_found_and_strangers_are_not() -> None:
    """Strings and ints beside each other, many more than there were places for at first."""
    ids: list[int | str] = [*range(0, 4096, 64), *(f"user-{number}" for number in range(1000)), -1, -2, 2**70]
    slots = filled(ids)
    assert len(slots) == len(ids)
    assert slots.find(ids).tolist() == list(range(len(ids)))
    assert slots.find(["user-1000", 1, None, "", 2**71]).tolist() == [-1] * 5
    assert all(vector_id in slots for vector_id in ids)
    assert "0" not in slots


def test_ids_of_one_hash_are_told_apart() -> None:
    """Equal hashes are no equality: -1 and -2 share one, as do ints that a prime lies between."""
    ids: list[int | str] = [-1, -2, *(7 + step * PRIME for step in range(5))]
    slots = filled(ids[:-1])
    assert slots.find(ids).tolist() == [0, 1, 2, 3, 4, 5, -1]
    slots.drop(np.array([0, 3], np.int32))
    assert slots.find(ids).tolist() == [-1, 1, 2, -1, 4, 5, -1]
    assert [vector_id in slots for vector_id in ids] == [False, True, True, False, True, True, False]


def test_equal_ids_of_different_types_are_one() -> None:
    """As in a dict: 3, 3.0 and numpy's 3 name the same vector."""
    slots = filled([3, "3"])
    assert slots.find([np.int64(3), "3"]).tolist() == [0, 1]  # type: ignore[list-item]
    assert 3.0 in slots  # type: ignore[comparison-overlap]


def test_ids_that_come_and_go_do_not_make_it_grow() -> None:
    """Places of taken-out ids are used again or swept: a hundred thousand changes of twenty ids stay small."""
    held = column(40)
    slots = SlotMap(held)
    for step in range(5000):
        batch = [20 * step + number for number in range(20)]
        places = np.arange(20, dtype=np.int32) + 20 * (step % 2)
        held[places] = batch
        slots.add(batch, places)
        assert slots.find(batch).tolist() == places.tolist()
        slots.drop(places)
    assert len(slots) == 0
    assert slots.memory_bytes(40) == 4 * (PLACES_MIN + 40)


def test_a_grown_column_keeps_its_slots() -> None:
    """Growth of the table changes no answer."""
    slots = filled(["a", "b"])
    grown = column(10)
    grown[:3] = ["a", "b", "c"]
    slots.move_to(grown)
    slots.add(["c"], np.array([2], np.int32))
    assert slots.find(["c", "b", "a", "d"]).tolist() == [2, 1, 0, EMPTY]


def test_who_reads_beside_growth_meets_no_slot_beyond_its_columns() -> None:
    """The kernels check no bounds: what a reader took before a growth never names a slot that came after it."""
    slots = filled(["a", "b"])
    before = slots._columns
    grown = column(10)
    grown[:3] = ["a", "b", "c"]
    slots.move_to(grown)
    slots.add(["c"], np.array([2], np.int32))
    assert before.places.max() < len(before.tags) == len(before.ids) == 2


few_hashes = st.one_of(st.integers(0, 40), st.integers(0, 6).map(lambda step: 5 + step * PRIME), st.sampled_from("abc"))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["add", "drop"]), st.lists(few_hashes, unique=True, max_size=30)), max_size=30)
)
def test_any_order_of_changes_agrees_with_a_dict(steps: list[tuple[str, list[int | str]]]) -> None:
    """With ids that share hashes, and slots that are used again."""
    held = column(60)
    slots, model, free = SlotMap(held), dict[int | str, int](), list(range(60))
    for action, batch in steps:
        if action == "add":
            new = [vector_id for vector_id in batch if vector_id not in model]
            taken = [free.pop(0) for _ in new]
            held[taken] = np.fromiter(new, np.object_, len(new))
            slots.add(new, np.array(taken, np.int32))
            model.update(zip(new, taken, strict=True))
        else:
            gone = [model.pop(vector_id) for vector_id in batch if vector_id in model]
            slots.drop(np.array(gone, np.int32))
            held[gone] = None
            free += gone
        assert len(slots) == len(model)
        assert slots.find(batch).tolist() == [model.get(vector_id, -1) for vector_id in batch]
        assert slots.find(list(model)).tolist() == list(model.values())
