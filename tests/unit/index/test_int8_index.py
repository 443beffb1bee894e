"""Int8Index: what coding loses, and that nothing else is lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index import ExactIndex, IndexConfig, Int8Index, int8
from index.results import Floats

CONFIG = IndexConfig(dim=64, capacity_initial=4)


def directions(seed: int, count: int, dim: int = 64) -> Floats:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def pair(vectors: Floats) -> tuple[Int8Index, ExactIndex]:
    """The index, and its judge in float32 over the rows as the codes hold them, in the same slots."""
    config = IndexConfig(dim=vectors.shape[1], capacity_initial=4)
    coded, judge = Int8Index(config), ExactIndex(config)
    coded.upsert(range(len(vectors)), vectors)
    judge.upsert(range(len(vectors)), coded.vectors(range(len(vectors))))
    return coded, judge


def assert_same_answers(coded: ExactIndex, judge: ExactIndex, queries: Floats, k: int, **asked: Any) -> None:
    found, expected = coded.search(queries, k, **asked), judge.search(queries, k, **asked)
    assert found.ids.tolist() == expected.ids.tolist()
    np.testing.assert_allclose(found.similarities, expected.similarities, atol=1e-6)


@pytest.mark.parametrize("dim", [1, 3, 64, 131])
def test_rows_come_back_with_unit_length_and_nearly_their_direction(dim: int) -> None:
    """The length is 1, and a row is no further from the line of its codes than half a step in every number."""
    vectors = directions(1, 300, dim)
    index = Int8Index(IndexConfig(dim=dim, capacity_initial=4))
    index.upsert(range(300), vectors)
    decoded = index.vectors(range(300)).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1.0, atol=1e-6)
    cosines = np.einsum("nd,nd->n", decoded, vectors)
    half_steps = np.abs(vectors).max(axis=1) / 127 / 2
    assert (np.linalg.norm(vectors - decoded * cosines[:, None], axis=1) <= half_steps * np.sqrt(dim) + 1e-6).all()
    assert (cosines > 0.999).all()


def test_extreme_rows_are_coded_without_loss() -> None:
    """A row along one axis and a row of equal numbers, of either sign, come back as they were."""
    vectors = np.concatenate([np.eye(64), -np.eye(64), np.full((1, 64), 0.125), np.full((1, 64), -0.125)])
    index = Int8Index(CONFIG)
    index.upsert(range(len(vectors)), vectors.astype(np.float32))
    np.testing.assert_allclose(index.vectors(range(len(vectors))), vectors, atol=1e-7)


def test_nearly_all_of_the_nearest_are_found() -> None:
    """Recall of ten against float32 stays above .97, and a similarity is off by less than .005."""
    vectors, queries = directions(2, 5000), directions(3, 100)
    coded, exact = Int8Index(CONFIG), ExactIndex(CONFIG)
    for index in (coded, exact):
        index.upsert(range(5000), vectors)
    found, right = coded.search(queries, 10), exact.search(queries, 10)
    hits = [len(set(row) & set(others)) for row, others in zip(found.ids.tolist(), right.ids.tolist(), strict=True)]
    assert np.mean(hits) > 9.7
    cosines = np.einsum("qkd,qd->qk", vectors[found.ids.astype(np.int64)], queries)
    assert np.abs(found.similarities - cosines).max() < 0.005


@pytest.mark.parametrize("dim", [3, 64])
@pytest.mark.parametrize("queries", [1, 64, 65])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 100])
def test_no_block_edge_loses_a_row(monkeypatch: pytest.MonkeyPatch, dim: int, queries: int, size: int) -> None:
    """Whatever the number of rows and queries, the answer is the float32 scan's over the same rows."""
    monkeypatch.setattr(int8, "DECODED_NUMBERS_MAX", 16 * dim)
    coded, judge = pair(directions(4, size, dim))
    assert_same_answers(coded, judge, directions(5, queries, dim), 10)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.4, 0.6, 1.0])
