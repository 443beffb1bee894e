"""Many opinions become one score, by weights that are learned from what users do next.

Each source s says how much an item is worth to a user, in its own unit. Made comparable within one user's candidates:
`a = worth / best worth` and `l = 1 + log(a) / LOG_RANGE`, both 0 where the source says nothing. An item's utility is
the sum of `w[s] * a + v[s] * l`; the chance that it is the next one is the softmax of the utilities over the
candidates. Each event of a user is a lesson: one step of gradient descent on the log-loss of the item that it named.
The weights are a shared part and one part for each segment of users (length of the history, type of the last event).

Weights do not fall below 0: no source can speak against an item, so an item's score is exactly the sum of what its
sources say for it.

Shapes: u users, c candidates, S sources, F = 2 S features, n items in a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.recommend.kernel import kernel

LOG_RANGE = 6.0
"""Natural logarithms below the best at which a source's opinion counts as none: a factor of 400."""
HISTORY_BOUNDS = (3, 10, 50)
HISTORY_SEGMENTS = len(HISTORY_BOUNDS) + 1
TYPE_SEGMENTS = 256
MISSED = np.inf
"""The rank of an item that was not among the candidates."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FusionConfig:
    """How weights are learned.

    Raises:
        ValueError: a number is out of its range.
    """

    learning_rate: float = 0.03
    """Step of the weights of `a`."""
    log_learning_rate: float = 0.1
    """Step of the weights of `l`."""
    start: float = 8.0
    """Sum of the weights before the first lesson, spread evenly over `a` of all sources."""
    step_max: float = 0.5
    """No lesson moves a weight further."""
    weight_max: float = 50.0

    def __post_init__(self) -> None:
        rates = (self.learning_rate, self.log_learning_rate)
        if not (all(0 <= rate < np.inf for rate in rates) and self.start > 0 and self.step_max > 0):
            raise ValueError(
                "learning rates must be at least 0, start and step_max above 0, got "
                f"{self.learning_rate}, {self.log_learning_rate}, {self.start} and {self.step_max}"
            )
        if not self.weight_max >= self.start:
            raise ValueError(f"weight_max must be at least start, got {self.weight_max} and {self.start}")


class FusionWeights(NamedTuple):
    """(S, 2) pairs of weights for `a` and `l`, and what segments add to them."""

    shared: Doubles
    """(S, 2)"""
    by_history: Doubles
    """(HISTORY_SEGMENTS, S, 2)"""
    by_type: Doubles
    """(TYPE_SEGMENTS, S, 2) by the code of the user's last event type."""

    @classmethod
    def start(cls, sources: int, total: float) -> FusionWeights:
        """All sources alike."""
        shared = np.zeros((sources, 2))
        shared[:, 0] = total / max(sources, 1)
        return cls(shared, np.zeros((HISTORY_SEGMENTS, sources, 2)), np.zeros((TYPE_SEGMENTS, sources, 2)))

    def copy(self) -> FusionWeights:
        """Arrays of its own."""
        return FusionWeights(*(each.copy() for each in self))

    def for_sources(self, known: Sequence[str], sources: Sequence[str]) -> FusionWeights:
        """These weights, which are of the sources `known`, by name: what they are for `sources`, in that order.

        A source that was not known begins with 0: no list changes until a lesson shows what it is good for, and its
        gradient is the same wherever it begins. One that is gone is dropped.

        Raises:
            ValueError: none of the sources was known, or the weights are of another number of sources than `known`.
        """
        if len(known) != len(self.shared):
            raise ValueError(f"expected weights of {len(known)} sources, got those of {len(self.shared)}")
        places = {name: place for place, name in enumerate(known)}
        taken = [(place, places[name]) for place, name in enumerate(sources) if name in places]
        if not taken:
            raise ValueError(f"expected weights of some of the sources {list(sources)}, got those of {list(known)}")
        mine, theirs = (list(column) for column in zip(*taken, strict=True))
        parts = []
        for part in self:
            found = np.zeros((*part.shape[:-2], len(sources), part.shape[-1]))
            found[..., mine, :] = part[..., theirs, :]
            parts.append(found)
        return FusionWeights(*parts)

    def moved(self, before: FusionWeights, after: FusionWeights) -> FusionWeights:
        """These weights, moved as far as from `before` to `after`."""
        return FusionWeights(*(mine + (new - old) for mine, old, new in zip(self, before, after, strict=True)))


