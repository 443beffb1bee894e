"""Hubs: vectors that stand in far more neighbour lists than others. How many there are, and two remedies.

In high dimensions a few vectors near the centre become everybody's neighbours and many become nobody's (Radovanović,
Nanopoulos, Ivanović, JMLR 2010). Both remedies order an over-fetched list anew and cut it: a few more candidates from
the index, no other structure. Shapes: n stored vectors, q queries, w over-fetched, k kept neighbours, d dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from index.errors import DimensionMismatch, EmptyIndex, InvalidNeighbours
from index.recall import StoredVectors, read_present
from index.results import Floats, Matches, VectorId

Doubles = NDArray[np.float64]

BLOCK_ROWS = 256
"""Vectors that are read and searched at once: what a measurement holds beside its result."""
NEIGHBOURHOOD = 10
"""Neighbours that r is the mean over, as in the paper."""
DEVIATION_MIN = 1e-9
"""Stands in for the deviation where all cosines are equal."""
TAIL_MIN = float(np.finfo(np.float64).tiny)
"""Smallest probability whose logarithm is kept apart from others."""
NOTHING_TO_MEASURE = "Expected an index with vectors to measure, got one without."


class SearchedVectors(StoredVectors, Protocol):
    """An index that can leave each query's own id out of its row."""

    def search(self, vectors: Floats, k: int, exclude: Sequence[VectorId | None] | None = None) -> Matches:
        """The k nearest others."""
        ...


def k_occurrence(neighbours: NDArray[np.integer], size: int) -> NDArray[np.int64]:
    """N_k: in how many lists each of `size` vectors stands. (size,) from row numbers (q, k), negative for padding.

    Raises:
        ValueError: a number is not below `size`.
    """
    present = neighbours[neighbours >= 0]
    if present.size and present.max() >= size:
        raise ValueError(f"Expected neighbours as row numbers below {size}, got {present.max()}; pass the larger size.")
    return np.bincount(present, minlength=size).astype(np.int64)


def skewness(counts: NDArray[np.integer]) -> float:
    """S of N_k, the third standardised moment: about 0 without hubs, above 1.4 by the usual rule much hubness.

    0 where all counts are equal.

    Raises:
        EmptyIndex: there is no count.
    """
    if not counts.size:
        raise EmptyIndex("Expected the count of at least one vector, got none; skewness is not defined.")
    deviations = counts - counts.mean()
    variance = float(np.mean(deviations**2))
    return float(np.mean(deviations**3)) / variance**1.5 if variance > 0.0 else 0.0


class LocalScaling:
    """CSLS (Conneau et al., ICLR 2018): score(x, y) = 2 cos(x, y) - r(x) - r(y).

    r is the mean cosine of a vector to its nearest others: a hub is near to many, its r is high, and it has to be
    nearer than others to keep its place. Measured once over the index; it ages as vectors move, so measure anew
    now and then. An id that was not there has the mean r. Immutable, so any thread may use it.
    """

    def __init__(self, ids: Sequence[VectorId], r: Doubles) -> None:
        """`r` (n,) of the ids; NaN for a vector without neighbours, which then has the mean."""
        known = r[~np.isnan(r)]
        self._r = _Measured(ids, np.where(np.isnan(r), known.mean(), r) if len(known) else np.zeros(len(r)))

    @classmethod
    def measure(cls, index: SearchedVectors, k: int = NEIGHBOURHOOD) -> Self:
        """r of every stored vector over its k nearest others: one search each, in blocks; may run beside a writer.

        Raises:
            InvalidNeighbours: k is below 1.
            EmptyIndex: nothing is stored.
        """
        ids: list[VectorId] = []
        means: list[Doubles] = []
        for block_ids, vectors in _blocks(index, index.ids()):
            similarities = index.search(vectors, k, exclude=block_ids).similarities.astype(np.float64)
            found = (~np.isnan(similarities)).sum(axis=1)
            sums = np.nansum(similarities, axis=1)
            means.append(np.divide(sums, found, out=np.full(len(found), np.nan), where=found > 0))
            ids += block_ids
        if not ids:
            raise EmptyIndex(NOTHING_TO_MEASURE)
        return cls(ids, np.concatenate(means))

    def rerank(self, matches: Matches, k: int) -> Matches:
        """The best k of each row (q, w) by CSLS, best first. What is reported are still cosines, so they may rise.

        r(x) is the same all along a row and moves nothing, so that it is not asked for.

        Raises:
            InvalidNeighbours: k is not within 1..w.
        """
        return _reorder(matches, 2.0 * matches.similarities - self._r.of(matches.ids), k)


