"""What an index refuses, in one tree.

```
VectorIndexError
├── DimensionMismatch    (ValueError)  vectors of another shape than (n, dim), or not one per id
├── NonFiniteQuery       (ValueError)  a query holds NaN or infinity
├── InvalidNeighbours    (ValueError)  k is below 1
├── InvalidFilter        (ValueError)  a mask or the excluded ids do not fit the call
├── UnknownId            (KeyError)    no vector is stored under this id
├── EmptyIndex           (LookupError) a figure was asked for that an index without vectors does not have
└── SnapshotError        (Exception)
    ├── SnapshotMissing  (FileNotFoundError)  there is no snapshot at this path
    ├── SnapshotCorrupt  (ValueError)  a file is damaged, cut short or missing
    └── SnapshotMismatch (ValueError)  a sound snapshot of another schema, dimension or metric
```

An empty index answers a search with padding. Bad rows of an `upsert` are no errors: they come back in its report, and
the good rows go in.
"""

from __future__ import annotations

from enum import StrEnum


class VectorIndexError(Exception):
    """Root of every error that an index raises on purpose."""


class DimensionMismatch(VectorIndexError, ValueError):
    """The array does not have the shape (n, dim), or not one row per id."""


class NonFiniteQuery(VectorIndexError, ValueError):
    """A query holds NaN or infinity: no order of neighbours exists."""


class InvalidNeighbours(VectorIndexError, ValueError):
    """Fewer than one neighbour was asked for."""


class UnknownId(VectorIndexError, KeyError):
    """No vector is stored under this id."""

    def __str__(self) -> str:
        return str(self.args[0])


class InvalidFilter(VectorIndexError, ValueError):
    """The mask is not a boolean per slot, or there is not one excluded id per query."""


class EmptyIndex(VectorIndexError, LookupError):
    """The index holds no vector to measure."""


class SnapshotError(VectorIndexError):
    """Root of what goes wrong with a snapshot on disk."""


class SnapshotMissing(SnapshotError, FileNotFoundError):
    """There is no snapshot at this path."""


class SnapshotCorrupt(SnapshotError, ValueError):
    """A file of the snapshot is damaged, cut short or missing."""


class SnapshotMismatch(SnapshotError, ValueError):
    """The snapshot is sound, but of another schema, dimension or metric."""


class RejectReason(StrEnum):
    """Why one row of an upsert did not go in."""

    NON_FINITE = "non-finite"
    ZERO_NORM = "zero-norm"
