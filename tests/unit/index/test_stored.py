"""Saving and loading an index: what comes back, what is refused, what is built anew."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index import (
    AutoIndex,
    ExactIndex,
    HnswIndex,
    IndexConfig,
    SnapshotCorrupt,
    SnapshotMismatch,
    SnapshotMissing,
)
from index.results import Floats
from index.snapshot import Manifest, array_part, read_manifest, write_snapshot

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "snapshots"
DIM = 16
CONFIG = IndexConfig(dim=DIM, capacity_initial=8, delta_max=100, recall_target=1.0)


def directions(seed: int, count: int, dim: int = DIM) -> Floats:
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def lived(count: int = 500) -> HnswIndex:
    """An index with a graph, moved and removed rows, a delta and chained equals."""
    index = HnswIndex(CONFIG)
    vectors = directions(1, count)
    vectors[50:80] = vectors[50]
    index.upsert([f"u{number}" if number % 2 else number for number in range(count)], vectors)
    assert index.settle(30.0)
    index.upsert([0, "u1", 2, "new", 2**70], directions(2, 5))
    index.remove([4, "u5", 60])
    return index


def same(one: ExactIndex, other: ExactIndex) -> None:
    assert set(one.ids()) == set(other.ids())
    ids = one.ids()
    assert np.array_equal(one.vectors(ids), other.vectors(ids))
    queries = directions(3, 50)
    np.testing.assert_allclose(one.search(queries, 10).similarities, other.search(queries, 10).similarities, atol=1e-6)


@pytest.mark.parametrize("kind", [HnswIndex, AutoIndex, ExactIndex])
def test_what_was_saved_comes_back(kind: type[ExactIndex], tmp_path: Path) -> None:
    """Ids of both types, vectors to the bit, the graph with what moved since, and the manifest."""
    index = lived()
    manifest = index.save(tmp_path, model="m@1", offsets={"profiles-0": 17}, saved_at_s=5.0)
    assert (manifest.model, manifest.offsets, manifest.size) == ("m@1", {"profiles-0": 17}, 499)
    again = kind.load(tmp_path, replace(CONFIG, graph_min=10))
    assert again.origin == manifest == read_manifest(tmp_path)
    same(index, again)
    if isinstance(again, HnswIndex):
        before, after = index.stats(), again.stats()
        assert (after.tier, after.delta, after.graph_rows, after.dead) == ("hnsw", 5, before.graph_rows, 3)
        again.upsert(["later", 4], directions(4, 2))
        assert again.search(directions(4, 2), 1).ids[:, 0].tolist() == ["later", 4]
        again.rebuild(wait=True)
        assert again.stats().dead == 0
        same(again, again)
    again.close()
    index.close()


def test_a_loaded_index_takes_its_dimension_from_the_snapshot(tmp_path: Path) -> None:
    """Without a config the manifest says how long vectors are; a config that says otherwise is refused."""
    index = ExactIndex(IndexConfig(dim=3))
    index.upsert(["a"], directions(5, 1, 3))
    index.save(tmp_path)
    assert AutoIndex.load(tmp_path).config.dim == 3
    with pytest.raises(SnapshotMismatch, match="3 numbers, this index takes 16"):
        AutoIndex.load(tmp_path, CONFIG)


def test_an_empty_index_is_saved_too(tmp_path: Path) -> None:
    """Nothing comes back as nothing."""
    HnswIndex(CONFIG).save(tmp_path)
    assert len(HnswIndex.load(tmp_path, CONFIG)) == 0


@pytest.mark.parametrize("part", ["graph.hnsw", "answers.npy", "drift.npy", "twins.npy"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_graph_is_built_anew(
    part: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The graph is a cache: with any of its files damaged the vectors still come back, and a warning says why."""
    index = lived()
    index.save(tmp_path)
    hurt(next(tmp_path.glob(f"generation-*/{part}")), damage)
    with HnswIndex.load(tmp_path, CONFIG) as again:
        assert "is built anew" in caplog.text
        assert again.settle(30.0)
        assert again.stats().generation == 1
        assert again.stats().delta == 0
        same(index, again)
    index.close()


@pytest.mark.parametrize("part", ["vectors.npy", "ids.json", "slots.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_index_is_refused(part: str, damage: str, tmp_path: Path) -> None:
    """What cannot be made anew from the snapshot itself is an error, never half an index."""
    index = lived()
    index.save(tmp_path)
    hurt(next(tmp_path.glob(f"generation-*/{part}")), damage)
    with pytest.raises(SnapshotCorrupt):
        HnswIndex.load(tmp_path, CONFIG)
    index.close()


def hurt(file: Path, damage: str) -> None:
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
        return
    if damage == "flip":
        content[len(content) // 2] ^= 4
    else:
        del content[-3:]
    file.write_bytes(content)


def test_sound_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    """Right sums do not make ids and vectors fit."""
    write_snapshot(
        tmp_path,
        Manifest(kind="index", dim=DIM, size=2, extra={"high": 2}),
        {
            "ids.json": lambda file: file.write_text('["a","a"]'),
            "slots.npy": array_part(np.array([0, 1], np.int32)),
            "vectors.npy": array_part(directions(6, 2)),
        },
    )
    with pytest.raises(SnapshotCorrupt, match=r"2 ids \(1 distinct\)"):
        ExactIndex.load(tmp_path)


def test_another_kind_of_snapshot_is_refused(tmp_path: Path) -> None:
    """A folder with something else in it is no index; an empty one has no snapshot."""
    with pytest.raises(SnapshotMissing):
        ExactIndex.load(tmp_path)
    write_snapshot(tmp_path, Manifest(kind="worker", dim=DIM, size=0), {"x": array_part(np.zeros(1))})
    with pytest.raises(SnapshotMismatch, match="kind 'worker'"):
        ExactIndex.load(tmp_path)


def test_forgotten_bytes_are_in_no_file_even_before_the_build(tmp_path: Path) -> None:
    """A save right after forgetting leaves the old graph out; the snapshot before it is gone with its bytes."""
    index = lived()
    index.save(tmp_path)
    lost, name = index.vector("u301").tobytes(), b"u301"
    assert found_in_files(tmp_path, lost)
    assert found_in_files(tmp_path, name)
    index.forget(["u301"])
    index._builder._closing = True  # no build may come to help
    index.save(tmp_path)
    assert not found_in_files(tmp_path, lost)
    assert not found_in_files(tmp_path, name)
    with HnswIndex.load(tmp_path, CONFIG) as again:
        assert again.settle(30.0)
        same(index, again)
    index.close()


def found_in_files(folder: Path, pattern: bytes) -> bool:
    return any(pattern in file.read_bytes() for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("v*")), ids=lambda folder: folder.name)
def test_every_older_snapshot_stays_readable(golden: Path, tmp_path: Path) -> None:
    """The golden snapshot of each version loads with its ids, vectors, graph and manifest."""
    shutil.copytree(golden, tmp_path / "copy")
    with HnswIndex.load(tmp_path / "copy") as index:
        assert index.stats().tier == "hnsw"
        assert index.origin is not None
        assert (index.origin.model, index.origin.offsets) == ("golden@1", {"profiles-0": 42})
        vectors = directions(7, 60, 4)
        assert index.ids() == [*(f"user-{number}" for number in range(58)), 58, 59]
        np.testing.assert_allclose(index.vectors(index.ids()), vectors, atol=1e-6)
        assert index.search(vectors, 1).ids[:, 0].tolist() == index.ids()


def test_there_is_a_golden_snapshot() -> None:
    """The test above has something to read."""
    assert (GOLDEN / "v1" / "CURRENT").exists()
