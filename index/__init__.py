"""Vectors -> nearest neighbours by cosine."""

from index.config import IndexConfig
from index.errors import (
    DimensionMismatch,
    InvalidNeighbours,
    NonFiniteQuery,
    RejectReason,
    UnknownId,
    VectorIndexError,
)
from index.exact import ExactIndex
from index.results import IndexStats, Matches, RejectedRow, UpsertReport

__all__ = [
    "DimensionMismatch",
    "ExactIndex",
    "IndexConfig",
    "IndexStats",
    "InvalidNeighbours",
    "Matches",
    "NonFiniteQuery",
    "RejectReason",
    "RejectedRow",
    "UnknownId",
    "UpsertReport",
    "VectorIndexError",
]
