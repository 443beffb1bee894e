"""The profile store: columns that grow, slots that stay with their user."""

from __future__ import annotations

import numpy as np
import pytest

from streams.core.profile import FORGOTTEN, GROWTH, NO_ITEM, ROWS_MIN, ProfileColumns, ProfileLayout, ProfileStore
from tests.fakes_core import row_of

LAYOUT = ProfileLayout(state_width=3, recent_items=2, event_id_window=2)
WIDE = ProfileLayout(state_width=8, recent_items=255, event_id_window=255)


def profiles(seeds: list[int], layout: ProfileLayout = LAYOUT) -> ProfileColumns:
    """One profile a seed, no field of which is like that of another seed."""
    columns = ProfileColumns.empty(len(seeds), layout)
    for row, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        columns.events[row] = columns.version[row] = columns.recent_total[row] = seed
        columns.last_offset[row] = 10 * seed
        columns.last_time_ms[row] = 1_700_000_000_000 + seed
        columns.partition[row] = seed % 7
        columns.recent_count[row] = columns.event_id_count[row] = 1
        columns.recent_items[row] = rng.integers(0, 2**31, layout.recent_items)
        columns.recent_types[row] = rng.integers(0, 14, layout.recent_items)
        columns.recent_times_s[row] = rng.integers(0, 2**32, layout.recent_items)
        columns.event_ids[row] = rng.integers(0, 2**63, layout.event_id_window)
        columns.state[row] = rng.normal(size=layout.state_width)
    return columns


def test_a_profile_comes_back_as_it_was_put() -> None:
    """Every field of every user is kept, in whatever order it is asked for."""
    store = ProfileStore(LAYOUT)
    store.put(["a", "b", "c"], profiles([1, 2, 3]))
    taken = store.take(store.slots(["c", "a"]))
    assert [row_of(taken, 0), row_of(taken, 1)] == [row_of(profiles([3, 1]), row) for row in (0, 1)]


def test_an_unknown_user_is_a_user_without_history() -> None:
    """Slot -1 gives an empty profile, not that of the last user, even when the store is full."""
    store = ProfileStore(LAYOUT)
    store.put([f"u{n}" for n in range(ROWS_MIN)], profiles(list(range(ROWS_MIN))))
    slots = store.slots(["nobody", "u5"])
    assert slots.tolist() == [-1, 5]
    nobody = row_of(store.take(slots), 0)
    assert nobody == {
        "events": 0,
        "version": 0,
        "last_offset": -1,
        "last_time_ms": 0,
        "partition": -1,
        "recent_total": 0,
        "recent_count": 0,
        "recent_items": [NO_ITEM, NO_ITEM],
        "recent_types": [0, 0],
        "recent_times_s": [0, 0],
        "event_id_count": 0,
        "event_ids": [0, 0],
        "state": bytes(12),
    }


def test_a_user_without_history_is_stored_as_one() -> None:
    """What `take` gives for an unknown user survives `put`: -1 stays -1."""
    store = ProfileStore(LAYOUT)
    nobody = store.take(store.slots(["x"]))
    before = row_of(nobody, 0)
    store.put(["x"], nobody)
    assert row_of(store.take(store.slots(["x"])), 0) == before


def test_taken_profiles_are_copies() -> None:
    """Working on what was taken leaves the store alone."""
    store = ProfileStore(LAYOUT)
    store.put(["a"], profiles([1]))
    taken = store.take(store.slots(["a"]))
    taken.clear(slice(None))
    assert row_of(store.take(store.slots(["a"])), 0) == row_of(profiles([1]), 0)


def test_what_was_put_is_copied() -> None:
    """The caller's columns may change after `put`."""
    store = ProfileStore(LAYOUT)
    given = profiles([1])
    store.put(["a"], given)
    given.clear(slice(None))
    assert row_of(store.take(store.slots(["a"])), 0) == row_of(profiles([1]), 0)


def test_a_new_user_given_twice_takes_one_slot() -> None:
    """Both rows have the same slot, and the last one counts."""
    store = ProfileStore(LAYOUT)
    slots = store.put(["a", "b", "a"], profiles([1, 2, 3]))
    assert slots.tolist() == [0, 1, 0]
    assert store.user_ids == ["a", "b"]
    assert row_of(store.take(slots), 0) == row_of(profiles([3]), 0)


