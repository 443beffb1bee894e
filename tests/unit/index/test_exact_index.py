"""ExactIndex beyond the port: reports, ids, ties, growth, memory and errors."""

from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

import index as index_package
from index import (
    DimensionMismatch,
    ExactIndex,
    IndexConfig,
    InvalidFilter,
    InvalidNeighbours,
    NonFiniteQuery,
    RejectedRow,
    RejectReason,
    UnknownId,
    VectorIndexError,
    scan,
)
from index.kernels import ANYBODY, SCANNED, compiled, merge_top
from index.scan import EVERY_SLOT, NO_MASK, empty_best


def small(dim: int = 4) -> ExactIndex:
    return ExactIndex(IndexConfig(dim=dim, capacity_initial=1))


def directions(seed: int, count: int, dim: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_an_upsert_reports_what_became_of_each_row() -> None:
    """Added and moved count distinct ids; bad rows come back by position with the reason."""
    index = small(2)
    report = index.upsert(["a", "b", "c", "d", "a"], rows((1, 0), (np.nan, 0), (0, 0), (0, 1), (0, 2)))
    assert (report.added, report.moved) == (2, 0)
    assert report.rejected == (
        RejectedRow(1, RejectReason.NON_FINITE),
        RejectedRow(2, RejectReason.ZERO_NORM),
    )
    assert index.upsert(["a", "e"], rows((1, 0), (1, 0)))[:2] == (1, 1)


def test_of_an_id_given_twice_the_last_row_counts() -> None:
    """Rows apply in order."""
    index = small(2)
    index.upsert([1, 2, 1], rows((1, 0), (1, 0), (0, 1)))
    assert index.vector(1).tolist() == [0, 1]
    assert len(index) == 2


def test_a_bad_row_leaves_what_was_there() -> None:
    """A rejected move keeps the id's old vector, and no epoch passes."""
    index = small(2)
    index.upsert([1], rows((3, 4)))
    epoch = index.stats().epoch
    index.upsert([1], rows((np.inf, 0)))
    assert index.vector(1).tolist() == pytest.approx([0.6, 0.8])
    assert index.stats().epoch == epoch


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e37], ids=["tiny", "unit", "huge"])
def test_vectors_and_queries_of_any_length_are_normalised(scale: float) -> None:
    """Only the direction counts, even where a float32 sum of squares would overflow."""
    index = small(2)
    assert index.upsert([1], rows((3 * scale, 4 * scale))).rejected == ()
    assert index.vector(1).tolist() == pytest.approx([0.6, 0.8])
    assert index.search(rows((3 * scale, 4 * scale)), 1).similarities[0, 0] == pytest.approx(1.0)


def test_similarities_never_leave_the_range_of_a_cosine() -> None:
    """Rounding never shows as a similarity above 1 or below -1."""
    vectors = directions(1, 300, 64)
    index = small(64)
    index.upsert(range(300), vectors)
    similarities = index.search(np.concatenate([vectors, -vectors]), 300).similarities
    assert similarities.max() == 1.0
    assert similarities.min() == -1.0


def test_ids_come_back_as_they_were_given() -> None:
    """Strings and ints of any size keep their type, in one index."""
    ids = ["u1", 7, "7", 2**70, "", "naïve\0"]
    index = small(8)
    index.upsert(ids, directions(2, 6, 8))
    found = index.search(directions(2, 6, 8), 1).ids[:, 0].tolist()
    assert found == ids
    assert [type(vector_id) for vector_id in found] == [type(vector_id) for vector_id in ids]


def test_ties_go_to_the_lower_slot() -> None:
    """Equal similarities come in the order in which the ids entered, across blocks and cuts by k."""
    index = small(2)
    index.upsert(range(5000), np.tile(rows((1, 0)), (5000, 1)))
    index.upsert(range(5000, 5010), np.tile(rows((0, 1)), (10, 1)))
    for queries in (1, 100):
        matches = index.search(np.tile(rows((0, 1)), (queries, 1)), 13)
        assert matches.ids.tolist() == [[*range(5000, 5010), 0, 1, 2]] * queries


