"""From a config to encoders that are ready to serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from encoder.baselines import DecayedMean, ProfileEvents
from encoder.checkpoint import SavedModel, load_model
from encoder.config import EncoderConfig
from encoder.errors import UnusableModel
from encoder.items import TextItemEncoder
from encoder.recurrent import RecurrentEncoder
from encoder.text import StaticTextEncoder
from encoder.text_encoders import TextEncoder, open_text_encoder
from encoder.tower import ContentVectors, TowerItemEncoder

Floats = NDArray[np.float32]

SECONDS_PER_DAY = 86_400.0


class ProfileModel(Protocol):
    """Events -> states -> vectors. Pure: the same calls give the same states."""

    @property
    def name(self) -> str:
        """Name and version."""
        ...

    @property
    def dim(self) -> int:
        """Length d of a vector."""
        ...

    @property
    def state_width(self) -> int:
        """Length of a state; zeros are a user without history."""
        ...

    def step(self, states: Floats, events: ProfileEvents) -> None:
        """Moves `states` (u, state_width) in place, one event after the other."""
        ...

    def vectors(self, states: Floats) -> Floats:
        """(u, d) unit vectors, zeros without direction."""
        ...

    def initial_states(self, attributes: Sequence[Sequence[str]]) -> Floats:
        """(u, state_width) states of users without history of whom these attribute tokens are known."""
        ...


class ItemModel(Protocol):
    """Items -> vectors that profiles can be compared with."""

    @property
    def dim(self) -> int:
        """Length d of a vector."""
        ...

    def encode(
        self, item_ids: Sequence[str], descriptions: Sequence[str], attributes: Sequence[Sequence[str]]
    ) -> Floats:
        """Unit vectors (n, d)."""
        ...


@dataclass(frozen=True)
class UserEncoder:
    """A profile encoder and the item encoder whose vectors it reads: they belong together."""

    profiles: ProfileModel
    items: ItemModel


def load_encoder(config: EncoderConfig) -> UserEncoder:
    """Loads the model that `config` names. Its code is compiled on return: the first event waits for nothing.

    Reads only installed packages and the model's folder, never the network.

    Raises:
        ValueError: no model has this name and no folder either; the message lists those that exist.
        UnusableModel: the folder holds no model that can be served.
        ModuleNotFoundError: the model reads texts with a package that is missing; the message says which extra.
        FileNotFoundError: the package with the word vectors is missing.
    """
    if config.model in _LOADERS:
        return _LOADERS[config.model](config)
    if not Path(config.model).is_dir():
        raise ValueError(
            f"There is no model '{config.model}'; choose one of: {', '.join(sorted(_LOADERS))}, "
            "or give the folder that `nearstream train --out` wrote."
        )
    return encoder_of(load_model(Path(config.model)), config.event_types)


def encoder_of(saved: SavedModel, event_types: Sequence[str]) -> UserEncoder:
    """A trained model, ready to serve.

    Raises:
        UnusableModel: the model is of a kind that is not served, or its parts do not fit each other.
        ModuleNotFoundError: the model reads texts with a package that is missing; the message says which extra.
    """
    profiles = RecurrentEncoder(saved.model, saved.vocabulary, saved.weights, name=saved.name, event_types=event_types)
    content = None
    if saved.model.content_dim:
        content = ContentVectors(saved.content, lambda: _text_encoder(saved), saved.model.content_dim)
    items = TowerItemEncoder(
        saved.vocabulary,
        saved.weights,
        content,
        saved.model.dim,
        saved.images,
        image_dim=saved.model.image_dim,
        image_encoder=saved.image_encoder_version,
    )
    profiles.warm_up()
    return UserEncoder(profiles, items)


def _text_encoder(saved: SavedModel) -> TextEncoder:
    encoder = open_text_encoder(saved.text_encoder)
    if encoder.name != saved.text_encoder_version or encoder.dim != saved.model.content_dim:
        raise UnusableModel(
            f"The model was trained on the text vectors {saved.text_encoder_version} of {saved.model.content_dim} "
            f"dimensions, installed are {encoder.name} of {encoder.dim}: install that version, or train again."
        )
    return encoder


def _load_decayed_mean(config: EncoderConfig) -> UserEncoder:
    profiles = DecayedMean(config.dim, config.half_life_days * SECONDS_PER_DAY)
    profiles.warm_up()
    return UserEncoder(profiles, TextItemEncoder(StaticTextEncoder(config.dim), config.seed))


_LOADERS: dict[str, Callable[[EncoderConfig], UserEncoder]] = {"decayed-mean": _load_decayed_mean}
