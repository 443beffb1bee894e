"""What images add to their items' vectors in serving: those of the training, and those that came later.

Sizes: n items, k items with an image in training, m image dimensions, d dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.errors import UnusableModel
from encoder.vocabulary import Vocabulary
from encoder.weights import Floats, WeightReader


class ImageParts:
    """The image half of the item tower. One entry of d numbers for each item whose image came after the training."""

    def __init__(
        self, take: WeightReader, vocabulary: Vocabulary, trained: Mapping[str, NDArray[Any]], dim: int, image_dim: int
    ) -> None:
        """Prepares the parameters.

        Args:
            take: reads the model's weights.
            vocabulary: gives the rows of items.
            trained: `rows` (k,) of items and `parts` (k, d), what their images add; empty where no item had one.
            dim: d.
            image_dim: m; 0 for a model that sees no images.

        Raises:
            UnusableModel: a weight is missing, or `trained` does not fit the vocabulary.
        """
        self.image_dim = image_dim
        self._matrix = take("tower.image.weight", (dim, image_dim)) if image_dim else None
        self._mean = take("tower.image_mean", (image_dim,)) if image_dim else None
        self._row_of = vocabulary.item_rows
        self._rows, self._parts = _checked(trained, len(vocabulary.items), dim)
        self._later: dict[str, Floats] = {}

    def added_to(self, ids: Floats) -> Floats:
        """The embeddings (i, d) of the ids with what the training's images add; the same array where there is none."""
        if not len(self._rows):
            return ids
        seen = ids.copy()
        seen[self._rows] += self._parts
        return seen

    def learn(self, item_ids: Sequence[str], vectors: Floats) -> None:
        """From now on these are the items' images; zeros for one that has none any more.

        Raises:
            UnusableModel: the model sees no images, or images of another width; nothing has changed.
        """
        if self._matrix is None or self._mean is None or vectors.shape != (len(item_ids), self.image_dim):
            raise UnusableModel(
                f"Expected image vectors of the shape {(len(item_ids), self.image_dim)}, got {vectors.shape}."
            )
        for item_id, vector in zip(item_ids, vectors, strict=True):
            part = self._matrix @ (vector - self._mean) if vector.any() else np.float32(0.0)
            self._later[item_id] = part - self._trained(item_id)

    def later(self, item_ids: Sequence[str]) -> Floats | None:
        """(n, d) what the images of after the training change; None where none of the items has such a one."""
        rows = [(row, self._later[item_id]) for row, item_id in enumerate(item_ids) if item_id in self._later]
        if not rows:
            return None
        found = np.zeros((len(item_ids), self._parts.shape[1]), np.float32)
        for row, part in rows:
            found[row] = part
        return found

    def _trained(self, item_id: str) -> Floats:
        row = self._row_of.get(item_id, -1)
        place = int(np.searchsorted(self._rows, row))
        if place < len(self._rows) and self._rows[place] == row:
            part: Floats = self._parts[place]
            return part
        return np.zeros(self._parts.shape[1], np.float32)


def _checked(trained: Mapping[str, NDArray[Any]], items: int, dim: int) -> tuple[NDArray[np.int64], Floats]:
    """Rows, ascending, and parts."""
    if not trained:
        return np.zeros(0, np.int64), np.zeros((0, dim), np.float32)
    rows, parts = trained.get("rows"), trained.get("parts")
    fits = rows is not None and parts is not None and parts.shape == (len(rows), dim)
    if rows is None or parts is None or not fits or not np.isfinite(parts).all():
        raise UnusableModel(f"The images of the model do not fit its {items} items; train again.")
    if len(rows) and not 0 <= rows.min() <= rows.max() < items:
        raise UnusableModel(f"The images of the model are of other items than its {items}; train again.")
    order = np.argsort(rows)
    return rows[order].astype(np.int64), parts[order].astype(np.float32)
