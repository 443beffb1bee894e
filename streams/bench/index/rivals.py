"""Other engines on the same vectors and the same changes, each with the beam at which it finds as much."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from index import HnswIndex, IndexConfig
from index.rivals import FaissIvfFlat, InplaceHnsw, Rival, RivalNotInstalled, UsearchIndex
from streams.bench.index.case import Case, Figures, Say, wait_for_build
from streams.bench.index.cpu import MICRO_BATCH, CpuAccount, K, search_cpu_us
from streams.bench.index.data import Floats
from streams.bench.index.population import BATCH, Population, next_vectors, recall_of
from streams.bench.report import Bar, bar

ENGINES: dict[str, Callable[[IndexConfig], Rival]] = {
    "hnswlib in place": InplaceHnsw,
    "faiss IVF-Flat": FaissIvfFlat,
    "usearch": UsearchIndex,
}
BEAMS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
CHURN = 1.0
EQUAL_RECALL = 0.002


@dataclass
class _Arm:
    """A rival at work. `update_s` is the CPU of its changes so far."""

    engine: Rival
    build_s: float
    update_s: float = 0.0
    beam: int = 0
    recall: float = 0.0
    query_us: float = 0.0


def measure_rivals(case: Case, say: Say) -> Figures:
    """Each tuned to our recall, then the same changes batch by batch in turn, then recall again at the same beam."""
    users, rng = case.population(7), case.rng(8)
    queries = next_vectors(case.base, case.plan.queries, rng)
    with case.index() as ours:
        found = recall_of(ours.search(queries, K), case.base, queries)
        arms, missing = _arms(case, queries, found, say)
        query_us = _query_us(ours, arms, queries, case.plan.rounds)
        update_us = _change_all(case, ours, arms, users)
        later = next_vectors(users.vectors, case.plan.queries, rng)
        recall_later = recall_of(ours.search(later, K), users.vectors, later)
        bars = _row(case, "nearstream", query_us, update_us, recall_later)
        table: dict[str, object] = {"nearstream": {"recall": found, "beam": ours.stats().ef, "build_s": case.build_s}}
    for name, arm in arms.items():
        recall_later = recall_of(arm.engine.search(later, K), users.vectors, later)
        arm_us = 1e6 * arm.update_s / users.changes
        bars += _row(case, name, arm.query_us, arm_us, recall_later)
        table[name] = {"recall": arm.recall, "beam": arm.beam, "build_s": arm.build_s}
    return Figures(bars, {"before churn": table, "changes": users.changes, "left out": missing})


def _arms(case: Case, queries: Floats, recall: float, say: Say) -> tuple[dict[str, _Arm], list[str]]:
    arms: dict[str, _Arm] = {}
    missing = []
    for name, make in ENGINES.items():
        try:
            engine = make(replace(case.plan.config, capacity_initial=case.size))
        except RivalNotInstalled as reason:
            say(f"{case.name}: {name} is left out: {reason}")
            missing.append(name)
            continue
        started_s = time.perf_counter()
        engine.upsert(range(case.size), case.base)
        arms[name] = arm = _Arm(engine, time.perf_counter() - started_s)
        _tune(arm, case, queries, recall)
        say(f"{case.name}: {name} built in {arm.build_s:.1f} s, recall {arm.recall:.4f} at {arm.beam}")
    return arms, missing


def _tune(arm: _Arm, case: Case, queries: Floats, recall: float) -> None:
    """The narrowest beam that finds as much as we do, or the widest."""
    for beam in BEAMS:
        arm.beam = beam
        _set_beam(arm.engine, beam)
        arm.recall = recall_of(arm.engine.search(queries, K), case.base, queries)
        if arm.recall >= recall - EQUAL_RECALL:
            return


def _set_beam(engine: Rival, beam: int) -> None:
    if isinstance(engine, FaissIvfFlat):
        engine.nprobe = beam
    elif isinstance(engine, InplaceHnsw | UsearchIndex):
        engine.ef = beam


def _query_us(ours: HnswIndex, arms: dict[str, _Arm], queries: Floats, rounds: int) -> float:
    """Sets each rival's cost, and returns ours; medians over rounds in which all take their turns."""
    costs: dict[str, list[float]] = {name: [] for name in ("", *arms)}
    for _ in range(rounds):
        costs[""].append(search_cpu_us(ours.search, queries, MICRO_BATCH))
        for name, arm in arms.items():
            costs[name].append(search_cpu_us(arm.engine.search, queries, MICRO_BATCH))
    for name, arm in arms.items():
        arm.query_us = float(np.median(costs[name]))
    return float(np.median(costs[""]))


def _change_all(case: Case, ours: HnswIndex, arms: dict[str, _Arm], users: Population) -> float:
    """Everybody through the same changes in turn; returns our CPU per change, builds included, one at least."""
    account, generation = CpuAccount(), ours.stats().generation
    with account.running():
        while users.changes < CHURN * case.size:
            with account.aside():
                rows = users.change(BATCH)
                ids, vectors = rows.tolist(), users.vectors[rows]
            ours.upsert(ids, vectors)
            with account.aside():
                for arm in arms.values():
                    started_s = time.thread_time()
                    arm.engine.upsert(ids, vectors)
                    arm.update_s += time.thread_time() - started_s
        wait_for_build(ours, generation)
    return 1e6 * account.spent_s / users.changes


def _row(case: Case, name: str, query_us: float, update_us: float, recall: float) -> list[Bar]:
    prefix = f"{case.name}: {name}"
    return [
        bar(f"{prefix}: query CPU", query_us, "µs"),
        bar(f"{prefix}: update CPU", update_us, "µs"),
        bar(f"{prefix}: recall@10 after 1x churn", recall, "share"),
    ]
