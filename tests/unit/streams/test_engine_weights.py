"""The engine's weights of the sources: frozen, reset, handed over and remembered."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from streams.core.events import Event
from streams.recommend.fusion import FusionWeights
from tests.fakes_core import World, event, world


def _visits(built: World, first: int = 0, count: int = 40) -> None:
    """Views of a few users, who like what others like: lists that can be judged."""
    for n in range(first, first + count):
        seen: Event = event(f"u{n % 5}", f"i{(n * 3 + n // 5) % 11}", at_s=60.0 * n)
        built.feed([seen], first_offset=n)


def _weights(built: World) -> FusionWeights:
    weights = built.engine.weights
    assert weights is not None
    return weights


def test_lessons_are_counted_and_move_the_weights() -> None:
    """What was learned is counted; what judged the lists is counted too, and is more."""
    built = world()
    start = _weights(built).copy()
    _visits(built)
    assert 0 < built.engine.lessons <= built.engine.quality.lessons
    assert built.engine.quality.ndcg is not None
    assert not np.array_equal(_weights(built).shared, start.shared)


def test_frozen_weights_stay_while_lists_are_judged() -> None:
    """Live quality stays visible; thawed, the weights move again."""
    built = world()
    _visits(built)
    before, lessons, judged = _weights(built).copy(), built.engine.lessons, built.engine.quality.lessons
    built.engine.frozen = True
    _visits(built, 40)
    for mine, others in zip(_weights(built), before, strict=True):
        assert_array_equal(mine, others)
    assert built.engine.lessons == lessons
    assert built.engine.quality.lessons > judged
    built.engine.frozen = False
    _visits(built, 80)
    assert built.engine.lessons > lessons
    assert not np.array_equal(_weights(built).shared, before.shared)


def test_a_reset_begins_with_equal_weights() -> None:
    """As a new engine has them, without lessons; when it was asked for is remembered, an older one changes nothing."""
    built = world()
    _visits(built)
    built.engine.reset_weights(1000)
    for mine, others in zip(_weights(built), _weights(world()), strict=True):
        assert_array_equal(mine, others)
    assert (built.engine.lessons, built.engine.weights_reset_ms) == (0, 1000)
    built.engine.reset_weights(500)
    assert built.engine.weights_reset_ms == 1000


def test_lessons_and_reset_are_saved_with_the_weights() -> None:
    """Restored, an engine knows how much it has learned and which reset it has obeyed."""
    built, other = world(), world()
    built.engine.reset_weights(1000)
    _visits(built)
    other.engine.restore(built.engine.currents())
    assert (other.engine.lessons, other.engine.weights_reset_ms) == (built.engine.lessons, 1000)
    assert_array_equal(_weights(other).shared, _weights(built).shared)


def test_weights_of_others_are_taken_over_as_a_copy() -> None:
    """Further lessons do not move what was handed in."""
    built = world()
    given = FusionWeights(*(part + 1.0 for part in _weights(built)))
    kept = given.copy()
    built.engine.take_weights(given, 70)
    assert built.engine.lessons == 70
    assert_array_equal(_weights(built).shared, kept.shared)
    _visits(built)
    assert built.engine.lessons > 70
    assert_array_equal(given.shared, kept.shared)


def test_weights_that_do_not_fit_are_refused() -> None:
    """Of other sources, or not finite: the error says so and nothing changes."""
    built = world()
    before = _weights(built)
    with pytest.raises(ValueError, match="expected weights of"):
        built.engine.take_weights(FusionWeights.start(2, 8.0), 5)
    broken = before.copy()
    broken.by_type[3, 0, 0] = np.nan
    with pytest.raises(ValueError, match="expected finite weights"):
        built.engine.take_weights(broken, 5)
    assert built.engine.weights is before
    assert built.engine.lessons == 0


def test_without_a_ranking_there_are_no_weights() -> None:
    """Nothing to show, to take over or to reset."""
    engine = world(ranking=False).engine
    engine.take_weights(FusionWeights.start(2, 8.0), 5)
    engine.reset_weights(7)
    assert engine.weights is None
    assert engine.lessons == 0
