"""What follows what, against dictionaries that say what is right."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from streams.recommend.candidates import Hidden
from streams.recommend.cooccurrence import SCALE_EXPONENT_MAX, CoOccurrence, CoOccurrenceConfig, Entered

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW_S, HALF_LIFE_S, RECENT = 1_700_000_000.0, 3600.0, 12
Step = tuple[int, int, float, float]
"""User, item, weight, seconds after NOW_S."""


@dataclass
class Plain:
    """All pairs that ever were, each with its worth and its time."""

    config: CoOccurrenceConfig

    def __post_init__(self) -> None:
        self.pairs: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
        self.latest_s = -np.inf

    def add(self, history: Sequence[int], weight: float, time_s: float) -> None:
        """The last of the history is new."""
        self.latest_s = max(self.latest_s, time_s)
        if weight <= 0:
            return
        *before, item = history
        for distance, earlier in enumerate(before[: -self.config.window - 1 : -1], 1):
            if earlier != item:
                self.pairs[earlier, item].append((weight / distance, time_s))
                self.pairs[item, earlier].append((self.config.backward * weight / distance, time_s))

    def worth(self, row: int, other: int) -> float:
        """Of a pair, now."""
        met = self.pairs.get((row, other), ())
        return sum(worth * 2 ** ((at_s - self.latest_s) / HALF_LIFE_S) for worth, at_s in met)

    def mass_out(self, item: int) -> float:
        return sum(self.worth(row, other) for row, other in self.pairs if row == item)

    def mass_in(self, item: int) -> float:
        return sum(self.worth(row, other) for row, other in self.pairs if other == item)

    def score(self, history: Sequence[int], item: int) -> float:
        """What the item is worth to this user."""
        smoothing = self.config.smoothing
        asked = enumerate(history[: -self.config.window - 1 : -1], 1)
        total = sum(
            self.worth(recent, item) / (distance * (self.mass_out(recent) + smoothing) ** 0.5)
            for distance, recent in asked
        )
        return total / (self.mass_in(item) + smoothing) ** 0.5


def entered(rows: Sequence[tuple[Sequence[int], Sequence[float], Sequence[float], int]]) -> Entered:
    """Histories with weights, times and how many are new."""
    shape = (len(rows), RECENT)
    found = Entered(
        np.full(shape, -1, np.int32),
        np.zeros(shape, np.float32),
        np.zeros(shape),
        np.array([len(row[0]) for row in rows], np.int32),
        np.array([row[3] for row in rows], np.int32),
    )
    for place, (items, weights, times_s, _) in enumerate(rows):
        found.items[place, : len(items)] = items
        found.weights[place, : len(items)] = weights
        found.times_s[place, : len(items)] = times_s
    return found


def folded(batches: Sequence[Sequence[Step]], config: CoOccurrenceConfig) -> tuple[CoOccurrence, Plain]:
    """Both, after the same events; a batch is one fold, with all of a user's new events in one row."""
    index, plain = CoOccurrence(config), Plain(config)
    histories: dict[int, list[tuple[int, float, float]]] = defaultdict(list)
    for batch in batches:
        fresh: dict[int, int] = defaultdict(int)
        for user, item, weight, after_s in batch:
            histories[user].append((item, weight, NOW_S + after_s))
            fresh[user] += 1
            plain.add([each[0] for each in histories[user][-RECENT:]], weight, NOW_S + after_s)
        rows = [(*zip(*histories[user][-RECENT:], strict=True), count) for user, count in fresh.items()]
        index.fold(entered(rows))  # type: ignore[arg-type]
    return index, plain


