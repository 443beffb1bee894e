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
from index.hubness import LocalScaling, MutualProximity, k_occurrence, skewness
from index.int8 import Int8Index
from index.results import IndexStats, Matches, RecallReport, RejectedRow, UpsertReport
from index.snapshot import Manifest, open_part, read_manifest, write_snapshot

__all__ = [
    "AutoIndex",
    "DimensionMismatch",
    "EmptyIndex",
    "ExactIndex",
    "HnswIndex",
    "IndexConfig",
    "IndexStats",
    "Int8Index",
    "InvalidFilter",
    "InvalidNeighbours",
    "LocalScaling",
    "Manifest",
    "Matches",
    "MutualProximity",
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
    "k_occurrence",
    "open_part",
    "read_manifest",
    "skewness",
    "write_snapshot",
]
