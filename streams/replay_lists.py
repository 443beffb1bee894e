"""The lists that settings and rules make of what was predicted: what they find, and what they give for it.

Lists are published here as a worker publishes them: one for each lesson, and rules count them once their batch is over.

Sizes: b lists of a batch, j judged events, n places, F floors, C categories.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from encoder.metrics import attribute_diversity, coverage, exposures, gini, vector_diversity
from streams.recommend.fusion import fuse
from streams.recommend.ranker import RERANKED_MAX
from streams.recommend.rerank import RerankConfig, Reranker
from streams.recommend.rule_columns import RuleColumns
from streams.recommend.rules import Rules, position_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.core.catalogue import Catalogue
    from streams.core.events import Event
    from streams.core.ports import Floats, Slots
    from streams.recommend.engine import Engine, Taught

BEFORE_RULES = "before rules"
CUTOFFS = (10, 20)
LISTS_AT_ONCE = 4096
"""Lists whose distances are measured together; so many are kept."""
SMOOTHING = 0.01
MS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class ListPlan:
    """One way to make lists of the same candidates."""

    name: str
    config: RerankConfig
    rules: Rules = field(default_factory=Rules)
    counted: Rules | None = None
    """Whose floors are watched, whether these lists hold them or not; None: those of `rules`."""


class FloorsHeld(NamedTuple):
    """How often fairness floors held, over all windows of the last lists."""

    names: tuple[str, ...]
    """(F,) each floor as JSON."""
    windows: int
    """Full windows, one ending at each list."""
    held: int
    """Those in which every floor held."""
    held_each: tuple[int, ...]
    """(F,) those in which this floor held."""
    least_shares: tuple[float, ...]
    """(F,) the least share of exposure of each floor's group in a window; 1 without a full window."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What came of one way to make lists."""

    name: str
    ranks: NDArray[np.float64]
    """(j,) place of the item that came, 0 the first; inf when it was not in the list."""
    figures: dict[str, float]
    """Of the lists of judged events; NaN where the log says nothing of it. See `ListArm.listed`."""
    floors: FloorsHeld | None
    """None without floors."""


class FloorWatch:
    """Counts windows of published lists in which every floor held. Memory: one window."""

    def __init__(self, rules: Rules, catalogue: Catalogue, list_items: int) -> None:
        self._columns = RuleColumns(rules, catalogue)
        self._names = tuple(floor.model_dump_json(exclude_defaults=True) for floor in rules.floor)
        self._floors = np.array([floor.share for floor in rules.floor])
        self._weights = np.array(position_weights(list_items))
        self._lists = rules.exposure.window_lists
        self._last = np.zeros((0, len(self._floors) + 1))
        self._windows, self._held = 0, 0
        self._held_each = np.zeros(len(self._floors), np.int64)
        self._least = np.ones(len(self._floors))

    def record(self, lists: Slots) -> None:
        """Counts lists (b, n) in their order; an empty one is none."""
        self._columns.refresh()
        present = lists >= 0
        weights = np.where(present, self._weights, 0.0)
        groups = np.where(present, self._columns.groups[np.maximum(lists, 0)], 0)
        own = [(weights * (groups >> bit & 1)).sum(axis=1) for bit in range(len(self._floors))]
        exposed = np.stack([*own, weights.sum(axis=1)], axis=1)
        joined = np.concatenate([self._last, exposed[exposed[:, -1] > 0]])
        sums = np.concatenate([np.zeros((1, joined.shape[1])), np.cumsum(joined, axis=0)])
        windows = sums[self._lists :] - sums[: len(sums) - self._lists] if len(sums) > self._lists else sums[:0]
        if len(windows):
            shares = windows[:, :-1] / windows[:, -1:]
            self._windows += len(shares)
            held = shares >= self._floors - 1e-9
            self._held += int(held.all(axis=1).sum())
            self._held_each += held.sum(axis=0)
            self._least = np.minimum(self._least, shares.min(axis=0))
        self._last = joined[max(0, len(joined) - self._lists + 1) :]

    def result(self) -> FloorsHeld:
        """So far."""
        each, least = tuple(self._held_each.tolist()), tuple(self._least.tolist())
        return FloorsHeld(self._names, self._windows, self._held, each, least)


