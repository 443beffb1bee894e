"""The index's few knobs. Small and frozen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class IndexConfig:
    """What every index takes; only the first two matter to `ExactIndex`.

    Raises:
        ValueError: a number is outside its range; the message names it.
    """

    dim: int = 64
    """Length of a vector."""
    capacity_initial: int = 1024
    """Room for that many vectors before the first growth."""
    m: int = 16
    """HNSW: links of a node on the upper layers; twice as many on the lowest."""
    ef_construction: int = 100
    """HNSW: beam width while building."""
    ef_search: int | None = None
    """HNSW: beam width of a query; None lets every build measure the smallest one that meets `recall_target`."""
    recall_target: float = 0.97
    """Share of the exact top ten that a fresh graph must find, in its own measurement."""
    candidates: int = 48
    """Taken from each graph per query, before the dead and the moved are dropped and the rest is scored anew."""
    drift_cosine_min: float = 0.99
    """A vector enters the delta when its cosine to what the graph holds of it falls below this."""
    delta_max: int = 8192
    """Rows that are scanned exactly beside the graphs before they are built into one."""
    stale_share_max: float = 0.08
    """Moved or new rows, as a share of the base graph, at which the base is built anew."""
    dead_share_max: float = 0.2
    """Removed rows, as a share of the base graph, at which the base is built anew."""
    segments_max: int = 5
    """Small graphs beside the base."""
    graph_min: int = 24_000
    """AutoIndex: size from which a graph is tried; below three quarters of it the graph is given up."""
    seed: int = 0
    """Of the layers that the graphs draw, and of the queries that measure them."""

    def __post_init__(self) -> None:
        for name in ("dim", "capacity_initial", "ef_construction", "candidates", "delta_max", "segments_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        if self.m < 2:
            raise ValueError(f"m must be 2 or more, got {self.m}.")
        if self.ef_search is not None and self.ef_search < 1:
            raise ValueError(f"ef_search must be None or 1 or more, got {self.ef_search}.")
        if self.graph_min < 1:
            raise ValueError(f"graph_min must be 1 or more, got {self.graph_min}.")
        for name in ("recall_target", "drift_cosine_min", "stale_share_max", "dead_share_max"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be above 0 and at most 1, got {getattr(self, name)}.")
