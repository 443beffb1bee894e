"""The whole table: each part on each kind of data at each size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version

import msgspec
import numpy as np

from streams.bench.index.case import Case, Figures, Plan, Say, open_case
from streams.bench.index.child import Job, footprint_apart, storm_apart
from streams.bench.index.churn import INPLACE_BATCHES_MAX, measure_churn
from streams.bench.index.data import CENTRE_COSINES, CENTRES, SLIGHT_COSINES, SPECTRUM_POWER
from streams.bench.index.footprint import Footprint
from streams.bench.index.population import BATCH, FAR_SHARE
from streams.bench.index.queries import measure_queries, measure_rebuilds
from streams.bench.index.rivals import measure_rivals
from streams.bench.index.twins import measure_twins
from streams.bench.report import Bar, Report, bar, machine

STEADY_MUST, REBUILDING_MUST = 3.3, 5.1
GROWTH_MUST = 2.0
MILLION, COMPARED_WITH = 1_000_000, 100_000
STORM_SIZE_MAX = 50_000
"""Large enough that a graph pays, small enough that a wave of growth, builds and removal passes many times."""

IN_CASE: dict[str, Callable[[Case, Say], Figures]] = {
    "churn": measure_churn,
    "queries": measure_queries,
    "rebuilds": measure_rebuilds,
    "twins": measure_twins,
    "rivals": measure_rivals,
}
DATA = {
    "clustered": f"{CENTRES} centres on the sphere, cosine to the own one {CENTRE_COSINES[0]} to {CENTRE_COSINES[1]}",
    "cloud": f"normal, variance of axis i = i^-{SPECTRUM_POWER}",
    "isotropic": "uniform on the sphere",
}
PARTS = (*IN_CASE, "memory", "storm")
ON_REQUEST = ("rivals",)
"""Too slow to be part of every run: some of them need a millisecond of CPU a change."""


def measure_index(plan: Plan, say: Say) -> Report:
    """Runs the plan's parts. BLAS must have one thread: every figure is per thread of queries.

    Rivals and memory are measured on the first kind of data only; so is the storm, once.
    """
    bars: list[Bar] = []
    details: dict[str, object] = {}

    def take(name: str, figures: Figures) -> None:
        bars.extend(figures.bars)
        details[name] = figures.details

    for size in plan.sizes:
        for kind in plan.kinds:
            for part, figures in _of_case(plan, kind, size, say):
                take(f"{kind} {size}: {part}", figures)
    if "storm" in _parts(plan):
        take("storm", _storm(plan))
    if plan.million:
        take("million", _million(plan, say))
    return Report(_conditions(plan), bars, details)


def _parts(plan: Plan) -> tuple[str, ...]:
    return plan.parts or tuple(part for part in PARTS if part not in ON_REQUEST)


def _of_case(plan: Plan, kind: str, size: int, say: Say) -> Iterator[tuple[str, Figures]]:
    parts = {part: measure for part, measure in IN_CASE.items() if part in _parts(plan)}
    first = kind == plan.kinds[0]
    if not first:
        parts.pop("rivals", None)
    if parts:
        with open_case(plan, kind, size, say) as case:
            for part, measure in parts.items():
                say(f"{case.name}: {part} …")
                yield part, measure(case, say)
    if first and "memory" in _parts(plan):
        say(f"{kind} {size:,}: memory …")
        yield "memory", _memory(_footprint(plan, kind, size), f"{kind} {size:,}")


def _footprint(plan: Plan, kind: str, size: int) -> Footprint:
    return footprint_apart(Job("footprint", kind, size, plan.seed, plan.config, plan.queries))


def _memory(measured: Footprint, name: str) -> Figures:
    steady, rebuilding = (each / measured.raw_bytes for each in (measured.steady_bytes, measured.rebuilding_bytes))
    bars = [
        bar(f"{name}: memory / raw float32, steady", steady, "ratio", STEADY_MUST, "at most"),
        bar(f"{name}: memory / raw float32, rebuilding", rebuilding, "ratio", REBUILDING_MUST, "at most"),
    ]
    return Figures(bars, msgspec.to_builtins(measured))


def _storm(plan: Plan) -> Figures:
    size = min(STORM_SIZE_MAX, max(plan.sizes))
    storm = storm_apart(Job("storm", plan.kinds[0], size, plan.seed, plan.config, plan.stress_queries))
    name = f"crashes, exceptions and wrong answers in {plan.stress_queries:,} queries under everything"
    bars = [
        bar(name, len(storm.failures), "failures", 0, "at most"),
        bar("switches between exact and graphs under them", storm.switches, "switches"),
        bar("snapshots saved and loaded under them", storm.snapshots, "snapshots"),
    ]
    return Figures(bars, msgspec.to_builtins(storm))


def _million(plan: Plan, say: Say) -> Figures:
    """On the first kind of data, beside the same process at a tenth of the size."""
    kind = plan.kinds[0]
    small, large = (_footprint(plan, kind, size) for size in (COMPARED_WITH, MILLION))
    say(f"{kind} {MILLION:,}: {large}")
    name = f"{kind} {MILLION:,}"
    bars = [
        bar(f"{name}: build", large.build_s, "s"),
        *_memory(large, name).bars,
        bar(f"{name}: recall@10", large.recall, "share"),
        bar(f"{name}: query CPU", large.query_us, "µs"),
        bar(f"{name}: query CPU / {COMPARED_WITH:,}", large.query_us / small.query_us, "ratio", GROWTH_MUST, "at most"),
    ]
    return Figures(bars, {str(each.size): msgspec.to_builtins(each) for each in (small, large)})


def _conditions(plan: Plan) -> dict[str, object]:
    here = machine()
    del here["kafka"]
    return {
        **here,
        "numpy": np.__version__,
        "hnswlib": version("hnswlib"),
        "seed": plan.seed,
        "sizes": list(plan.sizes),
        "data": {kind: DATA[kind] for kind in plan.kinds},
        "parts": list(_parts(plan)),
        "config": asdict(plan.config),
        "queries": f"{plan.queries} of users' own next vectors, cosine {_span(SLIGHT_COSINES)} to the stored one",
        "churn": f"{BATCH} users at a time, {FAR_SHARE:.0%} anywhere, the others at cosine {_span(SLIGHT_COSINES)}, "
        f"{plan.changes_per_s:,.0f} changes/s",
        "in place": f"hnswlib takes {INPLACE_BATCHES_MAX * BATCH:,} of these changes, in turn with the index",
        "rounds": plan.rounds,
        "threads": "one of queries or changes, one that builds",
    }


def _span(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:g} to {bounds[1]:g}"
