"""Searches from many threads beside a writer, builds, growth, saves and switches."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from index import AutoIndex, ExactIndex, HnswIndex, IndexConfig, auto
from index.table import WriteGuard

DIM = 32
USERS = 1500
PLACES = 6
"""Every user only ever stands at one of a few known places: any other similarity is of a vector torn in two."""
CONFIG = IndexConfig(dim=DIM, capacity_initial=16, delta_max=200, graph_min=700, candidates=24)


@contextmanager
def hurried_threads() -> Iterator[None]:
    """Switches between threads a thousand times more often than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def places() -> np.ndarray:
    rows = np.random.default_rng(1).standard_normal((USERS, PLACES, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=2, keepdims=True)


@pytest.mark.parametrize("kind", [ExactIndex, HnswIndex, AutoIndex])
def test_every_answer_is_about_vectors_that_were_there(
    kind: type[ExactIndex], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a writer that moves, adds, removes, rebuilds and saves, no search fails, names a wrong similarity or
    repeats an id."""
    monkeypatch.setattr(
        auto, "COST_SHARE_MAX", float("inf")
    )  # so few rows are cheaper to scan; the switch is the point
    known = places()
    problems: list[str] = []
    answered = [0, 0]
    done = threading.Event()
    with kind(CONFIG) as index, hurried_threads():
        index.upsert(range(USERS // 2), known[: USERS // 2, 0])

        def ask(number: int) -> None:
            rng = np.random.default_rng(number)
            while not done.is_set() and not problems:
                queries = known[rng.integers(0, USERS, 8), rng.integers(0, PLACES, 8)]
                try:
                    matches = index.search(queries, 10)
                except Exception as error:  # noqa: BLE001 - any failure is the finding
                    problems.append(repr(error))
                    return
                for query, ids, similarities in zip(queries, matches.ids, matches.similarities, strict=True):
                    named = [vector_id for vector_id in ids.tolist() if vector_id is not None]
                    if len(set(named)) < len(named):
                        problems.append(f"repeated: {named}")
                    possible = known[named] @ query
                    wrong = np.abs(possible - similarities[: len(named), None]).min(axis=1, initial=9) > 1e-4
                    if wrong.any():
                        problems.append(f"no such vector: {named} {similarities} {possible}")
                answered[number] += len(queries)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        rng = np.random.default_rng(3)
        step = 0
        while (step < 250 or min(answered) <= 100) and not problems:
            step += 1
            users = rng.choice(USERS, 60, replace=False)
            index.upsert(users.tolist(), known[users, rng.integers(0, PLACES, 60)])
            index.remove(rng.choice(USERS, 25, replace=False).tolist())
            if step % 50 == 20:
                index.forget(rng.choice(USERS, 3).tolist())
            if step == 120:
                index.remove(range(400, USERS))
            if step % 60 == 40:
                index.save(tmp_path)
                with kind.load(tmp_path, CONFIG) as again:
                    assert set(again.ids()) == set(index.ids())
        done.set()
        for thread in threads:
            thread.join()
        assert index.settle(60.0)
        assert problems == []
        if isinstance(index, HnswIndex):
            assert index.stats().generation >= 1
            assert index.stats().failed_builds == 0


def test_what_a_write_crossed_is_read_again() -> None:
    """A reader whose work a write overlapped repeats it, and at last waits for the writer."""
    guard = WriteGuard()
    calls = []

    def work() -> int:
        calls.append(guard.sequence)
        if len(calls) < 3:
            with guard.write():
                pass
        return len(calls)

    assert guard.read(work) == 3
    assert calls[0] != calls[1] != calls[2]
