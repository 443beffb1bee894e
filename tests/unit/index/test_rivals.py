"""The benchmark's arms answer as brute force does when their beam is wide, and keep to the index's surface."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from index.config import IndexConfig
from index.errors import DimensionMismatch, InvalidNeighbours, NonFiniteQuery, RejectReason
from index.results import RejectedRow
from index.rivals import FaissIvfFlat, InplaceHnsw, Rival, RivalNotInstalled, UsearchIndex

if TYPE_CHECKING:
    from collections.abc import Callable

DIM = 16
WIDE = 2000
Arm = type[Rival]


def arm(kind: Arm) -> Rival:
    """An empty arm that looks everywhere, so that only wrong answers are missed neighbours."""
    try:
        made: Any = kind(IndexConfig(dim=DIM, capacity_initial=4, ef_search=WIDE))
    except RivalNotInstalled as reason:
        pytest.skip(str(reason))
    if isinstance(made, FaissIvfFlat):
        made.nprobe = WIDE
    return made


@pytest.fixture(params=[InplaceHnsw, FaissIvfFlat, UsearchIndex], ids=lambda kind: kind.__name__)
def rival(request: pytest.FixtureRequest) -> Rival:
    return arm(request.param)


def directions(seed: int, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_answers_are_those_of_brute_force(rival: Rival) -> None:
    """With a beam over everything the k nearest come back, best first, with their cosines."""
    vectors, queries = directions(1, 500), directions(2, 20)
    assert rival.upsert(range(500), 3 * vectors)[:2] == (500, 0)
    matches = rival.search(queries, 10)
    cosines = queries @ vectors.T
    assert matches.ids.tolist() == np.argsort(-cosines, axis=1)[:, :10].tolist()
    np.testing.assert_allclose(matches.similarities, -np.sort(-cosines, axis=1)[:, :10], atol=1e-5)
    assert matches.similarities.dtype == np.float32
    assert type(matches.ids[0, 0]) is int


def test_a_moved_vector_is_found_where_it_is(rival: Rival) -> None:
    """An update takes the place of the old vector: found by the new one, not by the old one, counted once."""
    vectors, moved = directions(3, 200), directions(4, 50)
    rival.upsert(range(200), vectors)
    assert rival.upsert(range(50), moved)[:2] == (0, 50)
    assert rival.search(moved, 1).ids[:, 0].tolist() == list(range(50))
    assert (rival.search(vectors[:50], 1).similarities < 0.999).all()
    assert len(rival) == 200


def test_the_removed_are_not_found_and_may_come_back(rival: Rival) -> None:
    """Removal counts what was there; what is gone is in no answer until it is put in again."""
    vectors = directions(5, 60)
    rival.upsert(range(60), vectors)
    assert rival.remove([3, 3, 59, 999]) == 2
    assert 3 not in rival
    found = set(rival.search(vectors, 60).ids.ravel().tolist())
    assert found == (set(range(60)) - {3, 59}) | {None}
    rival.upsert([3], vectors[3:4])
    assert rival.search(vectors[3:4], 1).ids.tolist() == [[3]]
    assert len(rival) == 59


def test_short_rows_and_queries_without_direction_are_padded(rival: Rival) -> None:
    """Empty arms, fewer vectors than k and queries of zeros give None and NaN."""
    queries = directions(6, 2)
    assert rival.search(queries, 3).ids.tolist() == [[None] * 3] * 2
    rival.upsert([5], queries[:1])
    matches = rival.search(np.stack([np.zeros(DIM, np.float32), queries[0]]), 3)
    assert matches.ids.tolist() == [[None] * 3, [5, None, None]]
    assert np.isnan(matches.similarities).tolist() == [[True] * 3, [False, True, True]]
    assert rival.search(queries[:0], 2).ids.shape == (0, 2)


def test_bad_rows_stay_out(rival: Rival) -> None:
    """Rows without direction are reported by position; of an id given twice the last sound row counts."""
    vectors = directions(7, 5)
    vectors[1, 0], vectors[3] = np.nan, 0.0
    report = rival.upsert([0, 1, 2, 3, 0], vectors)
    assert report == (2, 0, (RejectedRow(1, RejectReason.NON_FINITE), RejectedRow(3, RejectReason.ZERO_NORM)))
    assert rival.search(vectors[4:], 1).ids.tolist() == [[0]]
    assert rival.upsert([7], vectors[1:2])[:2] == (0, 0)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda rival: rival.search(np.ones((1, DIM), np.float32), 0), InvalidNeighbours),
        (lambda rival: rival.search(np.full((1, DIM), np.nan, np.float32), 1), NonFiniteQuery),
        (lambda rival: rival.search(np.ones((1, 3), np.float32), 1), DimensionMismatch),
        (lambda rival: rival.upsert([1, 2], np.ones((1, DIM), np.float32)), DimensionMismatch),
        (lambda rival: rival.upsert([-1], np.ones((1, DIM), np.float32)), ValueError),
    ],
    ids=["k", "non-finite", "width", "ids", "label"],
)
def test_senseless_calls_are_refused(rival: Rival, call: Callable[[Rival], object], error: type[Exception]) -> None:
    """The arms refuse what the index refuses, with its errors; labels below 0 too."""
    with pytest.raises(error):
        call(rival)
    assert len(rival) == 0


def test_churn_keeps_every_vector_once(rival: Rival) -> None:
    """After moves, removals, returns and growth the arm holds exactly what a dict holds."""
    rng = np.random.default_rng(8)
    held: dict[int, np.ndarray] = {}
    for step in range(12):
        ids = rng.choice(300, 60, replace=False).tolist()
        rows = directions(100 + step, 60)
        rival.upsert(ids, rows)
        held.update(zip(ids, rows, strict=True))
        gone = rng.choice(300, 20, replace=False).tolist()
        rival.remove(gone)
        held = {label: row for label, row in held.items() if label not in set(gone)}
    assert len(rival) == len(held)
    found = rival.search(np.stack(list(held.values())), 1)
    assert found.ids[:, 0].tolist() == list(held)
    np.testing.assert_allclose(found.similarities[:, 0], 1.0, atol=1e-5)


@pytest.mark.parametrize(("kind", "knob"), [(InplaceHnsw, "ef"), (FaissIvfFlat, "nprobe"), (UsearchIndex, "ef")])
def test_a_wider_beam_finds_more(kind: Arm, knob: str) -> None:
    """The knob trades cost for recall, and can be read back: what finding points of equal recall needs."""
    rival = arm(kind)
    vectors, queries = directions(9, 3000), directions(12, 100)
    rival.upsert(range(3000), vectors)
    nearest = np.argmax(queries @ vectors.T, axis=1)
    found = []
    for width in (1, 400):
        setattr(rival, knob, width)
        assert getattr(rival, knob) == width
        found.append(int((rival.search(queries, 1).ids[:, 0] == nearest).sum()))
    assert found[0] < 80
    assert found[1] >= 98


def test_lists_are_trained_by_the_bulk_load() -> None:
    """faiss gets 4·√n lists of the first upsert, and keeps them."""
    rival = arm(FaissIvfFlat)
    assert isinstance(rival, FaissIvfFlat)
    rival.upsert(range(400), directions(10, 400))
    rival.upsert(range(400, 900), directions(11, 500))
    assert rival.nlist == 80


def test_queries_that_reach_too_few_are_padded() -> None:
    """usearch says how many it found; what lies behind that in its table is no answer."""
    rival: Any = arm(UsearchIndex)
    rival.upsert(range(9), directions(13, 9))
    keys, distances = np.arange(6, dtype=np.uint64).reshape(2, 3), np.full((2, 3), 0.5, np.float32)
    found = SimpleNamespace(keys=keys, distances=distances, counts=np.array([3, 1]))
    rival._index = SimpleNamespace(search=lambda queries, k, threads: found)
    matches = rival.search(directions(14, 2), 3)
    assert matches.ids.tolist() == [[0, 1, 2], [3, None, None]]
    assert np.isnan(matches.similarities).sum() == 2


def test_a_graph_that_reaches_too_few_is_asked_for_less() -> None:
    """hnswlib raises then: the beam widens to everything, k shrinks, and the beam is as it was afterwards."""
    rival: Any = arm(InplaceHnsw)
    rival.upsert(range(9), directions(15, 9))
    graph = Reluctant(rival._graph)
    rival._graph = graph
    matches = rival.search(directions(16, 2), 9)
    assert [sum(label is not None for label in row) for row in matches.ids.tolist()] == [2, 2]
    assert graph.asked == [9, 9, 4, 2]
    assert graph.beams == [9, WIDE]


class Reluctant:
    """A graph that cannot return more than three."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self.asked: list[int] = []
        self.beams: list[int] = []

    def get_current_count(self) -> int:
        return self._graph.get_current_count()

    def set_ef(self, ef: int) -> None:
        self.beams.append(ef)

    def knn_query(self, queries: np.ndarray, k: int, num_threads: int) -> Any:
        self.asked.append(k)
        if k > 3:
            raise RuntimeError("Cannot return the results in a contiguous 2D array")
        return self._graph.knn_query(queries, k, num_threads=num_threads)


@pytest.mark.parametrize(("kind", "package"), [(FaissIvfFlat, "faiss-cpu"), (UsearchIndex, "usearch")])
def test_a_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch, kind: Arm, package: str) -> None:
    """Without the engine the arm says which package is missing and where it comes from."""

    def missing(name: str) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("index.rivals.import_module", missing)
    with pytest.raises(RivalNotInstalled, match=f"{package} is not installed; install the dependency group dev"):
        kind(IndexConfig(dim=DIM))
