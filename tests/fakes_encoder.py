"""Models with random weights, and logs in which something is planted to be learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.checkpoint import SavedModel
from encoder.config import ModelConfig
from encoder.dataset import EventTable, EventTableBuilder
from encoder.first_weights import load_rows
from encoder.model import ModelSizes, SequenceModel
from encoder.vocabulary import Vocabulary

EVENT_TYPES = ("view", "click", "cart")


def random_weights(config: ModelConfig, vocabulary: Vocabulary, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Parameters of the shapes that `SequenceModel` has, normal with deviation .3."""
    d, h, rng = config.dim, config.width, np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "tower.ids.weight": (len(vocabulary.items), d),
        "tower.content_mean": (config.content_dim,),
        "types.weight": (len(vocabulary.types) + 1, d),
        "features.weight": (d, config.event_features),
        "hidden_item": (d,),
        "norm.weight": (d,),
        "norm.bias": (d,),
        "projection.weight": (d, d),
    }
    if config.content_dim:
        shapes["tower.content.weight"] = (d, config.content_dim)
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
    if config.image_dim:
        shapes |= {"tower.image.weight": (d, config.image_dim), "tower.image_mean": (config.image_dim,)}
    weights = {name: rng.normal(0.0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    for name in weights:
        if name.endswith("norm.weight"):
            weights[name] += 1.0  # as training leaves it: with small gains the state would hardly count
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


def planted_log(users: int = 300, items: int = 120, communities: int = 3, seed: int = 0) -> EventTable:
    """A log with something to learn: who is of a community walks in steps of 1 or 2 round the circle of its items.

    All items are equally popular in the long run, so that popularity knows next to nothing. Every third event is a
    `click`, the others are `view`s; ratings come on top as `rating` events whose value depends on the item.
    """
    rng = np.random.default_rng(seed)
    builder = EventTableBuilder()
    size = items // communities
    for user in range(users):
        place, first = int(rng.integers(size)), size * (user % communities)
        for step in range(int(rng.integers(6, 13))):
            place = (place + int(rng.integers(1, 3))) % size
            kind = "click" if step % 3 == 2 else "view"
            builder.add(f"u{user}", f"i{first + place}", kind, 1_700_000_000 + 60 * step)
    for item in range(items):
        builder.describe_item(f"i{item}", "", [f"community:{item // size}"])
    for user in range(users):
        builder.describe_user(f"u{user}", [f"community:{user % communities}"])
    return builder.build()


def rated_log(users: int = 200, items: int = 30, seed: int = 0) -> EventTable:
    """Ratings that follow the item: the first third are worth 1, the next 3, the last 5, give or take a half.

    Each user also buys for a price, a value that is no rating.
    """
    rng = np.random.default_rng(seed)
    builder = EventTableBuilder()
    for user in range(users):
        for step, item in enumerate(rng.permutation(items)[:8].tolist()):
            stars = 1 + 2 * (3 * item // items) + float(rng.choice([-0.5, 0.5]))
            builder.add(f"u{user}", f"i{item}", "rating", 1_700_000_000 + 60 * step, stars)
        builder.add(f"u{user}", "i0", "purchase", 1_700_000_030, 1000.0)
    return builder.build()


def torch_model(saved: SavedModel) -> SequenceModel:
    """The torch module of a saved model, in evaluation mode."""
    words = saved.vocabulary
    sizes = ModelSizes(len(words.items), len(words.item_attributes), len(words.user_attributes), len(words.types))
    model = SequenceModel(saved.model, sizes)
    load_rows(model, {name: torch.from_numpy(np.array(array)) for name, array in saved.weights.items()})
    return model.eval()
