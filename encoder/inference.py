"""From a config to encoders that are ready to serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from encoder.baselines import DecayedMean
from encoder.config import EncoderConfig
from encoder.items import TextItemEncoder
from encoder.text import StaticTextEncoder

SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class UserEncoder:
    """A profile encoder and the item encoder whose vectors it sums: they belong together."""

    profiles: DecayedMean
    items: TextItemEncoder


def load_encoder(config: EncoderConfig) -> UserEncoder:
    """Loads the model that `config` names. Its code is compiled on return: the first event waits for nothing.

    Reads only installed packages, never the network.

    Raises:
        ValueError: no model has this name; the message lists those that exist.
        FileNotFoundError: the package with the word vectors is missing.
    """
    if config.model not in _LOADERS:
        raise ValueError(f"There is no model '{config.model}'; choose one of: {', '.join(sorted(_LOADERS))}.")
    return _LOADERS[config.model](config)


def _load_decayed_mean(config: EncoderConfig) -> UserEncoder:
    profiles = DecayedMean(config.dim, config.half_life_days * SECONDS_PER_DAY)
    profiles.warm_up()
    return UserEncoder(profiles, TextItemEncoder(StaticTextEncoder(config.dim), config.seed))


_LOADERS: dict[str, Callable[[EncoderConfig], UserEncoder]] = {"decayed-mean": _load_decayed_mean}
