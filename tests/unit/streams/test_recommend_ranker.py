"""Whole lists, small enough to be followed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streams.core.catalogue import Catalogue
from streams.core.events import Item
from streams.core.profile import ProfileColumns, ProfileLayout, ProfileStore
from streams.recommend.cooccurrence import Entered
from streams.recommend.ranker import Ranker
from streams.recommend.request import RankerConfig, Ranking, RankRequest, Source, source_names
from streams.recommend.rules import Rules
from streams.recommend.views import Views

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW_S = 1_700_000_000.0
RECENT = 4
HALF_LIVES_S = (3600.0, 86_400.0)
SOURCES = len(source_names(HALF_LIVES_S))
DIRECTIONS = {"east": (1.0, 0.0), "north": (0.0, 1.0), "north-east": (0.6, 0.8), "": (0.8, 0.6)}
LAYOUT = ProfileLayout(state_width=2, recent_items=RECENT, event_id_window=1)


class CompassEncoder:
    """The first word is a direction; without words everything lies between east and north-east."""

    dim = 2

    def encode(self, item_ids: Sequence[str], descriptions: Sequence[str], attributes: object) -> np.ndarray:
        return np.array([DIRECTIONS[text.partition(" ")[0]] for text in descriptions], np.float32).reshape(-1, 2)


class World:
    """Items and users by name."""

    def __init__(
        self,
        items: dict[str, str],
        histories: dict[str, list[str]],
        categories: dict[str, list[str]] | None = None,
    ) -> None:
        self.catalogue = Catalogue(CompassEncoder())
        self.catalogue.slots(list(items))
        described = {name: words for name, words in items.items() if words}
        kinds = categories or {}
        self.catalogue.put(
            [Item(name, title=words, categories=kinds.get(name, [])) for name, words in described.items()]
        )
        self.store = ProfileStore(LAYOUT)
        self.views = Views(HALF_LIVES_S)
        columns = ProfileColumns.empty(len(histories), LAYOUT)
        columns.clear(slice(None))
        for row, names in enumerate(histories.values()):
            columns.recent_items[row, : len(names)] = self.catalogue.slots(names)
            columns.recent_count[row] = len(names)
        self.store.put(list(histories), columns)

    def popular(self, **counts: float) -> World:
        """So many events now, in all trends."""
        slots = self.catalogue.slots(list(counts))
        for trend in self.views.trends:
            trend.fold(slots, np.array(list(counts.values()), np.float32), np.full(len(counts), NOW_S))
        return self

    def lived(self, *histories: str, age_s: float = 0.0) -> World:
        """Somebody had these items, one after the other."""
        for history in histories:
            items = self.catalogue.slots(history.split())[None]
            count = np.array([items.shape[1]], np.int32)
            times_s = np.full(items.shape, NOW_S - age_s)
            entered = Entered(items, np.ones(items.shape, np.float32), times_s, count, count)
            self.views.fold(entered, self.catalogue.facts.categories)
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
            recent_types=columns.recent_types,
            recent_count=columns.recent_count,
            history_events=columns.recent_total,
            bought_offsets=np.array([0, len(bought)], np.int32),
            bought_items=self.catalogue.slots(bought),
            neighbour_slots=self.store.slots(list(neighbours or {}))[None],
            neighbour_similarities=np.array([list((neighbours or {}).values())], np.float32),
        )

    def ranker(self, **config: object) -> Ranker:
        return Ranker(self.store, self.catalogue, self.views, RankerConfig(**config))

    def rank(self, request: RankRequest, **config: object) -> Ranking:
        return self.ranker(**config).rank(request)

    def names(self, request: RankRequest, **config: object) -> list[str]:
        return self.named(self.rank(request, **config).items[0].tolist())

    def named(self, slots: Sequence[int]) -> list[str]:
        return [self.catalogue.item_ids[slot] for slot in slots if slot >= 0]


def only(source: int) -> list[float]:
    """Shares of an item that one source alone speaks for."""
    return [1.0 if place == source else 0.0 for place in range(SOURCES)]


def test_a_user_nobody_knows_gets_what_is_popular() -> None:
    """No slot, no vector, no neighbour: the trend alone, then the rest of the catalogue by slot."""
    world = World({"a": "", "b": "", "c": "", "d": ""}, {}).popular(c=2.0, b=1.0)
    request = world.request("nobody")
    ranking = world.rank(request)
    assert ranking.items[0, :5].tolist() == [2, 1, 0, 3, -1]
    by_trends = ranking.shares[0, :2, [Source.RISING, Source.TREND, Source.TREND + 1]]
    assert_allclose(by_trends.sum(axis=0), [1, 1])
    assert_allclose(ranking.shares[0, 2:4], [only(SOURCES - 1)] * 2)
    assert (ranking.companions == -1).all()
    assert (ranking.categories == -1).all()
    assert (ranking.voters == -1).all()
    assert (ranking.anchors == -1).all()
    assert ranking.scores[0, 3] > 0 == ranking.scores[0, 4]


def test_neighbours_bring_their_recent_items() -> None:
    """The nearer neighbour's newest item first; the list says whose it was."""
    world = World({"a": "", "b": "", "c": ""}, {"me": ["a"], "near": ["c", "b"], "far": ["c"]})
    request = world.request("me", neighbours={"near": 0.9, "far": 0.5})
    assert world.names(request) == ["b", "c"]
    ranking = world.rank(request)
    assert ranking.voters[0, :2].tolist() == [[1, -1, -1], [1, 2, -1]]
    assert (ranking.shares[0, :2, 0] > 0.99).all()


