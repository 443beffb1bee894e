"""The tastes of users who have more than one. Shapes: u users, m interests, R recent items, d dimensions.

A taste is a cluster of recent items by Ward's method, as in PinnerSage (Pal et al., KDD 2020), on item vectors that
weigh less the older they are. Clusters are kept as sums of inner products, so that a merge costs no dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.recommend.kernel import kernel

INTERESTS_MAX = 4
ITEMS_MIN = 4
"""Described recent items below which a user has one interest: the profile."""
ALIKE_MIN = 0.6
"""Tastes whose directions have this cosine or a larger one are the same."""
SQUARE_MIN = 1e-12
"""A sum of vectors with a smaller square has no direction."""

Doubles = NDArray[np.float64]
Members = NDArray[np.int8]


class Interests(NamedTuple):
    """What users like apart from each other; nothing for those of one taste, whom the profile describes."""

    vectors: Floats
    """(u, m, d) unit vectors, the weightiest first; zeros where a user has fewer."""
    weights: Doubles
    """(u, m) share of the recent items' mass; the sum is 1, or 0 for a user of one taste."""
    members: Members
    """(u, R) which of the m each recent item belongs to, -1 for none."""

    @classmethod
    def none(cls, users: int, interests: int, recent: int, dim: int) -> Interests:
        """Everybody has one taste."""
        return cls(
            np.zeros((users, interests, dim), np.float32),
            np.zeros((users, interests)),
            np.full((users, recent), -1, np.int8),
        )


class _Work(NamedTuple):
    """Clusters of one user. Those in use are the first; R is the most there can be."""

    places: Slots
    """(R,) places of the items among the recent ones."""
    cluster: Slots
    """(R,) cluster of each item."""
    inner: Doubles
    """(R, R) inner products of the clusters' sums of vectors."""
    weight: Doubles
    """(R,) of each item."""
    mass: Doubles
    """(R,) sum of the weights of each cluster's items."""


def find_interests(
    recent_items: Slots,
    recent_count: NDArray[np.int32],
    type_weights: Doubles,
    item_vectors: Floats,
    described: NDArray[np.bool_],
    interests: int,
) -> Interests:
    """At most `interests` tastes of each user; a row depends on nothing but that user's recent items.

    Args:
        recent_items: (u, R) catalogue slots, oldest first, left-aligned.
        recent_count: (u,) how many of the R are in use.
        type_weights: (u, R) what the type of each event is worth; an item with 0 is passed over.
        item_vectors: (items, d) unit vectors.
        described: (items,) the vector means something; other items are passed over.
        interests: m, 2 to INTERESTS_MAX.

    Raises:
        ValueError: `interests` is out of range.
    """
    if not 2 <= interests <= INTERESTS_MAX:
        raise ValueError(f"expected 2 to {INTERESTS_MAX} interests, got {interests}: one is the profile itself")
    users, recent = recent_items.shape
    found = Interests.none(users, interests, recent, item_vectors.shape[1])
    work = _Work(
        places=np.zeros(recent, np.int32),
        cluster=np.zeros(recent, np.int32),
        inner=np.zeros((recent, recent)),
        weight=np.zeros(recent),
        mass=np.zeros(recent),
    )
    _find(recent_items, recent_count, type_weights, item_vectors, described, work, found)
    return found


@kernel
def _find(
    recent_items: Slots,
    recent_count: NDArray[np.int32],
    type_weights: Doubles,
    item_vectors: Floats,
    described: NDArray[np.bool_],
    work: _Work,
    found: Interests,
) -> None:
    for row in range(len(recent_items)):
        count = recent_count[row]
        items = _take(recent_items[row], count, type_weights[row], described, work)
        if items < ITEMS_MIN:
            continue
        _multiply(recent_items[row], item_vectors, items, work)
        clusters = _merge(items, found.weights.shape[1], work)
        if clusters > 1 and _directed(clusters, work.inner):
            _describe(recent_items[row], item_vectors, items, clusters, work, found, row)


@kernel
def _take(recent: Slots, count: int, weights: Doubles, described: NDArray[np.bool_], work: _Work) -> int:
    """Each usable item is a cluster, newest first, and weighs 1 / sqrt(age). Returns how many there are."""
    items = 0
    for age in range(count):
        place = count - 1 - age
        item = recent[place]
        if 0 <= item < len(described) and described[item] and weights[place] > 0:
            work.places[items] = place
            work.cluster[items] = items
            work.weight[items] = work.mass[items] = weights[place] / np.sqrt(age + 1.0)
            items += 1
    return items


@kernel
def _multiply(recent: Slots, item_vectors: Floats, items: int, work: _Work) -> None:
    """Inner products of the weighted item vectors."""
    for one in range(items):
        left = item_vectors[recent[work.places[one]]]
        for other in range(one + 1):
            right = item_vectors[recent[work.places[other]]]
            total = np.float32(0)
            for index in range(len(left)):
                total += left[index] * right[index]
            product = total * work.weight[one] * work.weight[other]
            work.inner[one, other] = product
            work.inner[other, one] = product


