"""Checked arrays out of a model's weights, for the serving code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.errors import UnusableModel

Floats = NDArray[np.float32]
Weights = Mapping[str, NDArray[Any]]


class WeightReader:
    """Takes arrays by their names in the torch model, as contiguous float32."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def __call__(self, name: str, shape: tuple[int, ...]) -> Floats:
        """The array of this name.

        Raises:
            UnusableModel: it is missing, of another shape or not finite; the message names it.
        """
        array = self._weights.get(name)
        if array is None or array.shape != shape:
            got = "nothing" if array is None else f"the shape {array.shape}"
            raise UnusableModel(f"The weights {name} do not fit: expected the shape {shape}, got {got}; train again.")
        if not np.isfinite(array).all():
            raise UnusableModel(f"The weights {name} hold NaN or infinity: the training diverged; train again.")
        return np.require(array, np.float32, ("C", "W"))

    def matrix(self, name: str, inputs: int, outputs: int) -> Floats:
        """(inputs, outputs) of a linear layer: torch keeps (outputs, inputs), the kernels read a row per input.

        Raises:
            UnusableModel: as for any array.
        """
        return np.require(self(name, (outputs, inputs)).T, np.float32, ("C", "W"))
