"""What may go into an index and what may be asked of it: the checks that all indexes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.errors import DimensionMismatch, InvalidNeighbours, NonFiniteQuery, RejectReason
from index.results import Floats, Mask, Matches, RejectedRow, VectorId
from index.table import normalised, usable


class SoundRows(NamedTuple):
    """The rows of an upsert that may go in: one a distinct id, the last of each."""

    ids: list[VectorId]
    vectors: Floats
    """(n, d) of unit length."""
    rejected: tuple[RejectedRow, ...]


def sound_rows(ids: Sequence[VectorId], vectors: Floats, dim: int) -> SoundRows:
    """Sorts out the rows that are not finite or have no direction, and normalises the others.

    Raises:
        DimensionMismatch: the shape is not (len(ids), d).
    """
    rows, norms = normalised(vectors, dim)
    if len(rows) != len(ids):
        raise DimensionMismatch(f"Expected one vector per id, got {len(ids)} ids, {len(rows)} vectors.")
    sound = usable(norms)
    last = {ids[position]: position for position in np.flatnonzero(sound).tolist()}
    rejected = tuple(
        RejectedRow(position, RejectReason.ZERO_NORM if np.isfinite(norms[position]) else RejectReason.NON_FINITE)
        for position in np.flatnonzero(~sound).tolist()
    )
    if len(last) < len(rows):
        rows = rows[list(last.values())]
    return SoundRows(list(last), rows, rejected)


def sound_queries(vectors: Floats, k: int, dim: int) -> tuple[Floats, Mask]:
    """Unit queries (q, d), and which of them have a direction; those without are rows of zeros.

    Raises:
        InvalidNeighbours: k is below 1.
        DimensionMismatch: the shape is not (q, d).
        NonFiniteQuery: a query holds NaN or infinity; the message names its row.
    """
    if k < 1:
        raise InvalidNeighbours(f"k must be 1 or more, got {k}.")
    queries, norms = normalised(vectors, dim)
    finite = np.isfinite(norms)
    if not finite.all():
        row = int(finite.argmin())
        raise NonFiniteQuery(f"Query {row} of {len(norms)} holds NaN or infinity; drop it before the call.")
    return queries, usable(norms)


def padded(queries: int, k: int) -> Matches:
    """Matches (queries, k) that hold nothing yet."""
    ids: NDArray[np.object_] = np.full((queries, k), None, np.object_)
    return Matches(ids, np.full((queries, k), np.nan, np.float32))
