"""An HNSW graph that never changes once it is built. The only file of the index that knows hnswlib.

hnswlib is fast and sound as long as a graph is written once and then only read. Updated in place it decays, and beside
queries it is not safe (`docs/adr/0013-two-tier-index.md`). So there is no way here to change a finished graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import hnswlib
import numpy as np
from numpy.typing import NDArray

from index.config import IndexConfig
from index.kernels import follow_chains
from index.results import Floats, Mask, Slots
from index.twins import Twins

LABEL_LOCKS_BYTES = 65_536 * 40
"""Mutexes that every graph of hnswlib has, however small."""
WIDER = 4
"""Factor of the beam when a query's candidates were too few."""


class BuildCancelled(Exception):
    """The build was told to stop."""


class Graph:
    """Immutable neighbours-of-neighbours graph over unit vectors; its labels are slots of the table."""

    def __init__(self, graph: hnswlib.Index, tag: int, ef: int, twins: Twins, slots: Slots) -> None:
        self._graph = graph
        self.twins = twins
        self.slots = slots
        """The slots it was built over."""
        self.tag = tag
        """What `owner` says of the slots that answer from here."""
        self._ef = ef
        self._graph.set_ef(ef)

    @classmethod
    def build(
        cls,
        config: IndexConfig,
        tag: int,
        rows: int,
        chunks: Iterable[tuple[Slots, Floats]],
        twins: Twins,
        cancelled: Callable[[], bool],
    ) -> Graph:
        """Builds over at most `rows` rows that come in chunks of slots (n,) and unit vectors (n, d).

        Rows that `twins` chains become no nodes.

        Raises:
            BuildCancelled: `cancelled` said so between two chunks.
        """
        graph = hnswlib.Index("ip", config.dim)
        graph.init_index(max(rows, 1), M=config.m, ef_construction=config.ef_construction, random_seed=config.seed)
        graph.set_num_threads(1)
        taken = [np.empty(0, np.int32)]
        for slots, vectors in chunks:
            if cancelled():
                raise BuildCancelled
            if len(slots):
                nodes = twins.take(slots, vectors)
                graph.add_items(vectors[nodes], slots[nodes], num_threads=1)
                taken.append(slots)
        return cls(graph, tag, config.ef_search or config.candidates, twins, np.concatenate(taken))

    @classmethod
    def load(cls, config: IndexConfig, path: Path, ef: int, twins: Twins) -> Graph:
        """Reads what `save` wrote; its tag is 0 until it has one.

        Raises:
            RuntimeError: the file is no graph of these vectors.
        """
        graph = hnswlib.Index("ip", config.dim)
        graph.load_index(str(path))
        graph.set_num_threads(1)
        return cls(graph, 0, ef, twins, np.array([*graph.get_ids_list(), *twins.node_of], np.int32))

    def __len__(self) -> int:
        """Rows that can be found through it, chained ones included."""
        return self.nodes + len(self.twins.node_of)

    @property
    def nodes(self) -> int:
        """Rows that are nodes."""
        count: int = self._graph.get_current_count()
        return count

    @property
    def ef(self) -> int:
        """Beam width of a query."""
        return self._ef

    @property
    def memory_bytes(self) -> int:
        """Estimate: level 0 as hnswlib lays it out, and its locks, labels and upper layers."""
        graph = self._graph
        level_0 = 4 * graph.dim + 4 * 2 * graph.M + 4 + 8
        upper = (4 * graph.M + 4) / graph.M + 8
        bookkeeping = 40 + 4 + 48  # a mutex, the level, the entry of a hash map
        by_row = graph.get_max_elements() * (level_0 + upper + bookkeeping)
        return int(by_row) + LABEL_LOCKS_BYTES + self.twins.chain.nbytes + self.slots.nbytes

    def tune(self, ef: int) -> None:
        """Sets the beam width; only before the graph goes into service."""
        self._ef = ef
        self._graph.set_ef(ef)

    def save(self, path: Path) -> int:
        """Writes the graph and returns how many bytes the file must have: hnswlib does not notice a full disk."""
        self._graph.save_index(str(path))
        size: int = self._graph.index_file_size()
        return size

    def vectors(self, slots: Slots) -> Floats:
        """What the graph holds of these slots (n, d), which must be in it."""
        held: Floats = np.asarray(self._graph.get_items(self.twins.nodes(slots).astype(np.int64)), np.float32)
        return held

    def nearest(self, queries: Floats, count: int) -> Slots:
        """Slots (q, count) near each query, nearest first; a row of -1 is a query that the graph cannot answer.

        hnswlib refuses a whole batch when one query reaches fewer nodes than asked for; those rows are then asked
        alone with a wider beam.
        """
        count = min(count, self.nodes)
        if not count or not len(queries):
            return np.full((len(queries), count), -1, np.int32)
        if (labels := self._ask(queries, count)) is not None:
            return labels
        rows = np.full((len(queries), count), -1, np.int32)
        for row in range(len(queries)):
            for wanted in (count, min(count * WIDER, self.nodes)):
                if (labels := self._ask(queries[row : row + 1], wanted)) is not None:
                    rows[row] = labels[0, :count]
                    break
        return rows

    def with_twins(self, found: Slots, k: int, owner: Slots, allowed: Mask, excluded: Slots) -> Slots:
        """The slots found (q, c), and up to k more a query that hang on them."""
        if not len(self.twins.chain):
            return found
        chained = np.empty((len(found), k), np.int32)
        follow_chains(found, self.twins.chain, owner, self.tag, allowed, excluded, chained)
        return np.concatenate([found, chained], axis=1)

    def _ask(self, queries: Floats, count: int) -> Slots | None:
        """None when some query reached fewer than `count` nodes."""
        try:
            labels: NDArray[np.uint64] = self._graph.knn_query(queries, k=count, num_threads=1)[0]
        except RuntimeError as error:
            if "contiguous" not in str(error):
                raise
            return None
        return labels.astype(np.int32)
