"""What an index refuses, in one tree.

```
VectorIndexError
├── DimensionMismatch    (ValueError)  vectors of another shape than (n, dim), or not one per id
├── NonFiniteQuery       (ValueError)  a query holds NaN or infinity
├── InvalidNeighbours    (ValueError)  k is below 1
└── UnknownId            (KeyError)    no vector is stored under this id
```

Bad rows of an `upsert` are no errors: they come back in its report, and the good rows go in.
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


class RejectReason(StrEnum):
    """Why one row of an upsert did not go in."""

    NON_FINITE = "non-finite"
    ZERO_NORM = "zero-norm"