class MutualProximity:
    """Mutual proximity with independent Gaussians (Schnitzer et al., JMLR 2012).

    score(x, y) = P(X < cos(x, y)) · P(Y < cos(x, y)): how surely x and y are nearer to each other than either is to
    anybody else, X and Y being Gaussians with the mean and deviation of each one's cosines to all stored vectors.
    Those follow from the mean m and covariance C of the stored vectors, exactly and without a search: the mean is
    x·m and the variance x·C·x. An id that was not there has the average mean and deviation. Immutable.
    """

    def __init__(self, ids: Sequence[VectorId], mean: Doubles, covariance: Doubles, moments: Doubles) -> None:
        """`mean` (d,) and `covariance` (d, d) of the stored vectors, `moments` (n, 2): mean and deviation by id."""
        self._mean = mean
        self._covariance = covariance
        self._means = _Measured(ids, moments[:, 0])
        self._deviations = _Measured(ids, moments[:, 1])

    @classmethod
    def measure(cls, index: StoredVectors) -> Self:
        """Reads every vector twice, in blocks: n·d² multiplications; may run beside a writer.

        Raises:
            EmptyIndex: nothing is stored.
        """
        present = index.ids()
        mean, covariance = _spread(index, present)
        ids: list[VectorId] = []
        moments: list[Doubles] = []
        for block_ids, vectors in _blocks(index, present):
            ids += block_ids
            moments.append(_moments(vectors.astype(np.float64), mean, covariance))
        if not ids:
            raise EmptyIndex(NOTHING_TO_MEASURE)
        return cls(ids, mean, covariance, np.concatenate(moments))

    def rerank(self, matches: Matches, vectors: Floats, k: int) -> Matches:
        """The best k of each row (q, w) for the queries (q, d), best first; reported are cosines, so they may rise.

        Raises:
            InvalidNeighbours: k is not within 1..w.
            DimensionMismatch: there is not one vector (d,) per row.
        """
        expected = (len(matches.ids), len(self._mean))
        if vectors.shape != expected:
            raise DimensionMismatch(f"Expected the queries of these matches, of shape {expected}, got {vectors.shape}.")
        wide = vectors.astype(np.float64)
        norms = np.linalg.norm(wide, axis=1, keepdims=True)
        own = _moments(np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0.0), self._mean, self._covariance)
        similarities = matches.similarities.astype(np.float64)
        scores = _log_normal_cdf((similarities - own[:, :1]) / own[:, 1:])
        scores += _log_normal_cdf((similarities - self._means.of(matches.ids)) / self._deviations.of(matches.ids))
        return _reorder(matches, scores, k)


class _Measured:
    """One number by id; the mean of all for an id that is not known."""

    def __init__(self, ids: Sequence[VectorId], values: Doubles) -> None:
        self._rows = {vector_id: row for row, vector_id in enumerate(ids)}
        self._values = np.append(values, values.mean() if len(values) else 0.0)

    def of(self, ids: NDArray[np.object_]) -> Doubles:
        rows = [self._rows.get(vector_id, -1) for vector_id in ids.ravel()]
        found: Doubles = self._values[np.array(rows, np.intp)].reshape(ids.shape)
        return found


def _blocks(index: StoredVectors, ids: Sequence[VectorId]) -> Iterator[tuple[list[VectorId], Floats]]:
    """Ids still present and their vectors, block by block."""
    remaining = iter(ids)
    while block := list(islice(remaining, BLOCK_ROWS)):
        if present := read_present(index, block):
            yield list(present), np.stack(list(present.values()))


def _spread(index: StoredVectors, ids: Sequence[VectorId]) -> tuple[Doubles, Doubles]:
    """Mean (d,) and covariance (d, d) of the vectors still present."""
    count, total, products = 0, np.zeros(()), np.zeros(())
    for _, vectors in _blocks(index, ids):
        wide = vectors.astype(np.float64)
        count, total, products = count + len(wide), total + wide.sum(axis=0), products + wide.T @ wide
    if not count:
        raise EmptyIndex(NOTHING_TO_MEASURE)
    mean = total / count
    return mean, products / count - np.outer(mean, mean)


def _moments(unit: Doubles, mean: Doubles, covariance: Doubles) -> Doubles:
    """Mean and deviation (n, 2) of the cosines of each unit vector to all stored ones."""
    variances = np.einsum("nd,nd->n", unit @ covariance, unit)
    return np.stack([unit @ mean, np.sqrt(np.maximum(variances, DEVIATION_MIN**2))], axis=1)


def _log_normal_cdf(z: Doubles) -> Doubles:
    """Log of the Gaussian's distribution function, exact in both tails: near neighbours are 1 to the last bit."""
    sizes = (np.abs(z) / math.sqrt(2.0)).ravel().tolist()
    tails = np.array([math.erfc(size) for size in sizes]).reshape(z.shape) / 2.0
    return np.where(z < 0.0, np.log(np.maximum(tails, TAIL_MIN)), np.log1p(-tails))


def _reorder(matches: Matches, scores: Doubles, k: int) -> Matches:
    """Equal scores keep the order of the cosines; padding stays last."""
    width = matches.ids.shape[1]
    if not 1 <= k <= width:
        raise InvalidNeighbours(
            f"k must be within 1 and the {width} matches fetched, got {k}; fetch more than you keep."
        )
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Matches(np.take_along_axis(matches.ids, order, 1), np.take_along_axis(matches.similarities, order, 1))
