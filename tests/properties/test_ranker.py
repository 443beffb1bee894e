"""What holds for every list, whatever the world looks like; and plain-Python sources that say what is right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from streams.core.catalogue import Catalogue
from streams.core.events import Item
from streams.core.profile import ProfileColumns, ProfileLayout, ProfileStore
from streams.core.recommendations import BecauseOf, NewIn, PopularIn, SimilarUsers, TogetherWith
from streams.recommend.cooccurrence import Entered
from streams.recommend.explain import recommended_lists
from streams.recommend.fusion import FusionWeights
from streams.recommend.ranker import Ranker
from streams.recommend.request import RankerConfig, Ranking, RankRequest, Source, checked, segments_of
from streams.recommend.views import Views

if TYPE_CHECKING:
    from collections.abc import Sequence

DIM, RECENT, NOW_S, HALF_LIVES_S = 5, 4, 1_700_000_000.0, (3600.0, 86_400.0, 1e7)
TYPE_WEIGHTS = (1.0, -1.0, 2.0)


@dataclass
class World:
    store: ProfileStore
    catalogue: Catalogue
    views: Views
    config: RankerConfig
    request: RankRequest
    weights: FusionWeights

    def ranker(self) -> Ranker:
        ranker = Ranker(self.store, self.catalogue, self.views, self.config)
        ranker.weights = self.weights
        return ranker

    def rank(self, request: RankRequest | None = None) -> Ranking:
        return self.ranker().rank(request or self.request)

    def hidden(self, row: int) -> set[int]:
        if self.config.repeats:
            return set()
        start, end = self.request.bought_offsets[row : row + 2]
        return {*self.request.recent_items[row].tolist(), *self.request.bought_items[start:end].tolist()}


class RandomEncoder:
    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    dim = DIM

    def encode(self, item_ids: Sequence[str], descriptions: Sequence[str], attributes: object) -> np.ndarray:
        return units(self._rng, len(item_ids))


def units(rng: np.random.Generator, count: int) -> np.ndarray:
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    items, users, asked = draw(st.integers(0, 40)), draw(st.integers(0, 8)), draw(st.integers(0, 40))
    config = RankerConfig(
        list_items=draw(st.integers(1, 12)),
        candidates=draw(st.integers(1, 12)),
        repeats=draw(st.booleans()),
        type_weights=TYPE_WEIGHTS,
    )
    catalogue = a_catalogue(rng, items, described=draw(st.sampled_from([0.0, 0.3, 1.0])))
    store = a_store(rng, items, users)
    views = lived(rng, catalogue, draw(st.integers(0, 20)) if items else 0)
    request = a_request(rng, items, users, asked, draw(st.integers(0, 5)))
    return World(store, catalogue, views, config, request, some_weights(rng, draw(st.sampled_from([0.0, 1.0]))))


def lived(rng: np.random.Generator, catalogue: Catalogue, users: int) -> Views:
    """What so many histories leave behind."""
    views, items = Views(HALF_LIVES_S), len(catalogue)
    recent, counts = histories(rng, items, users)
    weights = rng.choice([1.0, 2.0, -1.0], recent.shape).astype(np.float32)
    times_s = NOW_S - rng.integers(0, 10, recent.shape) * 43_200.0
    categories = catalogue.facts.categories
    views.introduce(np.arange(items, dtype=np.int32), categories, catalogue.available)
    views.fold(Entered(recent, weights, times_s, counts, counts), categories)
    return views


def some_weights(rng: np.random.Generator, silent: float) -> FusionWeights:
    """Random, with some sources silenced and some segments in debt; or those of the start."""
    start = FusionWeights.start(Source.TREND + len(HALF_LIVES_S), 8.0)
    moved = [
        part + silent * (rng.exponential(size=part.shape) * (rng.random(part.shape) < 0.5) + shift)
        for part, shift in zip(start, (0.0, -0.3, -0.3), strict=True)
    ]
    return FusionWeights(np.maximum(moved[0], 0), *moved[1:])


def a_catalogue(rng: np.random.Generator, items: int, described: float) -> Catalogue:
    catalogue = Catalogue(RandomEncoder(rng))
    names = [f"i{slot}" for slot in range(items)]
    catalogue.slots(names)
    kinds = [f"c{number}" for number in range(4)]
    catalogue.put(
        [
            Item(name, title="words", categories=rng.permutation(kinds)[: rng.integers(0, 3)].tolist())
            for name in names
            if rng.random() < described
        ]
    )
    catalogue.withdraw([name for name in names if rng.random() < 0.2])
    return catalogue


def a_store(rng: np.random.Generator, items: int, users: int) -> ProfileStore:
    layout = ProfileLayout(state_width=DIM, recent_items=RECENT, event_id_window=1)
    columns = ProfileColumns.empty(users, layout)
    columns.recent_items[:], columns.recent_count[:] = histories(rng, items, users)
    columns.recent_types[:] = rng.integers(0, len(TYPE_WEIGHTS), columns.recent_types.shape)
    store = ProfileStore(layout)
    store.put([f"u{slot}" for slot in range(users)], columns)
    return store


def histories(rng: np.random.Generator, items: int, users: int) -> tuple[np.ndarray, np.ndarray]:
    counts = rng.integers(0, RECENT + 1 if items else 1, users).astype(np.int32)
    recent = np.where(np.arange(RECENT) < counts[:, None], rng.integers(0, items or 1, (users, RECENT)), -1)
    return recent.astype(np.int32), counts


def a_request(rng: np.random.Generator, items: int, users: int, asked: int, neighbours: int) -> RankRequest:
    slots = rng.integers(-1, users, asked).astype(np.int32)
    recent, counts = histories(rng, items, asked)
    near = np.array([rng.permutation(users + 1)[:neighbours] - 1 for _ in slots], np.int32)
    near = near.reshape(asked, min(neighbours, users + 1))
    near[near == slots[:, None]] = -1
    similarities = np.where(near >= 0, rng.uniform(-0.3, 1, near.shape), np.nan).astype(np.float32)
    bought = rng.integers(0, 4 if items else 1, asked)
    return RankRequest(
        slots=slots,
        vectors=units(rng, asked) * (rng.random((asked, 1)) < 0.8).astype(np.float32),
        recent_items=recent,
        recent_types=rng.integers(0, len(TYPE_WEIGHTS), recent.shape).astype(np.uint8),
        recent_count=counts,
        history_events=counts * rng.integers(1, 20, asked),
        bought_offsets=np.concatenate([[0], np.cumsum(bought)]).astype(np.int32),
        bought_items=rng.integers(0, items or 1, bought.sum()).astype(np.int32),
        neighbour_slots=near,
        neighbour_similarities=similarities,
    )


def rows_of(request: RankRequest, rows: Sequence[int]) -> RankRequest:
    """The same users in another order, or some of them."""
    parts = [request.bought_items[request.bought_offsets[row] : request.bought_offsets[row + 1]] for row in rows]
    by_row = {
        name: getattr(request, name)[list(rows)]
        for name in request._fields
        if name not in {"bought_offsets", "bought_items"} and getattr(request, name) is not None
    }
    return request._replace(
        **by_row,
        bought_offsets=np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int32),
        bought_items=np.concatenate([np.zeros(0, np.int32), *parts]),
    )


@settings(deadline=None, derandomize=True)
@given(worlds())
def test_every_list_is_allowed_and_as_long_as_can_be(world: World) -> None:
    """Available items, not hidden, each once, and all n unless the catalogue has fewer to offer."""
    ranking = world.rank()
    available = set(np.flatnonzero(world.catalogue.available).tolist())
    for row in range(len(world.request.slots)):
        items = [item for item in ranking.items[row].tolist() if item >= 0]
        allowed = available - world.hidden(row)
        assert len(items) == len(set(items)) == min(world.config.list_items, len(allowed))
        assert set(items) <= allowed
        assert ranking.items[row, : len(items)].tolist() == items


@settings(deadline=None, derandomize=True)
@given(worlds())
def test_every_score_has_its_reasons(world: World) -> None:
    """Scores fall from at most 1 to above 0, shares sum to 1, and each is backed by what it names."""
    ranking = world.rank()
    present = ranking.items >= 0
    assert ((ranking.scores > 0) & (ranking.scores <= 1))[present].all()
    assert (np.diff(ranking.scores, axis=1) <= 0).all()
    assert (ranking.shares >= 0).all()
    assert_allclose(ranking.shares.sum(-1), present, atol=1e-6)
    assert ((ranking.voters[..., 0] >= 0) | (ranking.shares[..., 0] == 0)).all()
    alike = ranking.shares[..., Source.PROFILE] + ranking.shares[..., Source.INTERESTS]
    assert ((ranking.anchors >= 0) | (alike == 0)).all()
    assert ((ranking.companions >= 0) | (ranking.shares[..., Source.TOGETHER] == 0)).all()
    in_category = ranking.shares[..., Source.CATEGORY] + ranking.shares[..., Source.NEWCOMER]
    assert ((ranking.categories >= 0) | (in_category == 0)).all()
    assert world.config.repeats or not ranking.shares[..., Source.REPEAT].any()
    assert (ranking.scores[~present] == 0).all()
    for row, own in enumerate(world.request.recent_items.tolist()):
        assert {*ranking.anchors[row].tolist(), *ranking.companions[row].tolist()} <= {*own, -1}
        voters = set(ranking.voters[row].ravel().tolist())
        assert voters <= {*world.request.neighbour_slots[row].tolist(), -1}
        assert voters == {-1} or world.request.slots[row] not in voters or world.request.slots[row] == -1


@settings(deadline=None, derandomize=True)
@given(worlds(), st.randoms(use_true_random=False))
def test_lists_do_not_depend_on_the_batch(world: World, random: object) -> None:
    """Bit for bit: the same call again, the users in another order, and each user alone."""
    ranking = world.rank()
    order = list(range(len(world.request.slots)))
    for again, column in zip(world.rank(), ranking, strict=True):
        assert_array_equal(again, column)
    random.shuffle(order)
    for shuffled, column in zip(world.rank(rows_of(world.request, order)), ranking, strict=True):
        assert_array_equal(shuffled, column[order])
    for row in order[:2]:
        for alone, column in zip(world.rank(rows_of(world.request, [row])), ranking, strict=True):
            assert_array_equal(alone[0], column[row])


@settings(deadline=None, derandomize=True)
@given(worlds())
def test_messages_are_complete(world: World) -> None:
    """Every published item has a reason, shares that sum to 1 and names that exist."""
    ranking = world.rank()
    names = world.catalogue.facts.category_names
    for items in recommended_lists(ranking, world.store.user_ids, world.catalogue.item_ids, names, {}):
        for item in items:
            assert 0 < item.score <= 1
            assert math.isclose(sum(reason.share for reason in item.reasons), 1, abs_tol=1e-6)
            shares = [reason.share for reason in item.reasons]
            assert shares == sorted(shares, reverse=True)
            for reason in item.reasons:
                assert not isinstance(reason, SimilarUsers) or len(reason.users) == len(set(reason.users)) > 0
                assert not isinstance(reason, BecauseOf | TogetherWith) or reason.item_id in world.catalogue.slot_of
                assert not isinstance(reason, PopularIn | NewIn) or reason.category in names


@settings(max_examples=200, deadline=None, derandomize=True)
@given(worlds())
def test_compiled_loops_agree_with_plain_python(world: World) -> None:
    """Every source's opinion on every candidate is that of its definition, and the best of each are candidates."""
    ranker, request = world.ranker(), checked(world.request, DIM)
    pool = ranker.pool(request)
    for row in range(len(request.slots)):
        items = [item for item in pool.items[row].tolist() if item >= 0]
        opinions = Reference(world, row).opinions(items)
        columns = [pool.items[row].tolist().index(item) for item in items]
        for source, worth in enumerate(opinions):
            expected = [worth.get(item, 0.0) for item in items]
            assert_allclose(pool.worth[row, columns, source], expected, rtol=2e-4, atol=1e-6, err_msg=str(source))
        assert (pool.worth[row, pool.items[row] < 0] == 0).all()


