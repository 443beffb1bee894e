"""Judges recommenders on the same queries: full ranking, intervals, and figures of parts of the log.

Sizes: q queries, i items, m figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from encoder import metrics
from encoder.dataset import EventTable, Queries, Split
from encoder.errors import UnusableData
from encoder.metrics import FIGURES, Histories, Ranked
from encoder.report import Report, Row, Targets

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

QUERIES_PER_BLOCK = 512
SCORES_PER_BLOCK = 1 << 25
"""128 MB of float32: above 65k items the blocks hold fewer queries."""
HISTORY_LENGTHS = (1, 5, 10, 20, 50)
PART_FIGURES = ("hr@10", "ndcg@10", "mrr@20")


@runtime_checkable
class Recommender(Protocol):
    """Learns from a log's training part and scores all items for each query."""

    @property
    def name(self) -> str:
        """Stands in the report."""
        ...

    def fit(self, table: EventTable, split: Split) -> None:
        """Learns from the rows of `split.train_mask(table)`; may choose settings by `split.valid`, not by the test."""
        ...

    def scores(self, table: EventTable, queries: Queries) -> Floats:
        """(q, i) higher is better, -inf for items it cannot judge, never NaN.

        For a query it may read, beside what `fit` learned: its user's events before its position, and all users'
        events earlier than its time. Nothing else of the table.
        """
        ...


Progress = Callable[[str, int, int], None]
"""Called with the recommender's name, the queries done and their number."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came out of one recommender, before it is summed up."""

    model: str
    seed: int
    ranked: Ranked
    cpu_fit_s: float
    cpu_score_s: float
    memory_mb: float


@dataclass(frozen=True, slots=True)
class _Meter:
    """How effort is measured: the shell's clocks."""

    cpu_clock: Callable[[], float]
    resident_mb: Callable[[], float]
    progress: Progress


def evaluate(
    recommenders: Sequence[Recommender | Callable[[int], Recommender]],
    table: EventTable,
    split: Split,
    *,
    cpu_clock: Callable[[], float],
    seeds: Sequence[int] = (0,),
    targets: Targets = "new",
    types: Sequence[str] | None = None,
    item_vectors: Floats | None = None,
    resident_mb: Callable[[], float] = lambda: math.nan,
    progress: Progress = lambda _model, _done, _total: None,
) -> Report:
    """Fits each recommender, ranks all items for each test query, and sums up.

    Args:
        recommenders: the product's own first. A factory is called with each seed and gives a row for each; what is
            no factory depends on no seed and gives one row, under the first seed.
        table: the log.
        split: what is learned from and what is asked.
        cpu_clock: CPU seconds of this process, such as `time.process_time`.
        seeds: at least one; the first also draws the bootstrap's users.
        targets: "new" asks only for items that are new to the user and masks the others; "all" masks nothing.
        types: ask only for events of these types.
        item_vectors: (i, d) to measure diversity by; without them the items' attributes serve.
        resident_mb: megabytes that this process holds now.
        progress: told after each block of queries.

    Raises:
        UnusableData: no query is left, or a type does not occur.
        ValueError: there is no recommender or seed, or scores have the wrong shape or hold NaN or +inf.
    """
    if not recommenders or not seeds:
        raise ValueError(f"Expected a recommender and a seed at least, got {len(recommenders)} and {len(seeds)}.")
    queries = judged_queries(table, split.test, targets, types)
    meter = _Meter(cpu_clock, resident_mb, progress)
    summary = _Summary(table, split, queries, item_vectors, seeds[0])
    rows = [
        summary.row(_judge(recommender, seed, table, split, queries, targets, meter))
        for recommender, seed in _with_seeds(recommenders, seeds)
    ]
    return Report(split.protocol, targets, tuple(rows))


def judged_queries(table: EventTable, queries: Queries, targets: Targets, types: Sequence[str] | None) -> Queries:
    """The queries that count: of the wanted types and, for "new", with a target that is new to the user.

    Raises:
        UnusableData: none is left, or a type does not occur.
    """
    keep = np.ones(len(queries), np.bool_)
    if types is not None:
        keep &= table.of_types(types)[queries.positions]
    if targets == "new":
        keep &= ~Histories.of(table, queries).contain(table.items[queries.positions])
    if not keep.any():
        raise UnusableData(
            f"Of {len(queries)} queries none asks for {'a new' if targets == 'new' else 'an'} item"
            f"{'' if types is None else ' by a ' + ' or '.join(types)}: choose other types, or count repeats too."
        )
    return queries.take(np.flatnonzero(keep))


