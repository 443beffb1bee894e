"""The exact index against a dict, under any order of changes and searches."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from index import ExactIndex, IndexConfig, RejectReason

DIM = 3
TOLERANCE = 1e-5
# few ids and a coarse grid: moves, ties, opposite and repeated vectors all happen often
ids = st.one_of(st.integers(0, 9), st.sampled_from(["a", "b", "c"]))
numbers = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 1e30, float("nan"), float("inf")])
finite_numbers = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0])
vectors = st.tuples(numbers, numbers, numbers)
queries = st.tuples(finite_numbers, finite_numbers, finite_numbers)


def unit(vector: tuple[float, ...]) -> np.ndarray:
    wide = np.array(vector, np.float64)
    return wide / np.linalg.norm(wide)


class ExactIndexMachine(RuleBasedStateMachine):
    """The model is a dict from id to unit vector."""

    def __init__(self) -> None:
        super().__init__()
        self.index = ExactIndex(IndexConfig(dim=DIM, capacity_initial=1))
        self.model: dict[int | str, np.ndarray] = {}
        self.epoch = 0

    @rule(batch=st.lists(st.tuples(ids, vectors), max_size=12))
    def upsert(self, batch: list[tuple[int | str, tuple[float, float, float]]]) -> None:
        before = set(self.model)
        rejected = []
        good = set()
        for position, (vector_id, vector) in enumerate(batch):
            if not np.isfinite(vector).all():
                rejected.append((position, RejectReason.NON_FINITE))
            elif not any(vector):
                rejected.append((position, RejectReason.ZERO_NORM))
            else:
                self.model[vector_id] = unit(vector)
                good.add(vector_id)
        rows = np.array([vector for _, vector in batch], np.float32).reshape(-1, DIM)
        report = self.index.upsert([vector_id for vector_id, _ in batch], rows)
        assert list(report.rejected) == rejected
        assert (report.added, report.moved) == (len(good - before), len(good & before))

    @rule(gone=st.lists(ids, max_size=6))
    def remove(self, gone: list[int | str]) -> None:
        present = {vector_id for vector_id in gone if vector_id in self.model}
        assert self.index.remove(gone) == len(present)
        for vector_id in present:
            del self.model[vector_id]

    @rule(asked=st.lists(queries, max_size=4), k=st.integers(1, 15))
    def search(self, asked: list[tuple[float, float, float]], k: int) -> None:
        matches = self.index.search(np.array(asked, np.float32).reshape(-1, DIM), k)
        assert matches.ids.shape == matches.similarities.shape == (len(asked), k)
        for query, found, similarities in zip(asked, matches.ids, matches.similarities, strict=True):
            self.check_row(query, found.tolist(), similarities, k)

    def check_row(
        self, query: tuple[float, ...], found: list[int | str | None], similarities: np.ndarray, k: int
    ) -> None:
        expected = min(k, len(self.model)) if any(query) else 0
        assert found[expected:] == [None] * (k - expected)
        assert np.isnan(similarities[expected:]).all()
        named = [vector_id for vector_id in found if vector_id is not None]
        assert len(set(named)) == expected
        cosines = (
            {vector_id: float(vector @ unit(query)) for vector_id, vector in self.model.items()} if expected else {}
        )
        best = sorted(cosines.values(), reverse=True)[:expected]
        np.testing.assert_allclose(similarities[:expected], best, atol=TOLERANCE)
        np.testing.assert_allclose([cosines[vector_id] for vector_id in named], best, atol=TOLERANCE)
        assert (np.diff(similarities[:expected]) <= 0).all()

    @invariant()
    def the_index_holds_what_the_model_holds(self) -> None:
        stats = self.index.stats()
        assert len(self.index) == stats.size == len(self.model)
        assert stats.capacity >= stats.size
        assert stats.epoch >= self.epoch
        self.epoch = stats.epoch
        for vector_id in (*range(10), "a", "b", "c"):
            assert (vector_id in self.index) == (vector_id in self.model)
        for vector_id, vector in self.model.items():
            np.testing.assert_allclose(self.index.vector(vector_id), vector, atol=TOLERANCE)


ExactIndexMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestExactIndexMachine = ExactIndexMachine.TestCase
TestExactIndexMachine.__doc__ = "Any order of upserts, removals and searches agrees with a dict and brute force."
