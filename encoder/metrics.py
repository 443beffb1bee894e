"""From scores to figures. Sizes: q queries, i items, k list length, m figures, d dimensions.

Every figure is of the *full* ranking: the target is compared with all items, never with a sample, for sampled
figures order models wrongly (Krichene and Rendle, KDD 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.dataset import EventTable, Queries
from encoder.rank_kernels import overlaps, rank_rows, seen_before

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = NDArray[np.int32]

CUTOFFS = (5, 10, 20)
FIGURES = tuple(f"{name}@{cutoff}" for name in ("hr", "ndcg", "mrr") for cutoff in CUTOFFS)
"""The columns of `ranking_figures`."""
LIST_LENGTH = 10
RESAMPLES = 1000
RESAMPLES_PER_BLOCK = 32
LISTS_PER_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Histories:
    """What each query's user did before: the rows starts[n] to ends[n] of `items`."""

    items: Rows
    starts: Ints
    """(q,)"""
    ends: Ints
    """(q,)"""

    @classmethod
    def of(cls, table: EventTable, queries: Queries) -> Histories:
        """The events of each query's user before its position; shares the table's memory."""
        return cls(table.items, table.offsets[queries.users], queries.positions)

    @classmethod
    def none(cls, queries: int) -> Histories:
        """Empty histories: nothing is masked."""
        nothing = np.zeros(queries, np.int64)
        return cls(np.zeros(0, np.int32), nothing, nothing)

    def contain(self, targets: Rows) -> NDArray[np.bool_]:
        """(q,) whether each query's target stands in its history."""
        seen = np.zeros(len(targets), np.bool_)
        seen_before(self.items, self.starts, self.ends, targets, seen)
        return seen


@dataclass(frozen=True, slots=True)
class Ranked:
    """Where each target came, and what stood at the top."""

    ranks: Doubles
    """(q,) from 1; among equal scores the middle of their places, so that a constant score gains nothing."""
    lists: Rows
    """(q, k) items, best first, equal scores in the order of the item rows; -1 where nothing more was scored."""


def rank(scores: Floats, targets: Rows, masked: Histories, list_length: int = LIST_LENGTH) -> Ranked:
    """Ranks each query's target among all items but those of its history; the target itself is never masked.

    Args:
        scores: (q, i), higher is better; -inf says "cannot tell": such items share the last places and enter no list.
        targets: (q,) rows of the items to be found.
        masked: what takes no part in each query; `Histories.none` where repeats count.
        list_length: k of the lists, 0 for none.

    Raises:
        ValueError: the shapes do not fit, or a score is NaN or +inf.
    """
    if scores.ndim != 2 or not len(scores) == len(targets) == len(masked.starts):
        raise ValueError(
            f"scores must have one row per target and history, got the shape {scores.shape} for {len(targets)} "
            f"targets and {len(masked.starts)} histories."
        )
    best = np.full((len(targets), list_length), -np.inf, np.float32)
    lists = np.full((len(targets), list_length), -1, np.int32)
    ranks = np.zeros(len(targets), np.float64)
    plain = np.require(scores, np.float32, ("C", "W"))
    fault = rank_rows(plain, targets.astype(np.int32), masked.items, masked.starts, masked.ends, best, lists, ranks)
    if fault >= 0:
        raise ValueError(
            f"The scores of query {fault} of {len(targets)} hold NaN or +inf: expected finite numbers, or -inf for "
            "items that cannot be judged."
        )
    return Ranked(ranks, lists)


def ranking_figures(ranks: Doubles) -> Doubles:
    """(q, m) of each query, in the order of `FIGURES`: hit rate, NDCG and reciprocal rank at 5, 10 and 20.

    There is one relevant item, so HR@k is also recall@k, and NDCG@k is 1 / log2(1 + rank) within the first k.
    """
    columns = (np.ones_like(ranks), 1.0 / np.log2(1.0 + ranks), 1.0 / ranks)
    return np.stack([gain * (ranks <= cutoff) for gain in columns for cutoff in CUTOFFS], axis=1)


def exposures(lists: Rows, item_count: int) -> Ints:
    """(i,) in how many lists each item stands."""
    return np.bincount(lists[lists >= 0], minlength=item_count)


