"""The engine without a broker: what moves memory, index and trend, and what must not."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streams.config import DEFAULT_TYPE_WEIGHTS, Settings, load_settings
from streams.core.errors import UsageError
from streams.core.events import Event, EventType, Item, User
from streams.kafka.changelog import decode_profile, encode_profiles, load_profiles
from streams.recommend.engine import Refresh, Taught
from streams.recommend.request import Ranking, Source
from streams.wiring import build_engine
from tests.fakes_core import START_MS, World, contents, event, learned, offsets, world

VIEW = DEFAULT_TYPE_WEIGHTS[EventType.VIEW]


def replay(target: World, values: list[bytes]) -> None:
    """Reads changelog records into a world, one call a record."""
    for value in values:
        loaded = load_profiles([decode_profile(value)], target.catalogue, target.layout, target.encoder.name)
        target.engine.load(loaded.user_ids, loaded.columns, loaded.excluded)


def written(source: World, batches: list[list[Event]]) -> list[bytes]:
    """Feeds the batches and returns the changelog that they leave."""
    values, offset = [], 0
    for batch in batches:
        refresh = source.engine.prepare(batch, offsets(len(batch), offset), 0)
        values += encode_profiles(refresh.update, source.catalogue, source.encoder.name)
        source.engine.apply(refresh)
        offset += len(batch)
    return values


def test_preparing_changes_nothing_that_is_stored() -> None:
    """Profiles, index, views, weights and epoch stay, so that an aborted transaction needs no undoing."""
    found = world()
    found.feed([event(), event("u2", "i2", EventType.PURCHASE)])
    before, known = contents(found), learned(found)
    for _ in range(2):
        refresh = found.engine.prepare(
            [event(item_id="i2"), event("u2"), event("u3", kind=EventType.DISLIKE)], offsets(3, 2), 0
        )
        assert np.isfinite(taught(refresh).lessons.ranks).any()
    assert contents(found) == before
    assert learned(found) == known


def test_applying_moves_profile_index_and_trend_together() -> None:
    """After a commit the next batch finds the user, where the user is now."""
    found = world()
    found.feed([event("u1", "a"), event("u2", "b")])
    assert found.engine.epoch == 1
    refresh = found.engine.prepare([event("u1", "b", EventType.PURCHASE)], offsets(1, 2), 0)
    assert refresh.neighbour_slots[0].tolist() == [1, -1, -1]
    found.engine.apply(refresh)
    assert found.engine.epoch == 2
    assert np.array_equal(found.index.stored[0], refresh.update.vectors[0])
    assert found.popularity() == pytest.approx({"a": VIEW, "b": VIEW + DEFAULT_TYPE_WEIGHTS[EventType.PURCHASE]})


def test_nobody_is_their_own_neighbour() -> None:
    """Among equal vectors too, and the others are all there, best first."""
    found = world(neighbour_candidates=3)
    found.feed([event(f"u{n}", "same") for n in range(6)])
    refresh = found.engine.prepare([event(f"u{n}", "same") for n in range(6)], offsets(6, 6), 0)
    for row, slots in enumerate(refresh.neighbour_slots.tolist()):
        assert refresh.update.slots[row] not in slots
        assert len(set(slots)) == 3
    assert (np.diff(refresh.similarities, axis=1) <= 0).all()


def test_people_are_recommended_and_nobody_to_themselves() -> None:
    """Whoever is followed is an item beside the products; its own user is the one who never gets it."""
    found = world()
    people = [f"user:u{n}" for n in range(3)]
    found.engine.describe([Item(person, categories=["person"]) for person in people])
    found.feed([event("u9", person, EventType.FOLLOW) for person in people] + [event("u9", "shoe")])
    users = ["u0", "u1", "new"]
    refresh = found.engine.prepare([event(user, "hat") for user in users], offsets(3, 4), 0)
    assert refresh.ranking is not None
    names = found.catalogue.item_ids
    listed = [{names[slot] for slot in row if slot >= 0} for row in refresh.ranking.items.tolist()]
    assert listed == [{"shoe", *people} - {f"user:{user}"} for user in users]


def test_a_lone_user_has_no_neighbour() -> None:
    """Neither on the first event nor later; the places are padded."""
    found = world()
    found.feed([event()])
    refresh = found.engine.prepare([event()], offsets(1, 1), 0)
    assert refresh.neighbour_slots.tolist() == [[-1, -1, -1]]
    assert np.isnan(refresh.similarities).all()


def test_a_new_user_loses_no_neighbour() -> None:
    """The place that is kept free for the user itself is cut off at the end."""
    found = world(neighbour_candidates=2)
    found.feed([event(f"u{n}", "same") for n in range(3)])
    refresh = found.engine.prepare([event("new", "same")], offsets(1, 3), 0)
    assert refresh.neighbour_slots.tolist() == [[0, 1]]


def test_a_user_who_lost_direction_leaves_the_index() -> None:
    """A view and the removal that outweighs nothing more than it: a zero vector is nobody's neighbour."""
    found = world()
    found.feed([event("u1", "a", EventType.LIKE), event("u2", "a")])
    assert set(found.index.stored) == {0, 1}
    found.feed([event("u1", "a", EventType.DISLIKE)], first_offset=2)
    assert set(found.index.stored) == {1}
    refresh = found.engine.prepare([event("u2", "a"), event("u1", kind=EventType.IMPRESSION)], offsets(2, 3), 0)
    assert refresh.neighbour_slots.tolist() == [[-1, -1, -1], [-1, -1, -1]]
    found.feed([event("u1", "b")], first_offset=5)
    assert set(found.index.stored) == {0, 1}


