"""Two replays of the same log beside each other: which lists were better, event by event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from encoder.metrics import FIGURES, bootstrap_intervals, ranking_figures
from streams.core.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streams.replay_judge import Replayed

COMPARED = ("hr@10", "ndcg@10", "hr@20", "ndcg@20")
FLIPS = 2000
"""So many times the signs of the users' differences are drawn; no smaller p than 1 / (FLIPS + 1) is known then."""
FLIPS_AT_ONCE = 32


class Difference(NamedTuple):
    """A figure of both, and B's minus A's on the same events."""

    a: float
    b: float
    difference: float
    low: float
    """Of the 95 % interval, by drawing users."""
    high: float
    p: float
    """Two-sided: how often a difference at least so large comes about when each user's is as likely the other way."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the difference between two settings is worth."""

    a: str
    b: str
    n: int
    """Events that both judged."""
    users: int
    left_out: int
    """Events that only one judged, as when the settings differ in which events say yes."""
    differences: dict[str, Difference]

    def to_json(self) -> dict[str, Any]:
        """As `nearstream replay --compare` prints it."""
        return {
            "a": self.a,
            "b": self.b,
            "n": self.n,
            "users": self.users,
            "left_out": self.left_out,
            "differences": {name: each._asdict() for name, each in self.differences.items()},
        }


def compare(a: Replayed, b: Replayed, names: tuple[str, str], seed: int = 0) -> Comparison:
    """Pairs two replays by event, and tells chance from difference by user: a user's events hang together.

    What is compared is what would have been published: the last of `Replayed.listed`, else the product's ranking.

    Raises:
        UsageError: no event was judged in both.
    """
    _, of_a, of_b = np.intersect1d(a.judged.events, b.judged.events, assume_unique=True, return_indices=True)
    if not len(of_a):
        raise UsageError("The two settings judge no event in common: expected the same log, types and targets in both.")
    columns = [FIGURES.index(name) for name in COMPARED]
    before = ranking_figures(_published(a)[of_a] + 1)[:, columns]
    after = ranking_figures(_published(b)[of_b] + 1)[:, columns]
    apart, users = after - before, a.judged.users[of_a].astype(np.int32)
    rng = np.random.default_rng(seed)
    ends = bootstrap_intervals(apart, users, rng)
    chances = _chances(apart, users, rng)
    found = {
        name: Difference(*map(float, (before[:, i].mean(), after[:, i].mean(), apart[:, i].mean(), *ends[i], p)))
        for i, (name, p) in enumerate(zip(COMPARED, chances.tolist(), strict=True))
    }
    left_out = len(a.judged.events) + len(b.judged.events) - 2 * len(of_a)
    return Comparison(*names, n=len(of_a), users=len(np.unique(users)), left_out=left_out, differences=found)


def _published(replayed: Replayed) -> NDArray[np.float64]:
    return replayed.listed[-1].ranks if replayed.listed else replayed.judged.ranks[:, 0]


def _chances(apart: NDArray[np.float64], users: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.float64]:
    """(m,) p of each column, by flipping the signs of whole users (Fisher's randomisation test)."""
    _, rows = np.unique(users, return_inverse=True)
    sums = np.zeros((int(rows.max()) + 1, apart.shape[1]))
    np.add.at(sums, rows, apart)
    seen = np.abs(sums.sum(axis=0)) - 1e-9
    as_large = np.zeros(apart.shape[1])
    for first in range(0, FLIPS, FLIPS_AT_ONCE):
        signs = rng.integers(0, 2, (min(FLIPS_AT_ONCE, FLIPS - first), len(sums))) * 2.0 - 1.0
        as_large += (np.abs(signs @ sums) >= seen).sum(axis=0)
    chances: NDArray[np.float64] = (1 + as_large) / (1 + FLIPS)
    return chances
