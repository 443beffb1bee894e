"""One build of one graph: which rows it read, how far they moved since, and how wide its queries must look."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from dataclasses import dataclass, field

import numpy as np

from index.anchors import Anchors
from index.config import IndexConfig
from index.graph import Graph
from index.kernels import NOBODY
from index.recall import recall_at
from index.results import Floats, Mask, Slots
from index.scan import BLOCK_QUERIES_MAX, NO_MASK, rescore, scan
from index.table import TableView
from index.twins import Twins

CHUNK = 256
"""Rows between two looks at whether to stop: some 25 ms."""
NICENESS = 10
EF_STEPS = (48, 64, 96, 128, 192, 256, 384, 512)
TUNING_QUERIES = 256
TUNING_K = 10


@dataclass(slots=True)
class Build:
    """A running build, and where the rows that it has read went since."""

    tag: int
    slots: Slots
    replaced: frozenset[int]
    """Tags of the graphs that go when this one comes."""
    drift: Floats
    """(capacity,) sum of the angles of each row's moves since it was read; infinite for rows that were not."""
    anchors: Anchors
    """Where the rows that moved since stood when they were read."""
    twins: Twins
    read: Mask = field(init=False)
    """(slots,) which of them were there when their turn came."""
    done: int = 0

    def __post_init__(self) -> None:
        self.read = np.zeros(len(self.slots), np.bool_)

    @property
    def progress(self) -> float:
        """Share of the slots that are in the graph."""
        return self.done / max(len(self.slots), 1)

    def take(self, view: TableView, start: int) -> tuple[Slots, Floats]:
        """The next chunk: slots still in use and a copy of their rows. Inside the write guard."""
        slots = self.slots[start : start + CHUNK]
        used = view.owner[slots] != NOBODY
        self.read[start : start + CHUNK] = used
        self.done = start + len(slots)
        taken = slots[used]
        self.drift[taken] = 0.0
        return taken, view.vectors[taken]

    def moved(self, slots: Slots, former: Floats, angles: Floats) -> None:
        """Notes the moves of distinct slots from unit rows (n, d). Inside the write guard.

        A row's first move tells for nothing what the graph will hold of it; later it would have to be asked.
        """
        drift = self.drift[slots]
        unmoved = (drift == 0) & self.anchors.missing(slots)
        self.anchors.put(slots[unmoved], former[unmoved])
        self.drift[slots] = drift + angles

    def reserve(self, capacity: int) -> None:
        """Makes room for slots below `capacity`."""
        if (more := capacity - len(self.drift)) > 0:
            self.drift = np.concatenate([self.drift, np.full(more, np.inf, np.float32)])
        self.anchors.reserve(capacity)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a query costs, in CPU seconds, in batches of 64."""

    ef: int
    rows: int
    recall: float
    graph_s: float
    scan_s: float


def tune(config: IndexConfig, graph: Graph, build: Build, view: TableView, gate: float) -> Tuning:
    """Sets the graph's smallest beam width that finds `recall_target` of the exact ten nearest of its own rows.

    Rows that drifted past `gate`, or left, since they were read do not count: they will not be searched for here. When
    no width does the widest stays, and the canaries will say so.
    """
    rng = np.random.default_rng(config.seed)
    members = build.slots[build.read]
    members = members[(build.drift[members] <= gate) & (view.owner[members] != NOBODY)]
    if not len(members):
        return Tuning(graph.ef, 0, 0.0, 0.0, 0.0)
    inside = np.zeros(len(view.owner), np.bool_)
    inside[members] = True
    sample = rng.choice(members, min(TUNING_QUERIES, len(members)), replace=False)
    queries = view.vectors[sample]
    nobody = np.full(len(sample), -1, np.int32)
    inside_owner = np.where(inside, graph.tag, NOBODY).astype(np.int32)
    started = time.thread_time()
    exact = scan(view.vectors, view.high, queries, TUNING_K, inside_owner)[0]
    scan_s = (time.thread_time() - started) / len(sample)
    steps = EF_STEPS if config.ef_search is None else (config.ef_search,)
    recall = graph_s = 0.0
    for ef in steps:
        graph.tune(ef)
        started = time.thread_time()
        found = np.concatenate(
            [
                graph.nearest(queries[start : start + BLOCK_QUERIES_MAX], config.candidates)
                for start in range(0, len(queries), BLOCK_QUERIES_MAX)
            ]
        )
        found = graph.with_twins(found, TUNING_K, inside_owner, NO_MASK, nobody)
        scores = rescore(queries, view.vectors, inside_owner, found, TUNING_K, NO_MASK, nobody)[0]
        graph_s = (time.thread_time() - started) / len(sample)
        recall = recall_at(_padded(scores), _padded(exact), TUNING_K)
        if recall >= config.recall_target:
            break
    return Tuning(graph.ef, len(members), recall, graph_s, scan_s)


def _padded(scores: Floats) -> Floats:
    return np.where(np.isfinite(scores), scores, np.nan).astype(np.float32)


def return_freed_memory() -> None:
    """Hands what the former graph held back to the system; glibc, for one, keeps it until it is asked."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def lower_priority() -> None:
    """Makes the calling thread yield to those that answer queries, where the system lets threads differ."""
    if hasattr(os, "setpriority") and threading.current_thread() is not threading.main_thread():
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        except OSError:  # a system on which only processes have a priority: the build is as polite as the others
            return
