"""How likely each place of a list is to be looked at, from reactions to pairs of items that a coin has ordered."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from streams.recommend.exploration import drawn_pairs
from streams.recommend.fusion import FusionConfig, FusionWeights, Segments, fuse, learn
from streams.recommend.position_bias import PRIOR, PROPENSITY_MIN, PositionBias
from streams.recommend.shown_lists import PLACES, Names, ShownLists, upper_place

COUNTS = arrays(np.float64, (3, PLACES), elements=st.floats(0, 1e6))


def expected(propensities: np.ndarray, reactions: float) -> np.ndarray:
    """So many reactions to each pair as two equally good items get on average, and nothing else."""
    counts = np.zeros((3, PLACES))
    for lower in range(1, len(propensities)):
        upper = propensities[upper_place(lower)]
        counts[1, lower] = reactions * upper / (upper + propensities[lower])
        counts[2, lower] = reactions - counts[1, lower]
    return counts


def test_without_reactions_places_are_discounted_by_their_logarithm() -> None:
    """The curve of a discounted gain, and a steepness of 1."""
    assert PositionBias.start().steepness == 1.0
    assert_allclose(PositionBias.start().propensities, PRIOR)


@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
def test_many_reactions_tell_the_curve(power: float) -> None:
    """To within 3 %, down to the smallest propensity there is."""
    looked_at = np.maximum((1.0 + np.arange(PLACES)) ** -power, PROPENSITY_MIN)
    assert_allclose(PositionBias(expected(looked_at, 1e5)).propensities, looked_at, rtol=0.03)


def test_few_reactions_tell_how_steep_it_is() -> None:
    """Three to each pair are nothing for a ratio, yet together they tell a flat curve from a steep one."""
    flat = PositionBias(expected(np.ones(20), 3.0))
    steep = PositionBias(expected(PRIOR[:20] ** 3, 3.0))
    assert flat.steepness < 0.7
    assert steep.steepness > 1.6
    assert flat.propensities[10] > 2 * steep.propensities[10]


@given(counts=COUNTS)
def test_propensities_are_chances_that_never_rise(counts: np.ndarray) -> None:
    """Whatever was counted: 1 for the first place, at least the smallest for the last."""
    found = PositionBias(counts).propensities
    assert found[0] == 1.0
    assert found.min() >= PROPENSITY_MIN
    assert (np.diff(found) <= 0).all()


@given(counts=COUNTS)
def test_lessons_of_all_reactions_weigh_one_on_average(counts: np.ndarray) -> None:
    """The further down the more, none more than twentyfold; what was not shown weighs 1."""
    bias = PositionBias(counts)
    weights = bias.lesson_weights(np.arange(PLACES))
    assert (np.diff(weights) >= 0).all()
    assert 0 < weights[0] <= weights[-1] <= 1 / PROPENSITY_MIN
    reactions = counts[0].sum()
    if reactions > 1e4:
        assert abs(weights @ counts[0] / reactions - 1) < 20 / PROPENSITY_MIN / 1e4
    assert bias.lesson_weights(np.array([-1, 0])).tolist() == [1.0, weights[0]]


def test_the_newest_reactions_count_most() -> None:
    """Reactions without a pair leave pairs as they are; what is counted stays bounded."""
    bias, one = PositionBias.start(), expected(PRIOR[:20], 10.0)
    one[0, :5] = 100.0
    for _ in range(2000):
        bias = bias.after(one)
    assert bias.reactions < 30_000
    assert bias.counts[1:].sum() < 7_500
    unpaired = np.zeros((3, PLACES))
    unpaired[0, 3] = 7.0
    assert_allclose(bias.after(unpaired).counts[1:], bias.counts[1:])
    assert bias.after(unpaired).reactions < bias.reactions + 7.0
    assert bias.after(np.zeros((3, PLACES))) is bias


@pytest.mark.parametrize("broken", [np.zeros((3, 4)), np.full((3, PLACES), -1.0), np.full((3, PLACES), np.nan)])
def test_counts_that_are_none_are_refused(broken: np.ndarray) -> None:
    """Of another shape, below 0, not finite."""
    with pytest.raises(ValueError, match=r"expected finite counts of reactions \(3, 50\)"):
        PositionBias.of(broken)


CANDIDATES = 20
PEOPLE = 256
LIKING = np.array([2.0, 2.0])
"""What both sources are worth in truth: the same."""


class Simulated(NamedTuple):
    """What was learned from people who look at the place k (from 0) of a list by a chance of 1 / (k + 1)."""

    weights: np.ndarray
    """(2,) of the sources, the mean of the last rounds."""
    bias: PositionBias


class Shop:
    """People whose lists are always in the first source's order; who takes an item likes it and looked so far."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.looks = 1.0 / (1.0 + np.arange(CANDIDATES))
        self.items = np.tile(np.arange(CANDIDATES, dtype=np.int32), (PEOPLE, 1))
        self.shown = ShownLists(CANDIDATES)
        self.users = np.arange(PEOPLE, dtype=np.int32)
        self.by_first = FusionWeights.start(2, 1.0)._replace(shared=np.array([[1.0, 0], [0, 0]]))

    def lists(self, round_: int, worth: np.ndarray, exploration: float) -> tuple[Names, np.ndarray]:
        """Published: half of the lists that try a pair have it exchanged."""
        order = fuse(self.items, worth, self.by_first, segments(PEOPLE), CANDIDATES).places
        pairs = drawn_pairs([str(user) for user in self.users], np.full(PEOPLE, round_), exploration, CANDIDATES)
        moved = np.flatnonzero(pairs.exchanged)
        below, above = pairs.lower[moved], np.array([upper_place(place) for place in pairs.lower[moved]], int)
        order[moved, above], order[moved, below] = order[moved, below], order[moved, above]
        names = Names(np.zeros(PEOPLE, np.int64), np.full(PEOPLE, round_), np.zeros(PEOPLE, np.int64))
        self.shown.published(self.users, names, order, pairs.lower)
        return names, order

    def taken(self, worth: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Who takes something, and from which place."""
        liking = np.exp(worth / worth.max(axis=1, keepdims=True) @ LIKING)
        chances = np.take_along_axis(liking / liking.sum(axis=1, keepdims=True), order, axis=1) * self.looks
        reached = self.rng.random((PEOPLE, 1)) < chances.cumsum(axis=1)
        who = np.flatnonzero(reached[:, -1])
        return who, reached[who].argmax(axis=1)


def segments(rows: int) -> Segments:
    """Everybody's are the same."""
    return Segments(np.zeros(rows, np.int32), np.zeros(rows, np.uint8))


def simulated(seed: int, *, corrected: bool, exploration: float, rounds: int = 300) -> Simulated:
    """Learns from what people take, round after round."""
    shop, bias = Shop(seed), PositionBias.start()
    weights = FusionWeights.start(2, 8.0)
    config, trace = FusionConfig(learning_rate=0.01, log_learning_rate=0.0), []
    for round_ in range(rounds):
        worth = shop.rng.random((PEOPLE, CANDIDATES, 2)).astype(np.float32)
        names, order = shop.lists(round_, worth, exploration)
        who, places = shop.taken(worth, order)
        mine, targets = Names(*(part[who] for part in names)), order[who, places]
        found = shop.shown.find(shop.users[who], mine, targets)
        assert found.places.tolist() == places.tolist()
        counts = bias.lesson_weights(found.places) if corrected else None
        bias = bias.after(shop.shown.react(shop.users[who], mine, targets, np.zeros(len(who), np.bool_)))
        weights = learn(shop.items[who], worth[who], targets, weights, segments(len(who)), config, counts).weights
        trace.append((weights.shared + weights.by_history[0] + weights.by_type[0])[:, 0])
    return Simulated(np.mean(trace[-50:], axis=0), bias)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_source_that_is_shown_first_is_not_believed_for_that(seed: int) -> None:
    """Of two equal sources the one that orders the lists seems three times as good; corrected, it is within 20 %."""
    fooled = simulated(seed, corrected=False, exploration=0.5).weights
    assert fooled[0] > 2.5 * fooled[1]
    fair = simulated(seed, corrected=True, exploration=0.5, rounds=800)
    assert_allclose(fair.weights, LIKING, rtol=0.2)
    assert_allclose(fair.bias.propensities[:8], 1.0 / (1.0 + np.arange(8)), rtol=0.35)


def test_little_exploration_takes_most_of_the_error_away() -> None:
    """With 2 % of the lists, after 15,000 reactions, three fifths of the error at least."""
    fooled = simulated(1, corrected=False, exploration=0.02).weights
    fair = simulated(1, corrected=True, exploration=0.02).weights
    assert abs(fair[0] - LIKING[0]) < abs(fooled[0] - LIKING[0]) / 2.5
