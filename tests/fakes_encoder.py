"""A trained-looking model with random weights, made without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.checkpoint import SavedModel
from encoder.config import ModelConfig
from encoder.vocabulary import Vocabulary

EVENT_TYPES = ("view", "click", "cart")


def random_weights(config: ModelConfig, vocabulary: Vocabulary, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Parameters of the shapes that `SequenceModel` has, normal with deviation .3."""
    d, h, rng = config.dim, config.width, np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "tower.ids.weight": (len(vocabulary.items), d),
        "types.weight": (len(vocabulary.types) + 1, d),
        "features.weight": (d, config.event_features),
        "hidden_item": (d,),
        "norm.weight": (d,),
        "norm.bias": (d,),
        "projection.weight": (d, d),
    }
    if config.content_dim:
        shapes |= {"tower.content.weight": (d, config.content_dim), "tower.content_mean": (config.content_dim,)}
    if vocabulary.item_attributes:
        shapes["tower.attributes.weight"] = (len(vocabulary.item_attributes) + 1, d)
    if vocabulary.user_attributes:
        shapes["people.weight"] = (len(vocabulary.user_attributes) + 1, h)
    for block in range(config.blocks):
        layers: dict[str, tuple[int, ...]] = {"mix.out": (d, h), "feed_in": (4 * d, d), "feed_out": (d, 4 * d)}
        layers |= {f"mix.{gate}": (h, d) for gate in ("value", "decay", "gate")}
        for layer, shape in layers.items():
            shapes |= {f"blocks.{block}.{layer}.weight": shape, f"blocks.{block}.{layer}.bias": shape[:1]}
        for norm in ("mix_norm", "feed_norm"):
            shapes |= {f"blocks.{block}.{norm}.weight": (d,), f"blocks.{block}.{norm}.bias": (d,)}
    weights = {name: rng.normal(0.0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    for table in ("types.weight", "people.weight", "tower.attributes.weight"):
        if table in weights:
            weights[table][0] = 0.0
    return weights


def random_model(
    dim: int = 8,
    *,
    items: Sequence[str] = ("i1", "i2"),
    item_attributes: Sequence[str] = (),
    user_attributes: Sequence[str] = ("gender:f",),
    types: Sequence[str] = EVENT_TYPES[:2],
    seed: int = 0,
    **config: Any,
) -> SavedModel:
    """A model that nobody trained."""
    model = ModelConfig(dim=dim, width=2 * dim, **config)
    vocabulary = Vocabulary(list(items), list(item_attributes), list(user_attributes), list(types))
    return SavedModel(model, vocabulary, random_weights(model, vocabulary, seed), fingerprint=f"random{seed}")
