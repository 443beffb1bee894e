"""What came out of an evaluation, and its JSON."""

from __future__ import annotations

import math
import resource
import sys
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

KIBIBYTES_PER_MB = 1000.0
Targets = Literal["new", "all"]
"""Asked are only items that are new to the user, the others masked; or all, repeats included."""


def peak_memory_mb() -> float:
    """The most this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / KIBIBYTES_PER_MB if sys.platform != "darwin" else peak / KIBIBYTES_PER_MB**2


@dataclass(frozen=True, slots=True)
class Row:
    """One recommender with one seed."""

    model: str
    seed: int
    n: int
    """Queries judged."""
    figures: dict[str, float]
    """hr, ndcg, mrr at 5, 10, 20, and coverage, gini, novelty, diversity at 10; NaN where there is none."""
    intervals: dict[str, tuple[float, float]]
    """95 % by user, of hr, ndcg and mrr."""
    ahead_of_first: dict[str, tuple[float, float]]
    """95 % by user, paired, of this row's figure minus the first row's; empty in the first row."""
    parts: dict[str, dict[str, dict[str, float]]]
    """Aspect (history, type, item, target), then part, then n, hr@10, ndcg@10 and mrr@20."""
    cpu_fit_s: float
    cpu_score_s: float
    memory_mb: float
    """The most this process was seen to hold, after the fit and after each block of queries; NaN if not measured."""

    def to_json(self) -> dict[str, Any]:
        """The row as `nearstream evaluate` prints it; null for what there is none of."""
        return {
            "model": self.model,
            "seed": self.seed,
            "n": self.n,
            **{name: _or_none(value) for name, value in self.figures.items()},
            "cpu_s": self.cpu_fit_s + self.cpu_score_s,
            "cpu_fit_s": self.cpu_fit_s,
            "cpu_score_s": self.cpu_score_s,
            "memory_mb": _or_none(self.memory_mb),
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "ahead_of_first": {name: list(ends) for name, ends in self.ahead_of_first.items()},
            "parts": self.parts,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """Rows in the order in which the recommenders were given: the product's own first."""

    protocol: str
    targets: Targets
    rows: tuple[Row, ...]

    def mean(self, model: str, figure: str) -> float:
        """Mean of a figure over the seeds of a model.

        Raises:
            KeyError: there is no such model or figure.
        """
        values = [row.figures[figure] for row in self.rows if row.model == model]
        if not values:
            raise KeyError(model)
        return float(np.mean(values))

    def to_json(self, data: str) -> dict[str, Any]:
        """What `nearstream evaluate` prints; `data` names the log."""
        return {
            "data": data,
            "protocol": self.protocol,
            "targets": self.targets,
            "rows": [row.to_json() for row in self.rows],
        }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