class Segments(NamedTuple):
    """Where each user belongs."""

    history: NDArray[np.int32]
    """(u,) 0 .. HISTORY_SEGMENTS - 1"""
    last_type: NDArray[np.uint8]
    """(u,) code of the last event's type; 255 without one."""

    @classmethod
    def of(cls, history_events: NDArray[np.integer], last_type: NDArray[np.uint8]) -> Segments:
        """By the number of events that a user's profile has taken in."""
        return cls(np.searchsorted(HISTORY_BOUNDS, history_events, "right").astype(np.int32), last_type)


class Fused(NamedTuple):
    """The best n candidates of each user, best first, equals by slot; behind them those that have a reserved place."""

    places: Slots
    """(u, n) column of the candidate, -1 past the end."""
    scores: Floats
    """(u, n) in (0, 1]: utility / the largest that the user's weights allow."""
    shares: Floats
    """(u, n, S) parts of the score by source, >= 0, their sum is 1."""


class Reserved(NamedTuple):
    """How many candidates of some groups must be there, however little they are worth. G groups, at most 31."""

    groups: NDArray[np.int32]
    """(u, c) bit g is set: the candidate belongs to group g."""
    least: NDArray[np.int32]
    """(G,) of each group, as far as there are so many."""


def fuse(
    items: Slots,
    worth: Floats,
    weights: FusionWeights,
    segments: Segments,
    count: int,
    reserved: Reserved | None = None,
) -> Fused:
    """Mixes the opinions `worth` (u, c, S), >= 0, on the candidates `items` (u, c), -1 for none.

    The best `count` come first, then what is `reserved` beyond them. An item whose sources all have a weight of 0 gets
    a score just above 0 and all of its shares from the one that says most; one that no source knows, from the last.
    """
    users, sources = len(items), worth.shape[2]
    reserved = Reserved(np.zeros((users, 0), np.int32), np.zeros(0, np.int32)) if reserved is None else reserved
    width = count + int(reserved.least.sum())
    fused = Fused(
        places=np.full((users, width), -1, np.int32),
        scores=np.zeros((users, width), np.float32),
        shares=np.zeros((users, width, sources), np.float32),
    )
    _fuse(items, worth, weights, segments, count, reserved, fused)
    return fused


class Lessons(NamedTuple):
    """What the events of a batch taught. l lessons."""

    weights: FusionWeights
    """After the last one."""
    ranks: Doubles
    """(l,) place of the item that came, 0 the best, the middle among equals; MISSED when it was no candidate."""
    chances: Floats
    """(l,) what the item's chance to come was said to be; 0 when it was no candidate."""
    top_chances: Floats
    """(l,) what the chance of the best candidate was said to be."""


def learn(
    items: Slots,
    worth: Floats,
    targets: Slots,
    weights: FusionWeights,
    segments: Segments,
    config: FusionConfig,
    counts: Doubles | None = None,
) -> Lessons:
    """Judges each row's candidates by the item `targets` (l,) that came, then takes one step, row after row.

    A step is as long as the lesson `counts` (l,) for, and no longer than `step_max`; None: 1 each.
    """
    learned = weights.copy()
    ranks = np.full(len(items), MISSED)
    chances = np.zeros(len(items), np.float32)
    top_chances = np.zeros(len(items), np.float32)
    _learn(
        items, worth, targets, learned, segments, np.array([config.learning_rate, config.log_learning_rate]),
        config.step_max, config.weight_max, np.ones(len(items)) if counts is None else counts,
        ranks, chances, top_chances,
    )  # fmt: skip
    return Lessons(learned, ranks, chances, top_chances)