def asked(history: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The recent items of one user, left-aligned, and their number."""
    recent = np.full((1, RECENT), -1, np.int32)
    recent[0, : len(history)] = history
    return recent, np.array([len(history)], np.int32)


def scored(index: CoOccurrence, history: Sequence[int], items: int) -> tuple[list[float], list[int]]:
    """Worth of all items, and because of which."""
    worth, because = index.score(*asked(history), np.arange(items, dtype=np.int32)[None])
    return worth[0].tolist(), because[0].tolist()


def proposed(
    index: CoOccurrence,
    history: Sequence[int],
    items: int,
    n: int,
    hidden: Sequence[int] = (),
    gone: Sequence[int] = (),
) -> list[int]:
    """Without the padding."""
    available = np.ones(items, np.bool_)
    available[list(gone)] = False
    kept = Hidden(np.array([0, len(hidden)], np.int32), np.array(hidden, np.int32))
    found = index.propose(*asked(history), available, kept, n)
    assert found.shape == (1, n)
    return [item for item in found[0].tolist() if item >= 0]


ITEMS = 8
steps = st.tuples(
    st.integers(0, 2),
    st.integers(0, ITEMS - 1),
    st.sampled_from([1.0, 3.0, 0.5, 0.0, -1.0]),
    st.integers(-20_000, 20_000),
)
WINDOW_MAX = 5
batches = st.lists(st.lists(steps, min_size=1, max_size=RECENT - WINDOW_MAX), max_size=6)
"""A user's batch leaves room in the recent items for those that it is paired with."""
histories = st.lists(st.integers(0, ITEMS - 1), max_size=6)


@settings(deadline=None, derandomize=True)
@given(
    batches,
    histories,
    st.integers(1, WINDOW_MAX),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([1.0, 30.0, 150.0]),
    st.integers(1, ITEMS),
    st.sets(st.integers(0, ITEMS - 1)),
    st.sets(st.integers(0, ITEMS - 1)),
)
def test_worth_is_that_of_the_definition(
    given_batches: list[list[Step]],
    history: list[int],
    window: int,
    backward: float,
    stretch: float,
    n: int,
    hidden: set[int],
    gone: set[int],
) -> None:
    """Window, 1 / distance, backward share, decay and masses, with late events, over up to 1,600 half-lives."""
    config = CoOccurrenceConfig(neighbours=ITEMS, window=window, backward=backward, half_life_s=HALF_LIFE_S)
    given_batches = [[(u, i, w, after_s * stretch) for u, i, w, after_s in batch] for batch in given_batches]
    index, plain = folded(given_batches, config)
    expected = np.array([plain.score(history, item) for item in range(ITEMS)])
    worth, because = scored(index, history, ITEMS)
    assert_allclose(worth, expected, rtol=1e-4, atol=1e-6)
    asked_items = set(history[: -window - 1 : -1])
    assert all((reason >= 0) == (value > 0) for reason, value in zip(because, worth, strict=True))
    assert set(because) <= {-1, *asked_items}
    found = proposed(index, history, ITEMS, n, sorted(hidden), sorted(gone))
    allowed = [item for item in range(ITEMS) if item not in hidden | gone and worth[item] > 0]
    assert len(found) == len(set(found)) == min(n, len(allowed))
    assert set(found) <= set(allowed)
    best = sorted((worth[item] for item in allowed), reverse=True)[: len(found)]
    assert_allclose(sorted((worth[item] for item in found), reverse=True), best, rtol=1e-5)


@settings(deadline=None, derandomize=True)
@given(batches, histories)
def test_how_events_fall_into_batches_does_not_matter(given_batches: list[list[Step]], history: list[int]) -> None:
    """One fold an event, or whole histories at once: what is worth the most stays the same."""
    config = CoOccurrenceConfig(neighbours=ITEMS, half_life_s=HALF_LIFE_S)
    together, _ = folded(given_batches, config)
    alone, _ = folded([[step] for batch in given_batches for step in batch], config)
    assert_allclose(scored(together, history, ITEMS)[0], scored(alone, history, ITEMS)[0], rtol=1e-4, atol=1e-6)


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30), st.sampled_from([1.0, 2.0]), st.just(0.0)), max_size=60),
    st.integers(1, 6),
)
def test_a_full_row_keeps_the_heaviest_of_what_came(stream: list[Step], neighbours: int) -> None:
    """A new entry takes the place of the lightest that it outweighs or equals; the masses remember everything."""
    config = CoOccurrenceConfig(neighbours=neighbours, window=2, half_life_s=HALF_LIFE_S)
    index, plain = folded([[step] for step in stream], config)
    rows: dict[int, dict[int, float]] = defaultdict(dict)
    histories: dict[int, list[int]] = defaultdict(list)
    for user, item, weight, _ in stream:
        for distance, earlier in enumerate(histories[user][:-3:-1], 1):
            if earlier != item:
                keep(rows[earlier], item, weight / distance, neighbours)
                keep(rows[item], earlier, config.backward * weight / distance, neighbours)
        histories[user].append(item)
    for item in range(31):
        count = index.pairs.counts[item]
        held = dict(
            zip(index.pairs.others[item, :count].tolist(), index.pairs.weights[item, :count].tolist(), strict=True)
        )
        assert held == rows[item]
        assert_allclose(index.pairs.mass_out[item], plain.mass_out(item), rtol=1e-6)
        assert_allclose(index.pairs.mass_in[item], plain.mass_in(item), rtol=1e-6)


def keep(row: dict[int, float], other: int, worth: float, neighbours: int) -> None:
    """Adds to a bounded row; a dictionary keeps the places in the order in which they were filled."""
    if other in row:
        row[other] += worth
    elif len(row) < neighbours:
        row[other] = worth
    else:
        lightest = min(row, key=row.__getitem__)
        if worth >= row[lightest]:
            replaced = {other if item == lightest else item: weight for item, weight in row.items()}
            replaced[other] = worth
            row.clear()
            row.update(replaced)


def test_the_clock_moves_on_before_weights_outgrow_their_type() -> None:
    """Over 40 times the span of one scale nothing is infinite, and what is proposed is the newest first."""
    config = CoOccurrenceConfig(neighbours=64, half_life_s=HALF_LIFE_S, window=1, backward=0.0)
    step_s = HALF_LIFE_S * SCALE_EXPONENT_MAX / 4
    stream = [(user, item, 1.0, user * step_s) for user in range(160) for item in (0, 1 + user % 40)]
    index, plain = folded([[step] for step in stream], config)
    assert index.latest_s == NOW_S + 159 * step_s
    assert index.latest_s - index.origin_s <= SCALE_EXPONENT_MAX * HALF_LIFE_S
    for column in index.pairs:
        assert np.isfinite(column).all()
    newest_first = [1 + user % 40 for user in range(159, 119, -1)]
    worth = scored(index, [0], 41)[0]
    assert_allclose(worth, [plain.score([0], item) for item in range(41)], rtol=1e-4, atol=1e-30)
    assert sorted(proposed(index, [0], 41, 3)) == sorted(newest_first[:3])


