"""load_encoder and EncoderConfig: the front door."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

import encoder
from encoder import EncoderConfig, UserEncoder, load_encoder
from encoder.baselines import DecayedMean
from streams.core.ports import EncoderEvents


def test_the_default_is_a_decayed_mean_of_text_vectors() -> None:
    """The default config loads `decayed-mean@1`, 64 wide, with items of the same width."""
    loaded = load_encoder(EncoderConfig())
    assert isinstance(loaded, UserEncoder)
    assert (loaded.profiles.name, loaded.profiles.dim, loaded.items.dim) == ("decayed-mean@1", 64, 64)


def test_the_half_life_is_in_days() -> None:
    """`half_life_days` reaches the profile encoder as that many days."""
    profiles = load_encoder(EncoderConfig(dim=2, half_life_days=2.0)).profiles
    states, same = np.ones((1, 2), np.float32), np.ones((1, 2), np.float32)
    quiet = encoder_events(gap_s=2 * 86_400.0)
    profiles.step(states, quiet)
    DecayedMean(2, 172_800.0).step(same, quiet)
    assert states.tolist() == same.tolist() == [[0.5, 0.5]]


def test_the_seed_reaches_the_items() -> None:
    """Another seed gives another direction to an item without words."""
    first, second = (load_encoder(EncoderConfig(dim=32, seed=seed)).items.encode(["a"], [""], [()]) for seed in (0, 1))
    assert first.tobytes() != second.tobytes()


def test_an_unknown_model_lists_those_that_exist() -> None:
    """The error names the wrong model and the right ones."""
    with pytest.raises(ValueError, match="no model 'gru'; choose one of: decayed-mean"):
        load_encoder(EncoderConfig(model="gru"))


@pytest.mark.parametrize(
    "knobs",
    [{"dim": 0}, {"dim": 257}, {"half_life_days": 0.0}, {"half_life_days": float("inf")}, {"seed": -1}],
)
def test_a_senseless_config_is_refused(knobs: dict[str, Any]) -> None:
    """A knob out of range is refused when the config is made, and named."""
    with pytest.raises(ValueError, match=next(iter(knobs))):
        EncoderConfig(**knobs)


def test_the_config_is_frozen_and_the_front_door_is_small() -> None:
    """A config never changes under its reader, and the package exports its front door only."""
    with pytest.raises(FrozenInstanceError):
        EncoderConfig().dim = 3  # type: ignore[misc]
    assert encoder.__all__ == ["EncoderConfig", "UserEncoder", "load_encoder"]


def encoder_events(gap_s: float) -> EncoderEvents:
    """One event of no weight, so that only time passes."""
    zero = np.zeros(1, np.float32)
    return EncoderEvents(
        np.zeros(1, np.int32), np.zeros((1, 2), np.float32), zero, zero + np.float32(gap_s), zero.astype(np.uint8), zero
    )