def test_a_batch_without_effect_is_no_epoch() -> None:
    """Duplicates, offsets applied before and unknown users to forget leave the index as it is, and say so."""
    found = world()
    found.feed([event(event_id="e")])
    found.feed([event(event_id="e")], first_offset=1)
    found.feed([event(event_id="e")], first_offset=0)
    found.engine.forget(["nobody"])
    assert found.engine.epoch == 1


def test_a_forgotten_user_is_gone_everywhere() -> None:
    """Profile, exclusions and index; what comes later from that user starts anew."""
    found = world()
    found.feed([event("u1", "a", EventType.PURCHASE), event("u2", "a")])
    found.engine.forget(["u1", "nobody"])
    assert set(found.index.stored) == {1}
    assert found.profile("u1")["events"] == 0
    assert found.store.excluded == {}
    refresh = found.engine.prepare([event("u2"), event("u1", "b")], offsets(2, 2), 0)
    assert refresh.neighbour_slots.tolist() == [[-1, -1, -1], [1, -1, -1]]
    assert refresh.update.columns.events.tolist() == [2, 1]
    assert refresh.update.excluded == [(), ()]


def test_lists_hold_nothing_bought_or_seen() -> None:
    """What a batch excludes is out of the list that the same batch publishes."""
    found = world()
    found.engine.describe([Item(item, title=f"item {item}") for item in "abcd"])
    found.feed([event("u2", item) for item in "abcd"])
    refresh = found.engine.prepare([event("u1", "a", EventType.PURCHASE), event("u1", "b")], offsets(2, 4), 0)
    assert refresh.ranking is not None
    listed = {found.catalogue.item_ids[item] for item in refresh.ranking.items[0].tolist() if item >= 0}
    assert listed == {"c", "d"}


def test_without_ranking_the_road_still_carries_profiles() -> None:
    """No neighbours are asked for, no list is made, profiles and index move all the same."""
    found = world(ranking=False, neighbour_candidates=0)
    found.feed([event("u1"), event("u2")])
    refresh = found.engine.prepare([event("u1")], offsets(1, 2), 0)
    assert refresh.ranking is None
    assert refresh.neighbour_slots.shape == refresh.similarities.shape == (1, 0)
    assert len(found.index) == 2


def test_the_changelog_rebuilds_the_engine() -> None:
    """A second worker that follows the log has the same profiles, vectors and trend, and stays so."""
    source, target = world(), world()
    values = written(source, [[event("u1", "a"), event("u2", "b", EventType.PURCHASE)], [event("u1", "c", at_s=60.0)]])
    target.catalogue.slots(["c", "zzz"])
    replay(target, values)
    rebuilt, expected = contents(target), contents(source)
    assert rebuilt["profiles"] == expected["profiles"]
    assert rebuilt["index"] == expected["index"]
    assert rebuilt["trend"] == pytest.approx(expected["trend"])


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_reading_the_log_again_in_any_order_changes_nothing(order: tuple[int, ...]) -> None:
    """Only newer versions count: the last one stays, and no event enters the trend twice."""
    source, target = world(), world()
    values = written(source, [[event("u1", "a")], [event("u1", "b", EventType.CART)], [event("u1", "c")]])
    replay(target, [values[place] for place in order])
    replay(target, values)
    assert contents(target)["profiles"] == contents(source)["profiles"]
    assert target.popularity() == pytest.approx(source.popularity())