def test_the_order_of_proposals_outlives_a_move_of_the_clock() -> None:
    """The same pairs, folded at once or with a stranger's event in between that moves the clock."""
    config = CoOccurrenceConfig(half_life_s=HALF_LIFE_S)
    pairs = [[(user, 0, 1.0, 0.0), (user, 1 + user % 5, 1.0 + user, 0.0)] for user in range(15)]
    still, _ = folded(pairs, config)
    moved, _ = folded([*pairs, [(99, 20, 1.0, 70 * HALF_LIFE_S)], [(98, 21, 1.0, 60 * HALF_LIFE_S)]], config)
    assert moved.origin_s == NOW_S + 70 * HALF_LIFE_S
    order = np.argsort(scored(still, [0], 6)[0])
    assert_array_equal(np.argsort(scored(moved, [0], 6)[0]), order)
    for n in range(1, 6):
        assert sorted(proposed(moved, [0], 22, n)) == sorted(proposed(still, [0], 22, n))


def test_what_has_faded_to_nothing_is_not_proposed() -> None:
    """After hundreds of half-lives a pair is worth 0 in every digit: it is no opinion, and comes once at most."""
    config = CoOccurrenceConfig(half_life_s=HALF_LIFE_S)
    old = [[(user, item, 1.0, 0.0) for item in (0, 1, 2)] for user in range(3)]
    index, _ = folded([*old, *([(99, 9, 1.0, days * 61 * HALF_LIFE_S)] for days in range(8))], config)
    assert scored(index, [0, 1], 10)[0] == [0.0] * 10
    assert proposed(index, [0, 1], 10, 5) == []


def test_rows_do_not_leak_into_each_other() -> None:
    """What is hidden from the first user, or proposed to him, leaves no trace in the second one's."""
    index, _ = folded([[(user, item, 1.0, 0.0) for item in (0, 1, 2)] for user in range(3)], CoOccurrenceConfig())
    recent = np.array([[0], [0]], np.int32)
    hidden = Hidden(np.array([0, 1, 1], np.int32), np.array([1], np.int32))
    found = index.propose(recent, np.array([1, 1], np.int32), np.ones(4, np.bool_), hidden, 3)
    assert sorted(found[0].tolist()) == [-1, -1, 2]
    assert sorted(found[1].tolist()) == [-1, 1, 2]
    worth, _ = index.score(recent, np.array([1, 0], np.int32), np.array([[1, 2], [1, 2]], np.int32))
    assert worth[0].all()
    assert not worth[1].any()


def test_items_far_apart_and_unseen_are_no_trouble() -> None:
    """A slot beyond all rows, as a recent item or as a candidate, is worth nothing and asks for nothing."""
    index, _ = folded([[(0, 0, 1.0, 0.0), (0, 1, 1.0, 0.0)]], CoOccurrenceConfig())
    worth, because = index.score(*asked([50_000]), np.array([[1, 90_000, -1]], np.int32))
    assert (worth.tolist(), because.tolist()) == ([[0.0] * 3], [[-1] * 3])
    assert proposed(index, [50_000], 60_000, 2) == []
    assert proposed(CoOccurrence(), [], 0, 2) == []


def test_saved_rows_go_on_as_if_nothing_had_happened() -> None:
    """Restored into an empty index, the same events give the same rows."""
    config = CoOccurrenceConfig(half_life_s=HALF_LIFE_S)
    index, _ = folded([[(user, item, 1.0, user * 1000.0) for item in (0, 1, 2)] for user in range(3)], config)
    again = CoOccurrence(config)
    again.restore(index.pairs, index.origin_s, index.latest_s)
    for each in (index, again):
        each.fold(entered([([2, 5], [1.0, 2.0], [NOW_S, NOW_S + 5000.0], 1)]))
    assert scored(again, [2, 1], 8) == scored(index, [2, 1], 8)
    assert (again.origin_s, again.latest_s) == (index.origin_s, index.latest_s)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"neighbours": 0}, "neighbours and window must be at least 1, got 0 and 5"),
        ({"window": 0}, "neighbours and window must be at least 1"),
        ({"half_life_s": 0.0}, "half_life_s and smoothing must be above 0"),
        ({"smoothing": float("nan")}, "half_life_s and smoothing must be above 0"),
        ({"backward": 1.5}, "backward from 0 to 1"),
    ],
)
def test_numbers_out_of_range_are_refused(changes: dict[str, float], complaint: str) -> None:
    """With what was expected and what came."""
    with pytest.raises(ValueError, match=complaint):
        CoOccurrenceConfig(**changes)