class _Distances:
    """Running means of how little the items of a list resemble each other, over the first k places."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._waiting: list[Slots] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, lists: Slots) -> None:
        """Lists (b, n)."""
        self._waiting.append(lists)
        if sum(map(len, self._waiting)) >= LISTS_AT_ONCE:
            self._settle()

    def means(self) -> dict[str, float]:
        """By name; NaN where no list has two items of which the log says anything."""
        self._settle()
        return {name: self._sums[name] / count if count else np.nan for name, count in self._counts.items()}

    def _settle(self) -> None:
        if not self._waiting:
            return
        lists, facts = np.concatenate(self._waiting), self._catalogue.facts
        self._waiting.clear()
        names = [[str(code) for code in row if code >= 0] for row in facts.categories.tolist()]
        categorised = facts.categories[:, 0] >= 0
        for cutoff in CUTOFFS:
            described = _only(lists[:, :cutoff], self._catalogue.described)
            self._count(f"distance@{cutoff}", described, vector_diversity(described, self._catalogue.vectors))
            known = _only(lists[:, :cutoff], categorised)
            self._count(f"category_distance@{cutoff}", known, attribute_diversity(known, names))

    def _count(self, name: str, lists: Slots, mean: float) -> None:
        pairs = int((lists[:, 1:2] >= 0).sum())
        self._counts[name] = self._counts.get(name, 0) + pairs
        self._sums[name] = self._sums.get(name, 0.0) + (mean * pairs if pairs else 0.0)


class _Batch(NamedTuple):
    """Candidates of a batch, best first, and what is known of whom they are for."""

    users: Slots
    """(b,) slots, -1 for one not stored yet."""
    items: Slots
    """(b, M)"""
    scores: Floats
    recent_items: Slots
    recent_count: NDArray[np.int32]
    now_s: float
    targets: Slots
    """(b,) what came."""


class ListArm:
    """One way to make lists, with its own memory of what it published.

    Raises:
        UsageError: the rules pin what they exclude.
    """

    def __init__(self, plan: ListPlan, catalogue: Catalogue) -> None:
        self._plan, self._catalogue = plan, catalogue
        self._reranker = Reranker(catalogue, plan.config)
        self._reranker.take(plan.rules)
        counted = plan.rules if plan.counted is None else plan.counted
        self._watch = FloorWatch(counted, catalogue, plan.config.list_items) if counted.floor else None
        self._distances = _Distances(catalogue)
        self._ranks: list[NDArray[np.float64]] = []
        self._exposed = np.zeros(0, np.int64)
        self._calibration: tuple[float, int] = (0.0, 0)
        self._short = 0
        self.made = np.zeros((0, 0), np.int32)
        """(b, n) the lists made last, padded with -1."""

    def make(self, batch: _Batch, rows: NDArray[np.intp], mixes: NDArray[np.float64]) -> None:
        """The lists of a batch, of which `rows` are judged; `mixes` (b, C) are the users' shares of categories."""
        places = self._reranker.rerank(
            batch.users, batch.items, batch.scores, batch.recent_items, batch.recent_count, batch.now_s
        ).places
        chosen = np.take_along_axis(batch.items, np.maximum(places, 0), axis=1) if batch.items.shape[1] else places
        self.made = np.where(places >= 0, chosen, -1).astype(np.int32)
        if self._watch is not None:
            self._watch.record(self.made)
        lists = self.made[rows]
        found = lists == batch.targets[rows, None]
        self._ranks.append(np.where(found.any(axis=1), found.argmax(axis=1), np.inf))
        self._distances.add(lists)
        listed = exposures(lists[:, : CUTOFFS[0]], len(self._catalogue))
        listed[: len(self._exposed)] += self._exposed
        self._exposed = listed
        self._short += int((lists[:, -1] < 0).sum())
        apart = _distance_of_mixes(mixes[rows], category_mixes(lists, self._catalogue.facts.categories, mixes.shape[1]))
        total, count = self._calibration
        self._calibration = total + float(apart.sum()), count + len(apart)

    def publish(self, users: Slots, now_s: float, events: _Reactions) -> None:
        """The batch of the last lists is over: the rules count the lists, then the events."""
        self._reranker.published(users, self.made, now_s)
        self._reranker.reacted(*events)

    def listed(self) -> Listed:
        """All of it.

        The figures: `distance@k` 1 - mean cosine of the described items of a list, `category_distance@k` the same of
        their sets of categories, `miscalibration` the mean KL distance of a list's categories from those of the
        user's recent items (Steck, 2018), `coverage@10`, `gini@10` over items, `provider_gini@10` over providers,
        `short_lists` the share of lists that are not full.
        """
        total, count = self._calibration
        judged = sum(map(len, self._ranks))
        figures = self._distances.means() | {
            "miscalibration": total / count if count else np.nan,
            "coverage@10": coverage(self._exposed),
            "gini@10": gini(self._exposed),
            "provider_gini@10": self._provider_gini(),
            "short_lists": self._short / judged if judged else np.nan,
        }
        floors = None if self._watch is None else self._watch.result()
        if floors is not None:
            figures["floors_held"] = floors.held / floors.windows if floors.windows else np.nan
        return Listed(self._plan.name, np.concatenate(self._ranks) if self._ranks else np.zeros(0), figures, floors)

    def _provider_gini(self) -> float:
        providers = self._catalogue.facts.provider[: len(self._exposed)]
        known = providers >= 0
        if not known.any():
            return float("nan")
        exposed = np.zeros(len(self._catalogue.facts.provider_names), np.int64)
        np.add.at(exposed, providers[known], self._exposed[known])
        return gini(exposed)