@settings(deadline=None, derandomize=True)
@given(worlds())
def test_each_source_brings_its_best(world: World) -> None:
    """No allowed item that a source thinks more of than of the last it proposed is left out; each item once.

    But for the new ones of a category, which take turns.
    """
    ranker, request = world.ranker(), checked(world.request, DIM)
    pool = ranker.pool(request)
    per_source = max(world.config.candidates, world.config.list_items)
    for row in range(len(request.slots)):
        reference = Reference(world, row)
        items = [item for item in pool.items[row].tolist() if item >= 0]
        assert len(items) == len(set(items))
        assert set(items) <= set(reference.allowed)
        for source, worth in enumerate(reference.opinions(reference.allowed)):
            said = {item: worth[item] for item in reference.allowed if worth.get(item, 0) > 0}
            if source == Source.NEWCOMER:
                continue
            proposed = sorted((said[item] for item in items if item in said), reverse=True)
            assert len(proposed) >= min(per_source, len(said)), source
            missed = [value for item, value in said.items() if item not in items]
            assert all(value <= proposed[per_source - 1] * 1.001 for value in missed), source


@settings(deadline=None, derandomize=True)
@given(worlds())
def test_the_list_is_the_best_of_the_pool(world: World) -> None:
    """A list is the fusion of the opinions, by the weights of the user's own segments."""
    ranker, request = world.ranker(), checked(world.request, DIM)
    pool, ranking, segments = ranker.pool(request), ranker.rank(request), segments_of(request)
    assert segments.history.tolist() == [sum(e >= bound for bound in (3, 10, 50)) for e in request.history_events]
    for row, count in enumerate(request.recent_count.tolist()):
        assert segments.last_type[row] == (request.recent_types[row, count - 1] if count else 255)
        places = [pool.items[row].tolist().index(item) for item in ranking.items[row].tolist() if item >= 0]
        for rank, place in enumerate(places):
            for mine, others in ((ranking.voters, pool.voters), (ranking.companions, pool.companions)):
                assert mine[row, rank].tolist() == others[row, place].tolist()
            assert ranking.categories[row, rank] == pool.categories[row, place]
            if pool.worth[row, place].any():
                silent = pool.worth[row, place] == 0
                assert not ranking.shares[row, rank][silent].any() or ranking.scores[row, rank] <= 2e-6


