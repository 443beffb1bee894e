"""Likeness to the profile."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from streams.recommend import content
from streams.recommend.candidates import Hidden
from streams.recommend.content import Among, cosines, guided_rows, nearest_recent, propose_by_content

EAST, NORTH, WEST = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)
NORTH_EAST = (0.6, 0.8)


def vectors(*rows: tuple[float, float]) -> np.ndarray:
    return np.array(rows, np.float32)


def hidden(*items: int) -> Hidden:
    return Hidden(np.array([0, len(items)], np.int32), np.array(items, np.int32))


def proposed(items: np.ndarray, eligible: list[bool], count: int, mask: Hidden | None = None) -> list[int]:
    found = propose_by_content(vectors(EAST), np.zeros(1, np.int32), items, np.array(eligible), mask or hidden(), count)
    return sorted(item for item in found[0].tolist() if item >= 0)


def test_the_nearest_eligible_items_are_proposed() -> None:
    """By cosine, and only where it is above 0; hidden and ineligible ones make room for the next."""
    items = vectors(NORTH_EAST, EAST, WEST, NORTH, EAST)
    assert proposed(items, [True] * 5, 2) == [1, 4]
    assert proposed(items, [True] * 5, 5) == [0, 1, 4]
    assert proposed(items, [True] * 5, 2, hidden(4)) == [0, 1]
    assert proposed(items, [True, False, True, True, True], 2) == [0, 4]


def test_users_without_direction_get_no_proposal() -> None:
    """Only the rows named are searched."""
    found = propose_by_content(
        vectors(EAST, EAST),
        np.array([1], np.int32),
        vectors(EAST),
        np.ones(1, np.bool_),
        Hidden(np.zeros(3, np.int32), np.zeros(0, np.int32)),
        1,
    )
    assert found.tolist() == [[-1], [0]]


@pytest.mark.parametrize("share", [0.02, 0.4, 0.97, 1.0])
def test_blocks_and_tiles_give_the_exact_best(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """However items and users are cut, packed or not, the proposals are those of a full sort."""
    monkeypatch.setattr(content, "ITEMS_PER_BLOCK", 128)
    rng = np.random.default_rng(3)
    users, items, count = 70, 1000, 9
    user_vectors = rng.standard_normal((users, 8)).astype(np.float32)
    item_vectors = rng.standard_normal((items, 8)).astype(np.float32)
    eligible = rng.random(items) < share
    mask = Hidden(np.arange(0, 3 * users + 1, 3, dtype=np.int32), rng.integers(0, items, 3 * users).astype(np.int32))
    rows = np.arange(users, dtype=np.int32)
    found = propose_by_content(user_vectors, rows, item_vectors, eligible, mask, count)
    for row in range(users):
        exact = item_vectors @ user_vectors[row]
        exact[~eligible] = -1
        exact[mask.items[3 * row : 3 * row + 3]] = -1
        best = [item for item in np.argsort(-exact)[:count].tolist() if exact[item] > 0]
        assert sorted(item for item in found[row].tolist() if item >= 0) == sorted(best)


def test_profiles_without_described_items_have_no_meaning() -> None:
    """A direction made of random ones guides nobody, nor does a described item without a direction."""
    recent = np.array([[0, -1], [1, 0], [1, -1], [-1, -1], [9, -1]], np.int32)
    directions = vectors(EAST, EAST, (0.0, 0.0), EAST, EAST)
    assert guided_rows(directions, recent, np.array([False, True])).tolist() == [False, True, False, False, False]


def test_cosines_are_zero_where_words_are_missing() -> None:
    """Undescribed items, padding and unguided users get 0."""
    items = np.array([[0, 1, 2, -1], [0, 1, 2, -1]], np.int32)
    found = cosines(
        vectors(EAST, EAST),
        np.array([True, False]),
        items,
        vectors(NORTH_EAST, EAST, WEST),
        np.array([True, False, True]),
    )
    assert_allclose(found, [[0.6, 0, -1, 0], [0, 0, 0, 0]], atol=1e-6)


def test_the_anchor_is_the_nearest_described_recent_item() -> None:
    """By cosine, the newer of equals; none when the item or all recent ones have no words."""
    item_vectors = vectors(EAST, NORTH, NORTH_EAST, EAST, EAST)
    described = np.array([True, True, True, True, False])
    recent = np.array([[0, 1, 3, 4], [4, -1, -1, -1]], np.int32)
    items = np.array([[0, 1, 4, -1], [0, 1, 2, -1]], np.int32)
    found = nearest_recent(items, recent, item_vectors, described)
    assert found.tolist() == [[3, 1, -1, -1], [-1, -1, -1, -1]]


def test_the_anchor_is_of_the_interest_that_is_asked_for() -> None:
    """Though a recent item of another one is nearer; none where nothing of it is described."""
    item_vectors = vectors(EAST, NORTH, NORTH_EAST, NORTH)
    recent = np.array([[1, 2, 3]], np.int32)
    among = Among(np.array([[0, 0, 1]], np.int8), np.array([[0, 1, -1, 1]], np.int8))
    items = np.array([[3, 3, 3, 0]], np.int32)
    found = nearest_recent(items, recent, item_vectors, np.array([True, True, True, True]), among)
    assert found.tolist() == [[1, 3, 3, 3]]
    found = nearest_recent(items, recent, item_vectors, np.array([True, True, True, False]), among)
    assert found.tolist() == [[-1, -1, -1, -1]]