class _Reactions(NamedTuple):
    """Events (e,), as `Reranker.reacted` takes them."""

    users: Slots
    items: Slots
    types: NDArray[np.uint8]
    times_s: NDArray[np.float64]


class ListArms:
    """Several ways side by side, on the same candidates.

    The candidates are those of the engine, so that what its rules leave out is out of all of them, and what its floors
    propose is in all of them; the rules of the last plan should be in service there, for its lists are what the engine
    counts as published.
    """

    def __init__(self, engine: Engine, plans: Sequence[ListPlan]) -> None:
        self._engine = engine
        self._arms = [ListArm(plan, engine.catalogue) for plan in plans]
        self._depth = max([RERANKED_MAX, *(plan.config.list_items for plan in plans)])
        self._now_s = 0.0
        self._waiting: tuple[list[str], list[Event]] | None = None

    def judge(self, batch: list[Event], taught: Taught, rows: NDArray[np.intp]) -> None:
        """Makes everybody's lists of before the batch and looks where those at `rows` of the lessons have the item."""
        if not self._arms:
            return
        self._publish()
        self._now_s = max(self._now_s, *(event.timestamp / MS_PER_S for event in batch))
        names = [batch[place].user_id for place in taught.events.tolist()]
        candidates = self._candidates(names, taught)
        mixes = category_mixes(candidates.recent_items, self._engine.catalogue.facts.categories)
        for arm in self._arms:
            arm.make(candidates, rows, mixes)
        self._waiting = names, batch

    def listed(self) -> tuple[Listed, ...]:
        """One for each plan, in order."""
        return tuple(arm.listed() for arm in self._arms)

    def _candidates(self, names: list[str], taught: Taught) -> _Batch:
        store, pool = self._engine.store, taught.pool
        users = store.slots(names)
        columns = store.take(users)
        depth = min(self._depth, pool.items.shape[1])
        reranker = self._engine.reranker
        reserved = None if reranker is None else reranker.reserved(pool.items)
        fused = fuse(pool.items, pool.worth, taught.before, taught.segments, depth, reserved)
        items = np.take_along_axis(pool.items, np.maximum(fused.places, 0), axis=1)
        return _Batch(
            users=users,
            items=np.where(fused.places >= 0, items, -1).astype(np.int32),
            scores=fused.scores,
            recent_items=columns.recent_items,
            recent_count=columns.recent_count,
            now_s=self._now_s,
            targets=taught.targets,
        )

    def _publish(self) -> None:
        """Of the batch before: its users are stored by now."""
        if self._waiting is None:
            return
        names, batch = self._waiting
        store, catalogue = self._engine.store, self._engine.catalogue
        events = _Reactions(
            users=store.slots([event.user_id for event in batch]),
            items=catalogue.slots([event.item_id for event in batch]),
            types=np.array([event.type.code for event in batch], np.uint8),
            times_s=np.array([event.timestamp / MS_PER_S for event in batch]),
        )
        known = events.users >= 0
        events = _Reactions(events.users[known], events.items[known], events.types[known], events.times_s[known])
        slots = store.slots(names)
        for arm in self._arms:
            arm.publish(slots, self._now_s, events)
        if self._engine.reranker is not None:
            self._engine.reranker.published(slots, self._arms[-1].made, self._now_s)


def category_mixes(items: Slots, categories: Slots, width: int | None = None) -> NDArray[np.float64]:
    """(u, C) shares of the categories in each row of items (u, m), padded with -1; an item's categories share it.

    Rows without a category are zeros. `width` is C, by default as many as there are.
    """
    width = int(categories.max(initial=-1)) + 1 if width is None else width
    mixes = np.zeros((len(items), width + 1))
    known = categories[np.maximum(items, 0)] if len(categories) else np.full((*items.shape, 1), -1)
    known = np.where((items >= 0)[:, :, None], known, -1)
    parts = 1.0 / np.maximum((known >= 0).sum(axis=2, keepdims=True), 1)
    np.add.at(mixes, (np.arange(len(items))[:, None, None], known), np.broadcast_to(parts, known.shape))
    mixes = mixes[:, :-1]  # the last one took in what is no category
    shares: NDArray[np.float64] = mixes / np.maximum(mixes.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return shares


def _distance_of_mixes(users: NDArray[np.float64], lists: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(p || 0.99 q + 0.01 p) of those users who have categories (Steck, Calibrated recommendations, 2018)."""
    known = users.any(axis=1)
    p, q = users[known], lists[known]
    ratio = np.divide(p, (1 - SMOOTHING) * q + SMOOTHING * p, out=np.ones_like(p), where=p > 0)
    return np.asarray((p * np.log(ratio)).sum(axis=1))


def _only(lists: Slots, wanted: NDArray[np.bool_]) -> Slots:
    """The items where `wanted` (items,) holds, moved up to where the others were."""
    kept = (lists >= 0) & wanted[np.maximum(lists, 0)]
    order = np.argsort(~kept, axis=1, kind="stable")
    return np.take_along_axis(np.where(kept, lists, -1), order, axis=1).astype(np.int32)