def test_content_brings_what_resembles_the_profile_and_names_the_item() -> None:
    """Only described items count, though the undescribed one is the nearest; the anchor is the user's own."""
    items = {"mine": "east", "old": "north", "alike": "north-east", "unlike": "north", "mute": ""}
    world = World(items, {"me": ["old", "mine"]})
    request = world.request("me", vector=(0.8, 0.6))
    assert world.names(request) == ["alike", "unlike", "mute"]
    ranking = world.rank(request)
    assert ranking.anchors[0, :3].tolist() == [1, 1, -1]
    assert_allclose(ranking.shares[0, :2], [only(Source.PROFILE)] * 2)


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
    ranking = world.rank(world.request("me", vector=(1.0, 0.0)), repeats=True)
    assert ranking.anchors[0, 0] == 0 == ranking.items[0, 0]
    assert ranking.shares[0, 0, Source.REPEAT] > 0


def test_the_newest_and_most_frequent_own_items_come_again_first() -> None:
    """Sum of 1 / distance: b at 1 and 3, c at 2, a at 4; without repeats nobody is asked."""
    world = World({"a": "", "b": "", "c": ""}, {"me": ["a", "b", "c", "b"]})
    ranking = world.rank(world.request("me"), repeats=True)
    assert world.named(ranking.items[0].tolist()) == ["b", "c", "a"]
    assert_allclose(ranking.shares[0, :3], [only(Source.REPEAT)] * 3)
    assert_allclose(ranking.scores[0, :3] / ranking.scores[0, 0], np.array([4 / 3, 1 / 2, 1 / 4]) * 3 / 4, rtol=1e-6)
    assert world.names(world.request("me")) == []


def test_what_people_had_together_is_proposed_and_named() -> None:
    """Of the user's items the one that says most is the companion; who was in no history is in no pair."""
    world = World(dict.fromkeys(("a", "b", "c", "d"), ""), {"me": ["a", "b"]}).lived("a c", "b d", "b d", "b d")
    ranking = world.rank(world.request("me"))
    assert world.named(ranking.items[0].tolist()) == ["d", "c"]
    assert world.named(ranking.companions[0, :2].tolist()) == ["b", "a"]
    assert (ranking.shares[0, :2, Source.TOGETHER] > 0).all()


def test_the_best_of_the_users_categories_are_proposed_and_named() -> None:
    """A shirt is as popular as a sandal, and this user of shoes gets the sandal first; the reason says so."""
    kinds = {"boot": ["shoes"], "sandal": ["shoes", "summer"], "shirt": ["tops"], "mine": ["shoes"]}
    world = World(dict.fromkeys(kinds, "north"), {"me": ["mine"]}, kinds)
    world.lived("boot", "boot", "sandal", "shirt")
    ranking = world.rank(world.request("me", vector=(1.0, 0.0)))
    assert world.named(ranking.items[0].tolist()) == ["boot", "sandal", "shirt"]
    names = [world.catalogue.facts.category_names[code] for code in ranking.categories[0, :2].tolist()]
    assert names == ["shoes", "shoes"]
    assert ranking.categories[0, 2] == -1
    assert ranking.shares[0, 2, Source.CATEGORY] == 0 < ranking.shares[0, 1, Source.CATEGORY]


