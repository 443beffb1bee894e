"""Re-ranking: whatever the candidates, settings and rules, what the rules promise holds."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from streams.core.catalogue import Catalogue
from streams.core.events import Item
from streams.recommend.rerank import RerankConfig, Reranked, Reranker, ShortBecause
from streams.recommend.rules import Caps, Exposure, Floor, Pin, Rules, Selector
from streams.recommend.selection import SMOOTHING, UNEXPLAINED_MIN

DIM = 4
ITEMS = 60
NOW_S = 1_700_000_000.0
FLOORS = (Floor(provider=("q",), share=0.2), Floor(category=("c2",), share=0.1))
TOLERANCE = 2e-4
"""Kernels reckon in 32 bits, the judges in 64."""


class RandomEncoder:
    """Unit vectors by chance, some of them twice."""

    dim = DIM

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def encode(self, item_ids: Any, descriptions: Any, attributes: Any) -> np.ndarray:
        vectors = self._rng.standard_normal((len(item_ids), DIM)).astype(np.float32)
        vectors[: len(vectors) // 10] = vectors[-1:]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class World(NamedTuple):
    """What the reranker is asked."""

    catalogue: Catalogue
    config: RerankConfig
    rules: Rules
    items: np.ndarray
    scores: np.ndarray
    recent: np.ndarray
    recent_count: np.ndarray

    def reranker(self) -> Reranker:
        made = Reranker(self.catalogue, self.config)
        made.take(self.rules)
        return made

    def reranked(self, rows: list[int] | None = None) -> Reranked:
        rows = list(range(len(self.items))) if rows is None else rows
        return self.reranker().rerank(
            np.array(rows, np.int32),
            self.items[rows],
            self.scores[rows],
            self.recent[rows],
            self.recent_count[rows],
            NOW_S,
        )


def a_catalogue(rng: np.random.Generator) -> Catalogue:
    catalogue = Catalogue(RandomEncoder(rng))
    catalogue.put(
        [
            Item(
                f"i{slot}",
                title="words",
                categories=[f"c{code}" for code in rng.integers(0, 8, rng.integers(0, 6))],
                brand=rng.choice(["", *"abcd"]) or None,
                provider=rng.choice(["", *"pqrs"]) or None,
            )
            for slot in range(ITEMS)
        ]
    )
    return catalogue


@st.composite
def worlds(draw: st.DrawFn, *, floors: bool = True, pins: bool = True) -> World:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    catalogue = a_catalogue(rng)
    n, width, users = draw(st.integers(1, 8)), draw(st.integers(0, 25)), draw(st.integers(0, 6))
    config = RerankConfig(
        list_items=n,
        diversity=draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        diversity_by=draw(st.sampled_from(["msd", "mmr", "dpp"])),
        diversity_head=draw(st.integers(0, 3)),
        calibration=draw(st.sampled_from([0.0, 0.3, 1.0])),
    )
    cap = st.none() | st.integers(1, 3)
    kept = sorted(set(rng.integers(0, ITEMS, 3).tolist()))
    places = sorted(set(rng.integers(1, n + 1, 3).tolist())) if pins and draw(st.booleans()) else []
    rules = Rules(
        drop=draw(st.sampled_from([(), (Selector(brand=("a",)),), (Selector(category=("c1",), provider=("p",)),)])),
        caps=Caps(brand=draw(cap), category=draw(cap), provider=draw(cap)),
        floor=FLOORS if floors and draw(st.booleans()) else (),
    )
    dropped = Reranker(catalogue, config)
    dropped.take(rules)
    pinnable = [slot for slot in kept if dropped.allowed()[slot]]
    pinned = tuple(Pin(item=f"i{slot}", position=place) for slot, place in zip(pinnable, places, strict=False))
    return World(catalogue, config, rules.model_copy(update={"pin": pinned}), *a_batch(rng, users, width))


def a_batch(rng: np.random.Generator, users: int, width: int) -> tuple[np.ndarray, ...]:
    """Candidates and their scores, recent items and how many."""
    items = np.array([rng.permutation(ITEMS)[:width] for _ in range(users)], np.int32).reshape(users, width)
    ends = rng.integers(0, width + 1, users)
    items[np.arange(width) >= ends[:, None]] = -1
    scores = -np.sort(-rng.integers(1, 65, (users, width)) / 64, axis=1)
    recent = rng.integers(0, ITEMS, (users, 5))
    return items, (scores * (items >= 0)).astype(np.float32), recent.astype(np.int32), rng.integers(0, 6, users)


def lists(world: World, found: Reranked) -> list[list[int]]:
    return [[int(world.items[row, place]) for place in places if place >= 0] for row, places in enumerate(found.places)]


def counted(catalogue: Catalogue, items: list[int], kind: str) -> dict[int, int]:
    """How many of the items each brand, category or provider has."""
    facts = catalogue.facts
    column = {"brand": facts.brand[:, None], "provider": facts.provider[:, None], "category": facts.categories}[kind]
    codes = [code for item in items for code in column[item].tolist() if code >= 0]
    return {code: codes.count(code) for code in codes}


def fits(world: World, items: list[int]) -> bool:
    """No cap is broken."""
    return all(
        getattr(world.rules.caps, kind) is None
        or max(counted(world.catalogue, items, kind).values(), default=0) <= getattr(world.rules.caps, kind)
        for kind in ("brand", "category", "provider")
    )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(worlds())
def test_every_list_keeps_the_rules(world: World) -> None:
    """Candidates, each once, none excluded, caps unbroken; short only where nothing more fits, and it says why."""
    found = world.reranked()
    allowed = world.reranker().allowed()
    for row, items in enumerate(lists(world, found)):
        assert (found.places[row, len(items) :] == -1).all()
        assert len(set(items)) == len(items) <= world.config.list_items
        candidates = [item for item in world.items[row].tolist() if item >= 0]
        eligible = [item for item in candidates if allowed[item]]
        assert set(items) <= set(eligible)
        assert fits(world, items)
        full = len(items) == world.config.list_items
        assert (
            full or world.rules.floor or not any(fits(world, [*items, item]) for item in eligible if item not in items)
        )
        assert (found.short_because[row] == ShortBecause.NOT) == full
        assert (found.short_because[row] == ShortBecause.CAPS) == (
            not full and len(eligible) >= world.config.list_items
        )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(worlds())
def test_pins_stand_at_their_place(world: World) -> None:
    """Where the item is a candidate, the list reaches so far and earlier pins leave room under the caps."""
    for row, items in enumerate(lists(world, world.reranked())):
        taken: list[int] = []
        for pin in sorted(world.rules.pin, key=lambda pin: pin.position):
            slot = world.catalogue.slot_of[pin.item]
            if slot in world.items[row] and fits(world, [*taken, slot]):
                taken.append(slot)
                if len(items) == world.config.list_items:
                    assert items[pin.position - 1] == slot
                assert slot in items


@settings(max_examples=100, deadline=None, derandomize=True)
@given(worlds())
def test_everything_off_is_the_first_n(world: World) -> None:
    """And without diversity, calibration, caps and floors the order is that of the scores."""
    off = world._replace(config=RerankConfig(list_items=world.config.list_items), rules=Rules())
    for row, items in enumerate(lists(off, off.reranked())):
        assert items == [item for item in world.items[row].tolist() if item >= 0][: world.config.list_items]
    dropping = off._replace(rules=Rules(drop=world.rules.drop or (Selector(brand=("a",)),)))
    allowed = dropping.reranker().allowed()
    for row, items in enumerate(lists(dropping, dropping.reranked())):
        expected = [item for item in world.items[row].tolist() if item >= 0 and allowed[item]]
        assert items == expected[: world.config.list_items]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(worlds(floors=False), st.randoms(use_true_random=False))
def test_lists_do_not_depend_on_the_batch(world: World, random: Any) -> None:
    """But for floors, which look at the lists before: users in another order and each alone get the same."""
    found, order = world.reranked(), list(range(len(world.items)))
    random.shuffle(order)
    assert_array_equal(world.reranked(order).places, found.places[order])
    for row in order[:2]:
        assert_array_equal(world.reranked([row]).places[0], found.places[row])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(worlds(floors=False, pins=False))
def test_every_place_goes_to_the_best_candidate(world: World) -> None:
    """By the formula written down in plain Python: no other candidate was worth more beside the chosen ones."""
    allowed = world.reranker().allowed()
    for row, items in enumerate(lists(world, world.reranked())):
        judge = Judge(world, row)
        eligible = [item for item in world.items[row].tolist() if item >= 0 and allowed[item]]
        for place, item in enumerate(items):
            chosen = items[:place]
            others = [one for one in eligible if one not in chosen and fits(world, [*chosen, one])]
            worth = {one: judge.worth(one, chosen, eligible) for one in others}
            assert worth[item] >= max(worth.values()) - TOLERANCE


class Judge:
    """The worth of one user's candidates, term by term."""

    def __init__(self, world: World, row: int) -> None:
        self.world, self.row = world, row
        self.scores = dict(zip(world.items[row].tolist(), world.scores[row].tolist(), strict=True))
        self.categories = [[code for code in codes if code >= 0] for codes in world.catalogue.facts.categories.tolist()]
        mix: dict[int, float] = {}
        for item in world.recent[row, : world.recent_count[row]].tolist():
            for code in self.categories[item]:
                mix[code] = mix.get(code, 0) + 1 / len(self.categories[item])
        self.mix = {code: mass / sum(mix.values()) for code, mass in mix.items()}

    def worth(self, item: int, chosen: list[int], eligible: list[int]) -> float:
        config = self.world.config
        relevance = self.scores[item] / max(self.scores[one] for one in eligible)
        diversity = config.diversity if len(chosen) >= config.diversity_head else 0.0
        beside = (1 - diversity) * relevance
        if diversity > 0:
            beside += diversity * self.novelty(item, chosen)
        change = self.distance([*chosen, item]) if config.calibration > 0 else 0.0
        return (1 - config.calibration) * beside - config.calibration * change

    def novelty(self, item: int, chosen: list[int]) -> float:
        vectors = self.world.catalogue.vectors.astype(np.float64)
        if self.world.config.diversity_by == "msd":
            return sum((1.0 - float(vectors[item] @ vectors[other]) for other in chosen), 0.0) / max(len(chosen), 1)
        if self.world.config.diversity_by == "mmr":
            return -max([0.0, *(float(vectors[item] @ vectors[other]) for other in chosen)])
        basis = self.independent(chosen)
        remains = vectors[item] - basis.T @ (basis @ vectors[item]) if len(basis) else vectors[item]
        return math.log(max(float(remains @ remains), UNEXPLAINED_MIN))

    def independent(self, chosen: list[int]) -> np.ndarray:
        """Orthonormal rows that span the chosen vectors, copies left out."""
        rows: list[np.ndarray] = []
        for vector in self.world.catalogue.vectors[chosen].astype(np.float64):
            remains = vector - sum((row * (row @ vector) for row in rows), np.zeros(DIM))
            if remains @ remains > 10 * UNEXPLAINED_MIN:
                rows.append(remains / np.linalg.norm(remains))
        return np.array(rows)

    def distance(self, listed: list[int]) -> float:
        """KL of the user's mix to the list's, which is smoothed."""
        masses = dict.fromkeys(self.mix, 0.0)
        for item in listed:
            for code in self.categories[item]:
                if code in masses:
                    masses[code] += 1 / len(self.categories[item])
        return sum(
            share * math.log(share / ((1 - SMOOTHING) * masses[code] / len(listed) + SMOOTHING * share))
            for code, share in self.mix.items()
        )


