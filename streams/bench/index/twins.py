"""Many users at one point, and rows that are no vectors: do the others suffer?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from index import HnswIndex, RejectReason
from streams.bench.index.case import Case, Figures, Say, wait_for_build
from streams.bench.index.cpu import K
from streams.bench.index.data import Floats
from streams.bench.index.population import Rows, next_vectors, recall_of
from streams.bench.report import bar

TWINS_SHARE, BAD_SHARE = 0.1, 0.01
RECALL_LOSS_MUST = -0.01
AT_ONCE = 1000


def measure_twins(case: Case, say: Say) -> Figures:
    """A tenth moves onto one point and a hundredth of the rows is not finite; then recall of queries near the others.

    The fresh build that it is compared with is the one in which nobody shares a vector.
    """
    rng = case.rng(6)
    order = rng.permutation(case.size)
    twins, others = np.split(order, [int(TWINS_SHARE * case.size)])
    queries = next_vectors(case.base[others], case.plan.queries, rng)
    now = case.base.copy()
    now[twins] = case.source.draw(1, rng)
    bad = rng.random(case.size) < BAD_SHARE
    with case.index() as index:
        fresh = recall_of(index.search(queries, K), case.base, queries)
        generation = index.stats().generation
        rejected = _upsert_all(index, rng.permutation(case.size), now, bad)
        now[bad] = case.base[bad]  # what was there stays
        at_once = recall_of(index.search(queries, K), now, queries)
        wait_for_build(index, generation)
        rebuilt = recall_of(index.search(queries, K), now, queries)
        ef = index.stats().ef
    say(f"{case.name}: recall beside twins {rebuilt:.4f}, before {fresh:.4f}")
    name = f"{case.name}: 10 % share a vector: recall of the others, less a fresh build's"
    sound = float((rejected & bad).sum() / max(int((rejected | bad).sum()), 1))
    bars = [
        bar(f"{name}, rebuilt", rebuilt - fresh, "share", RECALL_LOSS_MUST),
        bar(f"{name}, at once", at_once - fresh, "share", RECALL_LOSS_MUST),
        bar(f"{case.name}: {int(bad.sum()):,} non-finite rows rejected, no other", sound, "share", 1.0),
    ]
    return Figures(bars, {"fresh": fresh, "at_once": at_once, "rebuilt": rebuilt, "ef": ef})


def _upsert_all(index: HnswIndex, rows: Rows, now: Floats, bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """All users as of `now`, the bad ones with a NaN or an infinity; returns by row whether it was rejected as such."""
    rejected = np.zeros(len(bad), np.bool_)
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        vectors = now[part]
        vectors[bad[part], 0] = np.where(part[bad[part]] % 2, np.nan, np.inf)
        for row in index.upsert(part.tolist(), vectors).rejected:
            rejected[part[row.position]] = row.reason is RejectReason.NON_FINITE
    return rejected
