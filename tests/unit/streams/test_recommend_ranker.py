"""Whole lists, small enough to be followed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose

from streams.core.catalogue import Catalogue
from streams.core.events import Item
from streams.core.profile import ProfileColumns, ProfileLayout, ProfileStore
from streams.recommend.ranker import Ranker
from streams.recommend.request import RankerConfig, RankRequest
from streams.recommend.trend import Trend

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW_S = 1_700_000_000.0
RECENT = 4
DIRECTIONS = {"east": (1.0, 0.0), "north": (0.0, 1.0), "north-east": (0.6, 0.8), "": (0.8, 0.6)}
LAYOUT = ProfileLayout(state_width=2, recent_items=RECENT, event_id_window=1)


class CompassEncoder:
    """A word is a direction; without words everything lies between east and north-east."""

    dim = 2

    def encode(self, item_ids: Sequence[str], descriptions: Sequence[str], attributes: object) -> np.ndarray:
        return np.array([DIRECTIONS[text] for text in descriptions], np.float32).reshape(-1, 2)


class World:
    """Items and users by name."""

    def __init__(self, items: dict[str, str], histories: dict[str, list[str]]) -> None:
        self.catalogue = Catalogue(CompassEncoder())
        self.catalogue.slots(list(items))
        self.catalogue.put([Item(name, title=words) for name, words in items.items() if words])
        self.store = ProfileStore(LAYOUT)
        self.trend = Trend(86_400.0)
        columns = ProfileColumns.empty(len(histories), LAYOUT)
        for row, names in enumerate(histories.values()):
            columns.recent_items[row, : len(names)] = self.catalogue.slots(names)
            columns.recent_count[row] = len(names)
        self.store.put(list(histories), columns)

    def popular(self, **counts: float) -> World:
        slots = self.catalogue.slots(list(counts))
        self.trend.fold(slots, np.array(list(counts.values()), np.float32), np.full(len(counts), NOW_S))
        return self

    def request(
        self,
        user: str,
        vector: tuple[float, float] = (0.0, 0.0),
        neighbours: dict[str, float] | None = None,
        bought: Sequence[str] = (),
    ) -> RankRequest:
        slots = self.store.slots([user])
        columns = self.store.take(slots)
        return RankRequest(
            slots=slots,
            vectors=np.array([vector], np.float32),
            recent_items=columns.recent_items,
            recent_count=columns.recent_count,
            bought_offsets=np.array([0, len(bought)], np.int32),
            bought_items=self.catalogue.slots(bought),
            neighbour_slots=self.store.slots(list(neighbours or {}))[None],
            neighbour_similarities=np.array([list((neighbours or {}).values())], np.float32),
            now_s=NOW_S,
        )

    def names(self, request: RankRequest, **config: object) -> list[str]:
        ranking = Ranker(self.store, self.catalogue, self.trend, RankerConfig(**config)).rank(request)
        return [self.catalogue.item_ids[slot] for slot in ranking.items[0].tolist() if slot >= 0]


def test_a_user_nobody_knows_gets_what_is_popular() -> None:
    """No slot, no vector, no neighbour: the trend alone, then the rest of the catalogue by slot."""
    world = World({"a": "", "b": "", "c": "", "d": ""}, {}).popular(c=2.0, b=1.0)
    request = world.request("nobody")
    ranking = Ranker(world.store, world.catalogue, world.trend, RankerConfig()).rank(request)
    assert ranking.items[0, :5].tolist() == [2, 1, 0, 3, -1]
    assert_allclose(ranking.shares[0, :4], [[0, 0, 1]] * 4)
    assert (ranking.voters == -1).all()
    assert (ranking.anchors == -1).all()
    assert ranking.scores[0, 3] > 0 == ranking.scores[0, 4]


def test_neighbours_bring_their_recent_items() -> None:
    """The nearer neighbour's newest item first; the list says whose it was."""
    world = World({"a": "", "b": "", "c": ""}, {"me": ["a"], "near": ["c", "b"], "far": ["c"]})
    request = world.request("me", neighbours={"near": 0.9, "far": 0.5})
    assert world.names(request) == ["b", "c"]
    ranking = Ranker(world.store, world.catalogue, world.trend, RankerConfig()).rank(request)
    assert ranking.voters[0, :2].tolist() == [[1, -1, -1], [1, 2, -1]]
    assert (ranking.shares[0, :2, 0] > 0.99).all()


def test_content_brings_what_resembles_the_profile_and_names_the_item() -> None:
    """Only described items count, though the undescribed one is the nearest; the anchor is the user's own."""
    items = {"mine": "east", "old": "north", "alike": "north-east", "unlike": "north", "mute": ""}
    world = World(items, {"me": ["old", "mine"]})
    request = world.request("me", vector=(0.8, 0.6))
    assert world.names(request, trending=1e-6) == ["alike", "unlike", "mute"]
    ranking = Ranker(world.store, world.catalogue, world.trend, RankerConfig()).rank(request)
    assert ranking.anchors[0, :3].tolist() == [1, 1, -1]
    assert_allclose(ranking.shares[0, 2], [0, 0, 1])


def test_directions_without_words_guide_nobody() -> None:
    """A user of undescribed items only gets the trend, whatever the vector is near to."""
    world = World({"mine": "", "east": "east", "hit": ""}, {"me": ["mine"]}).popular(hit=1.0)
    assert world.names(world.request("me", vector=(1.0, 0.0))) == ["hit", "east"]


