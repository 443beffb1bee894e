"""Serving without torch, judged by the torch model over whole histories."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoder import recurrent
from encoder.checkpoint import SavedModel
from encoder.errors import UnusableModel
from encoder.features import event_features
from encoder.model import EventInputs
from encoder.recurrent import RecurrentEncoder
from tests.fakes_encoder import EVENT_TYPES, random_model, torch_model

Floats = NDArray[np.float32]

DIM, USERS, LENGTH = 8, 4, 60
ATTRIBUTES: list[list[str]] = [[], ["gender:f"], ["age:30", "gender:f", "never:seen"], ["never:seen"]]
MODELS = [
    random_model(DIM, user_attributes=("gender:f", "age:30"), types=EVENT_TYPES[:2], blocks=blocks, seed=blocks)
    for blocks in (1, 2)
]


class Events(NamedTuple):
    rows: NDArray[np.int32]
    item_vectors: Floats
    weights: Floats
    gaps_s: Floats
    types: NDArray[np.uint8]
    ratings: Floats


def serving(saved: SavedModel, event_types: tuple[str, ...] = EVENT_TYPES) -> RecurrentEncoder:
    return RecurrentEncoder(saved.model, saved.vocabulary, saved.weights, name=saved.name, event_types=event_types)


def some_events(count: int, users: int, seed: int, dim: int = DIM) -> Events:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, dim)).astype(np.float32)
    return Events(
        rows=rng.integers(0, users, count).astype(np.int32),
        item_vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        weights=np.ones(count, np.float32),
        gaps_s=rng.choice(np.array([0.0, 3.0, 2000.0, 1e7], np.float32), count),
        types=rng.integers(0, len(EVENT_TYPES), count).astype(np.uint8),
        ratings=rng.choice(np.array([np.nan, 1.0, 4.5, 100.0], np.float32), count),
    )


def part(events: Events, rows: NDArray[Any] | slice) -> Events:
    return Events(*(column[rows] for column in events))


def re_encoded(saved: SavedModel, events: Events, user: int, attributes: list[str]) -> Floats:
    """(t, d) the torch model over the user's whole history at once."""
    own = part(events, events.rows == user)
    types = saved.vocabulary.type_rows(EVENT_TYPES)[own.types]
    inputs = EventInputs(
        items=torch.arange(len(own.rows))[None],
        types=torch.from_numpy(types)[None],
        features=torch.from_numpy(event_features(own.gaps_s, own.ratings))[None],
        attributes=torch.from_numpy(saved.vocabulary.user_attribute_rows([attributes])),
    )
    with torch.inference_mode():
        return np.asarray(torch_model(saved)(inputs, torch.from_numpy(own.item_vectors))[0].numpy())


@pytest.mark.parametrize("saved", MODELS, ids=["1 block", "2 blocks"])
@settings(deadline=None, max_examples=25)  # the first example may compile
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, LENGTH), max_size=8))
@example(seed=0, cuts=list(range(LENGTH)))
def test_a_streamed_vector_is_the_re_encoded_one(saved: SavedModel, seed: int, cuts: list[int]) -> None:
    """After any split into batches each user's vector is the torch model's over the whole history, to 1e-5."""
    encoder, events = serving(saved), some_events(LENGTH, USERS, seed)
    states = encoder.initial_states(ATTRIBUTES)
    for start, stop in pairwise(sorted({0, *cuts, LENGTH})):
        encoder.step(states, part(events, slice(start, stop)))
    found = encoder.vectors(states)
    for user in range(USERS):
        if (events.rows == user).any():
            expected = re_encoded(saved, events, user, ATTRIBUTES[user])[-1]
            np.testing.assert_allclose(found[user], expected, rtol=0, atol=1e-5)
        else:
            assert not found[user].any()


