"""What a query costs: with a full delta, against a clean index and exact search; and beside a rebuild."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from index import ExactIndex, HnswIndex
from streams.bench.index.case import Case, Figures, Say
from streams.bench.index.cpu import MICRO_BATCH, K, ratio, search_cpu_us
from streams.bench.index.data import Floats
from streams.bench.index.population import Population, next_vectors, recall_of
from streams.bench.report import Bar, bar

DELTA_COST_MUST, EXACT_SHARE_MUST = 2.0, 0.35
EXACT_SHARE_SIZE_MIN = 100_000
"""Below it exact search may well be the better choice, and the share is only reported."""
RATE_SHARE_MUST, P99_RATIO_MUST = 0.9, 2.0
SINGLES_SHARE = 4
"""A round asks that much fewer queries one by one."""
DELTA_FILL_ROWS = 256
SINGLES_BETWEEN = 16
REBUILD_ROUNDS = 1

SHAPES = {f"batches of {MICRO_BATCH}": MICRO_BATCH, "single queries": 1}


def measure_queries(case: Case, say: Say) -> Figures:
    """Three indexes, asked in turn, round by round: clean, with a full delta, exact."""
    users = case.population(3)
    with case.index() as clean, case.index() as full:
        _fill_delta(full, users, case.plan.config.delta_max)
        exact = ExactIndex(case.plan.config)
        exact.upsert(range(case.size), users.vectors)
        arms = {"clean": clean, "full delta": full, "exact": exact}
        queries = next_vectors(users.vectors, case.plan.queries, case.rng(4))
        costs = {name: _rounds(arms, queries, at_once, case.plan.rounds) for name, at_once in SHAPES.items()}
        details: dict[str, object] = {
            "cpu_us": {shape: {arm: float(np.median(us)) for arm, us in arms.items()} for shape, arms in costs.items()},
            "delta": full.stats().delta,
            "ef": {"clean": clean.stats().ef, "full delta": full.stats().ef},
            "recall": {
                "clean": recall_of(clean.search(queries, K), case.base, queries),
                "full delta": recall_of(full.search(queries, K), users.vectors, queries),
            },
        }
    say(f"{case.name}: {details}")
    return Figures([each for shape in costs for each in _cost_bars(case, shape, costs[shape])], details)


def _fill_delta(index: HnswIndex, users: Population, delta_max: int) -> None:
    """Moves users until the delta holds all that it may without a build."""
    while (room := delta_max - 1 - index.stats().delta) > 0:
        rows = users.change(min(room, DELTA_FILL_ROWS))
        index.upsert(rows.tolist(), users.vectors[rows])


def _rounds(
    arms: dict[str, HnswIndex | ExactIndex], queries: Floats, at_once: int, rounds: int
) -> dict[str, list[float]]:
    part = queries if at_once > 1 else queries[: max(len(queries) // SINGLES_SHARE, 1)]
    costs: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(rounds):
        for arm, index in arms.items():
            costs[arm].append(search_cpu_us(index.search, part, at_once))
    return costs


def _cost_bars(case: Case, shape: str, costs: dict[str, list[float]]) -> list[Bar]:
    name = f"{case.name}: query CPU, full delta"
    must = EXACT_SHARE_MUST if case.size >= EXACT_SHARE_SIZE_MIN else None
    return [
        bar(
            f"{name} / clean, {shape}", ratio(costs["full delta"], costs["clean"]), "ratio", DELTA_COST_MUST, "at most"
        ),
        bar(f"{name} / exact, {shape}", ratio(costs["full delta"], costs["exact"]), "ratio", must, "at most"),
    ]


@dataclass
class _Asked:
    """Wall seconds of each call, by how many queries it asked."""

    batches_s: list[float] = field(default_factory=list)
    singles_s: list[float] = field(default_factory=list)

    def of(self, at_once: int) -> list[float]:
        """The calls of this shape."""
        return self.singles_s if at_once == 1 else self.batches_s


def measure_rebuilds(case: Case, say: Say) -> Figures:
    """Queries one after the other, alone and beside a rebuild, in turn; their rate and the slowest of them."""
    alone, beside = _Asked(), _Asked()
    build_s: list[float] = []
    queries = next_vectors(case.base, case.plan.queries + SINGLES_BETWEEN, case.rng(5))
    with case.index() as index:
        _ask(index, queries, _Asked(), 0.0)
        for _ in range(REBUILD_ROUNDS):
            _ask(index, queries, alone, case.plan.alone_s)
            index.rebuild()
            _ask(index, queries, beside, None)
            build_s.append(index.stats().build_s)
        _ask(index, queries, alone, case.plan.alone_s)
    say(f"{case.name}: rebuilt beside queries in {build_s} s")
    bars = [
        each
        for shape, at_once in SHAPES.items()
        for each in _beside_bars(case, shape, alone.of(at_once), beside.of(at_once))
    ]
    details = {
        shape: {
            "calls": len(beside.of(at_once)),
            "p50_ms": [1000 * float(np.median(side.of(at_once))) for side in (alone, beside)],
            "p99_ms": [1000 * float(np.percentile(side.of(at_once), 99)) for side in (alone, beside)],
            "max_ms": [1000 * max(side.of(at_once)) for side in (alone, beside)],
        }
        for shape, at_once in SHAPES.items()
    }
    return Figures(bars, {"alone, beside": details, "build_s": build_s})


def _ask(index: HnswIndex, queries: Floats, asked: _Asked, seconds: float | None) -> None:
    """A micro-batch, some single ones, and again, for that long; None asks until the running build has ended."""
    ends_s = None if seconds is None else time.perf_counter() + seconds
    start = 0
    while True:
        asked.batches_s.append(_timed(index, queries[start : start + MICRO_BATCH]))
        for row in range(start, start + SINGLES_BETWEEN):
            asked.singles_s.append(_timed(index, queries[row : row + 1]))
        start = (start + MICRO_BATCH) % (len(queries) - SINGLES_BETWEEN)
        if not index.stats().building if ends_s is None else time.perf_counter() >= ends_s:
            return


def _timed(index: HnswIndex, queries: Floats) -> float:
    started_s = time.perf_counter()
    index.search(queries, K)
    return time.perf_counter() - started_s


def _beside_bars(case: Case, shape: str, alone_s: list[float], beside_s: list[float]) -> list[Bar]:
    name = f"{case.name}: {shape} beside a rebuild / alone"
    rate = float(np.mean(alone_s) / np.mean(beside_s))
    slowest = float(np.percentile(beside_s, 99) / np.percentile(alone_s, 99))
    return [
        bar(f"{name}, rate", rate, "ratio", RATE_SHARE_MUST),
        bar(f"{name}, p99", slowest, "ratio", P99_RATIO_MUST, "at most"),
    ]