def test_older_versions_are_passed_over() -> None:
    """In one call some profiles may be newer and some older than what is stored."""
    source, target = world(), world()
    values = written(source, [[event("u1", "a"), event("u2", "a")], [event("u1", "b"), event("u2", "b")]])
    replay(target, [values[2], values[1]])
    mixed = [decode_profile(value) for value in (values[0], values[3])]
    loaded = load_profiles(mixed, target.catalogue, target.layout, target.encoder.name)
    target.engine.load(loaded.user_ids, loaded.columns, loaded.excluded)
    assert contents(target)["profiles"] == contents(source)["profiles"]
    epoch = target.engine.epoch
    target.engine.load(loaded.user_ids, loaded.columns, loaded.excluded)
    assert target.engine.epoch == epoch


def test_an_event_that_leaves_no_item_behind_folds_none_twice() -> None:
    """An impression or a dislike raises the version, but the items before it are in the trend already."""
    source, target = world(), world()
    batches = [[event("u1", "a")], [event("u1", "b", EventType.IMPRESSION)], [event("u1", "c", EventType.DISLIKE)]]
    replay(target, written(source, batches))
    assert target.popularity() == pytest.approx({"a": VIEW})
    assert source.popularity() == pytest.approx({"a": VIEW})


def test_a_full_history_folds_only_what_is_new() -> None:
    """Once the window is full its length says nothing about how many items have come in."""
    source, target = world(recent_items=2), world(recent_items=2)
    batches = [[event("u1", "a"), event("u1", "b")], [event("u1", "c")], [event("u1", "d"), event("u1", "d")]]
    replay(target, written(source, batches))
    assert target.popularity() == pytest.approx(source.popularity())


def test_own_batches_do_not_come_back_through_the_log() -> None:
    """A worker that reads what it wrote itself, after it gave a partition up, counts nothing again."""
    found = world()
    values = written(found, [[event("u1", "a"), event("u2", "b")], [event("u1", "c")]])
    before = contents(found)
    replay(found, values)
    assert contents(found) == before


def test_exclusions_follow_the_log() -> None:
    """Also when there are none any more, as after a forget elsewhere."""
    source, target = world(), world()
    values = written(source, [[event("u1", "a", EventType.PURCHASE)]])
    replay(target, values)
    assert target.excluded("u1") == ["a"]
    source.engine.forget(["u1"])
    target.engine.forget(["u1"])
    replay(target, written(source, [[event("u1", "b")]]))
    assert target.excluded("u1") == []


def test_stages_are_told_as_they_end() -> None:
    """So that a shell with a clock can time them."""
    stages: list[str] = []
    world().engine.prepare([event()], offsets(1), 0, stages.append)
    assert stages == ["encode", "search", "rank"]


def taught(refresh: Refresh) -> Taught:
    """What a batch taught; there is something."""
    assert refresh.taught is not None
    return refresh.taught


def ranked(refresh: Refresh) -> Ranking:
    """The lists; there are some."""
    assert refresh.ranking is not None
    return refresh.ranking


def crowd(people: int = 6, items: int = 9) -> list[Event]:
    """Everybody has three items in a row of the same circle."""
    return [
        event(f"u{person}", f"i{(2 * person + step) % items}", at_s=60.0 * step)
        for step in range(3)
        for person in range(people)
    ]


def lived(lessons_max: int | None = None) -> World:
    """A world after a crowd, with categories."""
    found = world(lessons_max=lessons_max)
    found.engine.describe([Item(f"i{n}", title=f"item {n}", categories=[f"c{n % 2}"]) for n in range(9)])
    found.feed(crowd())
    return found


def test_a_batch_teaches_from_the_state_before_it() -> None:
    """The lesson's candidates hide what the user had then, and not what comes; the list afterwards hides both."""
    found = lived()
    had, comes = found.recents("u0"), "i7"
    assert comes not in had
    refresh = found.engine.prepare([event("u0", comes, EventType.CART)], offsets(1, 100), 0)
    lesson = taught(refresh)
    candidates = {found.catalogue.item_ids[item] for item in lesson.pool.items[0].tolist() if item >= 0}
    assert comes in candidates
    assert not candidates & set(had)
    assert found.catalogue.item_ids[lesson.targets[0]] == comes
    assert lesson.segments.last_type.tolist() == [EventType.VIEW.code]
    assert lesson.segments.history.tolist() == [1]  # three events so far
    assert lesson.lessons.chances[0] > 0
    listed = {found.catalogue.item_ids[item] for item in ranked(refresh).items[0].tolist() if item >= 0}
    assert not listed & {*had, comes}


