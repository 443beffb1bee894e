"""Whose list a move changes: against a plain re-count, in a bounded queue, within a budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.recommend import reverse as module
from streams.recommend.reverse import ReverseRefreshes
from tests.fakes_core import event, offsets, world

K = 2
OWN, FOREIGN = 0, 1


def slots(*of: int) -> np.ndarray:
    """Store slots."""
    return np.array(of, np.int32)


def floats(*values: float) -> np.ndarray:
    """Cosines."""
    return np.array(values, np.float32)


def publish(target: ReverseRefreshes, slot: int, matches: dict[int, float], partition: int = OWN) -> None:
    """The matches of one user, best first, padded to four; the first two are the list."""
    padded = [*matches.items(), *[(-1, np.nan)] * (4 - len(matches))]
    ids, cosines = slots(*(i for i, _ in padded))[None], floats(*(c for _, c in padded))[None]
    target.published(slots(slot), ids, cosines, np.array([partition], np.int32))


def move(target: ReverseRefreshes, slot: int, matches: dict[int, float], partitions: list[int]) -> None:
    """A move of one user who now finds these."""
    ordered = sorted(matches.items(), key=lambda pair: -pair[1])
    padded = [*ordered, *[(-1, np.nan)] * (4 - len(ordered))]
    ids, cosines = slots(*(i for i, _ in padded))[None], floats(*(c for _, c in padded))[None]
    target.moved(slots(slot), ids, cosines, np.array(partitions, np.int32))


def queued(target: ReverseRefreshes, partition: int = OWN) -> list[int]:
    """Everybody whose turn could come, oldest first."""
    return target.due(partition, 1000, 0.0, but=())


def reverse(per_s: float = 1000.0) -> ReverseRefreshes:
    """Owns the first of two partitions."""
    target = ReverseRefreshes(K, per_s)
    target.own(OWN)
    return target


def test_who_comes_nearer_than_the_last_neighbour_enters() -> None:
    """Nearer than the last: queued; further, or in the list already: not."""
    target = reverse()
    publish(target, 0, {1: 0.9, 2: 0.5, 3: 0.4})
    move(target, 4, {0: 0.49}, [OWN] * 5)
    move(target, 1, {0: 0.95}, [OWN] * 5)
    assert queued(target) == []
    move(target, 4, {0: 0.51}, [OWN] * 5)
    assert queued(target) == [0]


def test_a_list_that_is_not_full_takes_anybody() -> None:
    """Even somebody who is not alike at all, and so does an empty one; a user without a list is left alone."""
    target = reverse()
    publish(target, 0, {1: 0.9})
    publish(target, 2, {})
    move(target, 3, {0: -0.9, 2: -0.95, 4: 0.9}, [OWN] * 5)
    assert queued(target) == [0, 2]


def test_who_falls_behind_the_runner_up_leaves() -> None:
    """A neighbour that is still nearer than the first outside stays, at whatever rank."""
    target = reverse()
    publish(target, 0, {1: 0.9, 2: 0.5, 3: 0.4})
    move(target, 1, {0: 0.41}, [OWN] * 4)
    assert queued(target) == []
    move(target, 1, {0: 0.39}, [OWN] * 4)
    assert queued(target) == [0]


def test_who_does_not_find_the_holder_is_at_most_as_near_as_the_last_found() -> None:
    """The last match bounds the cosine to a holder who is none; without four matches everybody was looked at."""
    target = reverse()
    publish(target, 0, {1: 0.9, 2: 0.5, 3: 0.4})
    move(target, 1, {5: 0.9, 6: 0.8, 7: 0.7, 8: 0.45}, [OWN] * 9)
    assert queued(target) == []
    move(target, 1, {5: 0.9, 6: 0.8, 7: 0.7, 8: 0.35}, [OWN] * 9)
    assert queued(target) == [0]


@pytest.mark.parametrize("replaced", [(0,), (1,), (2,), (0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)])
def test_a_new_list_takes_no_entry_of_another(replaced: tuple[int, ...]) -> None:
    """Three lists name one user; in whatever order some are replaced, only the others lose the user who goes."""
    target = reverse()
    for slot in range(3):
        publish(target, slot, {9: 0.9, 8: 0.5, 7: 0.4})
    for slot in replaced:
        publish(target, slot, {8: 0.5, 7: 0.4, 6: 0.3})
    move(target, 9, {}, [OWN] * 10)
    assert set(queued(target)) == {0, 1, 2} - set(replaced)


def test_only_own_partitions_are_refreshed() -> None:
    """Neither a foreign list nor one of a partition that was given up is remembered for long."""
    target = reverse()
    publish(target, 0, {1: 0.5, 2: 0.5}, FOREIGN)
    publish(target, 3, {1: 0.5, 2: 0.5}, OWN)
    move(target, 4, {0: 0.9, 3: 0.9}, [FOREIGN, OWN, OWN, OWN, OWN])
    assert (queued(target, FOREIGN), len(target)) == ([], 1)
    target.disown(OWN)
    move(target, 4, {3: 0.9}, [FOREIGN, OWN, OWN, OWN, OWN])
    assert (queued(target), len(target), target.room) == ([], 0, 0)


def test_one_refresh_answers_all_moves_and_a_list_answers_the_refresh() -> None:
    """A user waits once, in the first place, and no longer when an own event brought a list."""
    target = reverse()
    for slot in (0, 1):
        publish(target, slot, {5: 0.5, 6: 0.5})
    for mover in (2, 3):
        move(target, mover, {1: 0.9, 0: 0.8}, [OWN] * 7)
    assert queued(target) == [1, 0]
    assert target.coalesced == 2
    publish(target, 1, {2: 0.9, 3: 0.9})
    assert queued(target) == [0]
    assert target.coalesced == 3


def test_lists_that_the_index_has_outgrown_are_made_anew() -> None:
    """Two others fill a list: whoever had fewer to choose from is queued as soon as there is one more."""
    partitions = np.array([OWN, OWN, OWN, OWN, FOREIGN], np.int32)
    for others_now, expected in ((0, []), (1, [0]), (2, [0, 1]), (9, [0, 1])):
        target = reverse()
        target.outgrown(slots(0, 1, 2, 3, 4), np.array([0, 1, 2, 3, 0]), others_now, partitions)
        assert queued(target) == expected


def test_the_queue_is_bounded_and_counts_whom_it_drops() -> None:
    """Ten seconds of the budget, or 256; who finds no room is counted."""
    target = reverse(per_s=1.0)
    everybody = 300
    for slot in range(everybody):
        publish(target, slot, {999: 0.5, 998: 0.5})
    for slot in range(everybody):
        move(target, 900, {slot: 0.9}, [OWN] * 1000)
    assert (len(target), target.dropped) == (256, 44)


def test_the_budget_is_spent_once_and_not_saved_up() -> None:
    """At most one second's worth at a time; `due` spends, and an idle hour gives no more than a second does."""
    target = reverse(per_s=10.0)
    for slot in range(50):
        publish(target, slot, {999: 0.5, 998: 0.5})
        move(target, 900, {slot: 0.9}, [OWN] * 1000)
    assert target.due(OWN, 4, 100.0, but={1}) == [0, 2, 3, 4]
    assert target.due(OWN, 100, 100.0, but=()) == [0, 1, 2, 3, 4, 5]
    assert not target.is_due(OWN, 100.05)
    assert target.due(OWN, 100, 100.25, but=()) == [0, 1]
    assert len(target.due(OWN, 100, 4000.0, but=())) == 10
    assert len(target) == 50


