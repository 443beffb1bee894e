"""Which lists try a pair of items, and that nothing but the pair moves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from streams.recommend.exploration import NOT_MOVABLE, Pairs, drawn_pairs, tried
from streams.recommend.request import Ranking
from streams.recommend.shown_lists import NO_PAIR, upper_place

USERS = [f"u{n}" for n in range(20_000)]
ONE_EVENT = np.ones(len(USERS), np.int64)


def ranking(users: int, n: int, length: int) -> Ranking:
    """Lists of so many items, each place with figures of its own."""
    items = np.where(np.arange(n) < length, np.arange(users * n).reshape(users, n), -1).astype(np.int32)
    return Ranking(
        items=items,
        scores=items.astype(np.float32),
        shares=np.stack([items, -items], axis=2).astype(np.float32),
        short_because=np.arange(users).astype(np.uint8),
        voters=np.stack([items] * 3, axis=2),
        anchors=items + 1,
        companions=items + 2,
        groups=items + 3,
        categories=items + 4,
    )


def test_the_share_is_as_asked_for_and_pairs_and_coins_are_even() -> None:
    """A fifth of the lists; each lower place alike; half of them exchanged, whatever the place."""
    pairs = drawn_pairs(USERS, ONE_EVENT, 0.2, 20)
    places = np.bincount(pairs.lower, minlength=20)
    part = len(USERS) - places[NO_PAIR]
    assert abs(part / len(USERS) - 0.2) < 0.01
    assert (np.abs(places[1:] / part - 1 / 19) < 0.02).all()
    assert abs(pairs.exchanged.sum() / part - 0.5) < 0.03
    assert not pairs.exchanged[pairs.lower == NO_PAIR].any()


def test_chance_is_the_users_and_their_number_of_events() -> None:
    """The same in another batch, in another order; another one after the next event."""
    together = drawn_pairs(USERS, ONE_EVENT, 0.5, 20)
    backwards = drawn_pairs(USERS[::-1], ONE_EVENT, 0.5, 20)
    for mine, others in zip(together, backwards, strict=True):
        assert_array_equal(mine, others[::-1])
    later = drawn_pairs(USERS, ONE_EVENT + 1, 0.5, 20)
    assert 0.2 < (together.lower == later.lower).mean() < 0.3  # both take no part, or by chance in the same place
    assert drawn_pairs(["u1", "ü2"], np.array([7, 9]), 1.0, 20).lower.tolist() == [9, 15]


@pytest.mark.parametrize(("exploration", "places"), [(0.0, 20), (1.0, 1)])
def test_nothing_is_tried_where_nothing_can_be(exploration: float, places: int) -> None:
    """Switched off, or with lists of a single item."""
    assert not drawn_pairs(USERS, ONE_EVENT, exploration, places).lower.any()
    assert len(drawn_pairs([], np.zeros(0, np.int64), 1.0, 20).lower) == 0


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 30),
    length=st.integers(0, 30),
    pinned=st.sets(st.integers(0, 29), max_size=4),
)
def test_only_the_pair_moves_and_never_what_must_stay(seed: int, n: int, length: int, pinned: set[int]) -> None:
    """Every figure goes with its item; pinned places, ends of lists and other kinds stay where they are."""
    rng, users = np.random.default_rng(seed), 40
    before = ranking(users, n, length)
    kinds = np.where(before.items < 0, NOT_MOVABLE, rng.integers(0, 2, (users, n))).astype(np.int32)
    kinds[:, [place for place in pinned if place < n]] = NOT_MOVABLE
    pairs = drawn_pairs([str(user) for user in range(users)], rng.integers(0, 99, users), 1.0, n)
    after, lower = tried(before, pairs, kinds)
    assert_array_equal(np.sort(after.items, axis=1), np.sort(before.items, axis=1))
    assert_array_equal(after.items[kinds == NOT_MOVABLE], before.items[kinds == NOT_MOVABLE])
    assert_array_equal(after.short_because, before.short_because)
    present = after.items >= 0
    for name, offset in (("scores", 0), ("anchors", 1), ("companions", 2), ("groups", 3), ("categories", 4)):
        assert_array_equal(getattr(after, name)[present], after.items[present] + offset)
    assert_array_equal(after.shares[present][:, 1], -after.items[present])
    assert_array_equal(after.voters[:, :, 2], after.items)
    for row, place in enumerate(lower.tolist()):
        moved = np.flatnonzero(after.items[row] != before.items[row]).tolist()
        above = upper_place(place) if place else 0
        assert moved == ([above, place] if place and pairs.exchanged[row] else [])
        assert place == NO_PAIR or kinds[row, above] == kinds[row, place] != NOT_MOVABLE


def test_the_lists_that_were_handed_in_stay() -> None:
    """A refresh is computed on copies."""
    before = ranking(1, 3, 3)
    pairs = Pairs(np.array([2], np.int32), np.array([True]))
    after, lower = tried(before, pairs, np.zeros((1, 3), np.int32))
    assert (before.items.tolist(), after.items.tolist(), lower.tolist()) == ([[0, 1, 2]], [[2, 1, 0]], [2])
