"""How well the lists foretell what comes next, of late: an exponential mean over the lessons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from streams.recommend.fusion import Doubles

CUTOFF = 10
HALF_LIFE_LESSONS = 1000.0
"""Lessons after which one counts half."""


@dataclass(frozen=True, slots=True)
class LiveQuality:
    """Means over all lessons so far, the newest counting most."""

    lessons: int = 0
    """Judged since the start."""
    mass: float = 0.0
    """What they weigh together by now."""
    gains: float = 0.0
    """Their weighed sum of 1 / log2(place + 2), places beyond the tenth counting nothing."""
    hits: float = 0.0
    """Their weighed sum of 1 for each that was among the first ten."""

    def after(self, ranks: Doubles) -> LiveQuality:
        """With the places `ranks` (l,), 0 the best and infinite for none, of so many more lessons, oldest first."""
        decay = 0.5 ** (1.0 / HALF_LIFE_LESSONS)
        weights = decay ** np.arange(len(ranks) - 1, -1, -1)
        hit = ranks < CUTOFF
        gains = hit / np.log2(np.where(hit, ranks, 0.0) + 2.0)
        kept = decay ** len(ranks)
        return LiveQuality(
            self.lessons + len(ranks),
            kept * self.mass + float(weights.sum()),
            kept * self.gains + float(weights @ gains),
            kept * self.hits + float(weights @ hit),
        )

    @property
    def ndcg(self) -> float | None:
        """NDCG@10 with one relevant item, 0 to 1; None before the first lesson."""
        return self.gains / self.mass if self.lessons else None

    @property
    def hit_rate(self) -> float | None:
        """HR@10, 0 to 1; None before the first lesson."""
        return self.hits / self.mass if self.lessons else None