def test_the_pool_of_a_lesson_is_what_would_have_been_shown() -> None:
    """An event that is a duplicate asks for the same list again: its items are the best of the lesson's pool."""
    found = lived()
    refresh = found.engine.prepare([event("u1", "i8")], offsets(1, 100), 0)
    asked = found.engine.prepare([event("u1", kind=EventType.IMPRESSION)], offsets(1, 100), 0)
    pool = taught(refresh).pool
    shown = [item for item in ranked(asked).items[0].tolist() if item >= 0]
    assert set(shown) <= set(pool.items[0].tolist())
    assert asked.taught is None, "an impression is no yes"


def test_a_new_user_teaches_too() -> None:
    """From the candidates of somebody of whom nothing is known."""
    lesson = taught(lived().engine.prepare([event("new", "i3")], offsets(1, 100), 0))
    assert lesson.segments.last_type.tolist() == [255]
    assert lesson.segments.history.tolist() == [0]
    assert not lesson.pool.worth[0, :, Source.NEIGHBOURS].any()
    assert lesson.lessons.chances[0] > 0


def test_only_the_first_yes_of_each_user_teaches() -> None:
    """Later ones come from a state that nobody computed; a no, an impression and a duplicate say nothing."""
    found = lived()
    found.feed([event("u2", "i1", event_id="e")], 100)
    batch = [
        event("u0", "i7", EventType.IMPRESSION),
        event("u1", "i7", EventType.DISLIKE),
        event("u2", "i1", event_id="e"),
        event("u0", "i8"),
        event("u0", "i5"),
        event("u1", "i8", EventType.LIKE),
    ]
    lesson = taught(found.engine.prepare(batch, offsets(6, 101), 0))
    assert lesson.events.tolist() == [3, 5]
    assert [found.catalogue.item_ids[item] for item in lesson.targets.tolist()] == ["i8", "i8"]
    assert found.engine.prepare(batch[:3], offsets(3, 101), 0).taught is None


@pytest.mark.parametrize(
    ("lessons_max", "events"), [(None, [0, 1, 2, 3, 4, 5]), (6, [0, 1, 2, 3, 4, 5]), (3, [0, 2, 5]), (1, [0]), (0, [])]
)
def test_lessons_of_a_batch_are_bounded_and_spread(lessons_max: int | None, events: list[int]) -> None:
    """Evenly over the batch; the lists do not depend on it."""
    found, everything = lived(lessons_max), lived()
    batch = [event(f"u{person}", "i8") for person in range(6)]
    refresh = found.engine.prepare(batch, offsets(6, 100), 0)
    assert ([] if refresh.taught is None else refresh.taught.events.tolist()) == events
    assert refresh.ranking is not None
    assert refresh.ranking.items.shape == ranked(everything.engine.prepare(batch, offsets(6, 100), 0)).items.shape


def test_applying_takes_the_lessons_over() -> None:
    """The weights of the next batch are those after the last lesson, and another order of commits adds up the same."""
    found = lived()
    first = found.engine.prepare([event("u0", "i7")], offsets(1, 100), 0)
    second = found.engine.prepare([event("u1", "i8")], offsets(1, 100), 1)
    found.engine.apply(first)
    assert learned(found)["fusion/shared"] == taught(first).lessons.weights.shared.tolist()
    found.engine.apply(second)
    before = taught(first).before.shared
    one, other = (taught(each).lessons.weights.shared for each in (first, second))
    assert_allclose(learned(found)["fusion/shared"], before + (one - before) + (other - before))


def test_without_lists_a_batch_only_teaches() -> None:
    """Nobody is listed and nobody's neighbours are returned; profiles, views and weights move as they always do."""
    silent, loud = lived(), lived()
    batch = [event("u0", "i7"), event("u1", "i8", EventType.CART), event("new", "i3")]
    quiet = silent.engine.prepare(batch, offsets(3, 100), 0, lists=False)
    spoken = loud.engine.prepare(batch, offsets(3, 100), 0)
    assert quiet.ranking is None
    assert quiet.neighbour_slots.shape == quiet.similarities.shape == (0, 3)
    assert quiet.listed.users == []
    assert quiet.update.users == spoken.update.users
    assert_array_equal(taught(quiet).lessons.ranks, taught(spoken).lessons.ranks)
    for found, refresh in ((silent, quiet), (loud, spoken)):
        found.engine.apply(refresh)
    assert contents(silent) == contents(loud)
    assert learned(silent) == learned(loud)