def coverage(exposed: Ints) -> float:
    """Share of all items that stand in a list."""
    return float(np.count_nonzero(exposed) / len(exposed))


def gini(exposed: Ints) -> float:
    """Gini coefficient of exposure over all items: 0 = all alike, towards 1 = one item takes all. NaN without lists."""
    total = exposed.sum()
    if not total:
        return float("nan")
    places = np.arange(1, len(exposed) + 1)
    return float(((2 * places - len(exposed) - 1) * np.sort(exposed)).sum() / (len(exposed) * total))


def novelty(exposed: Ints, counts: Ints) -> float:
    """Mean surprise in bits of a listed item: -log2 of its share of the events `counts` (i,).

    One is added to every count, so that an item without events is the most surprising, not infinitely so.
    NaN without lists.
    """
    if not exposed.sum():
        return float("nan")
    bits = -np.log2((counts + 1.0) / (counts.sum() + len(counts)))
    return float((exposed * bits).sum() / exposed.sum())


def vector_diversity(lists: Rows, vectors: Floats) -> float:
    """1 - mean cosine of all pairs in a list, over lists of two items or more; NaN where there are none.

    Args:
        lists: (q, k), -1 behind the last item.
        vectors: (i, d) of any length; an item whose vector is zero is like no other.
    """
    norms = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1))
    # row -1, which the padding of a list refers to, is the extra one at the end: zero
    unit = np.zeros((len(vectors) + 1, vectors.shape[1]), np.float64)
    np.divide(vectors, norms[:, None], out=unit[:-1], where=norms[:, None] > 0)
    lengths = (lists >= 0).sum(axis=1)
    wanted = lists[lengths > 1]
    if not len(wanted):
        return float("nan")
    total = 0.0
    for first in range(0, len(wanted), LISTS_PER_BLOCK):
        some = wanted[first : first + LISTS_PER_BLOCK]
        listed = unit[some]  # (q, k, d)
        both = np.square(listed.sum(axis=1)).sum(axis=1) - np.square(listed).sum(axis=(1, 2))
        length = (some >= 0).sum(axis=1)
        total += float((both / (length * (length - 1))).sum())
    return 1.0 - total / len(wanted)


def attribute_diversity(lists: Rows, attributes: Sequence[Sequence[str]]) -> float:
    """As `vector_diversity`, an item being the set of its attribute tokens: cosine = common / sqrt(|a| |b|)."""
    numbers: dict[str, int] = {}
    sets = [sorted({numbers.setdefault(token, len(numbers)) for token in tokens}) for tokens in attributes]
    starts = np.concatenate([[0], np.cumsum([len(tokens) for tokens in sets])]).astype(np.int64)
    tokens = np.array([token for each in sets for token in each], np.int32)
    cosines = np.full(len(lists), np.nan)
    overlaps(lists, starts, tokens, len(numbers), cosines)
    judged = cosines[~np.isnan(cosines)]
    return 1.0 - float(judged.mean()) if len(judged) else float("nan")


def bootstrap_intervals(values: Doubles, users: Rows, rng: np.random.Generator, resamples: int = RESAMPLES) -> Doubles:
    """95 % intervals (m, 2), low and high, of the means of `values` (q, m), by drawing *users* with replacement.

    A user's queries depend on each other and come or stay away together. Equal generators draw equal users, so
    that a column a - b gives the paired interval of a difference.

    Raises:
        ValueError: there are no queries.
    """
    if not len(values):
        raise ValueError("There are no queries: an interval needs one at least.")
    _, rows = np.unique(users, return_inverse=True)
    people = int(rows.max()) + 1
    sums = np.zeros((people, values.shape[1] + 1))
    np.add.at(sums, rows, np.column_stack([values, np.ones(len(values))]))
    means = np.empty((resamples, values.shape[1]))
    for first in range(0, resamples, RESAMPLES_PER_BLOCK):
        block = means[first : first + RESAMPLES_PER_BLOCK]
        drawn = np.stack([np.bincount(rng.integers(0, people, people), minlength=people) for _ in block])
        totals = drawn.astype(np.float64) @ sums
        block[:] = totals[:, :-1] / totals[:, -1:]
    return np.quantile(means, [0.025, 0.975], axis=0).T
