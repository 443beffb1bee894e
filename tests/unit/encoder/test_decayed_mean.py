"""DecayedMean: the formula, its edges and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from encoder.baselines import DecayedMean
from encoder.kernels import compiled
from streams.core.ports import EncoderEvents

HALF_LIFE_S = 100.0


@pytest.fixture
def encoder() -> DecayedMean:
    return DecayedMean(2, HALF_LIFE_S)


def events(**columns: Any) -> EncoderEvents:
    """Two events of user 0 on the two axes; `columns` replace some of it."""
    base = {
        "rows": np.zeros(2, np.int32),
        "item_vectors": np.eye(2, dtype=np.float32),
        "weights": np.ones(2, np.float32),
        "gaps_s": np.zeros(2, np.float32),
        "types": np.zeros(2, np.uint8),
        "ratings": np.full(2, np.nan, np.float32),
    }
    return EncoderEvents(**(base | columns))


def test_an_event_counts_half_after_its_half_life(encoder: DecayedMean) -> None:
    """The state is the weighted sum of item vectors, each halved for every half-life that passed since."""
    states = np.zeros((1, 2), np.float32)
    encoder.step(
        states,
        events(weights=np.array([4.0, 3.0], np.float32), gaps_s=np.array([0.0, 2 * HALF_LIFE_S], np.float32)),
    )
    assert states.tolist() == [[1.0, 3.0]]


def test_many_events_agree_with_the_closed_form(encoder: DecayedMean) -> None:
    """A thousand steps in float32 stay within 1e-5 of the closed-form sum in float64."""
    rng = np.random.default_rng(7)
    angles = rng.uniform(0, 2 * np.pi, 1000)
    items = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    gaps = rng.exponential(HALF_LIFE_S / 50, 1000)
    states = np.zeros((1, 2), np.float32)
    encoder.step(
        states,
        EncoderEvents(
            np.zeros(1000, np.int32),
            items.astype(np.float32),
            np.ones(1000, np.float32),
            gaps.astype(np.float32),
            np.zeros(1000, np.uint8),
            np.full(1000, np.nan, np.float32),
        ),
    )
    ages = gaps[::-1].cumsum()[::-1] - gaps
    expected = (items * (0.5 ** (ages / HALF_LIFE_S))[:, None]).sum(axis=0)
    np.testing.assert_allclose(encoder.vectors(states)[0], expected / np.linalg.norm(expected), atol=1e-5, rtol=0)


def test_a_long_silence_forgets_everything_before(encoder: DecayedMean) -> None:
    """After thousands of half-lives only the new event remains, without a warning."""
    states = np.array([[5.0, 0.0]], np.float32)
    encoder.step(states, events(gaps_s=np.array([1e9, 0.0], np.float32)))
    assert states.tolist() == [[1.0, 1.0]]


def test_likes_that_cancel_leave_no_direction(encoder: DecayedMean) -> None:
    """A like and an equal dislike of one item leave exact zeros, not a direction made of rounding."""
    items = np.array([[0.6, 0.8], [0.6, 0.8]], np.float32)
    states = np.zeros((1, 2), np.float32)
    encoder.step(states, events(item_vectors=items, weights=np.array([3.0, -3.0], np.float32)))
    assert encoder.vectors(states).tolist() == [[0.0, 0.0]]
    assert encoder.vectors(np.array([[1e-8, 0.0]], np.float32)).tolist() == [[0.0, 0.0]]


def test_read_only_and_strided_inputs_are_taken(encoder: DecayedMean) -> None:
    """Columns that are read-only views or slices with strides give the same result."""
    plain, odd = np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32)
    encoder.step(plain, events())
    items = np.repeat(np.eye(2, dtype=np.float32), 2, axis=1)[:, ::2]
    items.flags.writeable = False
    encoder.step(odd, events(item_vectors=items))
    assert plain.tolist() == odd.tolist()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item_vectors": np.array([[1, 0], [np.nan, 0]], np.float32)}, "event 1 of 2 has an item vector"),
        ({"weights": np.array([np.inf, 1], np.float32)}, "event 0 of 2 has a weight"),
        ({"gaps_s": np.array([0, -1], np.float32)}, "event 1 of 2 has a gap"),
        ({"gaps_s": np.array([0, np.nan], np.float32)}, "event 1 of 2 has a gap"),
        ({"rows": np.array([0, 1], np.int32)}, "event 1 of 2 names a row outside 0..0"),
        ({"rows": np.array([-1, 0], np.int32)}, "event 0 of 2 names a row outside 0..0"),
        ({"rows": np.array([0, 2**32], np.int64)}, "event 1 of 2 names a row outside 0..0"),
        ({"weights": np.ones(3, np.float32)}, "one value per event"),
        ({"item_vectors": np.ones((2, 3), np.float32)}, r"item_vectors must have the shape \(2, 2\)"),
    ],
)
def test_bad_events_are_named_and_change_nothing(encoder: DecayedMean, columns: dict[str, Any], message: str) -> None:
    """One bad event refuses the whole call, names its position, and leaves every state as it was."""
    states = np.array([[0.25, 0.5]], np.float32)
    with pytest.raises(ValueError, match=message):
        encoder.step(states, events(**columns))
    assert states.tolist() == [[0.25, 0.5]]


@pytest.mark.parametrize(
    "states",
    [np.zeros((1, 3), np.float32), np.zeros(2, np.float32), np.zeros((1, 2)), np.zeros((2, 2), np.float32).T[:1]],
    ids=["too wide", "flat", "float64", "strided"],
)
def test_states_that_cannot_be_moved_in_place_are_refused(encoder: DecayedMean, states: Any) -> None:
    """States of the wrong shape, type or layout are refused rather than copied and lost."""
    if states.ndim == 2 and states.shape == (1, 2) and states.dtype == np.float32:
        states = np.zeros((1, 4), np.float32)[:, ::2]
    with pytest.raises(ValueError, match="states must"):
        encoder.step(states, events())


def test_a_state_that_is_not_finite_is_named(encoder: DecayedMean) -> None:
    """`vectors` names the row of a broken state instead of publishing NaN."""
    with pytest.raises(ValueError, match="state 1 of 2 is not finite"):
        encoder.vectors(np.array([[1, 0], [np.inf, 0]], np.float32))


@pytest.mark.parametrize(("dim", "half_life_s"), [(0, 1.0), (2, 0.0), (2, -1.0), (2, float("nan"))])
def test_senseless_parameters_are_refused(dim: int, half_life_s: float) -> None:
    """A width below 1 or a half-life that is no positive number is refused at once."""
    with pytest.raises(ValueError, match="must be"):
        DecayedMean(dim, half_life_s)


def test_kernels_compile_where_no_cache_can_be_written() -> None:
    """Code without a writable cache folder still compiles, in memory."""
    namespace: dict[str, Any] = {}
    exec("def double(x):\n    return x + x\n", namespace)  # code without a file has no place for a cache
    assert compiled(namespace["double"])(21) == 42
