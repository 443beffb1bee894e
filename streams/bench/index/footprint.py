"""Resident memory of one index, at rest and while it is built anew, and what its queries cost at that size."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import numpy as np

from index import HnswIndex, IndexConfig
from streams.bench.index.case import wait_for_build
from streams.bench.index.cpu import MICRO_BATCH, K, search_cpu_us
from streams.bench.index.data import vector_source
from streams.bench.index.population import BATCH, FAR_SHARE, moved_slightly, next_vectors, recall_of
from streams.kafka.status import resident_bytes

WARM_ROWS = 600
SAMPLE_S = 0.01
CHURN = 0.25
"""Changes before memory is read, as a multiple of the size: an index at work, not one that was just loaded."""


class Footprint(msgspec.Struct, frozen=True):
    """Bytes are growth of the process's resident memory; the ids' own objects and the raw input are not in it."""

    size: int
    steady_bytes: int
    rebuilding_bytes: int
    """Highest while a base was built beside the one in service."""
    raw_bytes: int
    """The vectors as bare float32."""
    claimed_bytes: int
    """What `stats()` says, at rest."""
    build_s: float
    query_us: float
    """CPU per query, asked in the worker's micro-batches."""
    recall: float
    ef: int


def measure_footprint(kind: str, size: int, config: IndexConfig, seed: int, queries: int) -> Footprint:
    """Belongs into a fresh process: what others freed before would hide what this one takes."""
    source = vector_source(kind, config.dim, seed)
    rng = np.random.default_rng([seed, size])
    ids = list(range(size))
    _warm(config)
    gc.collect()
    before = resident_bytes()
    with HnswIndex(config) as index:
        index.upsert(ids, source.draw(size, rng))
        wait_for_build(index, 0)
        for _ in range(int(CHURN * size) // BATCH):
            _change(index, source.draw(int(FAR_SHARE * BATCH), rng), rng)
        index.settle()
        gc.collect()
        steady, claimed = resident_bytes() - before, index.stats().memory_bytes
        with _peak() as seen:
            index.rebuild(wait=True)
        rebuilding = max(seen) - before
        vectors = index.vectors(ids)
        asked = next_vectors(vectors, queries, rng)
        recall = recall_of(index.search(asked, K), vectors, asked)
        query_us = search_cpu_us(index.search, asked, MICRO_BATCH)
        stats = index.stats()
    return Footprint(
        size, steady, rebuilding, 4 * size * config.dim, claimed, stats.build_s, query_us, recall, stats.ef
    )


def _change(index: HnswIndex, far: np.ndarray[tuple[int, int], np.dtype[np.float32]], rng: np.random.Generator) -> None:
    """One batch of changes, whose old vectors are read from the index: nothing else is held here."""
    ids = rng.choice(len(index), BATCH, replace=False).tolist()
    vectors = moved_slightly(index.vectors(ids), rng)
    vectors[: len(far)] = far
    index.upsert(ids, vectors)


def _warm(config: IndexConfig) -> None:
    """Code that is loaded and compiled once is not memory of an index."""
    rng = np.random.default_rng(0)
    with HnswIndex(config) as index:
        vectors = vector_source("isotropic", config.dim, 0).draw(WARM_ROWS, rng)
        index.upsert(range(WARM_ROWS), vectors)
        index.rebuild(wait=True)
        _change(index, vectors[: int(FAR_SHARE * BATCH)], rng)
        index.search(vectors, K)


@contextmanager
def _peak() -> Iterator[list[int]]:
    """Resident bytes, sampled in a thread until the block ends."""
    seen = [resident_bytes()]
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_S):
            seen[0] = max(seen[0], resident_bytes())

    thread = threading.Thread(target=sample, name="memory-sampler")
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