def rank_queries(
    recommender: Recommender,
    table: EventTable,
    queries: Queries,
    targets: Targets = "new",
    done: Callable[[int], None] = lambda _queries: None,
) -> Ranked:
    """Asks a fitted recommender block by block; holds one block of scores at a time and tells `done` after each.

    Raises:
        ValueError: its scores have the wrong shape or hold NaN or +inf; the message names the recommender.
    """
    blocks = []
    for rows in _blocks(len(queries), len(table.item_ids)):
        block = queries.take(rows)
        scores = recommender.scores(table, block)
        blocks.append(_rank_block(recommender.name, scores, table, block, targets))
        done(len(block))
    return Ranked(np.concatenate([block.ranks for block in blocks]), np.concatenate([block.lists for block in blocks]))


def rank_vectors(users: Floats, items: Floats, table: EventTable, queries: Queries, targets: Targets) -> Doubles:
    """(q,) mid-ranks of the targets by cosine of the users' vectors (q, d) and the items' (i, d), block by block."""
    ranks = np.empty(len(queries))
    for rows in _blocks(len(queries), len(items)):
        block = queries.take(rows)
        goals, masked = table.items[block.positions], _masked(table, block, targets)
        ranks[rows] = metrics.rank(users[rows] @ items.T, goals, masked, list_length=0).ranks
    return ranks