class Reference:
    """What each source says, item by item."""

    def __init__(self, world: World, row: int) -> None:
        self.world, self.row, self.request = world, row, world.request
        catalogue, hidden = world.catalogue, world.hidden(row)
        self.allowed = [slot for slot in range(len(catalogue)) if catalogue.available[slot] and slot not in hidden]
        self.described = catalogue.described
        count = int(self.request.recent_count[row])
        self.own = self.request.recent_items[row, :count].tolist()

    def opinions(self, candidates: Sequence[int]) -> list[dict[int, float]]:
        """By source; those that say a share of the best mean the best of the candidates."""
        cosines, trends = self.cosines(), [self.masses(trend.half_life_s) for trend in self.world.views.trends]
        best = max((cosines.get(item, 0.0) for item in candidates), default=0.0)
        temperature = self.world.config.content_temperature
        rising = {item: trends[0][item] - trends[-1][item] for item in trends[0]}
        return [
            self.votes(),
            {item: math.exp((cosine - best) / temperature) for item, cosine in cosines.items() if cosine > 0},
            {item: self.together(item) for item in candidates},
            {item: self.category(item) for item in candidates},
            self.repeats(),
            {},  # nobody is described, so groups are silent
            shares_of_the_best(rising, candidates),
            {item: self.newcomer(item) for item in candidates},
            {},  # the profile is the only taste
            *(shares_of_the_best(masses, candidates) for masses in trends),
        ]

    def votes(self) -> dict[int, float]:
        columns, config = self.world.store.columns, self.world.config
        near = self.request.neighbour_slots[self.row].tolist()
        alike = dict(zip(near, self.request.neighbour_similarities[self.row].tolist(), strict=True))
        alike = {slot: similarity for slot, similarity in alike.items() if slot >= 0 and similarity > 0}
        votes: dict[int, float] = {}
        for slot, similarity in alike.items():
            voice = math.exp((similarity - max(alike.values())) / config.similarity_temperature)
            had = set()
            for age, place in enumerate(reversed(range(columns.recent_count[slot]))):
                item = int(columns.recent_items[slot, place])
                positive = config.type_weights[columns.recent_types[slot, place]] > 0
                if item not in had and positive and item in self.allowed:
                    votes[item] = votes.get(item, 0) + voice / math.sqrt(age + 1)
                had.add(item)
        return votes

    def cosines(self) -> dict[int, float]:
        if not any(self.described[item] for item in self.own):
            return {}
        vectors, profile = self.world.catalogue.vectors, self.request.vectors[self.row]
        return {item: float(vectors[item] @ profile) for item in self.allowed if self.described[item]}

    def together(self, item: int) -> float:
        index = self.world.views.together
        smoothing, pairs = index._smoothing(), index.pairs
        total = 0.0
        for distance, recent in enumerate(self.own[::-1][: index.config.window], 1):
            held = dict(zip(pairs.others[recent].tolist(), pairs.weights[recent].tolist(), strict=True))
            total += held.get(item, 0.0) / (distance * math.sqrt(pairs.mass_out[recent] + smoothing))
        return total / math.sqrt(pairs.mass_in[item] + smoothing)

    def category(self, item: int) -> float:
        return sum(share * self.inside(item, code) for code, share in self.mix(item).items())

    def newcomer(self, item: int) -> float:
        return sum(share * self.first(item, code) for code, share in self.mix(item).items())

    def mix(self, item: int) -> dict[int, float]:
        """Shares of the user's categories that the item is of."""
        categories = self.world.catalogue.facts.categories
        shares: dict[int, float] = {}
        for distance, recent in enumerate(self.own[::-1], 1):
            codes = [code for code in categories[recent].tolist() if code >= 0]
            shares |= {code: shares.get(code, 0) + 1 / distance / len(codes) for code in codes}
        return {code: shares[code] / sum(shares.values()) for code in categories[item].tolist() if code in shares}

    def members(self, code: int) -> list[int]:
        return np.flatnonzero((self.world.catalogue.facts.categories == code).any(axis=1)).tolist()

    def inside(self, item: int, code: int) -> float:
        """Share of the item in the popularity of the category."""
        masses = self.masses(self.world.views.category_trend.half_life_s)
        if item not in masses:
            return 0.0
        return 1 / sum(2 ** (masses[slot] - masses[item]) for slot in self.members(code) if slot in masses)

    def first(self, item: int, code: int) -> float:
        """Chance that the category's next event is the first of this item."""
        members, available = self.members(code), self.world.catalogue.available
        events = self.world.views.newcomers.events(len(self.world.catalogue))
        waiting = [slot for slot in members if not events[slot] and available[slot]]
        if item not in waiting:
            return 0.0
        return float(np.count_nonzero(events[members]) + 1) / (int(events[members].sum()) + 2) / len(waiting)

    def repeats(self) -> dict[int, float]:
        if not self.world.config.repeats:
            return {}
        worth: dict[int, float] = {}
        for distance, item in enumerate(self.own[::-1], 1):
            worth[item] = worth.get(item, 0.0) + 1 / distance
        return worth

    def masses(self, half_life_s: float) -> dict[int, float]:
        """Logarithms of the items' popularity, of those with events."""
        (trend,) = (each for each in self.world.views.trends if each.half_life_s == half_life_s)
        masses = trend.masses(len(self.world.catalogue)).tolist()
        return {item: mass for item, mass in enumerate(masses) if mass > -math.inf}


def shares_of_the_best(masses: dict[int, float], candidates: Sequence[int]) -> dict[int, float]:
    best = max((masses[item] for item in candidates if item in masses), default=0.0)
    return {item: 2 ** (mass - best) for item, mass in masses.items() if mass <= best}
