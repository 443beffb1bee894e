"""What is learned from everybody's events: trends, categories, what is new in them and what follows what.

All of it is folded from histories that grew, whether by this worker's own batches or by the changelog of the others, so
that every worker sees all partitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streams.recommend.category_trend import CategoryTrend
from streams.recommend.cold_start import GroupTrend
from streams.recommend.cooccurrence import CoOccurrence, CoOccurrenceConfig, Entered, Pairs
from streams.recommend.newcomers import Newcomers
from streams.recommend.trend import Trend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from streams.core.ports import Slots


class Views:
    """Owned by the engine; read by the ranker. Not thread-safe.

    Args:
        half_lives_s: of the trends, ascending; a category's best are those of the middle one.
    """

    def __init__(self, half_lives_s: Sequence[float], together: CoOccurrenceConfig | None = None) -> None:
        self.trends = tuple(Trend(half_life_s) for half_life_s in half_lives_s)
        self.together = CoOccurrence(together)
        self.by_category = CategoryTrend()
        self.newcomers = Newcomers()
        self.groups = GroupTrend()
        self.folded = 0
        """Events counted since the start."""

    @property
    def category_trend(self) -> Trend:
        """Whose masses rank the items of a category."""
        return self.trends[len(self.trends) // 2]

    def rising(self, items: int) -> NDArray[np.float64]:
        """(items,) log2 of the shortest trend's popularity over the longest's, less a number that all share.

        The order does not depend on now; -inf without events.
        """
        latest, ever = self.trends[0].masses(items), self.trends[-1].masses(items)
        rising: NDArray[np.float64] = np.subtract(latest, ever, out=np.full(items, -np.inf), where=np.isfinite(ever))
        return rising

    def fold(self, entered: Entered, categories: Slots, group_codes: Slots | None = None) -> None:
        """Counts the newest items of histories (u, R).

        `categories` (items, m) and `group_codes` (u, g) are padded with -1; None where nobody's groups are known.
        """
        newest = entered.newest()
        items, weights, times_s = entered.items[newest], entered.weights[newest], entered.times_s[newest]
        self.folded += len(items)
        for trend in self.trends:
            trend.fold(items, weights, times_s)
        ranking = self.category_trend
        self.by_category.fold(items, ranking.gains(weights, times_s), ranking.masses(len(categories)), categories)
        self.newcomers.fold(items, weights > 0, categories)
        self.together.fold(entered)
        if group_codes is not None:
            self.groups.fold_entered(group_codes, entered)

    def categorise(self, items: Slots, categories: Slots, former: Slots | None = None) -> None:
        """Counts what these items had so far for the categories of now, and no longer for those of before.

        Args:
            items: (e,) catalogue slots, each once.
            categories: (items, m) codes, padded with -1.
            former: (e, m) codes of before; None where no category was known.
        """
        masses = self.category_trend.masses(max(len(categories), int(items.max(initial=-1)) + 1))
        had = masses[items] > -np.inf
        if former is not None:
            had &= (np.sort(former) != np.sort(categories[items])).any(axis=1)
        if not had.any():
            return
        items, former = items[had], None if former is None else former[had]
        self.newcomers.categorise(items, categories, former)
        if former is None or (former < 0).all():
            self.by_category.fold(items, masses[items], masses, categories)
        else:
            self.by_category.recount(np.union1d(former, categories[items]), masses, categories)

    def introduce(self, items: Slots, categories: Slots, available: NDArray[np.bool_]) -> None:
        """Takes over what is now known of these items (e,): those without events can be proposed as new from now on.

        `categories` (items, CATEGORIES_KEPT) are padded with -1, `available` (items,).
        """
        self.newcomers.introduce(items, categories, available)

    def columns(self, items: int) -> dict[str, NDArray[np.generic]]:
        """Copies of all arrays, cut to the catalogue's `items`, by name; to be saved.

        Without the categories: their codes are of one process; `categorise` brings them back from the trend, and
        `introduce` those that are new.
        """
        found: dict[str, NDArray[np.generic]] = {}
        for trend in self.trends:
            found[f"trend/{trend.half_life_s:g}"] = trend.masses(items).copy()
        for name, pairs in self.together.pairs._asdict().items():
            found[f"together/{name}"] = pairs[:items].copy()
        found["newcomers/events"] = self.newcomers.events(items).copy()
        found["together/clock"] = np.array([self.together.origin_s, self.together.latest_s])
        return found | {f"groups/{name}": column for name, column in self.groups.columns().items()}

    def restore(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Takes over saved arrays of the same configuration; nothing was folded before.

        Raises:
            KeyError: an array is missing.
        """
        for trend in self.trends:
            trend.restore(np.asarray(columns[f"trend/{trend.half_life_s:g}"], np.float64))
        self.newcomers.restore(np.asarray(columns["newcomers/events"], np.int32))
        origin_s, latest_s = np.asarray(columns["together/clock"], np.float64).tolist()
        pairs = Pairs(*(columns[f"together/{name}"] for name in Pairs._fields))  # type: ignore[arg-type]
        self.together.restore(pairs, origin_s, latest_s)
        of_groups = {name.removeprefix("groups/"): part for name, part in columns.items() if name.startswith("groups/")}
        self.groups.restore(of_groups)

    def warm_up(self) -> None:
        """Compiles the folds."""
        none = Entered(
            np.zeros((0, 1), np.int32), np.zeros((0, 1), np.float32), np.zeros((0, 1)),
            np.zeros(0, np.int32), np.zeros(0, np.int32),
        )  # fmt: skip
        self.fold(none, np.zeros((0, 1), np.int32))
        self.introduce(np.zeros(0, np.int32), np.zeros((0, 1), np.int32), np.zeros(0, np.bool_))
        self.groups.warm_up()