@pytest.mark.parametrize("seed", range(3))
def test_floors_hold_in_nearly_every_window(seed: int) -> None:
    """Though the groups come last among the candidates and some users have nearly none of them.

    Each window of the last 100 lists is looked at, once there are so many.
    """
    floors = {"provider": ("q", 0.3), "brand": ("b", 0.25), "category": ("c2", 0.1)}
    rules = Rules(
        floor=tuple(Floor.model_validate({kind: name, "share": share}) for kind, (name, share) in floors.items()),
        caps=Caps(brand=4),
        exposure=Exposure(window_lists=100),
    )
    rng = np.random.default_rng(seed)
    made = Reranker(a_catalogue(rng), RerankConfig(list_items=10, diversity=0.2))
    made.take(rules)
    shares = np.array([publish_some(made, rng) for _ in range(1000)])[100:]
    floor = np.array([share for _, share in floors.values()])
    assert (shares >= floor).all(axis=1).mean() >= 0.99
    assert np.median(shares[:, 1]) < floor[1] * 1.05, "lifted further than needed"


def publish_some(made: Reranker, rng: np.random.Generator) -> list[float]:
    """One list for a user of chance. Returns what each group then has of the exposure of the window."""
    nobody, facts = np.array([-1], np.int32), made.catalogue.facts
    late = (facts.provider == facts.provider_codes(["q"])[0]) | (facts.brand == facts.brand_codes(["b"])[0])
    items = np.argsort(rng.random(ITEMS) + 0.4 * late)[None, :40].astype(np.int32)
    scores = np.linspace(1, 0.1, 40, dtype=np.float32)[None]
    found = made.rerank(nobody, items, scores, items[:, :3], np.array([3], np.int32), NOW_S)
    made.published(nobody, items[:, found.places[0]], NOW_S)
    return list(made.exposure_shares().values())


