"""Hubness: the counts, their skew, and what the two corrections make of a list."""

from __future__ import annotations

import math
import warnings
from statistics import NormalDist

import numpy as np
import pytest

from index import DimensionMismatch, EmptyIndex, ExactIndex, IndexConfig, InvalidNeighbours, Matches
from index.hubness import LocalScaling, MutualProximity, k_occurrence, skewness
from index.results import Floats, VectorId

NAN = float("nan")


def directions(seed: int, count: int, dim: int) -> Floats:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def indexed(vectors: Floats, ids: list[VectorId] | None = None) -> ExactIndex:
    index = ExactIndex(IndexConfig(dim=vectors.shape[1], capacity_initial=1))
    index.upsert(list(range(len(vectors))) if ids is None else ids, vectors)
    return index


def matched(ids: list[list[VectorId | None]], similarities: list[list[float]]) -> Matches:
    return Matches(np.array(ids, np.object_), np.array(similarities, np.float32))


def around_hubs(seed: int = 3, count: int = 600, hubs: int = 5, dim: int = 32) -> Floats:
    """Points spread around one direction; the hubs lie close to it, and so close to everybody."""
    rng = np.random.default_rng(seed)
    spread = np.full((count, 1), 0.35)
    spread[:hubs] = 0.05
    vectors = (np.eye(1, dim) + spread * rng.standard_normal((count, dim))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_k_occurrence_counts_the_lists_of_each_row() -> None:
    """Padding is passed over and rows that nobody lists count zero."""
    lists = np.array([[1, 2], [2, -1], [1, 2]], np.int32)
    assert k_occurrence(lists, 5).tolist() == [0, 2, 3, 0, 0]
    assert k_occurrence(np.full((2, 3), -1), 2).tolist() == [0, 0]


def test_k_occurrence_refuses_rows_that_do_not_exist() -> None:
    """A row at or above the size is named."""
    with pytest.raises(ValueError, match="row numbers below 3, got 3"):
        k_occurrence(np.array([[0, 3]]), 3)


def test_skewness_is_the_third_standardised_moment() -> None:
    """By hand for 0, 0, 0, 4; mirrored it changes its sign; of equal counts it is 0."""
    assert skewness(np.array([0, 0, 0, 4])) == pytest.approx(2 / math.sqrt(3))
    assert skewness(np.array([4, 4, 4, 0])) == pytest.approx(-2 / math.sqrt(3))
    assert skewness(np.array([7, 7, 7])) == 0.0
    with pytest.raises(EmptyIndex, match="at least one vector"):
        skewness(np.empty(0, np.int64))


def test_csls_moves_hubs_behind_what_is_nearer_than_usual() -> None:
    """2 cos - r(y) decides: .9 to a hub of r .9 loses against .8 to a vector of r .5. Cosines are reported."""
    correction = LocalScaling(["hub", "other", "far"], np.array([0.9, 0.5, 0.4]))
    matches = matched([["hub", "other", "far"]], [[0.9, 0.8, 0.1]])
    ids, similarities = correction.rerank(matches, 2)
    assert ids.tolist() == [["other", "hub"]]
    assert similarities.tolist() == np.array([[0.8, 0.9]], np.float32).tolist()
    assert similarities.dtype == np.float32


def test_csls_measures_r_over_the_nearest_others() -> None:
    """r is the mean cosine to the k nearest without the vector itself, in every block of a larger index."""
    vectors = directions(1, 700, 16)
    correction = LocalScaling.measure(indexed(vectors), k=5)
    cosines = vectors.astype(np.float64) @ vectors.T
    np.fill_diagonal(cosines, -2)
    r = np.sort(cosines, axis=1)[:, -5:].mean(axis=1)
    everybody = np.tile(np.arange(700).astype(np.object_), (3, 1))
    ids, _ = correction.rerank(Matches(everybody, cosines[:3].astype(np.float32)), 20)
    assert ids.astype(int).tolist() == np.argsort(-(2 * cosines[:3] - r), axis=1)[:, :20].tolist()


def test_an_unknown_id_has_the_mean_r() -> None:
    """Who came after the measurement is neither favoured nor held back; nor is who had no neighbour."""
    correction = LocalScaling(["low", "high", "alone"], np.array([0.25, 0.75, NAN]))
    for average in ("new", "alone"):
        ids, _ = correction.rerank(matched([["high", average, "low"]], [[0.5, 0.5, 0.5]]), 3)
        assert ids.tolist() == [["low", average, "high"]]


def test_one_vector_alone_can_be_measured() -> None:
    """Without neighbours r is 0 and nothing is reordered; a single vector has no deviation either."""
    index = indexed(directions(1, 1, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matches = matched([["a", "b"]], [[0.9, 0.8]])
        assert LocalScaling.measure(index).rerank(matches, 2).ids.tolist() == [["a", "b"]]
        assert MutualProximity.measure(index).rerank(matches, directions(2, 1, 4), 2).ids.tolist() == [["a", "b"]]


def test_mutual_proximity_is_the_product_of_two_gaussian_probabilities() -> None:
    """The order is that of the paper's formula, computed here from all cosines, by the library's normal."""
    vectors = around_hubs(count=120, dim=8)
    cosines = vectors.astype(np.float64) @ vectors.T
    normals = [NormalDist(row.mean(), row.std()) for row in cosines]
    product = [[normals[x].cdf(s) * normals[y].cdf(s) for y, s in enumerate(row)] for x, row in enumerate(cosines)]
    everybody = np.tile(np.arange(120).astype(np.object_), (120, 1))
    correction = MutualProximity.measure(indexed(vectors))
    ids, _ = correction.rerank(Matches(everybody, cosines.astype(np.float32)), vectors, 30)
    chosen = np.take_along_axis(np.array(product), ids.astype(int), axis=1)
    assert chosen == pytest.approx(-np.sort(-np.array(product), axis=1)[:, :30], abs=1e-6)
    assert (ids[:, :10] != np.argsort(-cosines, axis=1)[:, :10]).any()


def test_mutual_proximity_tells_the_very_near_apart() -> None:
    """Ten deviations away a probability is 1 to the last bit; its tail still orders the list."""
    cosines = np.array([0.92, 0.9, 0.91])
    spread = MutualProximity(["a", "b", "c"], np.zeros(2), 0.09**2 * np.eye(2), np.tile([0.0, 0.09], (3, 1)))
    ids, _ = spread.rerank(matched([["a", "b", "c"]], [cosines.tolist()]), np.eye(1, 2, dtype=np.float32), 3)
    assert ids.tolist() == [["a", "c", "b"]]


def test_mutual_proximity_orders_the_far_away_too() -> None:
    """Below the mean the probabilities vanish and still keep their order, down to forty deviations."""
    spread = MutualProximity(["a", "b", "c"], np.zeros(2), 0.02**2 * np.eye(2), np.tile([0.0, 0.02], (3, 1)))
    matches = matched([["a", "b", "c"]], [[-0.5, -0.2, -0.3]])
    ids, _ = spread.rerank(matches, np.eye(1, 2, dtype=np.float32), 3)
    assert ids.tolist() == [["b", "c", "a"]]


def test_mutual_proximity_gives_an_unknown_id_the_average_moments() -> None:
    """Who came after the measurement stands between one with a low and one with a high mean."""
    correction = MutualProximity(["low", "high"], np.zeros(2), 0.1 * np.eye(2), np.array([[0.1, 0.2], [0.5, 0.2]]))
    ids, _ = correction.rerank(matched([["high", "new", "low"]], [[0.6, 0.6, 0.6]]), np.eye(1, 2, dtype=np.float32), 3)
    assert ids.tolist() == [["low", "new", "high"]]


def test_the_length_of_a_query_does_not_matter() -> None:
    """Queries are normalised, as by a search; one of zeros has padding only and stays so."""
    vectors = around_hubs()
    index, queries = indexed(vectors), directions(4, 3, 32)
    queries[2] = 0.0
    correction, matches = MutualProximity.measure(index), index.search(queries, 50)
    plain, longer = (correction.rerank(matches, scale * queries, 10) for scale in (np.float32(1), np.float32(8)))
    assert plain.ids.tolist() == longer.ids.tolist()
    assert plain.ids[2].tolist() == [None] * 10


def corrected_lists(vectors: Floats, which: str) -> tuple[np.ndarray, np.ndarray]:
    """Each vector's ten others, plain and corrected from fifty."""
    index = indexed(vectors)
    matches = index.search(vectors, 50, exclude=index.ids())
    if which == "csls":
        corrected = LocalScaling.measure(index).rerank(matches, 10)
    else:
        corrected = MutualProximity.measure(index).rerank(matches, vectors, 10)
    return matches.ids[:, :10].astype(int), corrected.ids.astype(int)


@pytest.mark.parametrize("which", ["csls", "mutual proximity"])
def test_corrections_take_places_from_hubs(which: str) -> None:
    """Where a few vectors stand in most lists, the skew falls by half at least, and fewer are in nobody's list."""
    plain, corrected = (k_occurrence(lists, 600) for lists in corrected_lists(around_hubs(), which))
    assert skewness(plain) > 4.0
    assert skewness(corrected) < skewness(plain) / 2
    assert (corrected == 0).sum() < (plain == 0).sum()
    assert corrected.sum() == plain.sum() == 6000


@pytest.mark.parametrize("which", ["csls", "mutual proximity"])
def test_corrections_leave_padding_last_and_ties_in_order(which: str) -> None:
    """Short rows stay short: None and NaN at the end; equal scores keep the order of the search."""
    vectors = np.repeat(directions(1, 1, 4), 40, axis=0)
    index = indexed(vectors)
    matches = index.search(vectors[:1], 42)
    local, proximity = LocalScaling.measure(index), MutualProximity.measure(index)
    ids, similarities = local.rerank(matches, 41) if which == "csls" else proximity.rerank(matches, vectors[:1], 41)
    assert ids.tolist() == [[*range(40), None]]
    assert np.isnan(similarities[0]).tolist() == [False] * 40 + [True]


def test_vectors_that_go_while_they_are_measured_are_left_out() -> None:
    """An id removed after the list of ids was taken is unknown to the correction, and no error."""
    index = indexed(around_hubs(), [f"u{row}" for row in range(600)])
    listed = index.ids()
    index.remove(listed[:300])
    index.ids = lambda: listed  # type: ignore[method-assign]
    queries = index.vectors(listed[300:310])
    matches = index.search(queries, 20)
    assert LocalScaling.measure(index).rerank(matches, 5).ids.shape == (10, 5)
    assert MutualProximity.measure(index).rerank(matches, queries, 5).ids.shape == (10, 5)


def test_an_empty_index_cannot_be_measured() -> None:
    """There is nothing to take a mean of."""
    index = ExactIndex(IndexConfig(dim=4))
    for measure in (LocalScaling.measure, MutualProximity.measure):
        with pytest.raises(EmptyIndex, match="vectors to measure"):
            measure(index)


def test_calls_that_do_not_fit_are_refused() -> None:
    """No more can be kept than was fetched, and the queries must be those of the matches."""
    index = indexed(directions(1, 20, 4))
    matches = index.search(directions(2, 3, 4), 5)
    local, proximity = LocalScaling.measure(index), MutualProximity.measure(index)
    for k in (0, 6):
        with pytest.raises(InvalidNeighbours, match=f"within 1 and the 5 matches fetched, got {k}"):
            local.rerank(matches, k)
        with pytest.raises(InvalidNeighbours, match=f"within 1 and the 5 matches fetched, got {k}"):
            proximity.rerank(matches, directions(2, 3, 4), k)
    with pytest.raises(DimensionMismatch, match=r"of shape \(3, 4\), got \(2, 4\)"):
        proximity.rerank(matches, directions(2, 2, 4), 5)
    with pytest.raises(InvalidNeighbours, match="k must be 1 or more, got 0"):
        LocalScaling.measure(index, k=0)
