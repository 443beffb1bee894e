"""What holds for every list, whatever the world looks like; and a plain-Python ranker that says what is right."""

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
from streams.core.recommendations import BecauseOf, SimilarUsers
from streams.recommend.explain import recommended_lists
from streams.recommend.ranker import Ranker
from streams.recommend.request import RankerConfig, Ranking, RankRequest
from streams.recommend.trend import Trend

if TYPE_CHECKING:
    from collections.abc import Sequence

DIM, RECENT, NOW_S, HALF_LIFE_S = 5, 4, 1_700_000_000.0, 86_400.0
TYPE_WEIGHTS = (1.0, -1.0, 2.0)


@dataclass
class World:
    store: ProfileStore
    catalogue: Catalogue
    trend: Trend
    config: RankerConfig
    request: RankRequest

    def rank(self, request: RankRequest | None = None) -> Ranking:
        return Ranker(self.store, self.catalogue, self.trend, self.config).rank(request or self.request)

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
        similar_users=draw(st.sampled_from([0.0, 0.5])),
        because_of=draw(st.sampled_from([0.0, 0.3])),
    )
    catalogue = a_catalogue(rng, items, described=draw(st.sampled_from([0.0, 0.3, 1.0])))
    store = a_store(rng, items, users)
    trend = Trend(HALF_LIFE_S)
    events = draw(st.integers(0, 60)) if items else 0
    trend.fold(
        rng.integers(0, items or 1, events).astype(np.int32),
        rng.choice([1.0, 2.0, -1.0], events).astype(np.float32),
        NOW_S - rng.integers(0, 10, events) * 86_400.0,
    )
    return World(store, catalogue, trend, config, a_request(rng, items, users, asked, draw(st.integers(0, 5))))


def a_catalogue(rng: np.random.Generator, items: int, described: float) -> Catalogue:
    catalogue = Catalogue(RandomEncoder(rng))
    names = [f"i{slot}" for slot in range(items)]
    catalogue.slots(names)
    catalogue.put([Item(name, title="words") for name in names if rng.random() < described])
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
        recent_count=counts,
        bought_offsets=np.concatenate([[0], np.cumsum(bought)]).astype(np.int32),
        bought_items=rng.integers(0, items or 1, bought.sum()).astype(np.int32),
        neighbour_slots=near,
        neighbour_similarities=similarities,
        now_s=NOW_S,
    )


def rows_of(request: RankRequest, rows: Sequence[int]) -> RankRequest:
    """The same users in another order, or some of them."""
    parts = [request.bought_items[request.bought_offsets[row] : request.bought_offsets[row + 1]] for row in rows]
    by_row = {
        name: getattr(request, name)[list(rows)]
        for name in request._fields
        if name not in {"bought_offsets", "bought_items", "now_s"}
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
    """Scores fall from at most 1 to above 0, shares sum to 1, and each is backed by a voter or an anchor."""
    ranking = world.rank()
    present = ranking.items >= 0
    assert ((ranking.scores > 0) & (ranking.scores <= 1))[present].all()
    assert (np.diff(ranking.scores, axis=1) <= 0).all()
    assert (ranking.shares >= 0).all()
    assert_allclose(ranking.shares.sum(-1), present, atol=1e-6)
    assert ((ranking.voters[..., 0] >= 0) | (ranking.shares[..., 0] == 0)).all()
    assert ((ranking.anchors >= 0) | (ranking.shares[..., 1] == 0)).all()
    assert (ranking.scores[~present] == 0).all()
    for row, own in enumerate(world.request.recent_items.tolist()):
        assert set(ranking.anchors[row].tolist()) <= {*own, -1}
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
    for items in recommended_lists(ranking, world.store.user_ids, world.catalogue.item_ids):
        for item in items:
            assert 0 < item.score <= 1
            assert math.isclose(sum(reason.share for reason in item.reasons), 1, abs_tol=1e-6)
            shares = [reason.share for reason in item.reasons]
            assert shares == sorted(shares, reverse=True)
            for reason in item.reasons:
                assert not isinstance(reason, SimilarUsers) or len(reason.users) == len(set(reason.users)) > 0
                assert not isinstance(reason, BecauseOf) or reason.item_id in world.catalogue.slot_of


@settings(max_examples=200, deadline=None, derandomize=True)
@given(worlds())
def test_compiled_loops_agree_with_plain_python(world: World) -> None:
    """The same scores, shares and anchors as the definition written down in dictionaries."""
    ranking = world.rank()
    for row in range(len(world.request.slots)):
        expected = Reference(world, row).scores()
        items = [item for item in ranking.items[row].tolist() if item >= 0]
        best = sorted((sum(parts) for parts in expected.values()), reverse=True)[: len(items)]
        assert_allclose(ranking.scores[row, : len(items)], best, atol=2e-6)
        for column, item in enumerate(items):
            parts = np.array(expected[item])
            assert_allclose(ranking.scores[row, column], parts.sum(), atol=2e-6)
            assert_allclose(ranking.shares[row, column], parts / parts.sum(), atol=1e-4)


class Reference:
    """The definition of a list, item by item."""

    def __init__(self, world: World, row: int) -> None:
        self.world, self.row, self.request = world, row, world.request
        catalogue, hidden = world.catalogue, world.hidden(row)
        self.allowed = [slot for slot in range(len(catalogue)) if catalogue.available[slot] and slot not in hidden]
        self.described = catalogue.described

    def scores(self) -> dict[int, list[float]]:
        """Weighted parts of every candidate."""
        config = self.world.config
        votes, cosines, masses = self.votes(), self.cosines(), self.masses()
        per_source = max(config.candidates, config.list_items)
        by_votes = sorted(votes, key=lambda item: (-votes[item], item))[:per_source]
        by_content = sorted((item for item in cosines if cosines[item] > 0), key=lambda item: -cosines[item])
        by_trend = sorted(self.allowed, key=lambda item: (-masses[item], item))[:per_source]
        candidates = {*by_votes, *by_content[:per_source], *by_trend}
        weights = np.array([config.similar_users, config.because_of, config.trending])
        weights /= weights.sum()
        votes_best = max((votes.get(item, 0) for item in candidates), default=0)
        cosine_best = max((cosines.get(item, 0) for item in candidates), default=0)
        mass_best = max((masses[item] for item in candidates), default=-math.inf)
        return {
            item: [
                weights[0] * votes[item] / votes_best if item in votes else 0.0,
                weights[1] * math.exp((cosines[item] - cosine_best) / config.content_temperature)
                if cosines.get(item, 0) > 0
                else 0.0,
                weights[2] * max(2 ** (masses[item] - mass_best) if masses[item] > -math.inf else 0.0, 1e-6),
            ]
            for item in candidates
        }

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
        own = [item for item in self.request.recent_items[self.row].tolist() if item >= 0]
        if not any(self.described[item] for item in own):
            return {}
        vectors, profile = self.world.catalogue.vectors, self.request.vectors[self.row]
        return {item: float(vectors[item] @ profile) for item in self.allowed if self.described[item]}

    def masses(self) -> dict[int, float]:
        popularity = self.world.trend.scores(NOW_S)
        return {item: math.log2(popularity[item]) if popularity[item] else -math.inf for item in self.allowed}