def test_what_wakes_up_rises() -> None:
    """An item that had all of its events just now, before one that had more of them yesterday."""
    world = World({"old": "", "new": ""}, {}).lived(*["old"] * 4, age_s=40_000.0).lived("new", "old")
    ranking = world.rank(world.request("nobody"))
    by_name = dict(zip(world.named(ranking.items[0].tolist()), ranking.shares[0].tolist(), strict=False))
    assert by_name["new"][Source.RISING] > by_name["old"][Source.RISING] > 0


RARE = {"mine": "east", "seen": "east", "near": "north-east", "had": "", "never": "", "far": "north"}
OF_PROVIDER = {"seen", "near", "had", "never"}


def _ruled(share: float) -> tuple[World, Ranker]:
    """Thirty hits that everybody wants, and a group of four items that nobody would propose to this user."""
    hits = {f"hit{n}": "north-east" for n in range(30)}
    world = World({**hits, **RARE}, {"me": ["mine", "seen"]}).popular(**dict.fromkeys(hits, 9.0), had=1.0)
    group = [Item(name, title=RARE[name], provider="rare") for name in sorted(OF_PROVIDER)]
    world.catalogue.put(group)
    ranker = Ranker(world.store, world.catalogue, world.views, RankerConfig(list_items=4, candidates=4))
    ranker.reranker.take(Rules.model_validate({"floor": [{"provider": "rare", "share": share}]}))
    ranker.weights.shared[:] = 0.0
    ranker.weights.shared[Source.TREND, 0] = 1.0
    return world, ranker


def test_a_floor_proposes_of_its_group_what_is_like_the_profile_and_what_is_popular() -> None:
    """Nobody else proposes these, and no trend hears them; the user's own item and what nobody had stay out."""
    world, ranker = _ruled(0.5)
    request = world.request("me", vector=(0.8, 0.6))
    pool = ranker.pool(request)
    assert OF_PROVIDER & set(world.named(pool.items[0].tolist())) == {"near", "had"}
    listed = ranker.choose(pool, request, NOW_S)
    assert {"near", "had"} <= set(world.named(listed.items[0].tolist()))
    shares = dict(zip(world.named(listed.items[0].tolist()), listed.shares[0], strict=True))
    assert_allclose(shares["near"], only(Source.PROFILE), err_msg="its weight is 0, and no other source knows it")
    assert shares["had"][Source.TREND] > 0.99
    assert_allclose(listed.shares[0].sum(axis=1), 1)


def test_a_floors_candidates_are_beyond_those_of_whoever_chooses_by_worth_alone() -> None:
    """A hundred better candidates do not keep them from being chosen."""
    world, ranker = _ruled(0.5)
    names = [f"more{n}" for n in range(200)]
    world.popular(**dict.fromkeys(names, 5.0))
    wide = Ranker(world.store, world.catalogue, world.views, RankerConfig(list_items=4, candidates=150))
    wide.reranker.take(ranker.reranker.rules)
    request = world.request("me", vector=(0.8, 0.6))
    items = wide.choose(wide.pool(request), request, NOW_S).items[0].tolist()
    assert OF_PROVIDER & set(world.named(items)) >= {"had"}


def test_a_floor_that_holds_proposes_nothing() -> None:
    """Enough was published of the group: candidates and lists are those without the rule."""
    world, ranker = _ruled(0.1)
    request = world.request("me", vector=(0.8, 0.6))
    group = world.catalogue.slots(["seen", "near", "had", "never"])[None]
    for _ in range(3):
        ranker.reranker.published(np.array([-1], np.int32), group, NOW_S)
    assert not OF_PROVIDER & set(world.named(ranker.pool(request).items[0].tolist()))
    held = ranker.pool(request)
    ranker.reranker.take(Rules())
    assert_array_equal(held.items, ranker.pool(request).items)