def _blocks(queries: int, items: int) -> Iterator[NDArray[np.intp]]:
    size = max(1, min(QUERIES_PER_BLOCK, SCORES_PER_BLOCK // items))
    for first in range(0, queries, size):
        yield np.arange(first, min(first + size, queries))


def _masked(table: EventTable, block: Queries, targets: Targets) -> Histories:
    return Histories.of(table, block) if targets == "new" else Histories.none(len(block))


def _rank_block(name: str, scores: Floats, table: EventTable, block: Queries, targets: Targets) -> Ranked:
    if scores.shape != (len(block), len(table.item_ids)):
        raise ValueError(
            f"{name} gave scores of the shape {scores.shape} for {len(block)} queries and {len(table.item_ids)} items: "
            "expected one row per query and one column per item."
        )
    try:
        return metrics.rank(scores, table.items[block.positions], _masked(table, block, targets))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _with_seeds(
    recommenders: Sequence[Recommender | Callable[[int], Recommender]], seeds: Sequence[int]
) -> Iterator[tuple[Recommender, int]]:
    for given in recommenders:
        # a class with the methods of a recommender is a factory all the same
        if isinstance(given, Recommender) and not isinstance(given, type):
            yield given, seeds[0]
        else:
            yield from ((given(seed), seed) for seed in seeds)


def _judge(
    recommender: Recommender,
    seed: int,
    table: EventTable,
    split: Split,
    queries: Queries,
    targets: Targets,
    meter: _Meter,
) -> _Outcome:
    started_s = meter.cpu_clock()
    recommender.fit(table, split)
    cpu_fit_s = meter.cpu_clock() - started_s
    timed = _Timed(recommender, meter)
    ranked = rank_queries(timed, table, queries, targets, lambda n: timed.report(n, len(queries)))
    return _Outcome(recommender.name, seed, ranked, cpu_fit_s, timed.cpu_s, timed.memory_mb)


class _Timed:
    """A recommender whose answers are timed, the ranking of them not."""

    def __init__(self, recommender: Recommender, meter: _Meter) -> None:
        self._recommender, self._meter = recommender, meter
        self._done = 0
        self.cpu_s, self.memory_mb = 0.0, meter.resident_mb()

    @property
    def name(self) -> str:
        return self._recommender.name

    def fit(self, table: EventTable, split: Split) -> None:
        self._recommender.fit(table, split)

    def scores(self, table: EventTable, queries: Queries) -> Floats:
        started_s = self._meter.cpu_clock()
        scores = self._recommender.scores(table, queries)
        self.cpu_s += self._meter.cpu_clock() - started_s
        self.memory_mb = max(self.memory_mb, self._meter.resident_mb())
        return scores

    def report(self, queries: int, total: int) -> None:
        self._done += queries
        self._meter.progress(self.name, self._done, total)


class _Summary:
    """Turns ranks into rows; what belongs to the queries, not to a recommender, is worked out once."""

    def __init__(
        self, table: EventTable, split: Split, queries: Queries, item_vectors: Floats | None, seed: int
    ) -> None:
        self._table, self._queries, self._item_vectors, self._seed = table, queries, item_vectors, seed
        self._counts = np.bincount(table.items[split.train_mask(table)], minlength=len(table.item_ids))
        self._parts = query_parts(table, queries, self._counts)
        self._first: Doubles | None = None

    def row(self, outcome: _Outcome) -> Row:
        values = metrics.ranking_figures(outcome.ranked.ranks)  # (q, m)
        means = dict(zip(FIGURES, values.mean(axis=0).tolist(), strict=True))
        ahead = {} if self._first is None else self._intervals(values - self._first)
        self._first = values if self._first is None else self._first
        return Row(
            model=outcome.model,
            seed=outcome.seed,
            n=len(self._queries),
            figures=means | self._list_figures(outcome.ranked),
            intervals=self._intervals(values),
            ahead_of_first=ahead,
            parts={aspect: _part_figures(values, masks) for aspect, masks in self._parts.items()},
            cpu_fit_s=outcome.cpu_fit_s,
            cpu_score_s=outcome.cpu_score_s,
            memory_mb=outcome.memory_mb,
        )

    def _list_figures(self, ranked: Ranked) -> dict[str, float]:
        exposed = metrics.exposures(ranked.lists, len(self._table.item_ids))
        return {
            "coverage@10": metrics.coverage(exposed),
            "gini@10": metrics.gini(exposed),
            "novelty@10": metrics.novelty(exposed, self._counts),
            "diversity@10": self._diversity(ranked),
        }

    def _diversity(self, ranked: Ranked) -> float:
        if self._item_vectors is not None:
            return metrics.vector_diversity(ranked.lists, self._item_vectors)
        if any(self._table.item_attributes):
            return metrics.attribute_diversity(ranked.lists, self._table.item_attributes)
        return math.nan

    def _intervals(self, values: Doubles) -> dict[str, tuple[float, float]]:
        # one seed for all rows: the same users are drawn, which pairs the differences
        ends = metrics.bootstrap_intervals(values, self._queries.users, np.random.default_rng(self._seed))
        return {name: (low, high) for name, (low, high) in zip(FIGURES, ends.tolist(), strict=True)}


def query_parts(table: EventTable, queries: Queries, train_counts: NDArray[np.int64]) -> dict[str, dict[str, Mask]]:
    """Which queries (q,) belong to which part, by aspect; parts without queries are left out.

    history: how many events the user had before. type: of the target's event. item: warm, if the target occurs in
    the training part (`train_counts`, (i,)), else cold. target: a repeat for this user, or new.
    """
    histories, items = Histories.of(table, queries), table.items[queries.positions]
    lengths, kinds = histories.ends - histories.starts, table.types[queries.positions]
    repeated, warm = histories.contain(items), train_counts[items] > 0
    aspects = {
        "history": {
            f"{low}-{high - 1}" if high else f"{low}+": (lengths >= low) & (lengths < (high or np.inf))
            for low, high in zip(HISTORY_LENGTHS, (*HISTORY_LENGTHS[1:], 0), strict=True)
        },
        "type": {name: kinds == row for row, name in enumerate(table.type_names)},
        "item": {"warm": warm, "cold": ~warm},
        "target": {"new": ~repeated, "repeat": repeated},
    }
    return {aspect: {part: mask for part, mask in parts.items() if mask.any()} for aspect, parts in aspects.items()}


def _part_figures(values: Doubles, masks: dict[str, Mask]) -> dict[str, dict[str, float]]:
    columns = [FIGURES.index(name) for name in PART_FIGURES]
    return {
        part: {
            "n": int(mask.sum()),
            **dict(zip(PART_FIGURES, values[mask][:, columns].mean(axis=0).tolist(), strict=True)),
        }
        for part, mask in masks.items()
    }