@pytest.mark.parametrize("records_at_once", [1, 1000])
def test_a_follower_of_the_changelog_makes_the_same_lists(records_at_once: int) -> None:
    """One engine stores its own batches, one reads what the other wrote: views and lists are the same."""
    source, target = world(lessons_max=0), world(lessons_max=0)
    items = [Item(f"i{n}", title=f"item {n}", categories=[f"c{n % 2}"]) for n in range(9)]
    target.engine.describe(items)
    source.engine.describe(items)
    everything = crowd()
    values = written(source, [everything[:7], everything[7:8], everything[8:]])
    for first in range(0, len(values), records_at_once):
        records = map(decode_profile, values[first : first + records_at_once])
        newest = {record.user_id: record for record in records}
        loaded = load_profiles(list(newest.values()), target.catalogue, target.layout, target.encoder.name)
        target.engine.load(loaded.user_ids, loaded.columns, loaded.excluded)
    assert target.popularity() == pytest.approx(source.popularity())
    batch = [event(f"u{person}", "i8", at_s=300.0) for person in range(6)]
    one, other = (ranked(found.engine.prepare(batch, offsets(6, 100), 0)) for found in (source, target))
    assert one.items.tolist() == other.items.tolist()
    assert_allclose(other.scores, one.scores, rtol=1e-5)
    assert_allclose(other.shares, one.shares, rtol=1e-4, atol=1e-6)
    for source_ in (Source.NEIGHBOURS, Source.TOGETHER, Source.CATEGORY, Source.RISING):
        assert one.shares[:, :, source_].any(), source_


def test_what_is_restored_makes_the_same_lists() -> None:
    """Views and weights go over bit for bit, and later lessons do not reach back into what was saved."""
    source, target = lived(), lived()
    source.feed([event("u0", "i7"), event("u1", "i8")], 100)
    saved = source.engine.currents()
    restored = world()
    restored.catalogue.restore(source.catalogue.item_ids)
    restored.engine.describe([Item(f"i{n}", title=f"item {n}", categories=[f"c{n % 2}"]) for n in range(9)])
    restored.store.restore(list(source.store.user_ids), source.store.columns, dict(source.store.excluded))
    restored.engine.restore(saved)
    restored.engine.align_index()
    batch = [event(f"u{person}", "i8", at_s=300.0) for person in range(6)]
    one, other = (found.engine.prepare(batch, offsets(6, 200), 0) for found in (source, restored))
    for name, column in ranked(one)._asdict().items():
        assert_array_equal(column, getattr(ranked(other), name), err_msg=name)
    before = learned(restored)
    source.engine.apply(one)
    assert learned(restored) == before != learned(source)
    assert learned(target) != before


def test_categories_that_become_known_late_count_what_was() -> None:
    """Events first and categories after, or the other way round: the same popularity inside of each."""
    early, late = world(lessons_max=0), world(lessons_max=0)
    items = [Item(f"i{n}", title=f"item {n}", categories=[f"c{n % 2}"]) for n in range(9)]
    for found in (early, late):
        found.catalogue.slots([item.item_id for item in items])
    early.engine.describe(items)
    for found in (early, late):
        found.feed(crowd())
    late.engine.describe(items)
    late.engine.describe(items)
    mine, others = early.views.by_category.tops, late.views.by_category.tops
    assert mine.counts[:2].tolist() == [5, 4]
    assert_array_equal(others.counts, mine.counts)
    assert_array_equal(np.sort(others.items, axis=1), np.sort(mine.items, axis=1))
    assert_allclose(others.totals, mine.totals, rtol=1e-12)


def test_an_item_that_changes_its_categories_takes_its_popularity_along() -> None:
    """As if it had always been where it is now, in what is popular and in how likely something new comes next."""
    moved, always = world(lessons_max=0), world(lessons_max=0)

    def items(*places: list[str]) -> list[Item]:
        return [Item(f"i{n}", title=f"item {n}", categories=places[n % 3]) for n in range(9)]

    moved.engine.describe(items(["c0"], ["c1", "c2"], ["c1"]))
    always.engine.describe(items(["c0"], ["c1", "c2"], ["c1"]))
    always.engine.describe(items(["c0"], ["c2", "c3"], []))
    for found in (moved, always):
        found.feed(crowd())
    moved.engine.describe(items(["c0"], ["c2", "c3"], []))
    mine, others = moved.views.by_category.tops, always.views.by_category.tops
    assert others.counts[:4].tolist() == [3, 0, 3, 3]
    assert_array_equal(mine.counts, others.counts)
    for code in range(4):
        kept = [set(tops.items[code, : tops.counts[code]].tolist()) for tops in (mine, others)]
        assert kept[0] == kept[1]
    assert_allclose(mine.totals, others.totals, rtol=1e-12)
    for name in ("events", "firsts", "counts"):
        assert_array_equal(
            getattr(moved.views.newcomers.turns, name), getattr(always.views.newcomers.turns, name), err_msg=name
        )