def test_remove_leaves_no_byte() -> None:
    """Removing counts what was there, keeps the others findable, and zeroes the bytes of the removed."""
    vectors = directions(3, 6, 4)
    index = small(4)
    index.upsert(range(6), vectors)
    gone = {index.vector(vector_id).tobytes() for vector_id in (1, 5)}
    assert index.remove([1, 5, 5, 77]) == 2
    assert [vector_id in index for vector_id in range(6)] == [True, False, True, True, True, False]
    for vector_id in (0, 2, 3, 4):
        assert index.search(vectors[vector_id : vector_id + 1], 1).ids[0, 0] == vector_id
    assert not gone & {row.tobytes() for row in index._table.view.vectors}


@pytest.mark.parametrize("queries", [1, 3, 64, 65, 200])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 2049])
def test_block_edges_lose_nothing(monkeypatch: pytest.MonkeyPatch, queries: int, size: int) -> None:
    """Whatever falls on the edge of a block or chunk is found, as by sorting all cosines."""
    monkeypatch.setattr(scan, "BLOCK_SCORES_MAX", 4096)
    vectors, asked = directions(4, size, 8), directions(5, queries, 8)
    index = small(8)
    index.upsert(range(size), vectors)
    matches = index.search(asked, 20)
    width = min(20, size)
    expected = -np.sort(-(asked @ vectors.T), axis=1)[:, :width]
    np.testing.assert_allclose(matches.similarities[:, :width], expected, atol=1e-6)
    cosines = np.take_along_axis(asked @ vectors.T, matches.ids[:, :width].astype(int), axis=1)
    np.testing.assert_allclose(cosines, expected, atol=1e-6)


def test_the_merge_keeps_the_best_in_order() -> None:
    """The kernel agrees with a stable sort on scores full of ties, fed in blocks."""
    rng = np.random.default_rng(6)
    scores = rng.integers(0, 20, (5, 300)).astype(np.float32)
    best_scores, best_slots = empty_best(5, 40)
    owner, nobody = np.full(300, SCANNED, np.int32), np.full(5, -1, np.int32)
    for start in range(0, 300, 70):
        block = np.ascontiguousarray(scores[:, start : start + 70])
        merge_top(block, start, EVERY_SLOT, owner, ANYBODY, NO_MASK, nobody, best_scores, best_slots)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :40]
    assert best_slots.tolist() == expected.tolist()
    assert best_scores.tolist() == np.take_along_axis(scores, expected, axis=1).tolist()


def test_holes_are_closed_up_and_slots_used_again() -> None:
    """After most ids have left, the rows move together: what stays is found, and room does not grow with churn."""
    vectors = directions(11, 6000, 4)
    index = small(4)
    for _ in range(5):
        index.upsert(range(6000), vectors)
        index.remove(range(100, 6000))
    assert index.stats().capacity < 9001
    assert index.ids() == list(range(100))
    assert index.search(vectors[:100], 1).ids[:, 0].tolist() == list(range(100))
    assert index._table.view.high < 2000


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 1.0])
def test_a_filter_admits_only_its_ids(share: float) -> None:
    """Whatever part of the ids a mask admits, the best of those are found, and no other."""
    vectors, asked = directions(12, 3000, 8), directions(13, 20, 8)
    index = small(8)
    index.upsert([f"u{number}" for number in range(3000)], vectors)
    admitted = np.flatnonzero(np.random.default_rng(14).random(3000) < share)
    mask = index.mask([f"u{number}" for number in admitted.tolist()])
    matches = index.search(asked, 7, filter=mask)
    expected = [
        [f"u{admitted[place]}" for place in row[:7]] for row in np.argsort(-(asked @ vectors[admitted].T), axis=1)
    ]
    assert [[name for name in row if name is not None] for row in matches.ids.tolist()] == expected


def test_one_id_a_query_is_excluded() -> None:
    """A query that names itself gets its k nearest others; None and unknown ids exclude nothing."""
    vectors = directions(15, 50, 8)
    index = small(8)
    index.upsert(range(50), vectors)
    plain = index.search(vectors[:4], 4).ids
    excluded = index.search(vectors[:4], 3, exclude=[0, None, 99, 3]).ids
    assert excluded.tolist() == [
        plain[0, 1:].tolist(),
        plain[1, :3].tolist(),
        plain[2, :3].tolist(),
        plain[3, 1:].tolist(),
    ]


