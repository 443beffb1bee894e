"""Other people's engines behind the index's surface: arms of a benchmark, and nothing that a product should run on.

Each is used the way its users use it, with one thread: hnswlib changed in place, faiss IVF-Flat trained once, usearch
with removal and addition. None may be searched beside a writer. Ids are ints from 0, the labels of the engines.
faiss and usearch come with the development dependencies and are imported when their class is made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import hnswlib
import numpy as np
from numpy.typing import NDArray

from index.config import IndexConfig
from index.results import Floats, Matches, UpsertReport
from index.rows import padded, sound_queries, sound_rows

Labels = NDArray[np.int64]
EF_DEFAULT = 64
NPROBE_DEFAULT = 8
GROWTH = 1.5


class RivalNotInstalled(ImportError):
    """The engine is not part of the product: it comes with the dependency group `dev`."""

    def __init__(self, package: str) -> None:
        super().__init__(f"{package} is not installed; install the dependency group dev (make setup).", name=package)


def _engine(module: str, package: str) -> Any:
    """The module, or the reason why not."""
    try:
        return import_module(module)
    except ImportError as error:
        raise RivalNotInstalled(package) from error


class Rival(ABC):
    """The surface that the arms share with `index.ExactIndex`; what a call changed, the next search sees."""

    def __init__(self, config: IndexConfig) -> None:
        self._dim = config.dim
        self._labels: set[int] = set()

    def __len__(self) -> int:
        return len(self._labels)

    def __contains__(self, label: int) -> bool:
        return label in self._labels

    def upsert(self, ids: Sequence[int], vectors: Floats) -> UpsertReport:
        """Adds or moves the vectors (n, d), normalised; of an id given twice the last row counts.

        Bad rows are reported and stay out: the engines themselves would take a NaN and never work again.

        Raises:
            DimensionMismatch: the shape is not (len(ids), d).
            ValueError: an id is below 0.
        """
        sound = sound_rows(ids, vectors, self._dim)
        labels = np.array(sound.ids, np.int64)
        if len(labels) and labels.min() < 0:
            raise ValueError(f"The labels of these engines are ints from 0, got {labels.min()}.")
        known = np.array([label in self._labels for label in labels.tolist()], np.bool_)
        if len(labels):
            self._put(labels, sound.vectors, known)
            self._labels.update(labels.tolist())
        return UpsertReport(int((~known).sum()), int(known.sum()), sound.rejected)

    def remove(self, ids: Sequence[int]) -> int:
        """Takes the ids out; returns how many were there."""
        known = self._labels.intersection(ids)
        if known:
            self._drop(np.array(sorted(known), np.int64))
            self._labels -= known
        return len(known)

    def search(self, vectors: Floats, k: int) -> Matches:
        """Up to k similar ids of each query (q, d), best first, padded with None and NaN.

        Raises:
            InvalidNeighbours: k is below 1.
            DimensionMismatch: the shape is not (q, d).
            NonFiniteQuery: a query holds NaN or infinity.
        """
        queries, directed = sound_queries(vectors, k, self._dim)
        matches = padded(len(queries), k)
        if not self._labels or not directed.any():
            return matches
        labels, similarities = self._nearest(queries[directed], min(k, len(self)))
        found = np.zeros((len(queries), k), np.bool_)
        found[directed, : labels.shape[1]] = labels >= 0
        matches.ids[found] = labels[labels >= 0]
        matches.similarities[found] = similarities[labels >= 0]
        return matches

    @abstractmethod
    def _put(self, labels: Labels, rows: Floats, known: NDArray[np.bool_]) -> None:
        """Stores distinct labels; `known` says which are there already."""

    @abstractmethod
    def _drop(self, labels: Labels) -> None:
        """Takes out labels that are there."""

    @abstractmethod
    def _nearest(self, queries: Floats, k: int) -> tuple[Labels, Floats]:
        """Labels and cosines (q, <= k), best first, -1 where none was found."""


class InplaceHnsw(Rival):
    """hnswlib changed in place: `add_items` on a label that is there, `mark_deleted`, `resize_index`."""

    def __init__(self, config: IndexConfig) -> None:
        super().__init__(config)
        self._graph = hnswlib.Index("ip", config.dim)
        self._graph.init_index(
            config.capacity_initial, M=config.m, ef_construction=config.ef_construction, random_seed=config.seed
        )
        self._graph.set_num_threads(1)
        self.ef = config.ef_search or EF_DEFAULT

    @property
    def ef(self) -> int:
        """Beam width of a query; raised to k where k is more."""
        return self._ef

    @ef.setter
    def ef(self, ef: int) -> None:
        self._ef = ef
        self._graph.set_ef(ef)

    def _put(self, labels: Labels, rows: Floats, known: NDArray[np.bool_]) -> None:
        needed = self._graph.get_current_count() + int((~known).sum())
        if needed > (capacity := self._graph.get_max_elements()):
            self._graph.resize_index(max(needed, int(capacity * GROWTH)))
        self._graph.add_items(rows, labels, num_threads=1)

    def _drop(self, labels: Labels) -> None:
        for label in labels.tolist():
            self._graph.mark_deleted(label)

    def _nearest(self, queries: Floats, k: int) -> tuple[Labels, Floats]:
        """hnswlib refuses a batch in which one query reaches fewer than k; then the beam covers all, then k shrinks."""
        try:
            return self._reached(queries, k)
        except RuntimeError:
            self._graph.set_ef(self._graph.get_current_count())
            try:
                return self._shrunk(queries, k)
            finally:
                self._graph.set_ef(self._ef)

    def _shrunk(self, queries: Floats, k: int) -> tuple[Labels, Floats]:
        while k > 1:
            try:
                return self._reached(queries, k)
            except RuntimeError:
                k //= 2
        return self._reached(queries, k)

    def _reached(self, queries: Floats, k: int) -> tuple[Labels, Floats]:
        labels, distances = self._graph.knn_query(queries, k, num_threads=1)
        return labels.astype(np.int64), 1.0 - distances


class FaissIvfFlat(Rival):
    """faiss IVF-Flat by inner product: the lists are trained on the first upsert, which is the bulk load.

    Updates take a row out and put it in again; a hash table finds its list, the quickest way that faiss has. The
    lists stay as they were trained however far the vectors move, and however many come.
    """

    LISTS_PER_ROOT = 4
    """Lists = this times the square root of the bulk load's rows."""

    def __init__(self, config: IndexConfig) -> None:
        super().__init__(config)
        self._faiss = _engine("faiss", "faiss-cpu")
        self._faiss.omp_set_num_threads(1)
        self._seed = config.seed
        self._index = self._lists(1)
        self._nprobe = NPROBE_DEFAULT

    @property
    def nprobe(self) -> int:
        """Lists that a query scans; all of them where there are fewer."""
        return self._nprobe

    @nprobe.setter
    def nprobe(self, nprobe: int) -> None:
        self._nprobe = nprobe
        self._index.nprobe = nprobe

    @property
    def nlist(self) -> int:
        """Lists that there are."""
        nlist: int = self._index.nlist
        return nlist

    def _put(self, labels: Labels, rows: Floats, known: NDArray[np.bool_]) -> None:
        if not self._index.is_trained:
            self._train(rows)
        elif known.any():
            self._drop(labels[known])
        self._index.add_with_ids(rows, labels)

    def _drop(self, labels: Labels) -> None:
        labels = np.ascontiguousarray(labels)
        self._index.remove_ids(self._faiss.IDSelectorArray(len(labels), self._faiss.swig_ptr(labels)))

    def _nearest(self, queries: Floats, k: int) -> tuple[Labels, Floats]:
        similarities, labels = self._index.search(queries, k)
        return labels, similarities

    def _train(self, rows: Floats) -> None:
        lists = int(self.LISTS_PER_ROOT * len(rows) ** 0.5)
        self._index = self._lists(min(lists, len(rows)))
        self._index.train(rows)
        self._index.set_direct_map_type(self._faiss.DirectMap.Hashtable)
        self._index.nprobe = self._nprobe

    def _lists(self, nlist: int):  # type: ignore[no-untyped-def]
        quantizer = self._faiss.IndexFlatIP(self._dim)
        index = self._faiss.IndexIVFFlat(quantizer, self._dim, nlist, self._faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = self._seed
        index.cp.min_points_per_centroid = 1  # it would print about small loads
        return index


class UsearchIndex(Rival):
    """usearch by inner product: an update removes the key and adds it again."""

    def __init__(self, config: IndexConfig) -> None:
        super().__init__(config)
        self._index = _engine("usearch.index", "usearch").Index(
            ndim=config.dim,
            metric="ip",
            dtype="f32",
            connectivity=config.m,
            expansion_add=config.ef_construction,
            expansion_search=config.ef_search or EF_DEFAULT,
        )

    @property
    def ef(self) -> int:
        """Beam width of a query."""
        ef: int = self._index.expansion_search
        return ef

    @ef.setter
    def ef(self, ef: int) -> None:
        self._index.expansion_search = ef

    def _put(self, labels: Labels, rows: Floats, known: NDArray[np.bool_]) -> None:
        if known.any():
            self._drop(labels[known])
        self._index.add(labels.astype(np.uint64), rows, threads=1)

    def _drop(self, labels: Labels) -> None:
        self._index.remove(labels.astype(np.uint64), threads=1)

    def _nearest(self, queries: Floats, k: int) -> tuple[Labels, Floats]:
        found = self._index.search(queries, k, threads=1)
        keys = np.atleast_2d(found.keys).astype(np.int64)
        # one query comes back flat and cut to what was found, several as a table with a count per row
        counts = found.counts if len(queries) > 1 else np.array([keys.shape[1]])
        missing = np.arange(keys.shape[1]) >= counts[:, None]
        cosines = np.subtract(1.0, np.atleast_2d(found.distances), dtype=np.float32)
        return np.where(missing, -1, keys), cosines
