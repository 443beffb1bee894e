"""What every VectorIndex promises the core, run on each implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from index import AutoIndex, ExactIndex, HnswIndex, IndexConfig, Int8Index, UpsertReport, auto
from index.results import VectorId
from streams.core.ports import Floats, VectorIndex

DIM = 16
IndexFactory = Callable[[], VectorIndex]


def exact() -> VectorIndex:
    # the annotation is the point: mypy refuses an index that has drifted from its port
    return ExactIndex(IndexConfig(dim=DIM, capacity_initial=4))


def int8() -> VectorIndex:
    return Int8Index(IndexConfig(dim=DIM, capacity_initial=4))


# graphs of a few dozen rows, each as good as exact, so that the same answers can be asked of them
GRAPHS = IndexConfig(dim=DIM, capacity_initial=4, delta_max=20, graph_min=20, recall_target=1.0)


def hnsw() -> VectorIndex:
    return HnswIndex(GRAPHS)


def automatic() -> VectorIndex:
    return AutoIndex(GRAPHS)


class SettledHnsw(HnswIndex):
    """Answers from graphs wherever there can be one."""

    def upsert(self, ids: Sequence[VectorId], vectors: Floats) -> UpsertReport:
        report = super().upsert(ids, vectors)
        assert self.settle(30.0)
        return report


def settled_hnsw() -> VectorIndex:
    return SettledHnsw(GRAPHS)


@pytest.fixture(params=[exact, int8, hnsw, settled_hnsw, automatic], ids=lambda factory: factory.__name__)
def index(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[VectorIndex]:
    monkeypatch.setattr(auto, "COST_SHARE_MAX", float("inf"))  # so few rows are cheaper to scan
    factory: IndexFactory = request.param
    made = factory()
    yield made
    if isinstance(made, ExactIndex):
        made.close()


def directions(seed: int, count: int) -> Floats:
    """Random unit rows whose direction int8 holds without loss: so every index is asked for the same answers."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-127, 128, (count, DIM)).astype(np.float32)
    steps[np.arange(count), rng.integers(0, DIM, count)] = 127.0
    return steps / np.linalg.norm(steps, axis=1, keepdims=True)


def test_results_are_the_nearest_best_first(index: VectorIndex) -> None:
    """Each query gets its k nearest ids by cosine, best first, as brute force finds them."""
    vectors, queries = directions(1, 500), directions(2, 20)
    index.upsert(range(500), vectors)
    ids, similarities = (matches := index.search(queries, 10)).ids, matches.similarities
    assert ids.shape == similarities.shape == (20, 10)
    assert similarities.dtype == np.float32
    cosines = queries @ vectors.T
    assert ids.tolist() == np.argsort(-cosines, axis=1)[:, :10].tolist()
    np.testing.assert_allclose(similarities, -np.sort(-cosines, axis=1)[:, :10], atol=1e-6)


def test_the_next_search_sees_a_moved_vector(index: VectorIndex) -> None:
    """An id that moved is found by its new vector at once, and no longer by its old one; the size stays."""
    old, new = directions(3, 2)
    index.upsert(range(50), directions(4, 50))
    index.upsert([7], old[None])
    assert index.search(old[None], 1).ids.tolist() == [[7]]
    index.upsert([7], new[None])
    assert index.search(new[None], 1).ids.tolist() == [[7]]
    assert index.search(old[None], 50).similarities[0, 0] < 0.999
    assert len(index) == 50


def test_removed_ids_are_gone_and_unknown_ones_left_alone(index: VectorIndex) -> None:
    """A removed id is in no result; removing what is not there changes nothing; re-joining works."""
    vectors = directions(5, 30)
    index.upsert(range(30), vectors)
    index.remove([0, 29, 12, 12, 999])
    assert len(index) == 27
    found = set(index.search(vectors, 30).ids.ravel().tolist())
    assert found == (set(range(30)) - {0, 12, 29}) | {None}
    index.upsert([12], vectors[12:13])
    assert index.search(vectors[12:13], 1).ids.tolist() == [[12]]


def test_short_rows_are_padded(index: VectorIndex) -> None:
    """Fewer vectors than k: the rest of each row is None and NaN; an empty index gives padding only."""
    queries = directions(6, 2)
    empty = index.search(queries, 3)
    assert empty.ids.tolist() == [[None] * 3] * 2
    assert np.isnan(empty.similarities).all()
    index.upsert([5], queries[:1])
    matches = index.search(queries, 3)
    assert matches.ids.tolist() == [[5, None, None]] * 2
    assert np.isnan(matches.similarities).tolist() == [[False, True, True]] * 2


def test_a_query_without_direction_matches_nothing(index: VectorIndex) -> None:
    """A row of zeros gets padding only; the other rows of the call are answered."""
    vectors = directions(8, 10)
    index.upsert(range(10), vectors)
    matches = index.search(np.stack([np.zeros(DIM, np.float32), vectors[3]]), 2)
    assert matches.ids[0].tolist() == [None, None]
    assert np.isnan(matches.similarities[0]).all()
    assert matches.ids[1, 0] == 3


def test_no_queries_give_no_rows(index: VectorIndex) -> None:
    """An empty call is answered with the shape (0, k), and empty changes change nothing."""
    index.upsert([], np.zeros((0, DIM), np.float32))
    index.remove([])
    assert index.search(np.zeros((0, DIM), np.float32), 4).ids.shape == (0, 4)
    assert len(index) == 0


def test_bad_rows_stay_out_and_good_rows_go_in(index: VectorIndex) -> None:
    """Rows that are not finite or zero never enter; the good rows of the same call do."""
    vectors = directions(9, 5)
    vectors[1, 0], vectors[2, 3], vectors[3] = np.nan, np.inf, 0.0
    index.upsert(range(5), vectors)
    assert len(index) == 2
    assert set(index.search(vectors[:1], 5).ids[0].tolist()) == {0, 4, None}


def test_senseless_calls_are_refused(index: VectorIndex) -> None:
    """k below 1, a query that is not finite and a wrong width are ValueErrors."""
    good = directions(10, 2)
    index.upsert(range(2), good)
    with pytest.raises(ValueError, match="k must be 1 or more, got 0"):
        index.search(good, 0)
    broken = good.copy()
    broken[1, 2] = np.nan
    with pytest.raises(ValueError, match="Query 1 of 2"):
        index.search(broken, 1)
    with pytest.raises(ValueError, match=r"\(n, 16\)"):
        index.search(good[:, :3], 1)
    with pytest.raises(ValueError, match=r"\(n, 16\)"):
        index.upsert(range(2), good[:, :3])
    with pytest.raises(ValueError, match="one vector per id"):
        index.upsert(range(3), good)