def source_ranks(items: Slots, worth: Floats, targets: Slots) -> Doubles:
    """(l, S) place of each row's target when one source alone decides; MISSED where it says nothing of the target."""
    ranks = np.full((len(items), worth.shape[2]), MISSED)
    _source_ranks(items, worth, targets, ranks)
    return ranks


@kernel
def _features(items: Slots, worth: Floats, features: Doubles) -> None:
    """Writes (c, S, 2) for one user."""
    for source in range(worth.shape[1]):
        best = 0.0
        for column in range(len(items)):
            if items[column] >= 0:
                best = max(best, float(worth[column, source]))
        for column in range(len(items)):
            features[column, source, 0] = 0.0
            features[column, source, 1] = 0.0
            if items[column] >= 0 and worth[column, source] > 0:
                share = worth[column, source] / best
                features[column, source, 0] = share
                features[column, source, 1] = max(0.0, 1.0 + np.log(share) / LOG_RANGE)


@kernel
def _weights_of(weights: FusionWeights, history: int, last_type: int, mixed: Doubles) -> None:
    for source in range(mixed.shape[0]):
        for feature in range(2):
            mixed[source, feature] = max(
                0.0,
                weights.shared[source, feature]
                + weights.by_history[history, source, feature]
                + weights.by_type[last_type, source, feature],
            )


@kernel
def _utilities(items: Slots, features: Doubles, mixed: Doubles, utilities: Doubles) -> None:
    for column in range(len(items)):
        total = 0.0
        if items[column] >= 0:
            for source in range(mixed.shape[0]):
                total += mixed[source, 0] * features[column, source, 0] + mixed[source, 1] * features[column, source, 1]
        else:
            total = -np.inf
        utilities[column] = total


@kernel
def _fuse(
    items: Slots,
    worth: Floats,
    weights: FusionWeights,
    segments: Segments,
    best: int,
    reserved: Reserved,
    fused: Fused,
) -> None:
    sources = worth.shape[2]
    features = np.zeros((items.shape[1], sources, 2))
    utilities = np.zeros(items.shape[1])
    mixed = np.zeros((sources, 2))
    for row in range(len(items)):
        _features(items[row], worth[row], features)
        _weights_of(weights, segments.history[row], segments.last_type[row], mixed)
        _utilities(items[row], features, mixed, utilities)
        highest = max(mixed.sum(), 1e-12)
        count = _select(items[row], utilities, fused.places[row, :best])
        if len(reserved.least):
            count = _reserve(items[row], utilities, reserved.groups[row], reserved.least, count, fused.places[row])
        for rank in range(count):
            column = fused.places[row, rank]
            total = utilities[column]
            if total > 0:
                fused.scores[row, rank] = max(total / highest, 1e-6)
                for source in range(sources):
                    fused.shares[row, rank, source] = (
                        mixed[source, 0] * features[column, source, 0] + mixed[source, 1] * features[column, source, 1]
                    ) / total
            else:
                fused.scores[row, rank] = 1e-6
                fused.shares[row, rank, _loudest(features[column])] = 1.0


@kernel
def _select(items: Slots, utilities: Doubles, places: Slots) -> int:
    """Writes the columns of the best, by insertion. Returns how many there are."""
    count = 0
    for column in range(len(items)):
        if items[column] < 0:
            continue
        score = utilities[column]
        rank = count
        while rank > 0 and (
            score > utilities[places[rank - 1]]
            or (score == utilities[places[rank - 1]] and items[column] < items[places[rank - 1]])
        ):
            rank -= 1
        if rank == len(places):
            continue
        for later in range(min(count, len(places) - 1), rank, -1):
            places[later] = places[later - 1]
        places[rank] = column
        count = min(count + 1, len(places))
    return count