@pytest.fixture(scope="module")
def settings() -> Settings:
    """The defaults, with lists and neighbourhoods small enough to read."""
    return load_settings(dim=64, list_items=4, neighbours=3, neighbour_candidates=3)


def test_real_parts_find_people_of_the_same_taste(settings: Settings) -> None:
    """Text encoder, exact index and ranking together: neighbours and items come from the user's own community."""
    engine = build_engine(settings)
    kinds = {"run": "trail running shoes", "bake": "sourdough bread baking flour"}
    words = ["light", "strong", "cheap", "new", "best", "classic", "big", "small"]
    engine.describe(
        [Item(f"{k}-{n}", title=f"{word} {text}") for k, text in kinds.items() for n, word in enumerate(words)]
    )
    batch = [
        Event(f"{kind}ner-{person}", f"{kind}-{(person + step) % 8}", EventType.VIEW, START_MS + 1000 * step)
        for step in range(4)
        for person in range(8)
        for kind in kinds
    ]
    engine.apply(engine.prepare(batch, offsets(len(batch)), 0))
    refresh = engine.prepare([Event("newcomer", "run-0", EventType.VIEW, START_MS + 9000)], offsets(1, len(batch)), 0)
    neighbours = [engine.store.user_ids[slot] for slot in refresh.neighbour_slots[0].tolist()]
    assert len(neighbours) == 3
    assert all(name.startswith("run") for name in neighbours)
    assert refresh.ranking is not None
    items = [engine.catalogue.item_ids[item] for item in refresh.ranking.items[0].tolist()]
    assert len(items) == 4
    assert all(item.startswith("run") and item != "run-0" for item in items)


def test_an_engine_is_built_as_the_settings_say(settings: Settings) -> None:
    """Width and windows reach the store and the index; ranking can be left out."""
    engine = build_engine(load_settings(dim=8, recent_items=3, event_id_window=2), ranking=False)
    batch = [event(item_id=f"i{n}", event_id=f"e{n}") for n in range(5)]
    refresh = engine.prepare(batch, offsets(5), 0)
    assert refresh.ranking is None
    assert refresh.update.vectors.shape == (1, 8)
    assert refresh.update.columns.recent_items.shape == (1, 3)
    assert refresh.update.columns.event_ids.shape == (1, 2)


def test_an_unknown_model_is_refused_with_those_that_exist() -> None:
    """A mistyped model is a mistake of the person, not of the program."""
    with pytest.raises(UsageError, match="no model 'nope'; choose one of: decayed-mean"):
        build_engine(load_settings(model="nope"))


def test_a_newcomer_gets_what_people_of_the_same_group_like() -> None:
    """Attributes stand in for a history until there is one; of the forgotten nothing is left that could speak."""
    engine = world().engine
    people = [User(user_id=f"u{n}", occupation="student" if n < 4 else "farmer") for n in range(8)]
    engine.describe_users([*people, User(user_id="new", occupation="farmer")])
    for n in range(8):
        first = event(f"u{n}", "for-students" if n < 4 else "for-farmers", at_s=n)
        engine.apply(engine.prepare([first], offsets(1, n), 0))
    ranking = ranked(engine.prepare([event("new", "something", at_s=9)], offsets(1, 9), 0))
    groups = dict(zip(ranking.items[0].tolist(), ranking.shares[0, :, Source.GROUP].tolist(), strict=True))
    slot_of = engine.catalogue.slot_of
    assert groups[slot_of["for-farmers"]] > groups[slot_of["for-students"]] == 0
    assert set(engine.store.facts.names_of(ranking.groups).values()) == {"occupation:farmer"}
    engine.describe_users([], gone=["new", *(f"u{n}" for n in range(4, 8))])
    silent = ranked(engine.prepare([event("new", "x", at_s=11)], offsets(1, 11), 0))
    assert not silent.shares[..., Source.GROUP].any()
