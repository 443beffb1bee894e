"""A replay in figures: one row for the product, each way to make lists, each arm, each source alone, each baseline."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from encoder.metrics import FIGURES, bootstrap_intervals, coverage, exposures, gini, ranking_figures
from encoder.report import Report, Row
from streams.core.events import EVENT_TYPES
from streams.replay_judge import PRODUCT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from encoder.report import Targets as ReportTargets
    from streams.replay_judge import Judged, Replayed, ReplayPlan

HISTORY_PARTS = (("0", 0, 1), ("1-2", 1, 3), ("3-9", 3, 10), ("10-49", 10, 50), ("50+", 50, np.inf))
ITEM_PARTS = (("first event", 0, 1), ("1-9", 1, 10), ("10-99", 10, 100), ("100+", 100, np.inf))
PART_FIGURES = ("hr@10", "ndcg@10", "mrr@20")
CHANCE_BINS = 10
CURVE_POINTS = 60
STRETCH_EVENTS_MIN = 100
NOTHING: Mapping[str, float] = MappingProxyType({})


def report(
    replayed: Replayed, plan: ReplayPlan, items: int, cpu_s: float, memory_mb: float, *, seed: int = 0
) -> Report:
    """The product's own row first, then those of its lists, then those of `Replayed.arms`.

    A row of a baseline that was asked for some events only is compared with the product on the same ones.

    Args:
        replayed: the places.
        plan: what was judged.
        items: how many the catalogue has.
        cpu_s: of the whole replay; it cannot be split among rows that share their candidates.
        memory_mb: the most that the process held.
        seed: of the bootstrap.
    """
    made = _Rows(replayed, seed)
    first = made.row(PRODUCT, replayed.judged.ranks[:, 0], _list_figures(replayed.judged, items))
    rows = [replace(first, ahead_of_first={}, cpu_score_s=cpu_s, memory_mb=memory_mb)]
    rows += [made.row(listed.name, listed.ranks, listed.figures) for listed in replayed.listed]
    rows += [made.row(name, replayed.judged.ranks[:, column]) for column, name in enumerate(replayed.arms) if column]
    kinds: ReportTargets = "new" if plan.targets == "new" else "all"
    return Report(plan.protocol, kinds, tuple(rows))


class _Rows:
    """Makes rows that are compared with the product on the events for which they were asked."""

    def __init__(self, replayed: Replayed, seed: int) -> None:
        self._judged = replayed.judged
        self._masks = _masks(replayed.judged)
        self._first = ranking_figures(replayed.judged.ranks[:, 0] + 1)
        self._rng = np.random.default_rng(seed)
        self._seed = seed

    def row(self, name: str, ranks: NDArray[np.float64], figures: Mapping[str, float] = NOTHING) -> Row:
        """Of these places, 0 the first; NaN where nothing was asked. At least one was asked."""
        asked = ~np.isnan(ranks)
        values = ranking_figures(ranks[asked] + 1)
        users = self._judged.users[asked].astype(np.int32)
        means = dict(zip(FIGURES, values.mean(axis=0).tolist(), strict=True))
        return Row(
            model=name,
            seed=self._seed,
            n=len(values),
            figures=means | dict(figures),
            intervals=_intervals(values, users, self._rng),
            ahead_of_first=_intervals(values - self._first[asked], users, self._rng),
            parts={
                aspect: {part: _part(values[mask[asked]]) for part, mask in parts.items() if mask[asked].any()}
                for aspect, parts in self._masks.items()
            },
            cpu_fit_s=0.0,
            cpu_score_s=0.0,
            memory_mb=float("nan"),
        )


def curves(replayed: Replayed) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Running NDCG@10 of each arm: judged events (p,) up to the end of each stretch, and means (p, arms) over it.

    NaN where an arm was asked for no event of the stretch.
    """
    judged = replayed.judged
    gains = np.where(judged.ranks < 10, 1 / np.log2(np.where(np.isfinite(judged.ranks), judged.ranks, 0) + 2), 0)
    gains[np.isnan(judged.ranks)] = np.nan
    stretches = np.array_split(np.arange(len(gains)), max(1, min(CURVE_POINTS, len(gains) // STRETCH_EVENTS_MIN)))
    ends = np.array([rows[-1] + 1 for rows in stretches], np.int64)
    return ends, np.stack([_means_of_asked(gains[rows]) for rows in stretches])


def _means_of_asked(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    asked = ~np.isnan(gains)
    totals = np.where(asked, gains, 0.0).sum(axis=0)
    means: NDArray[np.float64] = np.divide(
        totals, asked.sum(axis=0), out=np.full(len(totals), np.nan), where=asked.any(axis=0)
    )
    return means


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


def _intervals(
    values: NDArray[np.float64], users: NDArray[np.int32], rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    ends = bootstrap_intervals(values, users, rng)
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