def test_the_forgotten_leave_every_list() -> None:
    """Whoever names them is queued, nobody waits for them, and their own list counts no more."""
    target = reverse()
    publish(target, 0, {1: 0.9, 2: 0.5})
    publish(target, 1, {0: 0.9, 2: 0.8})
    move(target, 3, {1: 0.85}, [OWN] * 4)
    target.gone([1], np.array([OWN, -1, OWN, OWN], np.int32))
    assert queued(target) == [0]
    publish(target, 0, {2: 0.5})
    move(target, 0, {}, [OWN] * 4)
    assert queued(target) == []


def test_another_model_begins_anew() -> None:
    """Its cosines cannot be compared with those of before."""
    target = reverse()
    publish(target, 0, {1: 0.5, 2: 0.5})
    move(target, 3, {0: 0.9}, [OWN] * 4)
    target.clear()
    move(target, 3, {0: 0.9}, [OWN] * 4)
    assert queued(target) == []


def test_a_hub_concerns_so_many_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the lists that name one user, a bounded number is looked at when that user moves."""
    target = reverse()
    users = module.HOLDERS_MAX + 50
    for slot in range(users):
        publish(target, slot, {users: 0.9, users + 1: 0.5, users + 2: 0.4})
    move(target, users, {}, [OWN] * (users + 3))
    assert len(target) == module.HOLDERS_MAX


operations = st.tuples(
    st.booleans(), st.integers(0, 7), st.dictionaries(st.integers(0, 7), st.integers(-9, 9), max_size=4)
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(operations, max_size=25))
def test_moves_concern_whom_a_plain_recount_names(steps: list[tuple[bool, int, dict[int, int]]]) -> None:
    """Over random lists and moves, who is queued is who a walk over all lists finds."""
    target, lists = reverse(per_s=1e6), {}
    for is_list, slot, tenths in steps:
        matches = {other: tenth / 10 for other, tenth in tenths.items() if other != slot}
        matches = dict(sorted(matches.items(), key=lambda pair: -pair[1]))
        if is_list:
            publish(target, slot, matches)
            lists[slot] = list(matches.items())
            continue
        for waiting in queued(target):
            target._waiting[OWN].pop(waiting)
        move(target, slot, matches, [OWN] * 8)
        assert set(queued(target)) == concerned(slot, matches, lists)


def concerned(mover: int, matches: dict[int, float], lists: dict[int, list[tuple[int, float]]]) -> set[int]:
    """By the definition."""
    found, bound = set(), (min(matches.values()) if len(matches) == 4 else -2.0)
    for slot, best_first in lists.items():
        inside, outside = best_first[:K], best_first[K:]
        names = [other for other, _ in inside]
        if mover in names:
            runner_up = outside[0][1] if outside else -2.0
            if matches.get(slot, bound) < runner_up - 1e-3:
                found.add(slot)
        elif slot in matches and (len(inside) < K or matches[slot] > inside[-1][1] + 1e-3):
            found.add(slot)
    return found


def test_the_engine_tells_of_own_and_foreign_moves() -> None:
    """An own batch after its commit and a profile from the changelog both queue whose list they enter."""
    found = world(neighbour_candidates=3)
    found.engine.reverse = target = ReverseRefreshes(1, 100.0)
    target.own(OWN)
    found.feed([event("u1", "a"), event("u2", "b")])
    found.feed([event("u1", "a"), event("u2", "b")], 2)
    refresh = found.engine.prepare([event("u3", "a")], offsets(1, 4), OWN)
    assert queued(target) == []
    found.engine.apply(refresh)
    assert queued(target) == [0]
    other = world(neighbour_candidates=3)
    other.feed([event("u4", "b"), event("u4", "b")])
    columns = other.store.take(other.store.slots(["u4"]))
    columns.partition[:] = FOREIGN
    columns.recent_items[0, :2] = found.catalogue.slots(["b"])
    found.feed([event("u1", "a")], 5)
    found.engine.load(["u4"], columns, [()])
    assert queued(target) == [1]
    found.engine.forget(["u4"])
    assert found.engine.reverse is target
