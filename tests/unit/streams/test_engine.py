"""The engine without a broker: what moves memory, index and trend, and what must not."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from streams.config import DEFAULT_TYPE_WEIGHTS, Settings, load_settings
from streams.core.errors import UsageError
from streams.core.events import Event, EventType, Item
from streams.kafka.changelog import decode_profile, encode_profiles, load_profiles
from streams.wiring import build_engine
from tests.fakes_core import START_MS, World, contents, event, offsets, world

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
    """Profiles, index, trend and epoch stay, so that an aborted transaction needs no undoing."""
    found = world()
    found.feed([event(), event("u2", "i2", EventType.PURCHASE)])
    before = contents(found)
    for _ in range(2):
        found.engine.prepare([event(item_id="new"), event("u3", kind=EventType.DISLIKE)], offsets(2, 2), 0)
    assert contents(found) == before


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
