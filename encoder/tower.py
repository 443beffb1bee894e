"""Serving of the item tower: an item's vector from its id, its words and its attributes, without torch.

Sizes: n items asked for, i items of the vocabulary, a attribute tokens, c content dimensions, d dimensions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.image_parts import ImageParts
from encoder.items import HashedItemEncoder, check_paired
from encoder.text_encoders import TextEncoder
from encoder.vocabulary import Vocabulary, mean_of_rows
from encoder.weights import WeightReader, Weights

Floats = NDArray[np.float32]

NORM_MIN = 1e-6
HASH_BYTES = 8
UNKNOWN, BLANK = -1, -2


class ContentVectors:
    """Frozen text vectors: those that came with the model by hash of the words, all others from the text encoder."""

    def __init__(self, known: Mapping[str, NDArray[Any]], open_encoder: Callable[[], TextEncoder], dim: int) -> None:
        """Takes the vectors that came with the model; the text encoder is opened at the first text they lack."""
        self.dim = dim
        self._vectors: NDArray[np.float16] = known.get("vectors", np.zeros((0, dim), np.float16))
        hashes: Sequence[int] = known.get("hashes", np.zeros(0, np.uint64)).tolist()
        self._row_of = dict(zip(hashes, range(len(hashes)), strict=True))
        self._open_encoder = open_encoder
        self._encoder: TextEncoder | None = None

    def encode(self, texts: Sequence[str]) -> Floats:
        """(n, c) zeros for an empty or blank text."""
        found = (self._row_of.get(hash_text(text), UNKNOWN) if text.strip() else BLANK for text in texts)
        rows = np.fromiter(found, np.int64, len(texts))
        vectors = np.zeros((len(texts), self.dim), np.float32)
        vectors[rows >= 0] = self._vectors[rows[rows >= 0]]
        unknown = np.flatnonzero(rows == UNKNOWN).tolist()
        if unknown:
            self._encoder = self._encoder or self._open_encoder()
            # through float16 like the stored ones: a restart must not move an item
            vectors[unknown] = self._encoder.encode([texts[place] for place in unknown]).astype(np.float16)
        return vectors


class TowerItemEncoder:
    """The trained tower. An item that it was not trained on has its words and attributes, or a direction of its own.

    What an image adds to its item's vector is constant, as what its id adds is: images of the training are added to the
    ids once, and what `learn_images` was told counts from then on. An item without one is what the rest of it says.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        weights: Weights,
        content: ContentVectors | None,
        dim: int,
        images: Mapping[str, NDArray[Any]] = MappingProxyType({}),
        *,
        image_dim: int = 0,
        image_encoder: str = "",
    ) -> None:
        """Prepares the parameters.

        Args:
            vocabulary: gives the rows of ids and attributes.
            weights: of the torch model, by their names there.
            content: text vectors; None for a model without.
            dim: d.
            images: `rows` (k,) of items and `parts` (k, d), what their images add; empty for a model without.
            image_dim: width of the image vectors; 0 for a model without, or one that learns no more images.
            image_encoder: name and version of what made those vectors; "" for a model without.

        Raises:
            UnusableModel: a weight is missing, of another shape or not finite.
        """
        self._vocabulary, self._content, self._dim = vocabulary, content, dim
        take = WeightReader(weights)
        self._images = ImageParts(take, vocabulary, images, dim, image_dim)
        self._ids = self._images.added_to(take("tower.ids.weight", (len(vocabulary.items), dim)))
        self.image_encoder = image_encoder
        """Name and version of what makes the vectors that `learn_images` takes; "" for a model that sees no images."""
        self._projection: Floats | None = None
        self._mean: Floats | None = None
        if content is not None:
            self._projection = take("tower.content.weight", (dim, content.dim))
            self._mean = take("tower.content_mean", (content.dim,))
        self._attributes: Floats | None = None
        if vocabulary.item_attributes:
            shape = (len(vocabulary.item_attributes) + 1, dim)
            self._attributes = take("tower.attributes.weight", shape)
        self._hashed = HashedItemEncoder(dim)

    @property
    def dim(self) -> int:
        """Length d of a vector."""
        return self._dim

    def learn_images(self, item_ids: Sequence[str], vectors: Floats) -> None:
        """From now on these (n, m) are the vectors of the items' images; zeros for one that has none any more.

        Raises:
            UnusableModel: the model sees no images, or images of another width; nothing has changed.
        """
        self._images.learn(item_ids, vectors)

    def encode(
        self, item_ids: Sequence[str], descriptions: Sequence[str], attributes: Sequence[Sequence[str]]
    ) -> Floats:
        """Unit vectors (n, d), each a function of its own id, image, words and attributes alone.

        Raises:
            ValueError: there is not one description and one list of attributes per id.
        """
        check_paired(item_ids, descriptions, attributes)
        rows = np.fromiter((self._vocabulary.item_rows.get(item, -1) for item in item_ids), np.int64, len(item_ids))
        totals = self._ids[np.maximum(rows, 0)] * (rows >= 0)[:, None]  # (n, d)
        if (later := self._images.later(item_ids)) is not None:
            totals += later
        if self._content is not None and self._projection is not None and self._mean is not None:
            totals += _row_products(self._content.encode(descriptions), self._mean, self._projection)
        if self._attributes is not None:
            totals += mean_of_rows(self._attributes, self._vocabulary.item_attribute_rows(attributes))
        norms = np.linalg.norm(totals, axis=1, keepdims=True)
        unit: Floats = np.divide(totals, norms, out=np.zeros_like(totals), where=norms >= NORM_MIN)
        nameless = np.flatnonzero(norms[:, 0] < NORM_MIN).tolist()
        if nameless:
            unit[nameless] = self._hashed.directions([item_ids[place] for place in nameless])
        return unit


def hash_text(text: str) -> int:
    """64 bits of the words, the same on every machine."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()
    return int.from_bytes(digest, "little")


def _row_products(content: Floats, mean: Floats, projection: Floats) -> Floats:
    """(n, d) of (n, c): each row by itself, so that its batch changes no bit; zeros for a blank one."""
    products = np.zeros((len(content), len(projection)), np.float32)
    for row in np.flatnonzero(content.any(axis=1)).tolist():
        products[row] = projection @ (content[row] - mean)
    return products