@kernel
def _merge(items: int, most: int, work: _Work) -> int:
    """Joins clusters until `most` are left and no two of these are alike. Returns how many there are."""
    clusters = items
    while clusters > 1:
        one, other = _nearest(clusters, work)
        if clusters <= most and _cosine(one, other, work.inner) < ALIKE_MIN:
            break
        _join(one, other, items, clusters, work)
        clusters -= 1
    return clusters


@kernel
def _nearest(clusters: int, work: _Work) -> tuple[int, int]:
    """The pair whose union adds the least variance (Ward 1963), the newer of equals; the first has the lower number."""
    best, first, second = np.inf, 0, 1
    for one in range(clusters):
        own, square = work.mass[one], work.inner[one, one] / (work.mass[one] * work.mass[one])
        for other in range(one + 1, clusters):
            mass = work.mass[other]
            apart = square + work.inner[other, other] / (mass * mass) - 2 * work.inner[one, other] / (own * mass)
            cost = apart * own * mass / (own + mass)
            if cost < best:
                best, first, second = cost, one, other
    return first, second


@kernel
def _cosine(one: int, other: int, inner: Doubles) -> float:
    """Of the directions of two clusters; 1 where one has none, which then is no taste of its own."""
    squares = inner[one, one] * inner[other, other]
    return inner[one, other] / np.sqrt(squares) if squares > SQUARE_MIN else 1.0


@kernel
def _directed(clusters: int, inner: Doubles) -> bool:
    """Whether all have a direction: opposite items may have none."""
    least = np.inf
    for one in range(clusters):
        least = min(least, inner[one, one])
    return least > SQUARE_MIN


@kernel
def _join(one: int, other: int, items: int, clusters: int, work: _Work) -> None:
    """Adds a cluster to one of a lower number; the last takes its place."""
    last, inner = clusters - 1, work.inner
    inner[one, :clusters] += inner[other, :clusters]
    inner[:clusters, one] += inner[:clusters, other]
    work.mass[one] += work.mass[other]
    inner[other, :clusters] = inner[last, :clusters]
    inner[:clusters, other] = inner[:clusters, last]
    work.mass[other] = work.mass[last]
    for item in range(items):
        if work.cluster[item] == other:
            work.cluster[item] = one
        elif work.cluster[item] == last:
            work.cluster[item] = other


@kernel
def _describe(
    recent: Slots, item_vectors: Floats, items: int, clusters: int, work: _Work, found: Interests, row: int
) -> None:
    """Writes down the clusters, the one of the largest mass first."""
    masses = work.mass[:clusters]
    order = np.argsort(-masses, kind="mergesort")
    total = masses.sum()
    rank = np.zeros(clusters, np.int32)
    for place in range(clusters):
        rank[order[place]] = place
        found.weights[row, place] = masses[order[place]] / total
    vectors = np.zeros((clusters, item_vectors.shape[1]))
    for item in range(items):
        interest = rank[work.cluster[item]]
        place = work.places[item]
        found.members[row, place] = interest
        for index in range(item_vectors.shape[1]):
            vectors[interest, index] += work.weight[item] * item_vectors[recent[place], index]
    for interest in range(clusters):
        found.vectors[row, interest] = vectors[interest] / np.sqrt((vectors[interest] * vectors[interest]).sum())


@kernel
def interest_cosines(interests: Interests, items: Slots, item_vectors: Floats, eligible: NDArray[np.bool_]) -> Floats:
    """(u, c) cosines of items (u, c) with whichever interest is nearest.

    0 where all are negative, where the item is not eligible, and for users of one taste.
    """
    found = np.zeros(items.shape, np.float32)
    for row in range(items.shape[0]):
        for interest in range(interests.weights.shape[1]):
            if interests.weights[row, interest] == 0.0:
                break
            vector = interests.vectors[row, interest]
            for column in range(items.shape[1]):
                item = items[row, column]
                if item >= 0 and eligible[item]:
                    found[row, column] = max(found[row, column], _dot(vector, item_vectors[item]))
    return found


@kernel
def nearest_interests(
    interests: Interests, profiles: Floats, items: Slots, item_vectors: Floats, described: NDArray[np.bool_]
) -> Members:
    """(u, n) the interest nearest to each item (u, n); -1 where the profile (u, d) is nearer, or nothing is known."""
    found = np.full(items.shape, -1, np.int8)
    for row in range(items.shape[0]):
        for column in range(items.shape[1]):
            item = items[row, column]
            if item < 0 or not described[item]:
                continue
            best = _dot(profiles[row], item_vectors[item])
            for interest in range(interests.weights.shape[1]):
                if interests.weights[row, interest] == 0.0:
                    break
                cosine = _dot(interests.vectors[row, interest], item_vectors[item])
                if cosine > best:
                    found[row, column], best = interest, cosine
    return found


def quotas(interests: Interests, count: int) -> Slots:
    """(u, m) how many of `count` items each interest proposes, by weight; the sum is `count`, or 0 for one taste."""
    ends = np.rint(np.cumsum(interests.weights, axis=1) * count).astype(np.int32)
    return np.diff(ends, axis=1, prepend=0).astype(np.int32)


@kernel
def _dot(left: Floats, right: Floats) -> np.float32:
    total = np.float32(0)
    for index in range(len(left)):
        total += left[index] * right[index]
    return total
