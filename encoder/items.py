"""Vectors of items: from their words where they have any, else a direction of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class TextEncoder(Protocol):
    """Texts -> vectors."""

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> Floats:
        """(n, dim) unit vectors; zeros for a text that says nothing."""
        ...


class HashedItemEncoder:
    """Gives each id a random direction, the same on every machine and in every run.

    A component is ±1/√d by one bit of SHAKE-128(seed, id): exact in float32, so no library's rounding can
    change it, and the cosine of two ids has mean 0 and deviation 1/√d, as for uniform directions.
    """

    def __init__(self, dim: int, seed: int = 0) -> None:
        if dim < 1:
            raise ValueError(f"dim must be 1 or more, got {dim}.")
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed must lie in 0..2^64-1, got {seed}.")
        self._dim = dim
        self._salt = hashlib.shake_128(seed.to_bytes(8, "little"))

    @property
    def dim(self) -> int:
        """Length d of a vector."""
        return self._dim

    def encode(
        self, item_ids: Sequence[str], descriptions: Sequence[str], attributes: Sequence[Sequence[str]]
    ) -> Floats:
        """Unit vectors (n, d) of the ids; nothing else is read.

        Raises:
            ValueError: there is not one description and one list of attributes per id.
        """
        check_paired(item_ids, descriptions, attributes)
        return self.directions(item_ids)

    def directions(self, item_ids: Sequence[str]) -> Floats:
        """Unit vectors (n, d) of the ids."""
        width_bytes = (self._dim + 7) // 8
        drawn = b"".join(self._digest(item_id, width_bytes) for item_id in item_ids)
        packed = np.frombuffer(drawn, np.uint8).reshape(len(item_ids), width_bytes)
        bits = np.unpackbits(packed, axis=1, count=self._dim)
        length = np.float32(1.0 / np.sqrt(self._dim))
        return np.where(bits == 1, length, -length)

    def _digest(self, item_id: str, width_bytes: int) -> bytes:
        state = self._salt.copy()
        state.update(item_id.encode("utf-8", "surrogatepass"))
        return state.digest(width_bytes)


class TextItemEncoder:
    """An item's vector is that of its description; without words it is the id's own random direction."""

    def __init__(self, text_encoder: TextEncoder, seed: int = 0) -> None:
        self._text_encoder = text_encoder
        self._hashed = HashedItemEncoder(text_encoder.dim, seed)

    @property
    def dim(self) -> int:
        """Length d of a vector."""
        return self._text_encoder.dim

    def encode(
        self, item_ids: Sequence[str], descriptions: Sequence[str], attributes: Sequence[Sequence[str]]
    ) -> Floats:
        """Unit vectors (n, d), each a function of its own id and description alone; attributes are not read.

        Raises:
            ValueError: there is not one description and one list of attributes per id.
        """
        check_paired(item_ids, descriptions, attributes)
        vectors = self._text_encoder.encode(descriptions)
        wordless = np.flatnonzero(~vectors.any(axis=1)).tolist()
        if wordless:
            vectors[wordless] = self._hashed.directions([item_ids[position] for position in wordless])
        return vectors


def check_paired(item_ids: Sequence[str], descriptions: Sequence[str], attributes: Sequence[Sequence[str]]) -> None:
    """Raises ValueError when there is not one description and one list of attribute tokens per id."""
    if not len(item_ids) == len(descriptions) == len(attributes):
        raise ValueError(
            f"got {len(item_ids)} item ids, {len(descriptions)} descriptions and {len(attributes)} lists of "
            "attributes; give one each."
        )
