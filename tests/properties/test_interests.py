"""What holds for the tastes of any user, against a clustering in plain numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from streams.recommend.interests import (
    ALIKE_MIN,
    INTERESTS_MAX,
    ITEMS_MIN,
    Interests,
    find_interests,
    quotas,
)

DIM, RECENT = 6, 12


class Users(NamedTuple):
    recent_items: np.ndarray
    recent_count: np.ndarray
    weights: np.ndarray
    item_vectors: np.ndarray
    described: np.ndarray
    interests: int

    def found(self, rows: slice = slice(None)) -> Interests:
        return find_interests(
            np.ascontiguousarray(self.recent_items[rows]),
            np.ascontiguousarray(self.recent_count[rows]),
            np.ascontiguousarray(self.weights[rows]),
            self.item_vectors,
            self.described,
            self.interests,
        )


@st.composite
def users(draw: st.DrawFn) -> Users:
    """People who return to the same items, of tastes more or less apart; some items are each other's opposites."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    items, count = draw(st.integers(1, 30)), draw(st.integers(0, 12))
    centres = rng.standard_normal((draw(st.integers(1, 6)), DIM))
    vectors = centres[rng.integers(0, len(centres), items)] * rng.choice([1, 1, 1, -1], (items, 1))
    vectors = vectors + draw(st.sampled_from([0.0, 0.1, 1.0])) * rng.standard_normal(vectors.shape)
    counts = rng.integers(0, RECENT + 1, count).astype(np.int32)
    recent = np.where(np.arange(RECENT) < counts[:, None], rng.integers(0, items, (count, RECENT)), -1)
    return Users(
        recent.astype(np.int32),
        counts,
        rng.choice([0.0, 1.0, 1.5, 6.0], recent.shape),
        (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
        rng.random(items) < draw(st.sampled_from([0.5, 1.0])),
        draw(st.integers(2, INTERESTS_MAX)),
    )


@settings(deadline=None, derandomize=True)
@given(users(), st.integers(0, 12))
def test_a_user_alone_has_the_same_bits_as_in_any_batch(people: Users, cut: int) -> None:
    """However users fall into batches."""
    whole = people.found()
    for first, second, both in zip(people.found(slice(cut)), people.found(slice(cut, None)), whole, strict=True):
        assert_array_equal(np.concatenate([first, second]), both)


@settings(deadline=None, derandomize=True)
@given(users())
def test_interests_are_unit_and_their_weights_sum_to_one(people: Users) -> None:
    """Largest first; or exact zeros. Members are items that have words and weight."""
    found = people.found()
    assert np.isfinite(found.vectors).all()
    several = found.weights.any(axis=1)
    assert_allclose(found.weights.sum(axis=1), several)
    assert (np.diff(found.weights, axis=1) <= 0).all()
    assert ((found.weights > 0).sum(axis=1)[several] >= 2).all()
    assert_allclose(np.linalg.norm(found.vectors, axis=2), found.weights > 0, atol=1e-5)
    assert (quotas(found, 17).sum(axis=1) == 17 * several).all()
    usable = (people.recent_items >= 0) & people.described[people.recent_items] & (people.weights > 0)
    assert_array_equal(found.members >= 0, usable & several[:, None])


@settings(deadline=None, derandomize=True)
@given(users())
def test_clusters_are_those_of_ward(people: Users) -> None:
    """Merging by hand whichever pair adds least variance ends in clusters of the same spread."""
    found = people.found()
    for row in range(len(people.recent_items)):
        clusters = by_hand(people, row)
        if not found.weights[row].any():
            assert clusters is None
            continue
        assert clusters is not None
        places = np.flatnonzero(found.members[row] >= 0)
        mine = [places[found.members[row][places] == interest].tolist() for interest in range(len(clusters))]
        assert_allclose(spread(people, row, mine), spread(people, row, clusters), rtol=1e-4, atol=1e-5)


def weights_of(people: Users, row: int) -> np.ndarray:
    return people.weights[row] / np.sqrt(np.maximum(people.recent_count[row] - np.arange(RECENT), 1))


def spread(people: Users, row: int, clusters: list[list[int]]) -> float:
    """Weighted squares of the distances of all items to their cluster's mean."""
    weights, total = weights_of(people, row), 0.0
    for places in clusters:
        vectors, own = people.item_vectors[people.recent_items[row, places]].astype(float), weights[places]
        mean = own @ vectors / own.sum()
        total += float(own @ ((vectors - mean) ** 2).sum(axis=1))
    return total


def by_hand(people: Users, row: int) -> list[list[int]] | None:
    """None for one taste, or where a cluster has no direction or a choice hangs on rounding."""
    weights = weights_of(people, row)
    places = [
        place
        for place in range(people.recent_count[row])
        if people.described[people.recent_items[row, place]] and weights[place] > 0
    ]
    if len(places) < ITEMS_MIN:
        return None
    clusters = [[place] for place in reversed(places)]
    while len(clusters) > 1:
        pairs = [(i, j) for i in range(len(clusters)) for j in range(i + 1, len(clusters))]
        apart = spread(people, row, clusters)
        merged = [[*clusters[:j], *clusters[j + 1 :]] for _, j in pairs]
        for (i, j), union in zip(pairs, merged, strict=True):
            union[i] = [*clusters[i], *clusters[j]]
        costs = [spread(people, row, union) - apart for union in merged]
        best = int(np.argmin(costs))
        i, j = pairs[best]
        sums = [weights[c] @ people.item_vectors[people.recent_items[row, c]] for c in (clusters[i], clusters[j])]
        squares = np.prod([total @ total for total in sums])
        cosine = sums[0] @ sums[1] / np.sqrt(squares) if squares > 1e-12 else 1.0
        if len(clusters) <= people.interests and cosine < ALIKE_MIN:
            return clusters
        clusters = merged[best]
    return None
