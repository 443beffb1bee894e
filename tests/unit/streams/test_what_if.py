"""Histories of one user with and without some events, and what each event adds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.baselines import DecayedMean
from encoder.errors import UnusableModel
from encoder.inference import encoder_of
from streams.config import DEFAULT_TYPE_WEIGHTS
from streams.core.events import EVENT_TYPES, EventType
from streams.core.histories import Histories, encoded_histories
from streams.core.ports import ProfileEncoder
from streams.recommend.what_if import event_effects, vectors_without, without
from tests.fakes_core import FakeProfiles
from tests.fakes_encoder import random_model

DIM, ITEMS, PLACES = 8, 12, 10
WEIGHTS = np.array([DEFAULT_TYPE_WEIGHTS[kind] for kind in EVENT_TYPES], np.float32)
RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((ITEMS, DIM)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
ENCODERS: dict[str, ProfileEncoder] = {
    "decayed mean": DecayedMean(DIM, 86_400.0),
    "recurrence": encoder_of(random_model(DIM, types=("view", "purchase")), tuple(EVENT_TYPES)).profiles,
}


def some_history(seed: int, count: int, places: int = PLACES) -> Histories:
    """One user's remembered events, some of them late, and rubbish behind them."""
    rng = np.random.default_rng(seed)
    items = rng.integers(0, ITEMS, (1, places)).astype(np.int32)
    types = rng.choice([kind.code for kind in (EventType.VIEW, EventType.PURCHASE)], (1, places)).astype(np.uint8)
    times_s = (1_700_000_000 + rng.integers(0, 500_000, (1, places))).astype(np.uint32)
    return Histories(items, types, times_s, np.array([count], np.int32))


def shortened(history: Histories, keep: list[int]) -> Histories:
    """The events at these places alone, in columns that are just as wide as they need be."""
    columns = (column[:, keep] for column in (history.items, history.types, history.times_s))
    return Histories(*columns, np.array([len(keep)], np.int32))


@pytest.mark.parametrize("kind", ENCODERS)
@settings(deadline=None, max_examples=20)  # the first example may compile
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, PLACES))
def test_the_parts_sum_to_the_cosine_of_the_remembered_events(kind: str, seed: int, count: int) -> None:
    """Late events or not, the parts of the remembered events sum to the cosine that a re-encoded profile has."""
    encoder, history = ENCODERS[kind], some_history(seed, count)
    effects = event_effects(history, encoder, VECTORS, WEIGHTS, VECTORS)
    expected = VECTORS @ encoder.vectors(encoded_histories(history, encoder, VECTORS, WEIGHTS))[0]
    assert effects.events.shape == (ITEMS, count)
    np.testing.assert_allclose(effects.cosines, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ENCODERS)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, PLACES), gone=st.sets(st.integers(0, PLACES - 1)))
@settings(deadline=None, max_examples=20)
def test_without_some_events_is_as_if_they_had_never_been(kind: str, seed: int, count: int, gone: set[int]) -> None:
    """The vector of a variant is, bit for bit, that of a user with the other events only."""
    encoder, history = ENCODERS[kind], some_history(seed, count)
    removed = np.zeros((2, PLACES), np.bool_)
    removed[1, list(gone)] = True
    whole, left = vectors_without(history, removed, encoder, VECTORS, WEIGHTS)
    for found, keep in ((whole, list(range(count))), (left, [place for place in range(count) if place not in gone])):
        expected = encoder.vectors(encoded_histories(shortened(history, keep), encoder, VECTORS, WEIGHTS))[0]
        assert found.tobytes() == expected.tobytes()


def test_what_is_left_keeps_its_order() -> None:
    """Variants are left-aligned and their counts say how many events are left."""
    history = some_history(1, 4, places=5)
    removed = np.array([[True, False, True, False, False], [True, True, True, True, True]])
    variants = without(history, removed)
    assert variants.counts.tolist() == [2, 0]
    assert variants.items[0, :2].tolist() == history.items[0, [1, 3]].tolist()
    assert variants.times_s[0, :2].tolist() == history.times_s[0, [1, 3]].tolist()


def test_nothing_left_has_no_direction() -> None:
    """Without all of its events a profile is a vector of zeros."""
    history = some_history(2, 3)
    assert not vectors_without(history, np.ones((1, PLACES), np.bool_), ENCODERS["recurrence"], VECTORS, WEIGHTS).any()


def test_two_users_at_once_are_refused() -> None:
    """Parts and variants are one user's; histories of two, or marks of another width, are refused with the reason."""
    one = some_history(0, 3)
    two = Histories(*(np.concatenate([column, column]) for column in one))
    with pytest.raises(ValueError, match="expected the history of one user, got 2"):
        event_effects(two, ENCODERS["decayed mean"], VECTORS, WEIGHTS, VECTORS)
    with pytest.raises(ValueError, match=r"expected one history and marks of the shape \(variants, 10\), got 2"):
        without(two, np.zeros((1, PLACES), np.bool_))
    with pytest.raises(ValueError, match=r"got 1 and \(1, 3\)"):
        without(one, np.zeros((1, 3), np.bool_))


def test_a_model_that_nobody_split_is_refused() -> None:
    """An encoder of another kind has variants, and for parts a message that says so."""
    with pytest.raises(UnusableModel, match="cosines of a FakeProfiles cannot be split by event"):
        event_effects(some_history(0, 3), FakeProfiles(), VECTORS[:, :4], WEIGHTS, VECTORS[:, :4])
