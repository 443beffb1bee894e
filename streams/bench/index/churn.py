"""Users keep moving: recall on current vectors, finding oneself, and what a change costs, rebuilds included."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from index import HnswIndex
from index.rivals import InplaceHnsw
from streams.bench.index.case import Case, Figures, Say, wait_for_build
from streams.bench.index.cpu import CpuAccount, K
from streams.bench.index.data import Floats
from streams.bench.index.population import BATCH, Rows, found_itself, next_vectors, recall_of
from streams.bench.report import Bar, bar

RECALL_MUST, RECALL_LOSS_MUST = 0.95, -0.01
UPDATE_SHARE_MUST, VISIBLE_MS_MUST = 0.25, 5.0
VISIBLE_ROWS = 1000
VISIBLE_EVERY = 10
"""Batches: one of them has a thousand changes and is timed; some of it has to find itself."""
VISIBLE_CHECKED_ROWS = 64
INPLACE_EVERY = 5
INPLACE_BATCHES_MAX = 24
"""The rival takes part in so many batches only, since an update of it costs more than all the others of a batch."""
SELF_CHECKS_MIN = 12_000
DURING_PER_LEVEL = 6
CYCLE_CHURN_MAX = 10.0


class Level(NamedTuple):
    """A moment whose recall is compared with a fresh build later, when nothing else is running."""

    churn: float
    vectors: Floats
    queries: Floats
    ef: int
    recall: float


class Update(NamedTuple):
    """What changes cost: CPU seconds of all threads, and how many there were."""

    cpu_s: float
    changes: int

    @property
    def us(self) -> float:
        """CPU microseconds per changed user."""
        return 1e6 * self.cpu_s / self.changes


class _Churn:
    """The changes of one case, on its index and, for a part of them, on hnswlib in place."""

    def __init__(self, case: Case) -> None:
        self._plan = case.plan
        self._users = case.population(1)
        self._rng = case.rng(2)
        self._index = case.index()
        self._inplace = InplaceHnsw(replace(case.plan.config, capacity_initial=case.size))
        self._inplace.upsert(range(case.size), case.base)
        self._account = CpuAccount()
        self._batches = 0
        per_batch = BATCH + (min(VISIBLE_ROWS, case.size // 2) - BATCH) / VISIBLE_EVERY
        expected = case.plan.churn[-1] * case.size / per_batch
        self._check_every = max(1, int(expected * BATCH / SELF_CHECKS_MIN))
        self.levels: list[Level] = []
        self.visible_ms: list[float] = []
        self.during: list[float] = []
        self.self_checked = self.self_found = 0
        self.inplace = Update(0.0, 0)

    def run(self, say: Say) -> tuple[Update, Update]:
        """All levels at the plan's pace, then one cycle as slow as can be; returns what a change cost in each."""
        generation = self._index.stats().generation
        try:
            with self._account.running():
                for churn in self._plan.churn:
                    self._to(churn)
                    with self._account.aside():
                        self._note(churn)
                    say(f"churn {churn:g}: recall {self.levels[-1].recall:.4f}, {self._index.stats()}")
                wait_for_build(self._index, generation)  # the changes so far are paid for by one base at least
            paced = Update(self._account.spent_s, self._users.changes)
            return paced, self._cycle()
        finally:
            self._index.close()

    def _to(self, churn: float) -> None:
        """Changes until there were `churn` times as many as users, no faster than the plan's pace."""
        first, started_s = self._users.changes, self._account.clock_s()
        last = math.ceil(churn * len(self._users))
        during_every = max(1, (last - first) // BATCH // DURING_PER_LEVEL)
        while self._users.changes < last:
            due_s = (self._users.changes - first) / self._plan.changes_per_s
            time.sleep(max(0.0, started_s + due_s - self._account.clock_s()))
            self._step()
            if self._batches % during_every == 0 and self._index.stats().building:
                with self._account.aside():
                    self.during.append(self._recall()[0])

    def _step(self) -> None:
        self._batches += 1
        timed = self._batches % VISIBLE_EVERY == 1
        with self._account.aside():
            rows = self._users.change(min(VISIBLE_ROWS, len(self._users) // 2) if timed else BATCH)
            ids, vectors = rows.tolist(), self._users.vectors[rows]
        started_s = time.perf_counter()
        self._index.upsert(ids, vectors)
        if timed:
            self.visible_ms.append(1000 * (time.perf_counter() - started_s))
        with self._account.aside():
            if self._batches % self._check_every == 0:
                self._check(rows[:BATCH])
            elif timed:
                self._check(rows[:VISIBLE_CHECKED_ROWS])
            if self._batches % INPLACE_EVERY == INPLACE_EVERY - 1:
                self._change_inplace(ids, vectors)

    def _check(self, rows: Rows) -> None:
        """Do those who just moved find themselves in the very next query?"""
        found = found_itself(self._index.search(self._users.vectors[rows], K), rows, self._users.vectors)
        self.self_checked += len(rows)
        self.self_found += int(found.sum())

    def _change_inplace(self, ids: list[int], vectors: Floats) -> None:
        if self.inplace.changes >= INPLACE_BATCHES_MAX * BATCH:
            return
        started_s = time.thread_time()
        self._inplace.upsert(ids, vectors)
        spent_s = self.inplace.cpu_s + time.thread_time() - started_s
        self.inplace = Update(spent_s, self.inplace.changes + len(ids))

    def _note(self, churn: float) -> None:
        recall, queries = self._recall()
        ef = self._index.stats().ef
        self.levels.append(Level(churn, self._users.vectors.copy(), queries, ef, recall))

    def _recall(self) -> tuple[float, Floats]:
        queries = next_vectors(self._users.vectors, self._plan.queries, self._rng)
        return recall_of(self._index.search(queries, K), self._users.vectors, queries), queries

    def _cycle(self) -> Update:
        """From one new base to the next, each build ended before the next change: what a change costs at most.

        An index too small to be built anew is left after `CYCLE_CHURN_MAX` times as many changes as users.
        """
        self._index.rebuild(wait=True)
        account, first = CpuAccount(), self._users.changes
        generation, last = self._index.stats().generation, first + CYCLE_CHURN_MAX * len(self._users)
        with account.running():
            while self._index.stats().generation == generation and self._users.changes < last:
                with account.aside():
                    rows = self._users.change(BATCH)
                self._index.upsert(rows.tolist(), self._users.vectors[rows])
                self._index.settle()
        return Update(account.spent_s, self._users.changes - first)


def measure_churn(case: Case, say: Say) -> Figures:
    """The changes, then a fresh build per level at the same beam width."""
    churn = _Churn(case)
    paced, cycle = churn.run(say)
    fresh = [_fresh_recall(case, level) for level in churn.levels]
    bars: list[Bar] = []
    for level, expected in zip(churn.levels, fresh, strict=True):
        name = f"{case.name}: recall@10 after {level.churn:g}x churn"
        bars.append(bar(name, level.recall, "share", RECALL_MUST))
        bars.append(bar(f"{name}, less a fresh build's", level.recall - expected, "share", RECALL_LOSS_MUST))
    bars += _during(case, churn.during)
    found = churn.self_found / churn.self_checked
    bars.append(bar(f"{case.name}: {churn.self_checked:,} updated users find themselves next", found, "share", 1.0))
    bars += _update_bars(case, churn, paced, cycle)
    return Figures(bars, _details(churn, fresh, paced, cycle))


def _fresh_recall(case: Case, level: Level) -> float:
    with HnswIndex(replace(case.plan.config, ef_search=level.ef or None)) as index:
        index.upsert(range(case.size), level.vectors)
        wait_for_build(index, 0)
        return recall_of(index.search(level.queries, K), level.vectors, level.queries)


def _during(case: Case, recalls: list[float]) -> list[Bar]:
    if not recalls:
        return []
    name = f"{case.name}: recall@10 during rebuilds, least of {len(recalls)}"
    return [bar(name, min(recalls), "share", RECALL_MUST)]


def _update_bars(case: Case, churn: _Churn, paced: Update, cycle: Update) -> list[Bar]:
    inplace_us = churn.inplace.us
    name = f"{case.name}: update CPU / in place"
    at_pace = f"{name}, {case.plan.changes_per_s:,.0f} changes/s"
    visible = float(np.percentile(churn.visible_ms, 99))
    return [
        bar(at_pace, paced.us / inplace_us, "ratio", UPDATE_SHARE_MUST, "at most"),
        bar(f"{name}, every build ends first", cycle.us / inplace_us, "ratio", UPDATE_SHARE_MUST, "at most"),
        bar(
            f"{case.name}: 1,000 upserts visible, p99 of {len(churn.visible_ms)}",
            visible,
            "ms",
            VISIBLE_MS_MUST,
            "at most",
        ),
    ]


def _details(churn: _Churn, fresh: list[float], paced: Update, cycle: Update) -> dict[str, object]:
    return {
        "levels": [
            {"churn": level.churn, "recall": level.recall, "fresh": expected, "ef": level.ef}
            for level, expected in zip(churn.levels, fresh, strict=True)
        ],
        "during_rebuilds": churn.during,
        "update_us": {"paced": paced.us, "slow": cycle.us, "in place": churn.inplace.us},
        "changes": {"paced": paced.changes, "slow": cycle.changes, "in place": churn.inplace.changes},
        "visible_ms": {"p50": float(np.median(churn.visible_ms)), "max": max(churn.visible_ms)},
        "self_missed": churn.self_checked - churn.self_found,
    }