@pytest.mark.parametrize("saved", MODELS, ids=["1 block", "2 blocks"])
def test_a_long_history_does_not_drift(saved: SavedModel) -> None:
    """After each of 1,000 events, one a batch, the vector is the re-encoded one, to 1e-5."""
    encoder, events = serving(saved), some_events(1000, 1, seed=5)
    states, streamed = encoder.initial_states(ATTRIBUTES[1:2]), []
    for event in range(1000):
        encoder.step(states, part(events, slice(event, event + 1)))
        streamed.append(encoder.vectors(states)[0])
    expected = re_encoded(saved, events, 0, ATTRIBUTES[1])
    np.testing.assert_allclose(np.array(streamed), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cause", ["types", "gaps_s", "ratings", "item_vectors"])
def test_everything_of_an_event_counts(cause: str) -> None:
    """Another type, gap, rating or item of the last event but one gives another vector."""
    encoder, events = serving(MODELS[0]), some_events(6, 1, seed=2)
    events.types[:], events.ratings[:] = 0, np.nan
    other = Events(*(column.copy() for column in events))
    changed = {"types": 1, "gaps_s": 5e4, "ratings": 5.0, "item_vectors": other.item_vectors[0]}[cause]
    getattr(other, cause)[4] = changed
    first, second = (np.zeros((1, encoder.state_width), np.float32) for _ in range(2))
    encoder.step(first, events)
    encoder.step(second, other)
    assert np.abs(encoder.vectors(first) - encoder.vectors(second)).max() > 1e-4


def test_attributes_move_the_state_and_not_yet_the_vector() -> None:
    """A user of whom only attributes are known has a state of their own and no direction before the first event."""
    encoder = serving(MODELS[1])
    states = encoder.initial_states(ATTRIBUTES)
    assert states.shape == (4, encoder.state_width)
    assert [bool(state.any()) for state in states] == [False, True, True, False]
    assert not encoder.vectors(states).any()


def test_a_model_that_starts_gives_attributes_a_vector() -> None:
    """That of the torch model, to 1e-5, for whose tokens it knows; the first event begins where it always did."""
    saved = random_model(DIM, user_attributes=("gender:f", "age:30"), types=EVENT_TYPES[:2], blocks=2, starts=True)
    plain = replace(saved, model=replace(saved.model, starts=False))
    encoder = serving(saved)
    states, events = encoder.initial_states(ATTRIBUTES), some_events(12, USERS, seed=4)
    with torch.inference_mode():
        rows = torch.from_numpy(saved.vocabulary.user_attribute_rows(ATTRIBUTES))
        expected = torch_model(saved).starts(rows).numpy()
    found = encoder.vectors(states)
    assert [bool(vector.any()) for vector in found] == [False, True, True, False]
    np.testing.assert_allclose(found[1:3], expected[1:3], rtol=0, atol=1e-5)
    moved = serving(plain).initial_states(ATTRIBUTES)
    encoder.step(states, events)
    serving(plain).step(moved, events)
    np.testing.assert_array_equal(states, moved)


def test_an_unknown_type_that_does_not_attract_moves_nothing() -> None:
    """A dislike that training never saw is passed over, bit for bit; one that training saw is read."""
    encoder, events = serving(MODELS[0]), some_events(2, 1, seed=3)
    states = np.zeros((1, encoder.state_width), np.float32)
    encoder.step(states, events)
    kept = states.copy()
    unknown = part(events, slice(0, 1))._replace(weights=np.array([-1.0], np.float32), types=np.array([2], np.uint8))
    encoder.step(states, unknown)
    assert states.tobytes() == kept.tobytes()
    encoder.step(states, unknown._replace(types=np.array([1], np.uint8)))
    assert states.tobytes() != kept.tobytes()


def test_a_code_without_a_name_is_an_unknown_type() -> None:
    """Event types that the caller did not name, all of them for one, are read as unknown and never an error."""
    events = some_events(5, 1, seed=4)._replace(types=np.full(5, 2, np.uint8))
    nameless, named = serving(MODELS[0], ()), serving(MODELS[0])
    first, second = (np.zeros((1, named.state_width), np.float32) for _ in range(2))
    nameless.warm_up()
    nameless.step(first, events._replace(types=np.array([0, 1, 2, 200, 255], np.uint8)))
    named.step(second, events)  # the third name is none of the vocabulary
    assert first.tobytes() == second.tobytes()


def test_nothing_is_compiled_after_the_warm_up() -> None:
    """One user or many, read-only or strided item vectors: `warm_up` has compiled the only version of each kernel."""
    encoder = serving(MODELS[0])
    kernels: list[Any] = [recurrent._embed, recurrent._run_block, recurrent._project]
    encoder.warm_up()
    compiled = [len(kernel.signatures) for kernel in kernels]
    for users in (1, 3):
        events = some_events(5, users, seed=1)
        events.item_vectors.flags.writeable = False
        states = np.zeros((users, encoder.state_width), np.float32)
        encoder.step(states, events)
        encoder.step(states, events._replace(item_vectors=np.asfortranarray(events.item_vectors)))
        encoder.step(states, part(events, slice(0, 0)))
    assert [len(kernel.signatures) for kernel in kernels] == compiled


def test_a_refused_batch_moves_nothing() -> None:
    """A NaN in the last event is named, and no state has changed."""
    encoder, events = serving(MODELS[0]), some_events(3, 2, seed=1)
    events.item_vectors[2, 0] = np.nan
    states = np.zeros((2, encoder.state_width), np.float32)
    with pytest.raises(ValueError, match="event 2 of 3 has an item vector that is not finite"):
        encoder.step(states, events)
    assert not states.any()


def test_a_state_is_small() -> None:
    """At the default sizes the state of a user is at most 1 KB."""
    encoder = serving(random_model(64))
    assert encoder.state_width == 128 + 64
    assert encoder.state_width * 4 <= 1024


@pytest.mark.parametrize("kind", ["self-attention", "gru"])
def test_yardsticks_are_not_served(kind: str) -> None:
    """Only the gated recurrence has a state that one event can move."""
    with pytest.raises(UnusableModel, match=f"Only a gated-recurrence can be served, this model is a {kind}"):
        serving(random_model(DIM, kind=kind))


def test_other_event_features_are_not_served() -> None:
    """A model that reads more or fewer numbers beside an event than this program makes is refused."""
    with pytest.raises(UnusableModel, match="reads 3 event features, this program makes 4"):
        serving(random_model(DIM, event_features=3))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("blocks.0.mix.decay.bias", None, "blocks.0.mix.decay.bias do not fit: expected the shape .16,., got nothing"),
        ("types.weight", (slice(1, None),), "types.weight do not fit: expected the shape .3, 8., got the shape .2, 8."),
        ("projection.weight", np.nan, "projection.weight hold NaN or infinity"),
        ("people.weight", (slice(1, None),), "people.weight do not fit"),
    ],
)
def test_weights_that_do_not_fit_are_refused(name: str, change: Any, message: str) -> None:
    """A weight that is missing, of another shape than the vocabulary's, or not finite is named."""
    saved = MODELS[0]
    weights = dict(saved.weights)
    array = weights.pop(name)
    if change is not None:
        weights[name] = array[change] if isinstance(change, tuple) else array * change
    with pytest.raises(UnusableModel, match=message):
        RecurrentEncoder(saved.model, saved.vocabulary, weights, name="any", event_types=EVENT_TYPES)
