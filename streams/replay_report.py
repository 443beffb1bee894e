"""A replay in figures: one row for the product, each arm and each source alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from encoder.metrics import FIGURES, bootstrap_intervals, coverage, exposures, gini, ranking_figures
from encoder.report import Report, Row
from streams.core.events import EVENT_TYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from encoder.report import Targets as ReportTargets
    from streams.replay_judge import Judged, Replayed, ReplayPlan

HISTORY_PARTS = (("0", 0, 1), ("1-2", 1, 3), ("3-9", 3, 10), ("10-49", 10, 50), ("50+", 50, np.inf))
ITEM_PARTS = (("first event", 0, 1), ("1-9", 1, 10), ("10-99", 10, 100), ("100+", 100, np.inf))
PART_FIGURES = ("hr@10", "ndcg@10", "mrr@20")
CHANCE_BINS = 10
CURVE_POINTS = 60


def report(
    replayed: Replayed, plan: ReplayPlan, items: int, cpu_s: float, memory_mb: float, *, seed: int = 0
) -> Report:
    """Rows in the order of `Replayed.arms`, the product's own first.

    Args:
        replayed: the places.
        plan: what was judged.
        items: how many the catalogue has.
        cpu_s: of the whole replay; it cannot be split among rows that share their candidates.
        memory_mb: the most that the process held.
        seed: of the bootstrap.
    """
    judged = replayed.judged
    masks = _masks(judged)
    rng = np.random.default_rng(seed)
    first = ranking_figures(judged.ranks[:, 0] + 1)
    rows = []
    for index, name in enumerate(replayed.arms):
        values = ranking_figures(judged.ranks[:, index] + 1)
        means = dict(zip(FIGURES, values.mean(axis=0).tolist(), strict=True))
        own = index == 0
        rows.append(
            Row(
                model=name,
                seed=seed,
                n=len(values),
                figures=means | (_list_figures(judged, items) if own else {}),
                intervals=_intervals(values, judged, rng),
                ahead_of_first={} if own else _intervals(values - first, judged, rng),
                parts={
                    aspect: {part: _part(values[mask]) for part, mask in parts.items()}
                    for aspect, parts in masks.items()
                },
                cpu_fit_s=0.0,
                cpu_score_s=cpu_s if own else 0.0,
                memory_mb=memory_mb if own else float("nan"),
            )
        )
    kinds: ReportTargets = "new" if plan.targets == "new" else "all"
    return Report(plan.protocol, kinds, tuple(rows))


def curves(replayed: Replayed) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Running NDCG@10 of each arm: event times (p,) at the end of each stretch, and means (p, arms) over it."""
    judged = replayed.judged
    gains = np.where(judged.ranks < 10, 1 / np.log2(np.where(np.isfinite(judged.ranks), judged.ranks, 0) + 2), 0)
    stretches = np.array_split(np.arange(len(gains)), min(CURVE_POINTS, len(gains)))
    times_s = np.array([judged.times_s[rows[-1]] for rows in stretches], np.int64)
    return times_s, np.stack([gains[rows].mean(axis=0) for rows in stretches])


def calibration(judged: Judged) -> list[tuple[float, float, int]]:
    """Mean chance that was promised to the first of the list, share that came true, and how often, by bins."""
    hit = judged.ranks[:, 0] < 1
    bins = np.minimum((judged.top_chances * CHANCE_BINS).astype(int), CHANCE_BINS - 1)
    found = []
    for index in range(CHANCE_BINS):
        inside = bins == index
        if inside.any():
            found.append((float(judged.top_chances[inside].mean()), float(hit[inside].mean()), int(inside.sum())))
    return found


def calibration_error(judged: Judged) -> float:
    """Expected difference between promised and true chances of the first of the list."""
    bins = calibration(judged)
    total = sum(count for _, _, count in bins)
    return sum(count * abs(promised - true) for promised, true, count in bins) / total


def _list_figures(judged: Judged, items: int) -> dict[str, float]:
    exposed = exposures(judged.lists, items)
    return {
        "coverage@10": coverage(exposed),
        "gini@10": gini(exposed),
        "calibration_error": calibration_error(judged),
        "candidates_found": float(np.isfinite(judged.ranks[:, 0]).mean()),
    }


def _intervals(values: NDArray[np.float64], judged: Judged, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    ends = bootstrap_intervals(values, judged.users.astype(np.int32), rng)
    return {name: (float(low), float(high)) for name, (low, high) in zip(FIGURES, ends, strict=True)}


def _part(values: NDArray[np.float64]) -> dict[str, float]:
    means = values.mean(axis=0)
    return {"n": len(values)} | {name: float(means[FIGURES.index(name)]) for name in PART_FIGURES}


def _masks(judged: Judged) -> dict[str, dict[str, NDArray[np.bool_]]]:
    masks = {
        "history": {name: (judged.history >= low) & (judged.history < high) for name, low, high in HISTORY_PARTS},
        "type": {EVENT_TYPES[code].value: judged.types == code for code in np.unique(judged.types).tolist()},
        "item": {name: (judged.item_events >= low) & (judged.item_events < high) for name, low, high in ITEM_PARTS},
        "target": {"new": ~judged.repeats, "repeat": judged.repeats},
    }
    return {aspect: {name: mask for name, mask in parts.items() if mask.any()} for aspect, parts in masks.items()}
