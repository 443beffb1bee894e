"""Which encoder to load. Small and frozen: the program's settings fill it."""

from __future__ import annotations

import math
from dataclasses import dataclass

DIM_MAX = 256
"""Width of the pretrained word vectors; shorter prefixes of them are vectors too."""


@dataclass(frozen=True)
class EncoderConfig:
    """Names a model and its few knobs.

    Raises:
        ValueError: `dim` is outside 1..256, `half_life_days` is not a positive number, or `seed` is negative.
    """

    model: str = "decayed-mean"
    dim: int = 64
    half_life_days: float = 14.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.dim <= DIM_MAX:
            raise ValueError(f"dim must lie in 1..{DIM_MAX}, got {self.dim}: choose a shorter vector.")
        if not (math.isfinite(self.half_life_days) and self.half_life_days > 0):
            raise ValueError(f"half_life_days must be a positive number, got {self.half_life_days}.")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}.")
