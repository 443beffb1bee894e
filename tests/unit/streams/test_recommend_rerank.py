"""The last step of a list: diversity, calibration, floors and business rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from streams.core.catalogue import Catalogue
from streams.core.errors import UsageError
from streams.core.events import EventType, Item
from streams.core.ports import Floats
from streams.core.recommendations import SHORT_SENTENCES
from streams.recommend.rerank import RerankConfig, Reranked, Reranker, ShortBecause, check_saved, joined_users
from streams.recommend.rules import Rules
from streams.recommend.rules_file import parse_rules

NOW_S = 1_700_000_000.0
HOUR_S = 3600.0
BRANDS, CATEGORIES, PROVIDERS = "aaabbbccc.", "xxyyxxyyz.", "ppppppqqq."


class AxisItems:
    """Items lie on the axis that the first word of their description is the number of."""

    dim = 4

    def encode(self, item_ids: list[str], descriptions: list[str], attributes: object) -> Floats:
        vectors = np.zeros((len(item_ids), self.dim), np.float32)
        vectors[range(len(item_ids)), [int(text.split()[0]) if text else 0 for text in descriptions]] = 1
        return vectors


class TheseVectors:
    """Gives out these, one after the other."""

    def __init__(self, vectors: Floats) -> None:
        self._vectors, self.dim = vectors, vectors.shape[1]

    def encode(self, item_ids: list[str], descriptions: list[str], attributes: object) -> Floats:
        return self._vectors[: len(item_ids)]


def catalogue(axes: str = "0011223301") -> Catalogue:
    """Ten items; . is unknown."""
    found = Catalogue(AxisItems())
    found.put(
        [
            Item(
                f"i{slot}",
                title=axes[slot],
                brand=BRANDS[slot].strip(".") or None,
                categories=[name for name in CATEGORIES[slot] if name != "."],
                provider=PROVIDERS[slot].strip(".") or None,
                price=10.0 * slot if slot < 9 else None,
                tags=["new"] if slot % 2 else [],
            )
            for slot in range(10)
        ]
    )
    return found


def reranker(rules: str = "", items: Catalogue | None = None, **config: object) -> Reranker:
    """For lists of three, with these rules in service."""
    settings = RerankConfig(**{"list_items": 3, "diversity_head": 0, **config})
    made = Reranker(items or catalogue(), settings)
    made.take(parse_rules(rules.encode(), "rules.toml", settings.list_items))
    return made


def reranked(
    made: Reranker, items: list[int], *, recent: tuple[int, ...] = (), user: int = 0, at_s: float = 0.0
) -> Reranked:
    """The list of one user with these candidates, each 2 % below the one before."""
    return made.rerank(
        np.array([user], np.int32),
        np.array([items], np.int32).reshape(1, -1),
        (0.98 ** np.arange(len(items))).astype(np.float32)[None],
        np.array([[*recent, -1]], np.int32),
        np.array([len(recent)], np.int32),
        NOW_S + at_s,
    )


def listed(
    made: Reranker, items: list[int], *, recent: tuple[int, ...] = (), user: int = 0, at_s: float = 0.0
) -> list[int]:
    """The items of that list."""
    places = reranked(made, items, recent=recent, user=user, at_s=at_s).places[0].tolist()
    assert places == sorted(places, key=lambda place: place < 0)
    return [items[place] for place in places if place >= 0]


def publish(made: Reranker, items: list[int], *, user: int = 0, at_s: float = 0.0) -> None:
    """Counts one published list."""
    made.published(np.array([user], np.int32), np.array([items], np.int32), NOW_S + at_s)


def react(made: Reranker, item: int, kind: EventType, *, user: int = 0, at_s: float = 0.0) -> None:
    """Counts one event."""
    event = np.array([user], np.int32), np.array([item], np.int32), np.array([kind.code], np.uint8)
    made.reacted(*event, np.array([NOW_S + at_s]))


ALL = list(range(10))


def test_nothing_set_is_the_first_n() -> None:
    """Whatever the items are."""
    made = reranker()
    assert not made.changes_lists
    assert listed(made, [4, 2, 9, 1]) == [4, 2, 9]
    assert listed(made, [4, 2]) == [4, 2]
    assert listed(made, []) == []


@pytest.mark.parametrize("by", ["msd", "mmr", "dpp"])
def test_diversity_passes_over_what_resembles_the_list(by: str) -> None:
    """0 and 1 are alike, so are 2 and 3; 4 and 5."""
    assert listed(reranker(diversity=0.5, diversity_by=by), [0, 1, 2, 3, 4]) == [0, 2, 4]


@pytest.mark.parametrize("by", ["msd", "mmr", "dpp"])
def test_the_first_places_go_by_score(by: str) -> None:
    """A pin beside them, however much items must differ; the others differ from these."""
    wish = {"diversity": 1.0, "diversity_by": by, "list_items": 4}
    items = [0, 1, 4, 5, 2]
    assert [listed(reranker(diversity_head=head, **wish), items)[:3] for head in (0, 1, 2, 3, 4)] == [
        [0, 4, 2], [0, 4, 2], [0, 1, 4], [0, 1, 4], [0, 1, 4],
    ]  # fmt: skip
    assert listed(reranker(diversity_head=4, **wish), items) == [0, 1, 4, 5]
    pinned = "[[pin]]\nitem = 'i2'\nposition = 2"
    assert listed(reranker(pinned, diversity_head=3, **wish), items) == [0, 2, 1, 4]


def test_by_msd_an_item_must_be_far_from_all_on_average() -> None:
    """A copy of one item is far from the others: it beats what is rather near to all three, but not by MMR."""
    tilted = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0.577, 0.577, 0.577]], np.float32)
    items = Catalogue(TheseVectors(tilted))
    items.slots([f"i{slot}" for slot in range(5)])
    wish = {"list_items": 4, "diversity": 1.0, "diversity_head": 3}
    assert listed(reranker("", items, diversity_by="msd", **wish), [0, 1, 2, 4, 3]) == [0, 1, 2, 3]
    assert listed(reranker("", items, diversity_by="mmr", **wish), [0, 1, 2, 4, 3]) == [0, 1, 2, 4]


def test_little_diversity_changes_little() -> None:
    """A copy costs more than 2 % of the score only where diversity counts enough."""
    assert listed(reranker(diversity=0.01), [0, 1, 2, 3, 4]) == [0, 1, 2]


@pytest.mark.parametrize("by", ["msd", "mmr", "dpp"])
def test_diversity_alone_still_fills_the_list(by: str) -> None:
    """Copies come last, in their order."""
    assert listed(reranker(diversity=1.0, diversity_by=by, list_items=4), [0, 1, 4, 5]) in ([0, 4, 1, 5], [0, 4, 5, 1])


def test_calibration_follows_the_users_mix() -> None:
    """Two thirds of x and a third of y in the past; the best three candidates are all x."""
    made = reranker(calibration=0.5)
    assert listed(made, [0, 1, 4, 2, 3], recent=(5, 0, 6)) == [0, 2, 1]
    assert listed(made, [0, 1, 4, 2, 3], recent=(5, 0)) == [0, 1, 4]


def test_without_known_categories_calibration_changes_nothing() -> None:
    """A user without history, or with items of which nothing is known."""
    made = reranker(calibration=0.5)
    assert listed(made, [2, 0, 9, 1]) == listed(made, [2, 0, 9, 1], recent=(9,)) == [2, 0, 9]


def test_selectors_mean_items_that_fit_every_key() -> None:
    """One name of each key; a price that is unknown lies in no range."""
    assert listed(reranker("[[drop]]\nbrand = ['a', 'c']"), ALL) == [3, 4, 5]
    assert listed(reranker("[[drop]]\nbrand = 'a'\nprice_min = 10"), ALL) == [0, 3, 4]
    assert listed(reranker("[[drop]]\ncategory = 'x'\nprovider = 'p'"), ALL) == [2, 3, 6]
    assert listed(reranker("[[keep]]\nprice_max = 10"), [9, 3, 1, 0]) == [1, 0]
    assert listed(reranker("[[drop]]\nattribute = 'tag:new'"), ALL) == [0, 2, 4]
    assert listed(reranker("[[keep]]\nitem = ['i9', 'i3', 'nobody']"), ALL) == [3, 9]
    assert listed(reranker("[[keep]]\nbrand = 'a'\n[[keep]]\ncategory = 'y'"), ALL) == [2]
    assert listed(reranker("[exclude]\nitems = ['i0', 'i2']"), ALL) == [1, 3, 4]


def test_boosts_and_buries_change_the_order() -> None:
    """Factors of several rules are multiplied."""
    assert listed(reranker("[[boost]]\nbrand = 'c'\nfactor = 1.5"), ALL) == [6, 7, 8]
    assert listed(reranker("[[bury]]\nbrand = 'a'\nfactor = 0.5"), ALL) == [3, 4, 5]
    both = "[[boost]]\nbrand = 'b'\nfactor = 2\n[[bury]]\ncategory = 'x'\nfactor = 0.1"
    assert listed(reranker(both), ALL) == [3, 2, 6]


def test_rules_follow_what_becomes_known() -> None:
    """Items that come later, get another brand, or are seen in an event only."""
    items = catalogue()
    made = reranker("[[drop]]\nbrand = 'new'", items)
    assert listed(made, [0, 1, 2]) == [0, 1, 2]
    items.put([Item("i1", title="0", brand="new"), Item("i10", title="0", brand="new")])
    items.slots(["i11"])
    assert listed(made, [0, 1, 10, 11, 2]) == [0, 11, 2]
    items.put([Item("i1", title="0", brand="old")])
    assert listed(made, [0, 1, 10, 11, 2]) == [0, 1, 11]
    assert np.flatnonzero(~made.allowed()).tolist() == [10]


def test_rules_follow_a_catalogue_that_outgrows_its_rows() -> None:
    """Columns grow with it."""
    items = catalogue()
    made = reranker("[[drop]]\nbrand = 'a'", items)
    items.put([Item(f"n{number}", title="0", brand="ab"[number % 2]) for number in range(5000)])
    assert listed(made, [10, 11, 5008, 5009]) == [11, 5009]


def test_a_pin_stands_at_its_place() -> None:
    """If it is a candidate; the others keep their order."""
    made = reranker("[[pin]]\nitem = 'i7'\nposition = 2\n[[pin]]\nitem = 'i1'\nposition = 1")
    assert listed(made, [0, 1, 2, 3, 7]) == [1, 7, 0]
    assert listed(made, [0, 2, 3, 7]) == [0, 7, 2]
    assert listed(made, [0, 2, 3]) == [0, 2, 3]


def test_a_pin_of_a_list_too_short_stands_last() -> None:
    """There is no place to leave empty."""
    assert listed(reranker("[[pin]]\nitem = 'i7'\nposition = 3"), [7, 0]) == [0, 7]


def test_pins_are_asked_for_once_they_may_be_shown() -> None:
    """Known, available and not excluded."""
    items = catalogue()
    made = reranker("[[pin]]\nitem = 'i7'\nposition = 2\n[[pin]]\nitem = 'later'\nposition = 1", items)
    assert made.pinned().tolist() == [7]
    items.put([Item("later", title="0")])
    assert made.pinned().tolist() == [10, 7]
    items.withdraw(["i7"])
    assert made.pinned().tolist() == [10]


def test_what_the_catalogue_does_not_know_is_a_warning() -> None:
    """Items and names may come later, or be typing errors."""
    made = Reranker(catalogue(), RerankConfig(list_items=3))
    text = (
        b"[[pin]]\nitem = 'later'\nposition = 1\n[[drop]]\nbrand = ['a', 'acne']\n[[boost]]\ncategory = 'w'\nfactor = 2"
    )
    warnings = made.take(parse_rules(text, "rules.toml", 3))
    assert [warning.split("that")[0] + warning.split(":")[1] for warning in warnings] == [
        "The rules name items  'later'.",
        "The rules name categories  'w'.",
        "The rules name brands  'acne'.",
    ]


def test_a_pin_of_what_the_catalogue_excludes_is_refused() -> None:
    """And the old rules serve on."""
    made = reranker("[[drop]]\nbrand = 'b'")
    with pytest.raises(UsageError, match="pin 'i0' and exclude the same"):
        made.take(parse_rules(b"[[drop]]\nbrand = 'a'\n[[pin]]\nitem = 'i0'\nposition = 1", "rules.toml", 3))
    assert listed(made, ALL) == [0, 1, 2]
    assert listed(made, [3, 0]) == [0]


def test_caps_bound_each_brand_provider_and_category() -> None:
    """Items of unknown brand are of none; of two categories one that is full is enough."""
    assert listed(reranker("[caps]\nbrand = 1"), ALL) == [0, 3, 6]
    assert listed(reranker("[caps]\nbrand = 2\nprovider = 2"), ALL) == [0, 1, 6]
    assert listed(reranker("[caps]\ncategory = 1"), ALL) == [0, 2, 8]
    items = catalogue()
    items.put([Item("i0", title="0", categories=["y", "x"])])
    assert listed(reranker("[caps]\ncategory = 1", items), [0, 1, 2, 8, 9]) == [0, 8, 9]


def test_pins_count_under_caps() -> None:
    """The others make room for them, and a second one that is too many is left out."""
    assert listed(reranker("[caps]\nbrand = 1\n[[pin]]\nitem = 'i2'\nposition = 3"), ALL) == [3, 6, 2]
    pins = "[caps]\nbrand = 1\n[[pin]]\nitem = 'i2'\nposition = 1\n[[pin]]\nitem = 'i1'\nposition = 2"
    assert listed(reranker(pins), ALL) == [2, 3, 6]


def test_a_floor_lifts_its_group_as_far_as_needed() -> None:
    """One of q at the last place of three is 23 % of the exposure; more was not asked for."""
    made = reranker("[[floor]]\nprovider = 'q'\nshare = 0.2")
    assert listed(made, ALL) == [0, 1, 6]
    assert listed(reranker("[[floor]]\nprovider = 'q'\nshare = 0.25"), ALL) == [0, 6, 1]
    assert listed(made, [0, 1, 2]) == [0, 1, 2]


def test_floors_look_at_the_window() -> None:
    """A group that had enough lately is not lifted; nothing counts before it is published."""
    made = reranker("[[floor]]\nprovider = 'q'\nshare = 0.2\n[exposure]\nwindow_lists = 2")
    assert listed(made, ALL) == listed(made, ALL) == [0, 1, 6]
    publish(made, [6, 7, 8])
    assert listed(made, ALL) == [0, 1, 2]
    publish(made, [0, 1, 2])
    assert listed(made, ALL) == [0, 6, 7]
    assert made.exposure_shares() == {'{"provider":["q"],"share":0.2}': pytest.approx(0.5)}


def test_floors_hold_within_a_batch_too() -> None:
    """Each list is made as if those before it were published: the first did enough for two."""
    made = reranker("[[floor]]\nprovider = 'q'\nshare = 0.11")
    rows = np.tile(np.array(ALL, np.int32), (3, 1))
    nobody = np.full((3, 1), -1, np.int32)
    found = made.rerank(nobody[:, 0], rows, (0.98**rows).astype(np.float32), nobody, np.zeros(3, np.int32), NOW_S)
    assert found.places.tolist() == [[0, 1, 6], [0, 1, 2], [0, 1, 6]]


def test_candidates_are_wanted_for_floors_that_could_break_and_for_no_other() -> None:
    """None without floors; two spare ones beside twice the share of a list; none once the window has enough."""
    assert reranker().wanted_of_floors(1).tolist() == []
    made = reranker(
        "[[floor]]\nprovider = 'q'\nshare = 0.2\n[[floor]]\nbrand = 'b'\nshare = 0.05\n[exposure]\nwindow_lists = 4",
        list_items=10,
    )
    assert made.wanted_of_floors(1).tolist() == [6, 3]
    for _ in range(4):
        publish(made, [6, 7, 8, 0])
    assert made.wanted_of_floors(1).tolist() == [0, 3]
    assert made.wanted_of_floors(4).tolist() == [6, 3], "four lists are the whole window"
    assert made.reserved(np.array([[6, 3, 0, -1]], np.int32)).groups.tolist() == [[1, 2, 0, 0]]
    publish(made, [3, 4, 5])
    assert made.reserved(np.array([[6, 3]], np.int32)) is None


def test_a_group_is_not_lifted_beyond_its_part_of_one_list() -> None:
    """However much it missed before."""
    made = reranker("[[floor]]\nprovider = 'q'\nshare = 0.2\n[exposure]\nlist_share_max = 0.25")
    for _ in range(50):
        publish(made, [0, 1, 2])
    assert listed(made, ALL) == [0, 6, 1]


def test_floors_break_neither_pins_nor_caps() -> None:
    """The best of the group is of a brand that is full, the last place is pinned: the other one comes before it."""
    rules = "[[floor]]\nprovider = 'q'\nshare = 0.2\n[caps]\nbrand = 1\n"
    items = catalogue()
    items.put([Item("i6", title="3", brand="b", provider="q")])
    assert listed(reranker(rules, items), [0, 3, 9, 6, 7]) == [0, 3, 7]
    assert listed(reranker(rules + "[[pin]]\nitem = 'i9'\nposition = 3", items), [0, 3, 9, 6, 7]) == [0, 6, 9]


def test_one_floor_is_not_served_at_the_cost_of_another() -> None:
    """The item that makes room belongs to neither group, though it is the better one."""
    rules = "[[floor]]\nprovider = 'q'\nshare = 0.2\n[[floor]]\nbrand = 'b'\nshare = 0.2"
    assert listed(reranker(rules), [0, 1, 3, 6]) == [0, 6, 3]


def test_what_was_shown_often_pauses() -> None:
    """Counted by published lists, until the pause is over."""
    made = reranker("[fatigue]\nshown = 2\nrest_hours = 1\nspacing_s = 60")
    for at_s in (0, 30, 60):
        assert listed(made, ALL, at_s=at_s) == [0, 1, 2]
        publish(made, [0, 1, 2], at_s=at_s)
    assert listed(made, ALL, at_s=60) == [3, 4, 5]
    assert listed(made, ALL, user=1, at_s=60) == [0, 1, 2]
    assert listed(made, ALL, at_s=60 + HOUR_S) == [0, 1, 2]


def test_a_reaction_ends_the_pause() -> None:
    """Anything but an impression."""
    made = reranker("[fatigue]\nshown = 1\nrest_hours = 1")
    publish(made, [0, 1, 2])
    react(made, 0, EventType.IMPRESSION)
    react(made, 1, EventType.CLICK)
    assert listed(made, ALL) == [1, 3, 4]


def test_impressions_are_counted_where_rules_say_so() -> None:
    """Published lists then count nothing."""
    made = reranker("[fatigue]\nshown = 2\nrest_hours = 1\nspacing_s = 60\ncount = 'impressions'")
    for at_s in (0, 100):
        publish(made, [0, 1, 2], at_s=at_s)
        react(made, 1, EventType.IMPRESSION, at_s=at_s)
    assert listed(made, ALL, at_s=100) == [0, 2, 3]


def test_a_forgotten_user_begins_anew() -> None:
    """Nothing is known of what was shown."""
    made = reranker("[fatigue]\nshown = 1\nrest_hours = 1")
    publish(made, [0, 1, 2])
    made.forget(np.array([0], np.int32))
    assert listed(made, ALL) == [0, 1, 2]


@pytest.mark.parametrize(
    ("rules", "candidates", "because"),
    [
        ("", [0, 1, 2], ShortBecause.NOT),
        ("", [0, 1], ShortBecause.CATALOGUE_EXHAUSTED),
        ("", [], ShortBecause.CATALOGUE_EXHAUSTED),
        ("[[boost]]\nbrand = 'a'\nfactor = 2", [0, 1], ShortBecause.CATALOGUE_EXHAUSTED),
        ("[[drop]]\nbrand = 'a'", [3, 4], ShortBecause.RULES),
        ("[[drop]]\nbrand = 'a'", [0, 1, 2, 3, 4], ShortBecause.RULES),
        ("[[drop]]\nbrand = 'a'", [0, 1, 2, 3, 4, 5], ShortBecause.NOT),
        ("[caps]\nbrand = 1", [0, 1, 2, 3], ShortBecause.CAPS),
        ("[fatigue]\nshown = 1\nrest_hours = 1", [0, 8, 9, 1], ShortBecause.FATIGUE),
    ],
)
def test_a_short_list_says_why(rules: str, candidates: list[int], because: ShortBecause) -> None:
    """The first step after which too few were left."""
    made = reranker(rules)
    publish(made, [8, 9, -1])
    assert reranked(made, candidates).short_because.tolist() == [because]


def test_the_reasons_have_words() -> None:
    """For messages and the page."""
    assert [each.word for each in ShortBecause] == [None, *SHORT_SENTENCES]


def test_an_empty_catalogue_gives_empty_lists() -> None:
    """With everything switched on."""
    rules = "[caps]\nbrand = 1\n[[floor]]\nbrand = 'a'\nshare = 0.1\n[fatigue]\nshown = 1\nrest_hours = 1"
    made = reranker(rules, Catalogue(AxisItems()), diversity=0.5, calibration=0.5)
    found = reranked(made, [-1, -1])
    assert found.places.tolist() == [[-1, -1, -1]]
    assert found.short_because.tolist() == [ShortBecause.CATALOGUE_EXHAUSTED]
    publish(made, [-1, -1, -1])
    assert len(made.rerank(*(np.zeros(shape, np.int32) for shape in (0, (0, 2), (0, 2), (0, 2), 0)), NOW_S).places) == 0


def test_a_catalogue_of_one_is_a_list_of_one() -> None:
    """With everything switched on, recent items unknown to it included."""
    items = Catalogue(AxisItems())
    items.put([Item("only", title="0", brand="a", categories=["x"])])
    rules = "[caps]\nbrand = 1\n[[floor]]\nbrand = 'a'\nshare = 0.1\n[[pin]]\nitem = 'only'\nposition = 3"
    for by in ("msd", "mmr", "dpp"):
        made = reranker(rules, items, diversity=0.5, calibration=0.5, diversity_by=by)
        assert listed(made, [0], recent=(0, 77)) == [0]


def test_new_rules_keep_what_they_count_the_same() -> None:
    """Floors that changed begin anew, fatigue goes on until it is switched off."""
    floor, fatigue = "[[floor]]\nprovider = 'q'\nshare = 0.2\n", "[fatigue]\nshown = 1\nrest_hours = 1\n"
    made = reranker(floor + fatigue)
    publish(made, [6, 0, 1])

    def take(text: str) -> None:
        made.take(parse_rules(text.encode(), "rules.toml", 3))

    take(floor + fatigue + "[caps]\nbrand = 3")
    assert made.exposure_shares() == {'{"provider":["q"],"share":0.2}': pytest.approx(1 / 2.1309, abs=1e-3)}
    assert listed(made, ALL) == [2, 3, 4]
    take(floor.replace("0.2", "0.1"))
    assert list(made.exposure_shares().values()) == [0]
    take(fatigue)
    assert listed(made, ALL) == [0, 1, 2]
    assert made.exposure_shares() == {}


def remembered(made: Reranker) -> dict[str, Any]:
    """All that is saved, the users in two pieces."""
    return made.saved() | joined_users([made.saved_users(0, 1), made.saved_users(1, 3)])


def test_what_is_remembered_is_saved_and_restored() -> None:
    """As far as the rules in service still count it."""
    rules = "[[floor]]\nprovider = 'q'\nshare = 0.2\n[fatigue]\nshown = 1\nrest_hours = 1"
    made = reranker(rules)
    publish(made, [6, 0, 1])
    again = reranker(rules)
    again.restore(remembered(made))
    assert again.exposure_shares() == made.exposure_shares() != reranker(rules).exposure_shares()
    assert listed(again, ALL) == listed(made, ALL) == [2, 3, 4]
    other = reranker("[[floor]]\nprovider = 'p'\nshare = 0.2")
    other.restore(remembered(made))
    assert list(other.exposure_shares().values()) == [0]
    assert remembered(reranker()) == {}
    reranker().restore(remembered(made))


def test_rules_that_begin_to_count_meanwhile_have_nothing_to_be_saved() -> None:
    """Half of the users would be without what they were shown."""
    made = reranker("[fatigue]\nshown = 1\nrest_hours = 1")
    publish(made, [6, 0, 1])
    assert joined_users([None, made.saved_users(1, 3)]) == joined_users([]) == {}


def test_what_is_restored_waits_for_the_first_rules() -> None:
    """A worker reads its rules file after its memory; a user forgotten in between is forgotten there too."""
    text = "[[floor]]\nprovider = 'q'\nshare = 0.2\n[fatigue]\nshown = 1\nrest_hours = 1"
    made, rules = reranker(text), parse_rules(text.encode(), "rules.toml", 3)
    publish(made, [6, 0, 1])
    publish(made, [6, 0, 1], user=1)
    again = reranker()
    again.restore(remembered(made))
    again.forget(np.array([1], np.int32))
    again.take(rules)
    assert again.exposure_shares() == made.exposure_shares()
    assert listed(again, ALL) == [2, 3, 4]
    assert listed(again, ALL, user=1) == [0, 1, 2]
    again.take(Rules())
    again.take(rules)
    assert list(again.exposure_shares().values()) == [0]


SAVED = {
    "exposure": np.ones((2, 2)),
    "floors": np.array(["a"]),
    "shown_items": np.zeros((1, 48), np.int32),
    "shown_times": np.zeros((1, 48), np.uint8),
    "shown_last_s": np.zeros((1, 48), np.uint32),
}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"exposure": np.ones((2, 3))}, r"expected exposure of f8 and \(2, 2\), got float64 and \(2, 3\)"),
        ({"exposure": np.full((2, 2), np.nan)}, "finite"),
        ({"floors": np.ones(1)}, "expected floors of text"),
        ({"floors": None}, "expected exposure, floors together"),
        ({"shown_times": None}, "expected shown_items, shown_times, shown_last_s together"),
        ({"shown_times": np.zeros((2, 48), np.uint8)}, "expected shown_times of u1"),
        ({"shown_items": np.zeros((1, 48), np.int64)}, "expected shown_items of i4"),
        ({"shown_items": np.zeros((1, 47), np.int32)}, "expected shown_items of i4"),
        ({"other": np.ones(1)}, "expected other of text and None"),
    ],
)
def test_saved_arrays_that_cannot_be_are_refused(changed: dict[str, np.ndarray | None], says: str) -> None:
    """With what was expected, and nothing is taken over."""
    check_saved(SAVED)
    arrays = {name: array for name, array in (SAVED | changed).items() if array is not None}
    with pytest.raises(ValueError, match=says):
        reranker().restore(arrays)


def test_arrays_that_do_not_fit_are_refused() -> None:
    """Before anything is read from them."""
    made, nobody = reranker(diversity=0.5), np.zeros(1, np.int32)
    items, scores = np.zeros((1, 2), np.int32), np.ones((1, 2), np.float32)
    with pytest.raises(ValueError, match="scores must have the shape"):
        made.rerank(nobody, items, scores[:, :1], items, nobody, NOW_S)
    with pytest.raises(ValueError, match="items must have the shape"):
        made.rerank(np.zeros(2, np.int32), items, scores, items, nobody, NOW_S)
    with pytest.raises(ValueError, match="recent_count must be at most 2, got 3"):
        made.rerank(nobody, items, scores, items, np.array([3], np.int32), NOW_S)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"diversity": 1.5}, "between 0 and 1, got 1.5"),
        ({"calibration": float("nan")}, "between 0 and 1"),
        ({"list_items": 0}, "at least 1"),
        ({"diversity_by": "ssd"}, "must be msd, mmr or dpp, got 'ssd'"),
        ({"diversity_head": -1}, "at least 0, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], says: str) -> None:
    """With what was expected."""
    with pytest.raises(ValueError, match=says):
        RerankConfig(**settings)


def test_warming_up_changes_nothing() -> None:
    """It only compiles."""
    made = reranker("[[floor]]\nprovider = 'q'\nshare = 0.2")
    before = reranked(made, ALL)
    made.warm_up()
    assert_array_equal(reranked(made, ALL).places, before.places)