def test_weights_decide_who_is_heard() -> None:
    """With all weight on one source the list is that source's."""
    world = World({"hit": "", "near": ""}, {"other": ["near"]}).popular(hit=5.0)
    request = world.request("nobody", neighbours={"other": 0.9})
    for source, first in ((Source.NEIGHBOURS, "near"), (Source.TREND, "hit")):
        ranker = world.ranker()
        ranker.weights.shared[:] = 0.0
        ranker.weights.shared[source, 0] = 1.0
        ranking = ranker.rank(request)
        assert world.named(ranking.items[0, :1].tolist()) == [first]
        assert_allclose(ranking.shares[0, 0], only(source))


def test_an_event_teaches_and_the_ranker_stays() -> None:
    """What came by the neighbour raises the neighbours' weight in what is returned, not in the ranker."""
    world = World({"hit": "", "near": ""}, {"other": ["near"]}).popular(hit=5.0)
    ranker, request = world.ranker(), world.request("nobody", neighbours={"other": 0.9})
    before = ranker.weights.copy()
    lessons = ranker.learn(ranker.pool(request), request, world.catalogue.slots(["near"]))
    assert lessons.weights.shared[Source.NEIGHBOURS, 0] > before.shared[Source.NEIGHBOURS, 0]
    assert lessons.weights.by_type[255, Source.NEIGHBOURS, 0] > 0, "a user without history has no last type"
    for mine, old in zip(ranker.weights, before, strict=True):
        assert_array_equal(mine, old)


def test_sources_are_named_in_the_order_of_the_shares() -> None:
    """The trends last, by their half-life in hours."""
    assert World({}, {}).ranker().sources == (
        "neighbours", "profile", "together", "category", "repeat", "group", "rising", "newcomer", "interests",
            "trend-1h",
        "trend-24h",
    )  # fmt: skip
    assert source_names([1800.0, 7_776_000.0])[-2:] == ("trend-0.5h", "trend-2160h")


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
    ranking = world.rank(request, type_weights=(1.0, -3.0))
    assert (ranking.shares[0, :2, 0] > 0).tolist() == [True, False]
    assert ranking.items[0, :2].tolist() == [0, 1]


def test_users_not_alike_have_no_voice() -> None:
    """Neither a similarity of 0 or less, nor padding, nor the user itself votes."""
    world = World({"a": "", "b": ""}, {"me": ["a"], "other": ["b"]})
    for neighbours in ({"other": -0.2}, {"other": float("nan")}, {"nobody": 0.9}, {"me": 1.0}):
        request = world.request("me", neighbours=neighbours)._replace(recent_items=np.full((1, RECENT), -1, np.int32))
        ranking = world.rank(request)
        assert not ranking.shares[0, :, 0].any(), neighbours


def test_no_users_no_lists() -> None:
    """An empty batch, as in `warm_up`, is an empty ranking."""
    world = World({"a": ""}, {})
    ranker = world.ranker(list_items=7)
    ranker.warm_up()
    empty = world.request("nobody")
    empty = empty._replace(**{name: column[:0] for name, column in empty._asdict().items() if column is not None})
    ranking = ranker.rank(empty._replace(bought_offsets=np.zeros(1, np.int32)))
    assert ranking.items.shape == (0, 7)
    assert ranking.voters.shape == (0, 7, 3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vectors", np.zeros((1, 3), np.float32)),
        ("recent_count", np.zeros(2, np.int32)),
        ("recent_count", np.full(1, RECENT + 1, np.int32)),
        ("recent_types", np.zeros((1, RECENT + 1), np.uint8)),
        ("history_events", np.zeros(0, np.int64)),
        ("bought_offsets", np.array([0, 1], np.int32)),
        ("bought_offsets", np.array([0], np.int32)),
        ("neighbour_slots", np.zeros((1, 5), np.int32)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(field: str, value: np.ndarray) -> None:
    """The error names the array, what was expected and what came."""
    world = World({"a": ""}, {})
    ranker = world.ranker()
    with pytest.raises(ValueError, match=rf"{field}.*(must|got)"):
        ranker.rank(world.request("nobody")._replace(**{field: value}))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("list_items", 0),
        ("candidates", 0),
        ("content_temperature", 0.0),
        ("similarity_temperature", -1.0),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    """A list needs one item, one candidate a source and positive temperatures."""
    with pytest.raises(ValueError, match="must be"):
        RankerConfig(**{setting: value})
