"""The graph indexes against a dict, under any order of changes, builds, saves, crashes and searches."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from index import AutoIndex, HnswIndex, IndexConfig

DIM = 8
TOLERANCE = 1e-5
# far smaller than in service, so that every path is walked: builds, segments, merges of segments, switches
CONFIG = IndexConfig(
    dim=DIM,
    capacity_initial=4,
    delta_max=24,
    stale_share_max=0.4,
    segments_max=2,
    graph_min=40,
    recall_target=1.0,
    candidates=16,
)
ids = st.one_of(st.integers(0, 150), st.sampled_from(["a", "b", "c"]))
seeds = st.integers(0, 10_000)
counts = st.integers(1, 80)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def spread(seed: int, count: int) -> np.ndarray:
    """Directions around ten centres; one row in ten is the centre itself, so that equal vectors are common."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((10, DIM))
    noise = rng.standard_normal((count, DIM)) * np.where(rng.random(count) < 0.1, 0.0, 0.5)[:, None]
    return unit(centres[rng.integers(0, 10, count)] + noise)


class GraphIndexMachine(RuleBasedStateMachine):
    """The model is a dict from id to unit vector; `saved` is the model of the snapshot on disk."""

    kind: type[HnswIndex] = HnswIndex

    def __init__(self) -> None:
        super().__init__()
        self.index = self.kind(CONFIG)
        self.model: dict[int | str, np.ndarray] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="index-machine-"))
        self.saved: dict[int | str, np.ndarray] | None = None
        self.hits = self.asked = 0

    def teardown(self) -> None:
        self.index.close()
        shutil.rmtree(self.folder)
        assert self.hits >= 0.97 * self.asked, f"recall {self.hits / self.asked:.3f} over {self.asked}"

    @rule(batch=st.lists(ids, min_size=1, max_size=100, unique=True), seed=seeds)
    def upsert(self, batch: list[int | str], seed: int) -> None:
        self._upsert(batch, spread(seed, len(batch)))

    @rule(count=counts, seed=seeds)
    def drift(self, count: int, seed: int) -> None:
        """Users that are there move a little: most stay within the gate of their graph."""
        if not self.model:
            return
        rng = np.random.default_rng(seed)
        chosen = [list(self.model)[place] for place in rng.permutation(len(self.model))[:count].tolist()]
        rows = np.stack([self.model[vector_id] for vector_id in chosen])
        self._upsert(chosen, unit(rows + 0.03 * rng.standard_normal(rows.shape)))

    def _upsert(self, batch: list[int | str], rows: np.ndarray) -> None:
        before = set(self.model)
        report = self.index.upsert(batch, rows)
        assert (report.added, report.moved) == (len(set(batch) - before), len(set(batch) & before))
        self.model.update(zip(batch, rows, strict=True))
        best = self.index.search(rows, 1)
        np.testing.assert_allclose(best.similarities[:, 0], 1.0, atol=TOLERANCE, err_msg="not found at once")

    @rule(gone=st.lists(ids, max_size=60))
    def remove(self, gone: list[int | str]) -> None:
        present = set(gone) & set(self.model)
        assert self.index.remove(gone) == len(present)
        for vector_id in present:
            del self.model[vector_id]

    @rule(gone=st.lists(ids, max_size=3))
    def forget(self, gone: list[int | str]) -> None:
        present = set(gone) & set(self.model)
        assert self.index.forget(gone) == len(present)
        for vector_id in present:
            del self.model[vector_id]

    @rule()
    def rebuild(self) -> None:
        self.index.rebuild()

    @rule()
    def settle(self) -> None:
        assert self.index.settle(30.0)
        stats = self.index.stats()
        assert stats.erasures_pending == 0
        assert stats.failed_builds == 0
        assert stats.segments <= CONFIG.segments_max + 1

    @rule()
    def save(self) -> None:
        self.index.save(self.folder, offsets={"events": len(self.model)})
        self.saved = dict(self.model)

    @rule()
    def crash_and_load(self) -> None:
        """Memory is lost; what was saved last comes back whole."""
        if self.saved is None:
            return
        self.index.close()
        self.index = self.kind.load(self.folder, CONFIG)
        self.model = dict(self.saved)
        assert self.index.origin is not None
        assert self.index.origin.offsets == {"events": len(self.model)}

    @rule(count=st.integers(1, 20), seed=seeds, k=st.integers(1, 30))
    def search(self, count: int, seed: int, k: int) -> None:
        queries = spread(seed, count)
        self.check(queries, k, dict(self.model), self.index.search(queries, k))

    @rule(seed=seeds, k=st.integers(1, 12), share=st.floats(0, 1))
    def search_some(self, seed: int, k: int, share: float) -> None:
        """With a filter, and one id a query excluded."""
        rng = np.random.default_rng(seed)
        queries = spread(seed, 5)
        admitted = [vector_id for vector_id in self.model if rng.random() < share]
        excluded = [admitted[rng.integers(len(admitted))] if admitted else None for _ in queries]
        matches = self.index.search(queries, k, exclude=excluded, filter=self.index.mask(admitted))
        for row, name in enumerate(excluded):
            left = {vector_id: self.model[vector_id] for vector_id in admitted if vector_id != name}
            self.check(queries[row : row + 1], k, left, type(matches)(*(part[row : row + 1] for part in matches)))

    def check(self, queries: np.ndarray, k: int, model: dict[int | str, np.ndarray], matches: object) -> None:
        expected = min(k, len(model))
        rows = np.stack(list(model.values())) if model else np.empty((0, DIM), np.float32)
        for query, found, similarities in zip(queries, matches.ids, matches.similarities, strict=True):
            named = [vector_id for vector_id in found.tolist() if vector_id is not None]
            assert len(named) == len(set(named)) == expected
            assert np.isnan(similarities[expected:]).all()
            true = np.array([float(model[vector_id] @ query) for vector_id in named])
            np.testing.assert_allclose(similarities[:expected], true, atol=TOLERANCE)
            assert (np.diff(similarities[:expected]) <= 0).all()
            best = np.sort(rows @ query)[::-1][:expected]
            self.hits += int((true >= best[-1] - TOLERANCE).sum()) if expected else 0
            self.asked += expected

    @invariant()
    def the_index_holds_what_the_model_holds(self) -> None:
        stats = self.index.stats()
        assert len(self.index) == stats.size == len(self.model)
        assert set(self.index.ids()) == set(self.model)
        some = list(self.model)[:5]
        np.testing.assert_allclose(
            self.index.vectors(some), np.array([self.model[i] for i in some]).reshape(-1, DIM), atol=TOLERANCE
        )


class AutoIndexMachine(GraphIndexMachine):
    kind = AutoIndex


for machine in (GraphIndexMachine, AutoIndexMachine):
    machine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestHnswIndexMachine = GraphIndexMachine.TestCase
TestHnswIndexMachine.__doc__ = "Any order of calls agrees with a dict; moved vectors are found at once."
TestAutoIndexMachine = AutoIndexMachine.TestCase
TestAutoIndexMachine.__doc__ = "The same across the switches between scanning and graphs."