def test_a_filter_that_does_not_fit_is_refused() -> None:
    """A mask of numbers or of two dimensions, and excluded ids that are not one a query, are InvalidFilter."""
    index = small(8)
    index.upsert(range(5), directions(16, 5, 8))
    query: Any = directions(17, 2, 8)
    for mask in (np.ones(5, np.int64), np.ones((2, 5), np.bool_)):
        with pytest.raises(InvalidFilter, match=r"flat array of bool.*got"):
            index.search(query, 1, filter=mask)
    with pytest.raises(InvalidFilter, match="got 1 for 2"):
        index.search(query, 1, exclude=[3])


def test_vectors_come_back_in_the_order_asked() -> None:
    """`vectors` copies several rows, `slots` says where they are, `ids` lists what is there."""
    vectors = directions(18, 5, 8)
    index = small(8)
    index.upsert(["a", "b", 3, "d", "e"], vectors)
    np.testing.assert_allclose(index.vectors([3, "a"]), vectors[[2, 0]], atol=1e-6)
    assert index.ids() == ["a", "b", 3, "d", "e"]
    assert index.slots(["d", "x"]).tolist() == [3, -1]
    with pytest.raises(UnknownId, match="'x'"):
        index.vectors(["a", "x"])


def test_vector_is_a_copy_and_an_unknown_id_is_named() -> None:
    """Writing into a returned vector changes nothing stored; an unknown id is a KeyError that names it."""
    index = small(2)
    index.upsert(["a"], rows((1, 0)))
    index.vector("a")[:] = 9
    assert index.vector("a").tolist() == [1, 0]
    with pytest.raises(UnknownId, match="under the id 'b'"):
        index.vector("b")


def test_stats_count_size_room_and_changes() -> None:
    """Capacity grows by half, an epoch passes with each call that changed something, and not otherwise."""
    index = ExactIndex(IndexConfig(dim=4, capacity_initial=4))
    assert index.stats()[:2] == (0, 4)
    index.upsert(range(5), directions(7, 5, 4))
    assert index.stats()[:2] == (5, 6)
    assert index.stats().epoch == 1
    index.remove([99])
    index.upsert([], np.zeros((0, 4), np.float32))
    index.search(directions(8, 1, 4), 1)
    assert index.stats().epoch == 1
    index.remove([0])
    assert index.stats().epoch == 2


def test_a_users_memory_is_bounded() -> None:
    """All that the index holds is at most 4·d bytes of capacity plus 250 bytes a vector."""
    index = ExactIndex(IndexConfig(dim=64))
    count = 20_000
    index.upsert(range(count), directions(9, count, 64))
    stats = index.stats()
    ids_bytes = 2 * count * sys.getsizeof(2**29)
    assert stats.memory_bytes >= stats.capacity * 4 * 64
    assert stats.memory_bytes + ids_bytes <= stats.capacity * 4 * 64 + 250 * count


def test_an_upsert_that_fails_changes_nothing() -> None:
    """An id that is no id is refused before any row of the call goes in."""
    index = small(2)
    ids: Any = ["a", ["no id"]]
    with pytest.raises(TypeError):
        index.upsert(ids, rows((1, 0), (0, 1)))
    assert len(index) == 0
    assert index.search(rows((1, 0)), 1).ids.tolist() == [[None]]


def test_errors_are_one_tree_and_speak_python() -> None:
    """Every error is a VectorIndexError and the builtin that callers expect."""
    for error, builtin in (
        (DimensionMismatch, ValueError),
        (NonFiniteQuery, ValueError),
        (InvalidNeighbours, ValueError),
        (UnknownId, KeyError),
    ):
        assert issubclass(error, VectorIndexError)
        assert issubclass(error, builtin)
        assert error.__name__ in index_package.__all__


@pytest.mark.parametrize("knobs", [{"dim": 0}, {"capacity_initial": 0}])
def test_a_senseless_index_config_is_refused(knobs: dict[str, int]) -> None:
    """A knob below 1 is refused when the config is made, and named; a config is frozen."""
    with pytest.raises(ValueError, match=next(iter(knobs))):
        IndexConfig(**knobs)
    with pytest.raises(FrozenInstanceError):
        IndexConfig().dim = 3  # type: ignore[misc]


def test_index_kernels_compile_where_no_cache_can_be_written() -> None:
    """Code without a writable cache folder still compiles, in memory."""
    namespace: dict[str, Any] = {}
    exec("def double(x):\n    return x + x\n", namespace)  # code without a file has no place for a cache
    assert compiled(namespace["double"])(21) == 42


def rows(*values: tuple[float, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(values, np.float32)
