"""How much of the exact answer an index finds, measured on the index that serves, beside its writer.

Shapes: q queries, k neighbours, d dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from index.errors import EmptyIndex, InvalidNeighbours, UnknownId
from index.results import Floats, IndexStats, Mask, Matches, RecallReport, VectorId

Doubles = NDArray[np.float64]

TIE_TOLERANCE = 1e-6
"""A cosine this far below the k-th exact one is a tie: float32 sums of 64 terms differ by about that much."""
MOVED_TOLERANCE = 1e-5
"""A reported cosine further than this from the cosine to the stored vector was taken from another vector."""


class StoredVectors(Protocol):
    """An index whose vectors can be read one by one, beside its writer."""

    def ids(self) -> Sequence[VectorId]:
        """The ids present."""
        ...

    def vector(self, vector_id: VectorId, /) -> Floats:
        """A copy (d,) | UnknownId."""
        ...


class MeasurableIndex(StoredVectors, Protocol):
    """What a check needs: the search under test, and its judge over the same vectors."""

    def search(self, vectors: Floats, k: int) -> Matches:
        """The answer that is measured."""
        ...

    def exact(self, vectors: Floats, k: int) -> Matches:
        """The answer it is measured against: every stored vector compared."""
        ...

    def stats(self) -> IndexStats:
        """Its `epoch` moves with every change, no later than a search can see the change."""
        ...


def recall_at(found: Floats | Doubles, exact: Floats | Doubles, k: int) -> float:
    """Share of the exact top k that was found, by cosine: a found one as near as the k-th exact one is right.

    So of several vectors that tie at the edge any may be found. Both (q, at least k) or narrower where the index
    holds fewer: `exact` best first, both padded with NaN at the end, both on the *current* vectors. Each id may
    stand once in a row of `found`.

    Raises:
        InvalidNeighbours: k is below 1.
        EmptyIndex: no query has an exact neighbour.
    """
    _check_positive("k", k)
    wanted = (~np.isnan(exact[:, :k])).sum(axis=1)
    if not wanted.any():
        raise EmptyIndex("Expected a query with at least one exact neighbour, got none; recall is not defined.")
    asked = wanted > 0
    edges = exact[asked, wanted[asked] - 1] - TIE_TOLERANCE
    hits = (found[asked, :k] >= edges[:, None]).sum(axis=1)
    return float(np.minimum(hits, wanted[asked]).sum() / wanted.sum())


def self_miss_share(first: Floats | Doubles, own: Floats | Doubles) -> float:
    """Share of stored vectors that did not find themselves, or an equal twin, first. Both (q,).

    `first` is the cosine of each stored vector to what it found first, NaN for nothing, and `own` to itself.

    Raises:
        EmptyIndex: there is no query.
    """
    if not len(own):
        raise EmptyIndex("Expected at least one query, got none; the share of self-misses is not defined.")
    return float(np.mean(~(first >= own - TIE_TOLERANCE)))


def check_recall(index: MeasurableIndex, queries: int = 256, k: int = 10, *, rng: np.random.Generator) -> RecallReport:
    """Measures `search` against `exact` with stored vectors, drawn by `rng`, as queries. Callable from any thread.

    A query finds itself, so k + 1 are asked for; `recall` is about the k others, and 1 where there is nobody else.

    Beside a writer the order of reads is: queries, exact answer, copy of its vectors, answer under test, copy of
    all vectors in both answers. Every cosine that counts is computed from these copies, whatever was reported.
    A vector *moved* when its copies differ, when it is gone, or when its last copy does not bear out the cosine
    that was reported for it. Then:

    - an exact neighbour that moved is no longer wanted;
    - a found one that moved keeps its place, and excuses the farthest of the wanted ones, which it may have
      pushed out; one that moved *in* and stayed is as good as the wanted one it displaced;
    - a query that moved, or whose first match did, is not judged.

    So what moved does not count as a miss. While the index's epoch stands still nothing can have moved, and
    nothing is excused: a dead id or a stale cosine is then the index's own fault. Unseen goes what moves and comes
    back, bit for bit, and what moves between an index's choice of candidates and their scoring, for it is reported
    as it was stored since: one place in 4,000 beside a writer that replaces a quarter of the vectors meanwhile.
    Cost: one exact scan for `queries` rows; memory: `queries` x 2(k + 1) vectors.

    Raises:
        InvalidNeighbours: `queries` or k is below 1.
        EmptyIndex: nothing is stored, or every vector drawn moved during the check; ask again later.
    """
    _check_positive("queries", queries)
    _check_positive("k", k)
    epoch = index.stats().epoch
    own = read_present(index, _draw(index.ids(), queries, rng))
    if not own:
        raise EmptyIndex("Expected an index with vectors to draw queries from, got one without.")
    vectors = np.stack(list(own.values()))
    exact = index.exact(vectors, k + 1)
    before = read_present(index, _distinct(exact)) | own
    found = index.search(vectors, k + 1)
    after = read_present(index, dict.fromkeys([*own, *_distinct(exact), *_distinct(found)]))
    copies = _Copies.of(before, after, quiet=index.stats().epoch == epoch)
    return _judge(copies, list(own), vectors.astype(np.float64), exact, found)


def read_present(index: StoredVectors, ids: Iterable[VectorId]) -> dict[VectorId, Floats]:
    """Copies of the vectors of those ids that are still stored; the others are left out."""
    vectors: dict[VectorId, Floats] = {}
    for vector_id in ids:
        try:
            vectors[vector_id] = index.vector(vector_id)
        except UnknownId:  # removed by the writer since its id was read
            continue
    return vectors


class _Copies(NamedTuple):
    """The last copy of every vector that plays a part, and which of them moved. The last row stands for gone."""

    rows: dict[VectorId, int]
    vectors: Doubles
    moved: Mask
    quiet: bool

    @classmethod
    def of(cls, before: dict[VectorId, Floats], after: dict[VectorId, Floats], *, quiet: bool) -> _Copies:
        dim = len(next(iter(before.values())))
        moved = [not np.array_equal(before.get(vector_id, vector), vector) for vector_id, vector in after.items()]
        vectors = np.full((len(after) + 1, dim), np.nan)
        vectors[:-1] = list(after.values()) or np.empty((0, dim))
        rows = {vector_id: row for row, vector_id in enumerate(after)}
        return cls(rows, vectors, np.array([*moved, True]) & (not quiet), quiet)

    def rows_of(self, ids: Iterable[VectorId]) -> NDArray[np.intp]:
        return np.array([self.rows.get(vector_id, -1) for vector_id in ids], np.intp)

    def score(self, queries: Doubles, matches: Matches) -> tuple[Doubles, Mask]:
        """Current cosines (q, k), NaN where padded, gone, moved or listed before; and which of them moved."""
        rows = self.rows_of(matches.ids.ravel()).reshape(matches.ids.shape)
        similarities = np.stack([self.vectors[near] @ query for near, query in zip(rows, queries, strict=True)])
        moved = self.moved[rows] & (matches.ids != None)  # noqa: E711 - elementwise
        if not self.quiet:
            moved |= np.abs(similarities - matches.similarities) > MOVED_TOLERANCE
        similarities[moved | _repeated(rows)] = np.nan
        return similarities, moved


def _judge(copies: _Copies, own: Sequence[VectorId], queries: Doubles, exact: Matches, found: Matches) -> RecallReport:
    found_similarities, found_moved = copies.score(queries, found)
    judged = ~copies.moved[copies.rows_of(own)] & ~found_moved[:, 0]
    if not judged.any():
        raise EmptyIndex(f"Expected a vector that rests for one check, but all {len(own)} moved; ask again later.")
    first = found_similarities[judged, 0]
    _blank_own(found_similarities, found, own)
    wanted, _ = copies.score(queries, exact)
    _blank_own(wanted, exact, own)
    wanted = -np.sort(-wanted, axis=1)  # NaN sorts last: the negation puts the best first, the blank behind them
    places = wanted.shape[1] - 1 - found_moved.sum(axis=1)
    wanted[np.arange(wanted.shape[1]) >= places[:, None]] = np.nan
    others = np.isfinite(wanted[judged]).any()
    return RecallReport(
        queries=int(judged.sum()),
        recall=recall_at(found_similarities[judged], wanted[judged], wanted.shape[1]) if others else 1.0,
        self_miss_share=self_miss_share(first, np.square(queries[judged]).sum(axis=1)),
    )


def _blank_own(similarities: Doubles, matches: Matches, own: Sequence[VectorId]) -> None:
    """Leaves k of the k + 1 places of each row: all but the query's own, or the last where it did not find itself."""
    own_ids = np.empty((len(own), 1), np.object_)
    own_ids[:, 0] = own
    is_own = matches.ids == own_ids
    is_own[:, -1] |= ~is_own.any(axis=1)
    similarities[is_own] = np.nan


def _draw(ids: Sequence[VectorId], count: int, rng: np.random.Generator) -> list[VectorId]:
    return [ids[place] for place in rng.choice(len(ids), min(count, len(ids)), replace=False).tolist()] if ids else []


def _distinct(matches: Matches) -> list[VectorId]:
    return [vector_id for vector_id in dict.fromkeys(matches.ids.ravel()) if vector_id is not None]


def _repeated(rows: NDArray[np.intp]) -> Mask:
    """Places (q, k) whose row already stands further ahead."""
    width = rows.shape[1]
    ahead = np.tri(width, k=-1, dtype=np.bool_)
    repeated: Mask = ((rows[:, :, None] == rows[:, None, :]) & ahead).any(axis=2)
    return repeated


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise InvalidNeighbours(f"{name} must be 1 or more, got {value}.")
