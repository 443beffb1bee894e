"""Unit vectors to measure on: shapes of data, and how users move in them. Rows are float32 of length one."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CENTRES = 1000
CENTRE_COSINES = (0.8, 0.9)
SPECTRUM_POWER = 0.95
"""Variance of the i-th axis = i^-power: of 64 axes of unit rows some 20 count, (Σλ)²/Σλ², as in real embeddings."""
SLIGHT_COSINES = (0.995, 0.9995)
"""Between a user's old and next vector after one more event."""


class VectorSource(Protocol):
    """Draws unit vectors of one shape of data."""

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """Independent rows (count, d)."""
        ...


class Clustered:
    """A thousand centres, evenly spread; a row's cosine to its own is .8 to .9."""

    def __init__(self, dim: int, seed: int) -> None:
        self._centres = Isotropic(dim).draw(CENTRES, np.random.default_rng(seed))

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """Independent rows (count, d), each centre equally likely."""
        return turned(self._centres[rng.integers(0, CENTRES, count)], CENTRE_COSINES, rng)


class Cloud:
    """One cloud without clusters, long along a few axes and short along many."""

    def __init__(self, dim: int) -> None:
        self._scales = np.sqrt(np.arange(1, dim + 1, dtype=np.float32) ** -SPECTRUM_POWER)

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """Independent rows (count, d)."""
        return unit(rng.standard_normal((count, len(self._scales)), np.float32) * self._scales)


class Isotropic:
    """Every direction equally likely: the worst case of any graph, which no encoder produces."""

    def __init__(self, dim: int) -> None:
        self._dim = dim

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """Independent rows (count, d)."""
        return unit(rng.standard_normal((count, self._dim), np.float32))


KINDS = ("clustered", "cloud", "isotropic")


def vector_source(kind: str, dim: int, seed: int) -> VectorSource:
    """The source called `kind`, one of `KINDS`; only `clustered` uses the seed, for its centres.

    Raises:
        ValueError: there is none of this name.
    """
    if kind == "clustered":
        return Clustered(dim, seed)
    if kind == "cloud":
        return Cloud(dim)
    if kind == "isotropic":
        return Isotropic(dim)
    raise ValueError(f"Expected data to be one of {', '.join(KINDS)}, got {kind!r}.")


def unit(rows: Floats) -> Floats:
    """The rows at length one."""
    scaled: Floats = rows / np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return scaled


def turned(rows: Floats, cosines: tuple[float, float], rng: np.random.Generator) -> Floats:
    """Unit rows in random directions from the given ones, at cosines drawn evenly between the two bounds."""
    noise = rng.standard_normal(rows.shape, np.float32)
    across = unit(noise - np.einsum("nd,nd->n", noise, rows)[:, None] * rows)
    near = rng.uniform(*cosines, (len(rows), 1)).astype(np.float32)
    return unit(near * rows + np.sqrt(1.0 - near**2) * across)
