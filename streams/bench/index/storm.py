"""Everything at once: two threads of queries beside changes, growth, removals, snapshots and switches of the tier."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import msgspec
import numpy as np

from index import AutoIndex, IndexConfig, Matches
from streams.bench.index.cpu import K
from streams.bench.index.data import VectorSource, vector_source
from streams.bench.index.population import BATCH, moved_slightly, repeated, rows_of

READERS = 2
QUERIES_AT_ONCE = (64, 257)
GRAPH_SHARE, SHRINK_SHARE = 0.8, 0.5
"""Of the size: from where graphs are tried; and how few users a wave leaves."""
PLATEAU_STEPS, PLATEAU_STEPS_MAX = 60, 3000
"""Of a wave at its height: at least, and at most while no graph is in service."""
STEP_S = 0.01
"""Between two steps of the writer, so that most of the time goes to the queries."""
SAVE_EVERY, REBUILD_EVERY, FORGET_EVERY = 151, 97, 13
FORGET_ROWS = 4
M, EF_CONSTRUCTION, EF = 8, 40, 48
"""Thinner graphs than the product's: built in a quarter of the time, so that many come and go. Recall is measured
elsewhere."""
CHECKED_ROWS = 8
SELF_SIMILARITY_MIN = 1 - 1e-5
FAILURES_MAX = 20


class Storm(msgspec.Struct):
    """What happened. `failures` are exceptions, wrong answers and deaths, in words; none is what must be."""

    queries: int = 0
    added: int = 0
    moved: int = 0
    removed: int = 0
    snapshots: int = 0
    switches: int = 0
    builds: int = 0
    """New bases that came into service."""
    failures: list[str] = []


class _Asked(msgspec.Struct):
    queries: int
    wrong: list[str]


def raise_storm(kind: str, size: int, config: IndexConfig, seed: int, queries: int) -> Storm:
    """Until the readers have asked `queries` queries. Users wander between `SHRINK_SHARE` of the size and the size."""
    source = vector_source(kind, config.dim, seed)
    config = replace(config, graph_min=int(GRAPH_SHARE * size), m=M, ef_construction=EF_CONSTRUCTION, ef_search=EF)
    over = Event()
    with (
        TemporaryDirectory(prefix="nearstream-bench-") as folder,
        AutoIndex(config) as index,
        ThreadPoolExecutor(READERS + 1) as pool,
    ):
        writer = _Writer(index, source, size, Path(folder), np.random.default_rng([seed, 1]))
        writer.grow()
        readers = [
            pool.submit(_read, index, source, -(-queries // READERS), np.random.default_rng([seed, 2, reader]))
            for reader in range(READERS)
        ]
        writing = pool.submit(writer.work, over)
        wait(readers)
        over.set()
        wait([writing])
        storm = writer.storm
        storm.failures += [f"build failed, {count} times" for count in [index.stats().failed_builds] if count]
    if (error := writing.exception()) is not None:
        storm.failures.append(f"writer: {error!r}")
    for reader in readers:
        _add(storm, reader)
    del storm.failures[FAILURES_MAX:]
    return storm


def _add(storm: Storm, reader: Future[_Asked]) -> None:
    if (error := reader.exception()) is not None:
        storm.failures.append(f"query: {error!r}")
        return
    storm.queries += reader.result().queries
    storm.failures += reader.result().wrong


def _read(index: AutoIndex, source: VectorSource, queries: int, rng: np.random.Generator) -> _Asked:
    asked = _Asked(0, [])
    while asked.queries < queries:
        count = int(rng.integers(*QUERIES_AT_ONCE))
        fault = _fault(index.search(source.draw(count, rng), K))
        if fault and len(asked.wrong) < FAILURES_MAX:
            asked.wrong.append(f"query: {fault}")
        asked.queries += count
    return asked


def _fault(matches: Matches) -> str:
    """What is wrong with an answer, at any moment of an index that always holds more than K users."""
    rows = rows_of(matches)
    if (rows < 0).any():
        return "a row is padded though there are enough users"
    if repeated(rows).any():
        return "a row names an id twice"
    if (np.diff(matches.similarities, axis=1) > 0).any():
        return "a row is not sorted"
    return ""


class _Writer:
    """The one thread that changes the index: waves of growth, movement and removal. Ids are never used again."""

    def __init__(
        self, index: AutoIndex, source: VectorSource, size: int, folder: Path, rng: np.random.Generator
    ) -> None:
        self.storm = Storm()
        self._index = index
        self._source = source
        self._size = size
        self._folder = folder
        self._rng = rng
        self._next = 0
        self._present: list[int] = []
        self._step = 0
        self._tier, self._generation = index.stats().tier, index.stats().generation

    def work(self, over: Event) -> None:
        """Wave after wave until told that it is over."""
        for _ in self._waves():
            self._step += 1
            self._now_and_then()
            self._watch()
            if over.wait(STEP_S):
                return

    def grow(self) -> None:
        """One batch of new users; at once as many as a wave leaves when there are none."""
        count = BATCH if self._present else int(SHRINK_SHARE * self._size)
        ids = list(range(self._next, self._next + count))
        self._next += count
        self._present += ids
        vectors = self._source.draw(count, self._rng)
        self._index.upsert(ids, vectors)
        self.storm.added += count
        matches = self._index.search(vectors[:CHECKED_ROWS], 1)
        if (matches.similarities[:, 0] < SELF_SIMILARITY_MIN).any():
            self._fail("a new vector was not found by the next query")

    def _waves(self) -> Iterator[None]:
        while True:
            while len(self._present) + BATCH <= self._size:
                self.grow()
                yield
            for step in range(PLATEAU_STEPS_MAX):
                if step >= PLATEAU_STEPS and self._index.stats().tier == "hnsw":
                    break
                self._move()
                yield
            while len(self._present) > SHRINK_SHARE * self._size + BATCH:
                self._take_out(BATCH, forget=False)
                yield

    def _move(self) -> None:
        ids = [self._present[place] for place in self._rng.choice(len(self._present), BATCH, replace=False)]
        self._index.upsert(ids, moved_slightly(self._index.vectors(ids), self._rng))
        self.storm.moved += len(ids)

    def _take_out(self, count: int, *, forget: bool) -> None:
        places = self._rng.choice(len(self._present), min(count, len(self._present)), replace=False)
        ids = [self._present[place] for place in places]
        vectors = self._index.vectors(ids[:CHECKED_ROWS])
        removed = self._index.forget(ids) if forget else self._index.remove(ids)
        gone = set(ids)
        self._present = [user for user in self._present if user not in gone]
        self.storm.removed += removed
        found = rows_of(self._index.search(vectors, K))
        if removed != len(ids) or np.isin(found, ids).any():
            self._fail("a removed id was found")

    def _now_and_then(self) -> None:
        if self._step % FORGET_EVERY == 0:
            self._take_out(FORGET_ROWS, forget=True)
        if self._step % REBUILD_EVERY == 0:
            self._index.rebuild()
        if self._step % SAVE_EVERY == 0:
            self._index.save(self._folder)
            with AutoIndex.load(self._folder) as loaded:
                self.storm.snapshots += 1
                if len(loaded) != len(self._present):
                    self._fail(f"a snapshot of {len(self._present)} users holds {len(loaded)}")

    def _watch(self) -> None:
        stats = self._index.stats()
        self.storm.switches += stats.tier != self._tier
        self.storm.builds += stats.generation != self._generation
        self._tier, self._generation = stats.tier, stats.generation

    def _fail(self, text: str) -> None:
        if len(self.storm.failures) < FAILURES_MAX:
            self.storm.failures.append(text)