def test_seen_and_bought_items_do_not_come_back() -> None:
    """Seen by the newest events or bought at any time; unless repeats are on."""
    world = World({"seen": "", "bought": "", "new": ""}, {"me": ["seen"], "near": ["seen", "bought", "new"]})
    world.popular(seen=9.0, bought=9.0)
    request = world.request("me", neighbours={"near": 0.9}, bought=["bought"])
    assert world.names(request) == ["new"]
    assert sorted(world.names(request, repeats=True)) == ["bought", "new", "seen"]


def test_what_is_gone_is_never_shown() -> None:
    """Not through neighbours, content or trend, not even with repeats."""
    world = World({"mine": "east", "gone": "east", "new": ""}, {"me": ["mine"], "near": ["gone"]}).popular(gone=9.0)
    world.catalogue.withdraw(["gone"])
    request = world.request("me", vector=(1.0, 0.0), neighbours={"near": 0.9})
    assert world.names(request) == ["new"]
    assert world.names(request, repeats=True) == ["mine", "new"]


def test_a_repeat_is_explained_by_itself() -> None:
    """With repeats on, the nearest own item of a seen item is the item."""
    world = World({"mine": "east"}, {"me": ["mine"]})
    config = RankerConfig(repeats=True)
    ranking = Ranker(world.store, world.catalogue, world.trend, config).rank(world.request("me", vector=(1.0, 0.0)))
    assert ranking.anchors[0, 0] == 0 == ranking.items[0, 0]


@pytest.mark.parametrize("items", [{}, {"only": "east"}])
def test_a_catalogue_that_is_empty_or_all_seen_gives_an_empty_list(items: dict[str, str]) -> None:
    """Nothing to show is no error."""
    world = World(items, {"me": list(items)})
    assert world.names(world.request("me", vector=(1.0, 0.0), neighbours={"me": 1.0})) == []


def test_a_catalogue_of_one_gives_a_list_of_one() -> None:
    """The one item, by the trend."""
    world = World({"only": "east"}, {})
    assert world.names(world.request("nobody")) == ["only"]


def test_long_histories_do_not_shorten_the_list() -> None:
    """However many popular items a user has bought, the list is filled from deeper down."""
    items = {f"i{slot}": "" for slot in range(300)}
    world = World(items, {}).popular(**{name: 300.0 - slot for slot, name in enumerate(items)})
    request = world.request("nobody", bought=[f"i{slot}" for slot in range(290)])
    assert world.names(request, list_items=6, candidates=2) == [f"i{slot}" for slot in range(290, 296)]


def test_disliked_items_of_neighbours_are_not_recommended() -> None:
    """Event types of weight 0 or less are no votes."""
    world = World({"good": "", "bad": ""}, {"near": ["good", "bad"]})
    world.store.columns.recent_types[0, :2] = [0, 1]
    request = world.request("nobody", neighbours={"near": 0.9})
    ranking = Ranker(world.store, world.catalogue, world.trend, RankerConfig(type_weights=(1.0, -3.0))).rank(request)
    assert (ranking.shares[0, :2, 0] > 0).tolist() == [True, False]
    assert ranking.items[0, :2].tolist() == [0, 1]


def test_users_not_alike_have_no_voice() -> None:
    """Neither a similarity of 0 or less, nor padding, nor the user itself votes."""
    world = World({"a": "", "b": ""}, {"me": ["a"], "other": ["b"]})
    for neighbours in ({"other": -0.2}, {"other": float("nan")}, {"nobody": 0.9}, {"me": 1.0}):
        request = world.request("me", neighbours=neighbours)._replace(recent_items=np.full((1, RECENT), -1, np.int32))
        ranking = Ranker(world.store, world.catalogue, world.trend, RankerConfig()).rank(request)
        assert not ranking.shares[0, :, 0].any(), neighbours


def test_no_users_no_lists() -> None:
    """An empty batch, as in `warm_up`, is an empty ranking."""
    world = World({"a": ""}, {})
    ranker = Ranker(world.store, world.catalogue, world.trend, RankerConfig(list_items=7))
    ranker.warm_up()
    empty = world.request("nobody")
    empty = empty._replace(**{name: getattr(empty, name)[:0] for name in empty._fields if name != "now_s"})
    ranking = ranker.rank(empty._replace(bought_offsets=np.zeros(1, np.int32)))
    assert ranking.items.shape == (0, 7)
    assert ranking.voters.shape == (0, 7, 3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vectors", np.zeros((1, 3), np.float32)),
        ("recent_count", np.zeros(2, np.int32)),
        ("recent_count", np.full(1, RECENT + 1, np.int32)),
        ("bought_offsets", np.array([0, 1], np.int32)),
        ("bought_offsets", np.array([0], np.int32)),
        ("neighbour_slots", np.zeros((1, 5), np.int32)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(field: str, value: np.ndarray) -> None:
    """The error names the array, what was expected and what came."""
    world = World({"a": ""}, {})
    ranker = Ranker(world.store, world.catalogue, world.trend, RankerConfig())
    with pytest.raises(ValueError, match=rf"{field}.*(must|got)"):
        ranker.rank(world.request("nobody")._replace(**{field: value}))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("trending", 0.0),
        ("because_of", -1.0),
        ("similar_users", float("nan")),
        ("list_items", 0),
        ("candidates", 0),
        ("content_temperature", 0.0),
        ("similarity_temperature", -1.0),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    """A list needs at least the trend, one item and positive temperatures."""
    with pytest.raises(ValueError, match="must be"):
        RankerConfig(**{setting: value})
