"""What an index answers."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.errors import RejectReason

Floats = NDArray[np.float32]
Slots = NDArray[np.int32]
Mask = NDArray[np.bool_]
VectorId = str | int


class Matches(NamedTuple):
    """Search results, best first. Both (queries, k); short rows are padded with None and NaN."""

    ids: NDArray[np.object_]
    similarities: Floats


class RejectedRow(NamedTuple):
    """A row of an upsert that did not go in, by its position in the call."""

    position: int
    reason: RejectReason


class UpsertReport(NamedTuple):
    """What became of an upsert's rows; `added` and `moved` count distinct ids."""

    added: int
    moved: int
    rejected: tuple[RejectedRow, ...]


class IndexStats(NamedTuple):
    """The figures of an index that cost nothing to read. All but the first five are zero where no graph is used."""

    size: int
    """Vectors that can be found."""
    capacity: int
    """Room before the next growth."""
    memory_bytes: int
    """Held by tables and graphs, the ids' own objects not counted."""
    epoch: int
    """Calls that changed something."""
    tier: Literal["exact", "hnsw"] = "exact"
    """What answers: a scan of everything, or graphs and a delta."""
    graph_rows: int = 0
    """Rows in the base graph, dead and moved ones included."""
    segments: int = 0
    """Small graphs beside the base."""
    delta: int = 0
    """Rows scanned beside the graphs."""
    moved: int = 0
    """Rows of the base graph that answer from a segment or the delta."""
    dead: int = 0
    """Rows of the base graph whose id was removed."""
    ef: int = 0
    """Beam width of a query."""
    generation: int = 0
    """Base graphs built so far."""
    generation_age_s: float = 0.0
    """Since the base graph went into service."""
    build_s: float = 0.0
    """What the last base graph took to build."""
    building: bool = False
    """A build is running."""
    build_progress: float = 0.0
    """Share of the running build that is done."""
    erasures_pending: int = 0
    """Forgotten ids whose bytes a graph still holds."""
    failed_builds: int = 0
    """Builds that ended in an error; the index went on with what it had."""


class RecallReport(NamedTuple):
    """What canary queries found, approximate against exact, at one moment."""

    queries: int
    recall: float
    """Share of the exact top ten that `search` found; a tie at the edge counts as found."""
    self_miss_share: float
    """Stored vectors that did not find themselves, or an equal twin, first."""
