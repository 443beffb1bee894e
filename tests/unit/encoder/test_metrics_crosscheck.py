"""Our figures against LensKit's on the same rankings."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from lenskit.data import ItemList
from lenskit.metrics import NDCG, Hit, ListGini, LogRankWeight, RecipRank

from encoder.metrics import CUTOFFS, FIGURES, Histories, exposures, gini, rank, ranking_figures

if TYPE_CHECKING:
    from collections.abc import Callable

    from lenskit.metrics import ListMetric

QUERIES, ITEMS, SEEN = 60, 40, 5


@pytest.fixture(scope="module")
def ranked() -> tuple[np.ndarray, np.ndarray, list[ItemList], list[ItemList]]:
    """Our figures (q, m) and lists of random scores without ties, and LensKit's lists and targets for the same."""
    rng = np.random.default_rng(20)
    scores = np.stack([rng.permutation(ITEMS) for _ in range(QUERIES)]).astype(np.float32)
    chosen = np.stack([rng.permutation(ITEMS)[: SEEN + 1] for _ in range(QUERIES)]).astype(np.int32)
    seen, targets = chosen[:, :SEEN], chosen[:, SEEN].copy()
    starts = np.arange(QUERIES) * SEEN
    ours = rank(scores, targets, Histories(seen.ravel(), starts, starts + SEEN))
    theirs = [
        ItemList([item for item in np.argsort(-row).tolist() if item not in known], ordered=True)
        for row, known in zip(scores, seen.tolist(), strict=True)
    ]
    return ranking_figures(ours.ranks), ours.lists, theirs, [ItemList([target]) for target in targets.tolist()]


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize(
    ("name", "metric"),
    # LensKit's default discount gives ranks 1 and 2 the same weight; an offset of 1 is the usual log2(1 + rank)
    [("hr", Hit), ("ndcg", partial(NDCG, weight=LogRankWeight(offset=1))), ("mrr", RecipRank)],
    ids=["hr", "ndcg", "mrr"],
)
def test_each_query_has_the_figure_that_lenskit_gives(
    ranked: tuple[np.ndarray, np.ndarray, list[ItemList], list[ItemList]],
    name: str,
    metric: Callable[..., ListMetric],
    cutoff: int,
) -> None:
    """Query by query, hr, ndcg and mrr at every cutoff equal LensKit's hit, NDCG and reciprocal rank."""
    figures, _, lists, targets = ranked
    theirs = [metric(n=cutoff).measure_list(*pair) for pair in zip(lists, targets, strict=True)]
    assert 0 < sum(theirs) < QUERIES
    np.testing.assert_allclose(figures[:, FIGURES.index(f"{name}@{cutoff}")], theirs, rtol=1e-12)


def test_lists_and_their_gini_are_lenskits(
    ranked: tuple[np.ndarray, np.ndarray, list[ItemList], list[ItemList]],
) -> None:
    """The first ten of each ranking are the same items in the same order, and so is the inequality of exposure."""
    _, lists, theirs, targets = ranked
    assert lists.tolist() == [each.ids()[:10].tolist() for each in theirs]
    metric = ListGini(n=10, items=ITEMS)
    values = [metric.compute_list_data(*pair) for pair in zip(theirs, targets, strict=True)]
    assert gini(exposures(lists, ITEMS)) == pytest.approx(metric.global_aggregate(values), rel=1e-9)
