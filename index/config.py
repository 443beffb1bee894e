"""The index's few knobs. Small and frozen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class IndexConfig:
    """Vectors of `dim` numbers; room for `capacity_initial` of them before the first growth.

    Raises:
        ValueError: either is below 1.
    """

    dim: int = 64
    capacity_initial: int = 1024

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ValueError(f"dim must be 1 or more, got {self.dim}.")
        if self.capacity_initial < 1:
            raise ValueError(f"capacity_initial must be 1 or more, got {self.capacity_initial}.")