@kernel
def _reserve(
    items: Slots, utilities: Doubles, groups: NDArray[np.int32], least: NDArray[np.int32], count: int, places: Slots
) -> int:
    """Adds the best candidates of groups that have too few, best first. Returns how many there are."""
    missing = least.copy()
    placed = np.zeros(len(items), np.bool_)
    for place in range(count):
        placed[places[place]] = True
        _cross_off(groups[places[place]], missing)
    while count < len(places):
        best = -1
        for column in range(len(items)):
            if items[column] < 0 or placed[column] or not _is_missing(groups[column], missing):
                continue
            if (
                best < 0
                or utilities[column] > utilities[best]
                or (utilities[column] == utilities[best] and items[column] < items[best])
            ):
                best = column
        if best < 0:
            break
        places[count] = best
        placed[best] = True
        _cross_off(groups[best], missing)
        count += 1
    return count


@kernel
def _cross_off(groups: int, missing: NDArray[np.int32]) -> None:
    for group in range(len(missing)):
        missing[group] -= (groups >> group) & 1


@kernel
def _is_missing(groups: int, missing: NDArray[np.int32]) -> bool:
    found = False
    for group in range(len(missing)):
        found |= missing[group] > 0 and bool((groups >> group) & 1)
    return found


@kernel
def _loudest(features: Doubles) -> int:
    """The source that says most of an item, the last when none says anything."""
    best = len(features) - 1
    for source in range(len(features)):
        if features[source, 0] > features[best, 0]:
            best = source
    return best


@kernel
def _learn(
    items: Slots, worth: Floats, targets: Slots, weights: FusionWeights, segments: Segments, rates: Doubles,
    step_max: float, weight_max: float, counts: Doubles, ranks: Doubles, chances: Floats, top_chances: Floats,
) -> None:  # fmt: skip
    sources = worth.shape[2]
    features = np.zeros((items.shape[1], sources, 2))
    utilities = np.zeros(items.shape[1])
    mixed = np.zeros((sources, 2))
    gradient = np.zeros((sources, 2))
    for row in range(len(items)):
        history, last_type = segments.history[row], segments.last_type[row]
        _features(items[row], worth[row], features)
        _weights_of(weights, history, last_type, mixed)
        _utilities(items[row], features, mixed, utilities)
        if utilities.max() == -np.inf:  # nobody proposed anything
            continue
        odds = np.exp(utilities - utilities.max())
        odds /= odds.sum()
        top_chances[row] = odds.max()
        target = _place_of(items[row], targets[row])
        if target < 0:
            continue
        ranks[row] = _rank_of(utilities, target)
        chances[row] = odds[target]
        odds[target] -= 1.0
        for source in range(sources):
            gradient[source, 0] = counts[row] * np.dot(odds, features[:, source, 0].copy())
            gradient[source, 1] = counts[row] * np.dot(odds, features[:, source, 1].copy())
        for part in (weights.shared, weights.by_history[history], weights.by_type[last_type]):
            _step(part, gradient, rates, step_max, weight_max)
        # A debt would have to be paid off before the source is heard again.
        weights.shared[:] = np.maximum(weights.shared, 0.0)


@kernel
def _step(part: Doubles, gradient: Doubles, rates: Doubles, step_max: float, weight_max: float) -> None:
    for source in range(part.shape[0]):
        for feature in range(2):
            step = min(max(-rates[feature] * gradient[source, feature], -step_max), step_max)
            part[source, feature] = min(max(part[source, feature] + step, -weight_max), weight_max)


@kernel
def _place_of(items: Slots, target: int) -> int:
    for column in range(len(items)):
        if items[column] == target:
            return column
    return -1


@kernel
def _rank_of(utilities: Doubles, target: int) -> float:
    above, equal = 0, 0
    for column in range(len(utilities)):
        if utilities[column] > utilities[target]:
            above += 1
        elif utilities[column] == utilities[target]:
            equal += 1
    return above + (equal - 1) / 2


@kernel
def _source_ranks(items: Slots, worth: Floats, targets: Slots, ranks: Doubles) -> None:
    opinions = np.zeros(items.shape[1])
    for row in range(len(items)):
        target = _place_of(items[row], targets[row])
        if target < 0:
            continue
        for source in range(worth.shape[2]):
            if worth[row, target, source] > 0:
                for column in range(items.shape[1]):
                    opinions[column] = worth[row, column, source] if items[row, column] >= 0 else -1.0
                ranks[row, source] = _rank_of(opinions, target)