@pytest.mark.parametrize("by", ["mmr", "dpp"])
@pytest.mark.parametrize("diversity", [0.05, 0.3, 0.7])
def test_pyversity_makes_the_same_lists(by: str, diversity: float) -> None:
    """The library is the judge: MMR as it is, DPP with its relevance scaled to ours."""
    pyversity = pytest.importorskip("pyversity", reason="the judge is a development dependency")
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((100, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    catalogue = Catalogue(FixedVectors(vectors))
    catalogue.slots([f"i{slot}" for slot in range(100)])
    made = Reranker(catalogue, RerankConfig(20, diversity, by, diversity_head=0))
    for _ in range(5):
        items = rng.permutation(100).astype(np.int32)
        scores = -np.sort(-rng.random(100, np.float32))
        scores /= scores[0]
        nobody = np.zeros(1, np.int32)
        found = made.rerank(nobody, items[None], scores[None], items[None, :1], nobody, NOW_S)
        options = {} if by == "mmr" else {"scale": float(scores.std()) / (2 * diversity)}
        judged = pyversity.diversify(vectors[items], scores, 20, by, diversity, **options)
        assert found.places[0].tolist() == judged.indices.tolist()


class FixedVectors:
    """Gives out these vectors one after the other."""

    dim = 64

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors

    def encode(self, item_ids: Any, descriptions: Any, attributes: Any) -> np.ndarray:
        return self._vectors[: len(item_ids)]
