"""An index in a folder and back: `ids`, `slots` and `vectors` are the index, `graph` and `drift` only save time.

The graph is a cache of the vectors: where it is damaged, it is built anew. It is left out while forgotten ids are still
in it, so that no file ever holds what was forgotten before the save.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from index.config import IndexConfig
from index.errors import SnapshotCorrupt, SnapshotMismatch
from index.graph import Graph
from index.results import Floats, Mask, Slots, VectorId
from index.snapshot import (
    Manifest,
    PartWriter,
    array_part,
    ids_part,
    open_part,
    read_array,
    read_ids,
    read_manifest,
    write_snapshot,
)
from index.twins import Twins

logger = logging.getLogger(__name__)

KIND = "index"
UNIT_TOLERANCE = 1e-3


class StoredGraph(NamedTuple):
    """A graph over some of the rows."""

    graph: Graph
    answers: Mask
    """(n,) rows that answer from the graph."""
    drift: Floats
    """(n,) bound of each row's angle to what the graph holds of it."""


class Stored(NamedTuple):
    """What a snapshot holds, one row a vector."""

    ids: list[VectorId]
    slots: Slots
    """(n,) the graph's labels."""
    vectors: Floats
    """(n, d) unit rows."""
    graph: StoredGraph | None
    high: int
    """Above all slots, those of the graph included."""


def write(path: Path, stored: Stored, manifest: Manifest, config: IndexConfig) -> Manifest:
    """Saves it; raises what `write_snapshot` raises."""
    parts: dict[str, PartWriter] = {
        "ids.json": ids_part(stored.ids),
        "slots.npy": array_part(stored.slots),
        "vectors.npy": array_part(stored.vectors),
    }
    if (held := stored.graph) is not None:
        parts["graph.hnsw"] = held.graph.save
        parts["answers.npy"] = array_part(held.answers)
        parts["drift.npy"] = array_part(held.drift)
        parts["twins.npy"] = array_part(held.graph.twins.pairs())

    def check(folder: Path) -> None:
        """hnswlib writes on when the disk is full: only reading shows that the graph is whole."""
        if held is not None:
            _load_graph(config, folder / "graph.hnsw", held.graph.ef, held.graph.nodes, held.graph.twins)

    return write_snapshot(path, manifest, parts, check)


def read(path: Path, config: IndexConfig | None) -> tuple[Stored, Manifest, IndexConfig]:
    """What `write` saved. A graph that is missing or damaged is left out, which a warning says.

    Raises:
        SnapshotMissing: there is no snapshot.
        SnapshotCorrupt: vectors, ids or manifest are damaged.
        SnapshotMismatch: it is another kind of snapshot, or of another dimension or metric.
    """
    manifest = read_manifest(path)
    if (manifest.kind, manifest.metric) != (KIND, "cosine"):
        raise SnapshotMismatch(
            f"Expected the snapshot of a cosine index at {path}, "
            f"got kind {manifest.kind!r}, metric {manifest.metric!r}."
        )
    if config is None:
        config = IndexConfig(dim=manifest.dim)
    if manifest.dim != config.dim:
        raise SnapshotMismatch(
            f"The snapshot at {path} holds vectors of {manifest.dim} numbers, this index takes {config.dim}."
        )
    ids = read_ids(open_part(path, manifest, "ids.json"))
    slots: Slots = read_array(open_part(path, manifest, "slots.npy"))
    vectors: Floats = read_array(open_part(path, manifest, "vectors.npy"))
    _require_sound(path, ids, slots, vectors, config.dim)
    graph = _read_graph(path, manifest, config, len(ids))
    return Stored(ids, slots, vectors, graph, int(str(manifest.extra["high"]))), manifest, config


def _require_sound(path: Path, ids: list[VectorId], slots: Slots, vectors: Floats, dim: int) -> None:
    """Sums that are right over parts that never belonged together: refused as well."""
    if slots.shape != (len(ids),) or vectors.shape != (len(ids), dim) or len(set(ids)) != len(ids):
        raise SnapshotCorrupt(
            f"The snapshot at {path} does not fit together: {len(ids)} ids ({len(set(ids))} distinct), slots of shape "
            f"{slots.shape}, vectors of shape {vectors.shape}."
        )
    lengths = np.einsum("nd,nd->n", vectors, vectors)
    if len(ids) and (not np.abs(lengths - 1.0).max() < UNIT_TOLERANCE or slots.min() < 0):
        raise SnapshotCorrupt(f"The snapshot at {path} holds vectors that are not of unit length, or negative slots.")


def _read_graph(path: Path, manifest: Manifest, config: IndexConfig, rows: int) -> StoredGraph | None:
    if "graph.hnsw" not in manifest.parts:
        return None
    try:
        file = open_part(path, manifest, "graph.hnsw")
        twins = _read_twins(open_part(path, manifest, "twins.npy"), int(str(manifest.extra["high"])))
        graph = _load_graph(config, file, int(str(manifest.extra["ef"])), int(str(manifest.extra["nodes"])), twins)
        answers = read_array(open_part(path, manifest, "answers.npy"))
        drift = read_array(open_part(path, manifest, "drift.npy"))
        _require_rows(rows, answers, drift)
    except SnapshotCorrupt as error:
        logger.warning("the graph of the snapshot at %s is built anew: %s", path, error)
        return None
    return StoredGraph(graph, answers, drift)


def _require_rows(rows: int, answers: Mask, drift: Floats) -> None:
    if answers.shape != (rows,) or drift.shape != (rows,):
        raise SnapshotCorrupt(f"Expected {rows} rows beside the graph, got {answers.shape} and {drift.shape}.")


def _read_twins(file: Path, high: int) -> Twins:
    twins = Twins(high)
    for slot, node in read_array(file).tolist():
        twins.join(slot, node)
    return twins


def _load_graph(config: IndexConfig, file: Path, ef: int, nodes: int, twins: Twins) -> Graph:
    try:
        graph = Graph.load(config, file, ef, twins)
    except RuntimeError as error:
        raise SnapshotCorrupt(f"hnswlib cannot read {file.name}: {error}") from error
    if graph.nodes != nodes:
        raise SnapshotCorrupt(f"Expected {nodes} nodes in {file.name}, got {graph.nodes}; is the disk full?")
    return graph
