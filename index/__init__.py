"""Vectors that move -> nearest neighbours by cosine, right at the very next query."""

from index.auto import AutoIndex
from index.config import IndexConfig
from index.errors import (
    DimensionMismatch,
    EmptyIndex,
    InvalidFilter,
    InvalidNeighbours,
    NonFiniteQuery,
    RejectReason,
    SnapshotCorrupt,
    SnapshotError,
    SnapshotMismatch,
    SnapshotMissing,
    UnknownId,
    VectorIndexError,
)
from index.exact import ExactIndex
from index.hnsw import HnswIndex
from index.results import IndexStats, Matches, RecallReport, RejectedRow, UpsertReport

__all__ = [
    "AutoIndex",
    "DimensionMismatch",
    "EmptyIndex",
    "ExactIndex",
    "HnswIndex",
    "IndexConfig",
    "IndexStats",
    "InvalidFilter",
    "InvalidNeighbours",
    "Matches",
    "NonFiniteQuery",
    "RecallReport",
    "RejectReason",
    "RejectedRow",
    "SnapshotCorrupt",
    "SnapshotError",
    "SnapshotMismatch",
    "SnapshotMissing",
    "UnknownId",
    "UpsertReport",
    "VectorIndexError",
]