def test_filters_and_exclusions_hold_for_codes(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Where few rows are admitted and where most are, only those are found, and never the excluded one."""
    monkeypatch.setattr(int8, "DECODED_NUMBERS_MAX", 64 * 64)
    vectors = directions(6, 500)
    coded, judge = pair(vectors)
    admitted = np.random.default_rng(7).permutation(500)[: int(share * 500)].tolist()
    mask = coded.mask(admitted)
    assert_same_answers(coded, judge, vectors[:70], 10, filter=mask, exclude=range(70))
    assert set(coded.search(vectors[:70], 10, filter=mask).ids.ravel().tolist()) <= {*admitted, None}


def test_of_equal_rows_the_lower_slot_comes_first() -> None:
    """Rows that share their codes are listed in the order of their slots."""
    index = Int8Index(CONFIG)
    index.upsert(range(40), np.repeat(directions(8, 1), 40, axis=0))
    assert index.search(directions(8, 1), 10).ids.tolist() == [list(range(10))]


def test_a_row_takes_a_byte_a_number_and_a_factor() -> None:
    """Rows of 64 numbers take 68 bytes where float32 takes 256; nothing else differs."""
    coded, judge = pair(directions(9, 2000))
    assert judge.stats().memory_bytes - coded.stats().memory_bytes == 2000 * (256 - 68)
    assert coded.stats()._replace(memory_bytes=0) == judge.stats()._replace(memory_bytes=0)


def test_a_forgotten_row_leaves_no_byte() -> None:
    """The codes and the factor of a forgotten row are zeroed where they were; its slot is given to the next id."""
    index = Int8Index(CONFIG)
    index.upsert(range(10), directions(10, 10))
    rows = index._table.view.vectors
    kept = [rows[slot].tobytes() for slot in range(10) if slot not in {3, 7}]
    assert all(rows[slot].tobytes().strip(b"\0") for slot in range(10))
    assert index.forget([3, 7, "unknown"]) == 2
    assert rows[[3, 7]].tobytes() == bytes(2 * rows.itemsize)
    assert [rows[slot].tobytes() for slot in range(10) if slot not in {3, 7}] == kept
    index.upsert(["next"], directions(11, 1))
    assert index.slots(["next"]).tolist() == [7]


def test_a_new_index_has_compiled_all_that_it_runs() -> None:
    """One row or many, gathered or not, find the kernels compiled: no later call pays for that."""
    index = Int8Index(CONFIG)
    kernels: list[Any] = [int8.encode, int8.decode, int8.rescore_codes, int8.merge_top]
    before = [len(kernel.signatures) for kernel in kernels]
    assert min(before) >= 1
    vectors = directions(20, 200)
    for rows in (slice(0, 1), slice(0, 200)):
        index.upsert(range(200)[rows], vectors[rows])
        index.search(vectors[rows], 3)
        index.search(vectors[rows], 3, filter=index.mask([0]))
        index.vectors(range(200)[rows])
        candidates, nobody = np.zeros((1, 2), np.int32), np.full(1, -1, np.int32)
        index._rescored(index._table.view, vectors[:1], candidates, 1, np.empty(0, np.bool_), nobody)
    assert [len(kernel.signatures) for kernel in kernels] == before


def test_growing_and_closing_up_move_codes_with_their_factors() -> None:
    """After growth and after most rows left, each id still has the row that it was given."""
    vectors = directions(12, 4000)
    index = Int8Index(CONFIG)
    for start in range(0, 4000, 500):
        index.upsert(range(start, start + 500), vectors[start : start + 500])
    before = index.vectors(range(0, 4000, 10))
    index.remove([number for number in range(4000) if number % 10])
    assert index._table.view.layout == 1
    np.testing.assert_array_equal(index.vectors(range(0, 4000, 10)), before)
    assert index.search(vectors[[1230]], 1).ids.tolist() == [[1230]]


def test_snapshots_are_exchanged_with_float32(tmp_path: Path) -> None:
    """Saved codes load as float32, those load as the same codes again, and float32 loads as codes."""
    coded, judge = pair(directions(13, 300))
    coded.remove([5])
    coded.save(tmp_path / "coded", offsets={"events": 9})
    ids = coded.ids()
    as_float32 = ExactIndex.load(tmp_path / "coded")
    np.testing.assert_array_equal(as_float32.vectors(ids), coded.vectors(ids))
    as_float32.save(tmp_path / "float32")
    again = Int8Index.load(tmp_path / "float32")
    assert again.ids() == ids
    np.testing.assert_array_equal(
        again._table.view.vectors[again.slots(ids)], coded._table.view.vectors[coded.slots(ids)]
    )
    direct = Int8Index.load(tmp_path / "coded")
    assert direct.origin is not None
    assert direct.origin.offsets == {"events": 9}
    judge.remove([5])
    assert_same_answers(direct, judge, directions(14, 20), 10)


def test_the_search_is_exact_among_the_codes() -> None:
    """The recall check finds nothing missing, for it judges by the rows as they are held."""
    coded, _ = pair(directions(15, 1000))
    report = coded.check_recall(queries=50)
    assert (report.recall, report.self_miss_share) == (1.0, 0.0)


def test_a_write_that_crosses_a_scan_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate that moved away or left during the scan is not named, and the others are scored by current rows."""
    vectors, elsewhere = directions(16, 500), directions(17, 1)
    index, judge = pair(vectors)
    queries = vectors[:5]
    scan, crossings = int8._scan, []

    def crossed(*asked: Any) -> tuple[Floats, Any]:
        found = scan(*asked)
        if not crossings:
            crossings.append(asked)
            index.upsert([0], elsewhere)
        elif len(crossings) == 1:
            crossings.append(asked)
            index.remove([1])
        return found

    monkeypatch.setattr(int8, "_scan", crossed)
    found = index.search(queries, 10)
    judge.upsert([0], index.vectors([0]))
    judge.remove([1])
    expected = judge.search(queries, 10)
    assert len(crossings) == 2
    assert found.ids.tolist() == expected.ids.tolist()
    np.testing.assert_allclose(found.similarities, expected.similarities, atol=1e-6)


def test_searches_beside_a_writer_never_see_a_torn_row() -> None:
    """Rows switch between two places; every similarity that a searcher gets is that of one of them."""
    places = directions(18, 800).reshape(2, 400, 64)
    index = Int8Index(CONFIG)
    index.upsert(range(400), places[0])
    held = [index.vectors(range(400))]
    index.upsert(range(400), places[1])
    held.append(index.vectors(range(400)))
    problems: list[str] = []
    done = threading.Event()

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        asked = 0
        while not problems and (asked < 50 or not done.is_set()):
            query = places[rng.integers(0, 2), rng.integers(0, 400)]
            ids, similarities = index.search(query[None], 10)
            named = ids[0].astype(np.int64)
            possible = np.stack([rows[named] @ query for rows in held])
            if (np.abs(possible - similarities[0]).min(axis=0) > 1e-5).any():
                problems.append(f"no such rows: {named} {similarities[0]} {possible}")
            asked += 1

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    rng = np.random.default_rng(19)
    for _ in range(400):
        rows = rng.choice(400, 60, replace=False)
        index.upsert(rows.tolist(), places[rng.integers(0, 2, 60), rows])
    done.set()
    for thread in threads:
        thread.join(30.0)
    assert not any(thread.is_alive() for thread in threads)
    assert problems == []
