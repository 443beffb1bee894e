"""Users of two tastes, small enough to be followed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streams.config import load_settings
from streams.core.catalogue import Catalogue
from streams.core.events import Event, EventType, Item
from streams.core.profile import ProfileLayout, ProfileStore
from streams.recommend.content import Among, nearest_recent
from streams.recommend.explain import recommended_lists
from streams.recommend.interests import (
    ALIKE_MIN,
    INTERESTS_MAX,
    Interests,
    find_interests,
    interest_cosines,
    nearest_interests,
    quotas,
)
from streams.recommend.ranker import Ranker
from streams.recommend.request import RankerConfig, Ranking, RankRequest, Source
from streams.recommend.views import Views
from streams.wiring import build_engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.core.ports import Floats

EAST, NORTH, UP = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def near(direction: Sequence[float], tilt: float) -> list[float]:
    """A little off a direction, upwards."""
    vector = np.array(direction) + tilt * np.array(UP)
    return (vector / np.linalg.norm(vector)).tolist()


def found(
    vectors: Sequence[Sequence[float]],
    recent: Sequence[int],
    interests: int = 2,
    weights: Sequence[float] | None = None,
    described: Sequence[bool] | None = None,
) -> Interests:
    """Of one user; the recent items are oldest first."""
    return find_interests(
        np.array([recent], np.int32).reshape(1, -1),
        np.array([sum(item >= 0 for item in recent)], np.int32),
        np.array([[1.0] * len(recent) if weights is None else weights], np.float64).reshape(1, -1),
        np.array(vectors, np.float32).reshape(len(vectors), -1 if len(vectors) else 3),
        np.ones(len(vectors), np.bool_) if described is None else np.array(described),
        interests,
    )


TWO_TASTES = [near(EAST, 0.1), near(EAST, -0.1), near(NORTH, 0.1), near(NORTH, -0.1)]


def test_two_tastes_far_apart_are_two_interests() -> None:
    """Each is the direction of its items, and weighs what these weigh: 1 / sqrt(age), newest first."""
    two = found(TWO_TASTES, [0, 2, 1, 3])
    assert two.members.tolist() == [[1, 0, 1, 0]]
    by_age = 1 / np.sqrt([4, 3, 2, 1])
    assert_allclose(two.weights[0], [by_age[[1, 3]].sum() / by_age.sum(), by_age[[0, 2]].sum() / by_age.sum()])
    north = by_age[1] * np.array(TWO_TASTES[2]) + by_age[3] * np.array(TWO_TASTES[3])
    assert_allclose(two.vectors[0, 0], north / np.linalg.norm(north), rtol=1e-6)
    assert_allclose(np.linalg.norm(two.vectors[0], axis=1), 1, rtol=1e-6)


def test_stronger_events_make_a_stronger_interest() -> None:
    """Purchases in the east outweigh newer views in the north; an item whose event says nothing is in no interest."""
    assert found(TWO_TASTES, [0, 1, 2, 3], weights=[6, 6, 1, 1]).members.tolist() == [[0, 0, 1, 1]]
    passed = found([*TWO_TASTES, UP], [0, 1, 4, 2, 3], weights=[6, 6, 0, 1, 1])
    assert passed.members.tolist() == [[0, 0, -1, 1, 1]]


@pytest.mark.parametrize(
    ("vectors", "recent"),
    [
        pytest.param([], [], id="nobody-ever"),
        pytest.param(TWO_TASTES, [-1, -1, -1, -1], id="no history"),
        pytest.param(TWO_TASTES, [2, -1, -1, -1], id="one item"),
        pytest.param(TWO_TASTES, [0, 2, 3, -1], id="too few items"),
        pytest.param(TWO_TASTES, [1, 1, 1, 1], id="one item again and again"),
        pytest.param([EAST, near(EAST, 0.2), near(EAST, -0.2), near(EAST, 0.1)], [0, 1, 2, 3], id="one taste"),
    ],
)
def test_others_have_the_profile_alone(vectors: list[list[float]], recent: list[int]) -> None:
    """Nothing is found, and it is exact zeros."""
    for interests in range(2, INTERESTS_MAX + 1):
        nothing = found(vectors, recent, interests)
        assert not nothing.vectors.any()
        assert not nothing.weights.any()
        assert (nothing.members == -1).all()


def test_a_cluster_without_direction_is_no_taste() -> None:
    """Three items at 120 degrees cancel out; beside two tastes that stay apart there is nothing to search for."""
    third, half = 2 * np.pi / 3, np.arccos(ALIKE_MIN - 0.01) / 2
    around = [(np.cos(turn * third), np.sin(turn * third), 0.0, 0.0) for turn in range(3)]
    upwards = [(0.0, 0.0, side * np.sin(half), np.cos(half)) for side in (-1, 1)]
    by_age = np.sqrt([5, 4, 3, 2, 1])
    nothing = found([*around, *upwards], [0, 1, 2, 3, 4], 3, weights=(by_age * [1, 1, 1, 4, 4]).tolist())
    assert not nothing.vectors.any()
    assert not nothing.weights.any()
    around[0] = (-1.0, 0.0, 0.0, 0.0)
    assert found([*around, *upwards], [0, 1, 2, 3, 4], 3, weights=(by_age * [1, 1, 1, 4, 4]).tolist()).weights.all()


def test_items_without_words_are_no_taste() -> None:
    """Their directions are chance: the north is left out, and the east alone is one taste."""
    described = [True, True, False, False, True, True]
    items = [*TWO_TASTES, near(EAST, 0.05), near(EAST, -0.05)]
    assert (found(items, [0, 1, 2, 3, 4, 5], described=described).members == -1).all()
    assert (found(items, [0, 1, 2, 3, 4, 5]).members >= 0).all()


def test_no_more_interests_than_asked_for() -> None:
    """Three tastes asked to be two: the two that are least unlike and lightest are one."""
    items = [*TWO_TASTES, UP, near(UP, 0.0)]
    assert found(items, [4, 5, 0, 1, 2, 3], 3).members.tolist() == [[2, 2, 1, 1, 0, 0]]
    assert len(set(found(items, [4, 5, 0, 1, 2, 3], 2).members[0].tolist())) == 2


@pytest.mark.parametrize("interests", [-1, 0, 1, INTERESTS_MAX + 1])
def test_other_numbers_of_interests_are_refused(interests: int) -> None:
    """The message says what is possible."""
    with pytest.raises(ValueError, match=f"expected 2 to {INTERESTS_MAX} interests, got {interests}"):
        found(TWO_TASTES, [0, 1, 2, 3], interests)


@pytest.mark.parametrize("interests", [0, INTERESTS_MAX + 1])
def test_a_ranker_refuses_them_too(interests: int) -> None:
    """One is possible there: the profile."""
    with pytest.raises(ValueError, match=f"interests must be 1 to {INTERESTS_MAX}, got {interests}"):
        RankerConfig(interests=interests)


def test_places_are_shared_out_by_weight() -> None:
    """All of them, and none to users of one taste."""
    weights = np.array([[0.6, 0.3, 0.1], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    interests = Interests(np.zeros((3, 3, 2), np.float32), weights, np.zeros((3, 4), np.int8))
    assert quotas(interests, 10).tolist() == [[6, 3, 1], [5, 5, 0], [0, 0, 0]]
    assert quotas(interests, 7).sum(axis=1).tolist() == [7, 7, 0]


def test_cosines_are_those_with_the_nearest_interest() -> None:
    """0 where the item lies behind all of them, may not be proposed, or is none; and for a user of one taste."""
    two = found(TWO_TASTES, [0, 1, 2, 3])
    items = np.array([EAST, NORTH, near(EAST, 3.0), EAST, -np.array(EAST) - NORTH], np.float32)
    candidates = np.array([[0, 1, 2, 3, -1, 4]], np.int32)
    alike = interest_cosines(two, candidates, items, np.array([True, True, True, False, True]))
    cosines = two.vectors[0] @ items.T
    assert_allclose(alike[0], [*cosines[:, :3].max(axis=0), 0.0, 0.0, 0.0], rtol=1e-6)
    alone = Interests.none(1, 2, 4, 3)
    assert not interest_cosines(alone, candidates, items, np.ones(5, np.bool_)).any()


def test_the_reason_is_an_item_of_the_nearest_interest() -> None:
    """Also where an item of another interest is more alike; where the profile is the nearest it may be any."""
    vectors = np.array([EAST, near(EAST, 0.9), NORTH, near(NORTH, 0.1), near(EAST, 1.1)], np.float32)
    weights, members = np.array([[0.6, 0.4]]), np.array([[0, 1, 1, 1]], np.int8)
    interests = Interests(np.array([[near(EAST, 0.6), NORTH]], np.float32), weights, members)
    recent, described = np.array([[0, 1, 2, 3]], np.int32), np.ones(5, np.bool_)
    listed = np.array([[4, 2, -1]], np.int32)
    for profile, nearest, reasons in (
        (UP, [0, 1, -1], [0, 2, -1]),
        (near(EAST, 1.1), [-1, 1, -1], [1, 2, -1]),
    ):
        wanted = nearest_interests(interests, np.array([profile], np.float32), listed, vectors, described)
        assert wanted.tolist() == [nearest]
        assert nearest_recent(listed, recent, vectors, described, Among(members, wanted)).tolist() == [reasons]
    nowhere = nearest_interests(interests, np.array([UP], np.float32), listed, vectors, ~described)
    assert nowhere.tolist() == [[-1, -1, -1]]


class ByName:
    """Items of the east, the north, or between the two."""

    dim = 3

    def encode(self, item_ids: Sequence[str], descriptions: Sequence[str], attributes: object) -> Floats:
        directions = {"e": EAST, "n": NORTH, "m": (0.7071, 0.7071, 0.0)}
        tilts = [0.02 * int(item_id[1:]) for item_id in item_ids]
        return np.array([near(directions[name[0]], tilt) for name, tilt in zip(item_ids, tilts, strict=True)]).astype(
            np.float32
        )


def listed(interests: int, *, bought: Sequence[str] = ()) -> tuple[Ranking, list[str], Catalogue]:
    """The list of somebody who had two items of the east and two of the north, and whose profile is their mean."""
    catalogue = Catalogue(ByName())
    names = [f"{kind}{number}" for kind in "enm" for number in range(12)]
    catalogue.put([Item(name, title=name) for name in names])
    layout = ProfileLayout(3, 8, 1)
    request = RankRequest(
        slots=np.array([-1], np.int32),
        vectors=np.array([near((0.7071, 0.7071, 0.0), 0.3)], np.float32),
        recent_items=np.append(catalogue.slots(["e0", "e1", "n0", "n1"]), [-1] * 4).astype(np.int32)[None],
        recent_types=np.zeros((1, 8), np.uint8),
        recent_count=np.array([4], np.int32),
        history_events=np.array([4], np.int64),
        bought_offsets=np.array([0, len(bought)], np.int32),
        bought_items=catalogue.slots(bought),
        neighbour_slots=np.zeros((1, 0), np.int32),
        neighbour_similarities=np.zeros((1, 0), np.float32),
    )
    config = RankerConfig(list_items=12, candidates=12, interests=interests)
    ranker = Ranker(ProfileStore(layout), catalogue, Views([3600.0, 7200.0]), config)
    ranker.warm_up()
    ranking = ranker.rank(request)
    return ranking, [catalogue.item_ids[slot] for slot in ranking.items[0].tolist() if slot >= 0], catalogue


def test_both_tastes_are_in_the_list_of_somebody_who_has_two() -> None:
    """With one interest only what lies between them is, though the user never had any of it."""
    assert {name[0] for name in listed(1)[1]} == {"m"}
    ranking, names, catalogue = listed(2)
    kinds = [name[0] for name in names]
    assert min(kinds.count("e"), kinds.count("n")) >= 3
    reasons = [item.reasons[0] for item in recommended_lists(ranking, [], catalogue.item_ids, [], {})[0]]
    assert all(
        reason.item_id[0] == kind for reason, kind in zip(reasons, kinds, strict=True) if kind != "m"
    )  # because of an item of the same taste
    alike = ranking.shares[0, : len(names)]
    assert_allclose(alike[:, Source.PROFILE] + alike[:, Source.INTERESTS], 1, atol=1e-5)


def test_what_was_bought_is_not_proposed_by_an_interest() -> None:
    """Hidden items are hidden from every search."""
    assert not {"e2", "n2"} & set(listed(3, bought=["e2", "n2"])[1])
    assert {"e2", "n2"} & set(listed(3)[1])


FOOTBALL = ["football match result", "football league goals", "football club coach", "football player transfer"]
COOKING = ["pasta sauce recipe", "baked bread recipe", "vegetable soup recipe", "chocolate cake recipe"]


def test_an_engine_asks_for_as_many_tastes_as_the_settings_say() -> None:
    """Published neighbours stay those of the profile; soup is worth more beside the cook's own taste."""
    settings = load_settings(list_items=4, candidates=4, neighbours=3, neighbour_candidates=3)
    engines = [build_engine(settings.model_copy(update={"interests": interests})) for interests in (1, 2)]
    mine = [*COOKING[:2], *FOOTBALL[:3]]
    refreshes = []
    for engine in engines:
        engine.describe([Item(title, title=title) for title in (*FOOTBALL, *COOKING)])
        viewed = [("fan", FOOTBALL[0]), ("cook", COOKING[0]), *(("me", item) for item in mine)]
        events = [Event(user, item, EventType.VIEW, 1_700_000_000_000 + n) for n, (user, item) in enumerate(viewed)]
        engine.apply(engine.prepare(events, np.arange(len(events)), 0))
        again = [Event("me", FOOTBALL[0], EventType.VIEW, 1_700_000_100_000)]
        refreshes.append(engine.prepare(again, np.array([len(events)]), 0))
    one, two = refreshes
    assert_array_equal(one.neighbour_slots, two.neighbour_slots)
    assert one.taught is not None
    assert two.taught is not None
    soup = engines[0].catalogue.slot_of["vegetable soup recipe"]
    by_profile, by_taste = (
        [pool.worth[0, pool.items[0].tolist().index(soup), source] for pool in (one.taught.pool, two.taught.pool)]
        for source in (Source.PROFILE, Source.INTERESTS)
    )
    assert by_profile[0] == by_profile[1]
    assert by_taste[0] == 0
    assert by_taste[1] > 2 * by_profile[1]
