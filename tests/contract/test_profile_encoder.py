"""What every ProfileEncoder promises the core, run on each implementation."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder import EncoderConfig, load_encoder
from encoder.baselines import DecayedMean
from encoder.inference import encoder_of
from encoder.items import HashedItemEncoder, TextItemEncoder
from streams.core.ports import EncoderEvents, Floats, ItemEncoder, ProfileEncoder
from tests.fakes_encoder import EVENT_TYPES, random_model

DIM = 8
USERS = 5
# the annotations are the point: mypy refuses an implementation that has drifted from its port
DECAYED_MEAN = DecayedMean(DIM, half_life_s=3600.0)
TRAINED = encoder_of(random_model(DIM, item_attributes=("brand:acme",)), EVENT_TYPES)
DEEPER = encoder_of(random_model(DIM, blocks=2, seed=1), EVENT_TYPES)
PROFILE_ENCODERS: list[ProfileEncoder] = [DECAYED_MEAN, TRAINED.profiles, DEEPER.profiles]


class LengthEncoder:
    """A text's vector is the axis of its length: enough to tell words from none."""

    dim = DIM

    def encode(self, texts: list[str]) -> Floats:
        vectors = np.zeros((len(texts), DIM), np.float32)
        for row, text in enumerate(texts):
            if text:
                vectors[row, len(text) % DIM] = 1.0
        return vectors


ITEM_ENCODERS: list[ItemEncoder] = [
    HashedItemEncoder(DIM, seed=1),
    TextItemEncoder(LengthEncoder(), seed=1),
    TRAINED.items,
]

profile_encoders = pytest.mark.parametrize("encoder", PROFILE_ENCODERS, ids=lambda encoder: encoder.name)
item_encoders = pytest.mark.parametrize("encoder", ITEM_ENCODERS, ids=lambda encoder: type(encoder).__name__)


def random_events(seed: int, count: int) -> EncoderEvents:
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((count, DIM)).astype(np.float32)
    return EncoderEvents(
        rows=rng.integers(0, USERS, count).astype(np.int32),
        item_vectors=directions / np.linalg.norm(directions, axis=1, keepdims=True),
        weights=rng.choice(np.array([-3.0, 0.0, 1.0, 6.0], np.float32), count),
        gaps_s=rng.choice(np.array([0.0, 1.0, 977.5, 1e6], np.float32), count),
        types=rng.integers(0, 3, count).astype(np.uint8),
        ratings=rng.choice(np.array([np.nan, 1.0, 5.0], np.float32), count),
    )


def one_event(row: int, item: Floats, weight: float = 1.0) -> EncoderEvents:
    number = np.zeros(1, np.float32)
    return EncoderEvents(
        np.array([row], np.int32), item, number + np.float32(weight), number, np.zeros(1, np.uint8), number * np.nan
    )


def part(events: EncoderEvents, start: int, stop: int) -> EncoderEvents:
    return EncoderEvents(*(column[start:stop] for column in events))


@profile_encoders
def test_zeros_are_a_user_without_history(encoder: ProfileEncoder) -> None:
    """A state of zeros, and only the users without events, has a vector of exact zeros."""
    states = np.zeros((2, encoder.state_width), np.float32)
    item = np.eye(1, DIM, dtype=np.float32)
    encoder.step(states, one_event(1, item))
    vectors = encoder.vectors(states)
    assert vectors.shape == (2, encoder.dim)
    assert vectors.dtype == np.float32
    assert not vectors[0].any()
    assert np.linalg.norm(vectors[1]) == pytest.approx(1.0, abs=1e-6)


@profile_encoders
@settings(deadline=None)  # the first example may compile
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 40), max_size=6))
def test_batches_do_not_matter(encoder: ProfileEncoder, seed: int, cuts: list[int]) -> None:
    """Any split of the same events into batches gives the same states, bit for bit."""
    events = random_events(seed, 40)
    whole = np.zeros((USERS, encoder.state_width), np.float32)
    split = whole.copy()
    encoder.step(whole, events)
    edges = sorted({0, *cuts, 40})
    for start, stop in pairwise(edges):
        encoder.step(split, part(events, start, stop))
    assert whole.tobytes() == split.tobytes()
    assert encoder.vectors(whole).tobytes() == encoder.vectors(split).tobytes()


@profile_encoders
@settings(deadline=None)  # the first example may compile
@given(seed=st.integers(0, 2**32 - 1))
def test_users_do_not_touch_each_other(encoder: ProfileEncoder, seed: int) -> None:
    """A user's state depends on the user's own events alone."""
    events = random_events(seed, 30)
    together = np.zeros((USERS, encoder.state_width), np.float32)
    encoder.step(together, events)
    for user in range(USERS):
        own = events.rows == user
        alone = np.zeros((1, encoder.state_width), np.float32)
        encoder.step(alone, EncoderEvents(*(column[own] for column in events))._replace(rows=events.rows[own] * 0))
        assert alone[0].tobytes() == together[user].tobytes()


def test_an_event_moves_a_mean_towards_its_item() -> None:
    """A positive event brings the profile nearer to the item, a negative one takes it away."""
    encoder = DECAYED_MEAN
    states = np.zeros((1, encoder.state_width), np.float32)
    encoder.step(states, part(random_events(3, 30), 0, 10)._replace(rows=np.zeros(10, np.int32)))
    item = np.eye(1, DIM, dtype=np.float32)
    before = float(encoder.vectors(states)[0] @ item[0])
    nearer, farther = states.copy(), states.copy()
    encoder.step(nearer, one_event(0, item, 2.0))
    encoder.step(farther, one_event(0, item, -2.0))
    assert encoder.vectors(farther)[0] @ item[0] < before < encoder.vectors(nearer)[0] @ item[0]


@item_encoders
def test_item_vectors_are_unit_and_steady(encoder: ItemEncoder) -> None:
    """Every item gets a unit vector of its own id and description alone, whatever the batch."""
    ids, descriptions = ["a", "b", "c", "d"], ["", "xx", "", "xxx"]
    attributes: list[list[str]] = [[], [], ["brand:acme"], ["brand:acme"]]
    vectors = encoder.encode(ids, descriptions, attributes)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    for row in range(4):
        alone = encoder.encode(ids[row : row + 1], descriptions[row : row + 1], attributes[row : row + 1])
        assert alone.tobytes() == vectors[row : row + 1].tobytes()
    assert encoder.encode([], [], []).shape == (0, DIM)


@item_encoders
def test_items_without_words_differ_by_their_id(encoder: ItemEncoder) -> None:
    """Two items with empty descriptions get different directions."""
    first, second = encoder.encode(["a", "b"], ["", ""], [(), ()])
    assert first.tobytes() != second.tobytes()


def test_the_loaded_encoders_fit_the_ports() -> None:
    """What `load_encoder` returns fits together: the item vectors are as long as the profile encoder expects."""
    loaded = load_encoder(EncoderConfig(dim=DIM))
    profiles: ProfileEncoder = loaded.profiles
    items: ItemEncoder = loaded.items
    states = np.zeros((1, profiles.state_width), np.float32)
    vectors = items.encode(["i1"], ["red running shoes"], [()])
    profiles.step(states, one_event(0, vectors))
    np.testing.assert_allclose(profiles.vectors(states), vectors, atol=1e-6)