@pytest.mark.parametrize("layout", [LAYOUT, WIDE], ids=["narrow", "255 wide"])
def test_thousands_of_users_outgrow_the_first_rows(layout: ProfileLayout) -> None:
    """Growing keeps every profile and every slot; slots are given in the order of arrival."""
    users = int(ROWS_MIN * GROWTH**2) + 7
    store = ProfileStore(layout)
    for first in range(0, users, 100):
        seeds = list(range(first, min(first + 100, users)))
        slots = store.put([f"user-{seed}" for seed in seeds], profiles(seeds, layout))
        assert slots.tolist() == seeds
    assert len(store) == users
    checked = [0, 1, ROWS_MIN - 1, ROWS_MIN, ROWS_MIN + 1, int(ROWS_MIN * GROWTH), users - 1]
    taken = store.take(store.slots([f"user-{seed}" for seed in checked]))
    expected = profiles(checked, layout)
    assert [row_of(taken, row) for row in range(len(checked))] == [row_of(expected, row) for row in range(len(checked))]


def test_one_call_may_bring_more_users_than_there_is_room() -> None:
    """A batch that outgrows the rows several times over is stored whole."""
    store = ProfileStore(LAYOUT)
    seeds = list(range(ROWS_MIN * 4))
    slots = store.put([str(seed) for seed in seeds], profiles(seeds))
    assert store.take(slots).events.tolist() == seeds


def test_forgetting_empties_the_profile_and_drops_the_id() -> None:
    """A slot never points to somebody else: the next new user gets another one, and the id is nowhere."""
    store = ProfileStore(LAYOUT)
    store.put(["a", "b"], profiles([1, 2]))
    store.set_excluded(0, (4, 5))
    assert store.forget(["a", "nobody", "a"]) == [0]
    assert store.put(["c"], profiles([3])).tolist() == [2]
    assert store.slots(["a", "b", "c"]).tolist() == [-1, 1, 2]
    assert store.user_ids == [FORGOTTEN, "b", "c"]
    assert row_of(store.take(np.array([0], np.int32)), 0) == row_of(store.take(np.array([-1], np.int32)), 0)
    assert store.excluded == {}
    assert row_of(store.take(store.slots(["b"])), 0) == row_of(profiles([2]), 0)


def test_a_forgotten_user_may_come_back() -> None:
    """In a slot of its own, with a history that starts anew; forgotten again, it is gone again."""
    store = ProfileStore(LAYOUT)
    store.put(["a", "b"], profiles([1, 2]))
    store.forget(["a"])
    assert store.put(["a"], profiles([9])).tolist() == [2]
    assert row_of(store.take(store.slots(["a"])), 0) == row_of(profiles([9]), 0)


def test_ids_are_any_text() -> None:
    """Ids that differ only in case, in composition or in a blank are different users."""
    ids = ["é", "e\u0301", "É", "用户", "👩‍👩‍👧", " a", "a ", "a", "\u0000", "x" * 256]
    store = ProfileStore(LAYOUT)
    assert store.put(ids, profiles(list(range(len(ids))))).tolist() == list(range(len(ids)))
    assert store.slots([*ids, "e"]).tolist() == [*range(len(ids)), -1]


def test_no_exclusions_take_no_room() -> None:
    """An empty tuple removes the entry, whether there was one or not."""
    store = ProfileStore(LAYOUT)
    store.set_excluded(0, (1,))
    store.set_excluded(0, ())
    store.set_excluded(1, ())
    assert store.excluded == {}


def test_a_store_is_restored_whole() -> None:
    """Ids keep their slots, forgotten slots stay empty, and the next user gets the next slot."""
    store, saved = ProfileStore(LAYOUT), profiles(list(range(ROWS_MIN)))
    store.restore(["a", FORGOTTEN, "b", FORGOTTEN], saved, {2: (7,)})
    assert store.slots(["a", "b", FORGOTTEN]).tolist() == [0, 2, -1]
    assert store.excluded == {2: (7,)}
    assert row_of(store.take(store.slots(["b"])), 0) == row_of(profiles([2]), 0)
    assert store.put(["c"], profiles([9])).tolist() == [4]


@pytest.mark.parametrize(
    ("user_ids", "rows", "complaint"),
    [
        (["a", "b", "a"], ROWS_MIN, "twice"),
        (["a"], ROWS_MIN - 1, "rows or more, got one of 0 users and 1023 rows"),
        ([str(n) for n in range(ROWS_MIN + 1)], ROWS_MIN, "rows or more"),
    ],
)
def test_a_store_that_does_not_fit_is_refused(user_ids: list[str], rows: int, complaint: str) -> None:
    """And nothing of it is taken over."""
    store = ProfileStore(LAYOUT)
    with pytest.raises(ValueError, match=complaint):
        store.restore(user_ids, ProfileColumns.empty(rows, LAYOUT), {})
    assert len(store) == 0


def test_only_an_empty_store_is_restored() -> None:
    """Somebody who is here already would lose a profile."""
    store = ProfileStore(LAYOUT)
    store.put(["a"], profiles([1]))
    with pytest.raises(ValueError, match="got one of 1 users"):
        store.restore(["b"], ProfileColumns.empty(ROWS_MIN, LAYOUT), {})
