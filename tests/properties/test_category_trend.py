"""What is popular in a category, against sums over all events."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from streams.recommend.candidates import Hidden
from streams.recommend.category_trend import KEPT, RECENT_ASKED, CategoryTrend, Mix, category_mix
from streams.recommend.trend import Trend

NOW_S, HALF_LIFE_S = 1_700_000_000.0, 3600.0


class Folded:
    """A trend and its categories after random events: so many items that the rows of some categories are full."""

    def __init__(self, seed: int, items: int, categories: int, events: int, batch: int) -> None:
        rng = np.random.default_rng(seed)
        self.items, self.trend, self.tops = items, Trend(HALF_LIFE_S), CategoryTrend()
        self.categories = np.full((items, 4), -1, np.int32)
        for item, count in enumerate(rng.integers(0, 3, items).tolist()):
            chosen = rng.permutation(categories)[:count]
            self.categories[item, : len(chosen)] = chosen
        hit = rng.integers(0, items, events).astype(np.int32)
        weights = rng.choice([1.0, 2.0, 0.5, 0.0, -1.0], events).astype(np.float32)
        times_s = NOW_S + rng.integers(-20, 20, events) * HALF_LIFE_S
        self.events = list(zip(hit.tolist(), weights.tolist(), times_s.tolist(), strict=True))
        for first in range(0, events, batch):
            part = slice(first, first + batch)
            self.fold(hit[part], weights[part], times_s[part])

    def fold(self, items: np.ndarray, weights: np.ndarray, times_s: np.ndarray) -> None:
        self.trend.fold(items, weights, times_s)
        self.tops.fold(items, self.trend.gains(weights, times_s), self.masses, self.categories)

    @property
    def masses(self) -> np.ndarray:
        return self.trend.masses(self.items)

    def members(self, code: int) -> np.ndarray:
        """Slots of all items of the category."""
        return np.flatnonzero((self.categories == code).any(axis=1))

    def popularity(self) -> dict[int, float]:
        """Of each item with positive events, right now, summed one by one."""
        found: dict[int, float] = defaultdict(float)
        for item, weight, at_s in self.events:
            if weight > 0:
                found[item] += weight * 2 ** ((at_s - NOW_S) / HALF_LIFE_S)
        return found


folds = st.builds(
    Folded,
    seed=st.integers(0, 2**32),
    items=st.sampled_from([1, 30, 300]),
    categories=st.sampled_from([1, 2, 20]),
    events=st.sampled_from([0, 20, 1500]),
    batch=st.sampled_from([1, 7, 1500]),
)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(folds)
def test_the_kept_items_are_the_best_of_their_category(folded: Folded) -> None:
    """Exactly, though each was looked at only when it had an event; and the total is that of all items, kept or not."""
    popularity = folded.popularity()
    for code in range(int(folded.categories.max(initial=-1)) + 1):
        members = [item for item in folded.members(code).tolist() if item in popularity]
        kept = folded.tops.tops.items[code, : folded.tops.tops.counts[code]].tolist()
        assert len(kept) == len(set(kept)) == min(KEPT, len(members))
        best = np.sort(folded.masses[members])[::-1][: len(kept)]
        assert np.sort(folded.masses[kept])[::-1].tolist() == best.tolist()
        total = 2 ** (folded.tops.tops.totals[code] - NOW_S / HALF_LIFE_S)
        assert_allclose(total, sum(popularity[item] for item in members), rtol=1e-5)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(folds, st.data())
def test_worth_is_the_share_of_the_category_times_the_share_in_it(folded: Folded, data: st.DataObject) -> None:
    """For every item, whether it is kept or not; what is proposed is the best of the kept, allowed ones."""
    slots = st.integers(0, folded.items - 1)
    history = data.draw(st.lists(slots, max_size=10))
    hidden = sorted(data.draw(st.sets(slots, max_size=5)))
    gone = sorted(data.draw(st.sets(slots, max_size=5)))
    n = data.draw(st.integers(1, 20))
    shares = shares_of(history, folded.categories)
    expected = expected_worth(folded, shares)
    mix = mix_of(history, folded.categories)
    assert_allclose(mix.shares.sum(), 1.0 if shares else 0.0, rtol=1e-6)
    worth, because = folded.tops.score(
        mix, folded.masses, folded.categories, np.arange(folded.items, dtype=np.int32)[None]
    )
    assert_allclose(worth[0], expected, rtol=1e-4, atol=1e-9)
    for item, code in enumerate(because[0].tolist()):
        assert (code >= 0) == (worth[0, item] > 0)
        assert code < 0 or (code in shares and code in folded.categories[item].tolist())
    proposed = propose(folded, mix, hidden, gone, n)
    kept = {item for code in shares for item in folded.tops.tops.items[code, : folded.tops.tops.counts[code]].tolist()}
    allowed = kept - {*hidden, *gone}
    assert len(proposed) == len(set(proposed)) == min(n, len(allowed))
    assert set(proposed) <= allowed
    if all(len(folded.members(code)) <= KEPT for code in shares):  # each of their items is kept
        best = sorted((worth[0, item] for item in allowed), reverse=True)[: len(proposed)]
        assert_allclose(sorted((worth[0, item] for item in proposed), reverse=True), best, rtol=1e-5)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(folds, st.integers(0, 2**32))
def test_what_is_recounted_is_what_would_have_been_counted(folded: Folded, seed: int) -> None:
    """Items move between categories after their events: the best and the totals are those of the members of now."""
    rng = np.random.default_rng(seed)
    before = folded.categories.copy()
    moves = rng.permutation(folded.items)[: rng.integers(1, 6)]
    folded.categories[moves] = -1
    folded.categories[moves, 0] = rng.integers(-1, 21, len(moves))
    asked = np.union1d(before[moves], folded.categories[moves])
    folded.tops.recount(asked, folded.masses, folded.categories)
    popularity = folded.popularity()
    for code in asked[asked >= 0].tolist():
        members = [item for item in folded.members(code).tolist() if item in popularity]
        kept = folded.tops.tops.items[code, : folded.tops.tops.counts[code]].tolist()
        assert len(kept) == len(set(kept)) == min(KEPT, len(members))
        assert set(kept) <= set(members)
        best = np.sort(folded.masses[members])[::-1][: len(kept)]
        assert np.sort(folded.masses[kept])[::-1].tolist() == best.tolist()
        total = 2 ** (folded.tops.tops.totals[code] - NOW_S / HALF_LIFE_S)
        assert_allclose(total, sum(popularity[item] for item in members), rtol=1e-5)


def mix_of(history: list[int], categories: np.ndarray) -> Mix:
    recent = np.full((1, 10), -1, np.int32)
    recent[0, : len(history)] = history
    return category_mix(recent, np.array([len(history)], np.int32), categories)


def shares_of(history: list[int], categories: np.ndarray) -> dict[int, float]:
    """Of the categories of the last items, the newest most; an item of two counts half for each."""
    shares: dict[int, float] = defaultdict(float)
    for distance, item in enumerate(history[: -RECENT_ASKED - 1 : -1], 1):
        codes = [code for code in categories[item].tolist() if code >= 0]
        for code in codes:
            shares[code] += 1 / distance / len(codes)
    return {code: share / sum(shares.values()) for code, share in shares.items()}


def expected_worth(folded: Folded, shares: dict[int, float]) -> list[float]:
    popularity = folded.popularity()
    totals = {code: sum(popularity.get(item, 0.0) for item in folded.members(code).tolist()) for code in shares}
    return [
        sum(
            shares[code] * popularity.get(item, 0.0) / totals[code]
            for code in folded.categories[item].tolist()
            if totals.get(code)
        )
        for item in range(folded.items)
    ]


def propose(folded: Folded, mix: Mix, hidden: list[int], gone: list[int], n: int) -> list[int]:
    available = np.ones(folded.items, np.bool_)
    available[gone] = False
    kept = Hidden(np.array([0, len(hidden)], np.int32), np.array(hidden, np.int32))
    found = folded.tops.propose(mix, folded.masses, available, kept, n)
    assert found.shape == (1, n)
    return [item for item in found[0].tolist() if item >= 0]


def test_an_item_without_category_is_nobodys_best() -> None:
    """It counts for no category, and a user of such items has no mix."""
    folded = Folded(1, items=4, categories=1, events=0, batch=1)
    folded.categories[:] = -1
    folded.fold(np.array([0, 1], np.int32), np.ones(2, np.float32), np.full(2, NOW_S))
    mix = mix_of([0, 1], folded.categories)
    assert not mix.shares.any()
    assert propose(folded, mix, [], [], 3) == []
    worth, because = folded.tops.score(mix, folded.masses, folded.categories, np.array([[0, 1, -1]], np.int32))
    assert not worth.any()
    assert (because == -1).all()


def test_users_do_not_leak_into_each_other() -> None:
    """What is hidden from the first user is proposed to the second one, with the worth of his own categories."""
    folded = Folded(1, items=4, categories=2, events=0, batch=1)
    folded.categories[:] = [[0, -1, -1, -1], [0, -1, -1, -1], [1, -1, -1, -1], [1, -1, -1, -1]]
    folded.fold(np.arange(4, dtype=np.int32), np.array([1, 3, 1, 1], np.float32), np.full(4, NOW_S))
    recent = np.array([[0], [0], [2]], np.int32)
    mix = category_mix(recent, np.ones(3, np.int32), folded.categories)
    hidden = Hidden(np.array([0, 1, 1, 1], np.int32), np.array([1], np.int32))
    found = folded.tops.propose(mix, folded.masses, np.ones(4, np.bool_), hidden, 3)
    assert [sorted(row) for row in found.tolist()] == [[-1, -1, 0], [-1, 0, 1], [-1, 2, 3]]
    worth, _ = folded.tops.score(mix, folded.masses, folded.categories, np.array([[1, 3]] * 3, np.int32))
    assert_allclose(worth, [[0.75, 0], [0.75, 0], [0, 0.5]], rtol=1e-6)


def test_what_has_faded_to_nothing_is_not_proposed() -> None:
    """Beside what is new an item of thousands of half-lives ago is worth 0 in every digit."""
    folded = Folded(1, items=3, categories=1, events=0, batch=1)
    folded.categories[:] = [[0, 1, -1, -1], [0, 1, -1, -1], [-1] * 4]
    times_s = np.array([NOW_S, NOW_S + 5000 * HALF_LIFE_S])
    folded.fold(np.array([0, 1], np.int32), np.ones(2, np.float32), times_s)
    assert math.isclose(float(folded.tops.tops.totals[0]), times_s[1] / HALF_LIFE_S)
    assert propose(folded, mix_of([0], folded.categories), [], [], 3) == [1]
