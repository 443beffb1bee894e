"""Micro-batches of events on profiles: what counts, what is kept, and that the cut into batches does not matter."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.config import DEFAULT_TYPE_WEIGHTS
from streams.core import updater as module
from streams.core.events import EVENT_TYPES, Event, EventType
from streams.core.updater import ACCEPTED, APPLIED_BEFORE, DUPLICATE, hash_event_id
from tests.fakes_core import DAY_MS, START_MS, World, contents, event, offsets, row_of, world

FULL = DEFAULT_TYPE_WEIGHTS[EventType.RATING]


def verdicts(found: World, events: Sequence[Event], first_offset: int = 0, partition: int = 0) -> list[int]:
    """Applies a batch and returns the verdict on each event."""
    update = found.updater.prepare(events, offsets(len(events), first_offset), partition)
    found.updater.apply(update)
    return update.verdicts.tolist()


@pytest.mark.parametrize(
    ("value", "share"),
    [(1.0, -0.6), (0.0, -1.0), (2.5, 0.0), (4.0, 0.6), (5.0, 1.0), (None, 1.0), (-7.0, -1.0), (1e308, 1.0)],
)
def test_a_rating_weighs_by_its_value(value: float | None, share: float) -> None:
    """One star repels, two and a half say nothing, five or a missing value count in full."""
    found = world()
    events = [event(kind=EventType.RATING, value=value), event("u2", kind=EventType.PURCHASE, value=1e308)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update = found.updater.prepare(events, offsets(2), 0)
    assert update.events.weights.tolist() == pytest.approx(
        [FULL * share, DEFAULT_TYPE_WEIGHTS[EventType.PURCHASE]], rel=1e-6, abs=0
    )
    assert update.columns.events.tolist() == [1, 1]
    assert update.columns.recent_count.tolist() == [int(share > 0), 1]
    direction = update.vectors[0] @ found.catalogue.vectors[0]
    assert direction == pytest.approx(np.sign(share), abs=1e-6)


def test_value_means_a_rating_only_on_a_rating() -> None:
    """A price or a dwell time beside ratings leaves the weight of its event alone."""
    found = world()
    events = [event(kind=EventType.RATING, value=5.0), event(kind=EventType.VIEW, value=0.0)]
    weights = found.updater.prepare(events, offsets(2), 0).events.weights
    assert weights.tolist() == [FULL, DEFAULT_TYPE_WEIGHTS[EventType.VIEW]]


def test_recent_items_hold_what_drew_the_user() -> None:
    """Positive events enter, oldest first; an impression, a dislike and a removal count and do not enter."""
    found = world()
    kinds = [EventType.VIEW, EventType.IMPRESSION, EventType.CART, EventType.REMOVE, EventType.DISLIKE, EventType.LIKE]
    found.feed([event(item_id=f"i{place}", kind=kind, at_s=place + 0.9) for place, kind in enumerate(kinds)])
    row = found.profile("u1")
    assert found.recents("u1") == ["i0", "i2", "i5"]
    assert row["recent_types"][:3] == [EVENT_TYPES.index(kinds[place]) for place in (0, 2, 5)]
    assert row["recent_times_s"][:3] == [START_MS // 1000 + place for place in (0, 2, 5)]
    assert (row["events"], row["version"], row["recent_total"], row["recent_count"]) == (6, 6, 3, 3)


def test_a_full_history_loses_its_oldest() -> None:
    """The window holds the last events in the order in which they came."""
    found = world(recent_items=3)
    found.feed([event(item_id=f"i{place}", at_s=place) for place in range(5)])
    assert found.recents("u1") == ["i2", "i3", "i4"]
    assert found.profile("u1")["recent_times_s"] == [START_MS // 1000 + place for place in (2, 3, 4)]
    assert found.profile("u1")["recent_total"] == 5


@pytest.mark.parametrize("window", [1, 255])
def test_windows_of_any_width(window: int) -> None:
    """The narrowest and the widest window of recent items and of event ids are filled to the last place."""
    found = world(recent_items=window, event_id_window=window)
    events = [event(item_id=f"i{n}", event_id=f"e{n}", at_s=n) for n in range(window + 3)]
    found.feed(events)
    row = found.profile("u1")
    assert (row["recent_count"], row["event_id_count"]) == (window, window)
    assert found.recents("u1") == [e.item_id for e in events[3:]]
    assert row["event_ids"] == [hash_event_id(f"e{n}") for n in range(3, window + 3)]
    assert verdicts(found, events[3:], first_offset=1000) == [DUPLICATE] * window
    assert verdicts(found, events[2:3], first_offset=2000) == [ACCEPTED]


def test_an_event_id_counts_once_for_each_user() -> None:
    """A retry is a duplicate in the same batch, in a later one and in another type, but not for somebody else."""
    found = world()
    assert verdicts(found, [event(event_id="e"), event(event_id="e", kind=EventType.CART)]) == [ACCEPTED, DUPLICATE]
    assert verdicts(found, [event(event_id="e"), event("u2", event_id="e")], 2) == [DUPLICATE, ACCEPTED]
    assert found.profile("u1")["events"] == 1


def test_a_duplicate_leaves_no_trace() -> None:
    """Neither time, nor history, nor exclusions, nor the offset move; a user with nothing else has no update."""
    found = world()
    found.feed([event(event_id="e")])
    before = contents(found)
    retry = event(item_id="other", kind=EventType.PURCHASE, at_s=99.0, event_id="e")
    update = found.updater.prepare([retry], offsets(1, 7), 0)
    assert update.users == []
    found.updater.apply(update)
    assert contents(found)["profiles"] == before["profiles"]


@pytest.mark.parametrize("event_id", [None, ""])
def test_without_an_event_id_every_event_counts(event_id: str | None) -> None:
    """An empty id is none: a producer that fills in nothing must not lose all events but the first."""
    found = world()
    assert verdicts(found, [event(event_id=event_id)] * 3) == [ACCEPTED] * 3
    assert found.profile("u1")["event_id_count"] == 0


def test_an_applied_offset_is_skipped() -> None:
    """A batch that comes again after a commit changes nothing, event id or not."""
    found = world()
    batch = [event(item_id="a"), event("u2", item_id="b"), event(item_id="c")]
    found.feed(batch, first_offset=5)
    before = contents(found)
    update = found.updater.prepare(batch, offsets(3, 5), 0)
    assert update.verdicts.tolist() == [APPLIED_BEFORE] * 3
    assert update.users == []
    assert verdicts(found, [*batch, event(item_id="d")], 5) == [APPLIED_BEFORE] * 3 + [ACCEPTED]
    found.updater.apply(update)
    assert found.recents("u1") == ["a", "c", "d"]
    assert contents(found)["profiles"]["u2"] == before["profiles"]["u2"]


def test_offsets_of_another_partition_say_nothing() -> None:
    """After the topic got more partitions a user goes on where offsets are small again."""
    found = world()
    found.feed([event()], first_offset=1000, partition=3)
    assert verdicts(found, [event(), event()], first_offset=0, partition=11) == [ACCEPTED, ACCEPTED]
    row = found.profile("u1")
    assert (row["events"], row["partition"], row["last_offset"]) == (3, 11, 1)


def test_late_events_count_with_a_gap_of_zero() -> None:
    """The latest time stays, and the next gap is measured from it."""
    found = world()
    found.feed([event(at_s=10.0), event(at_s=4.0), event("u2", at_s=0.0), event(at_s=12.5)])
    assert found.encoder.gaps_s == [0.0, 0.0, 0.0, 2.5]
    found.feed([event(at_s=11.0), event(at_s=13.0)], first_offset=4)
    assert found.encoder.gaps_s[4:] == [0.0, 0.5]
    row = found.profile("u1")
    assert (row["last_time_ms"], row["events"]) == (START_MS + 13_000, 5)


def test_a_first_event_at_the_epoch_has_no_gap() -> None:
    """The time 0 of an empty profile is no event."""
    found = world()
    found.feed([Event("u1", "i1", EventType.VIEW, 0), Event("u1", "i1", EventType.VIEW, 2000)])
    assert found.encoder.gaps_s == [0.0, 2.0]


def test_bought_and_disliked_items_are_excluded() -> None:
    """The newest last, none twice, at most as many as the settings say; other types exclude nothing."""
    found = world(excluded_items_max=3)
    kinds = [EventType.PURCHASE, EventType.DISLIKE]
    found.feed([event(item_id=item, kind=kinds[n % 2]) for n, item in enumerate("abcabd")])
    assert found.excluded("u1") == ["a", "b", "d"]
    found.feed([event(item_id="b", kind=EventType.PURCHASE)], first_offset=6)
    others = [kind for kind in EVENT_TYPES if kind not in kinds]
    found.feed([event(item_id="e", kind=kind) for kind in others], first_offset=7)
    assert found.excluded("u1") == ["a", "d", "b"]
    found.feed([event("u2", item_id="a")], first_offset=50)
    assert found.excluded("u2") == []


def test_the_last_event_of_each_user_is_its_last_accepted() -> None:
    """The list's source is an event that counted, also when a duplicate follows it."""
    found = world()
    batch = [event(event_id="a"), event("u2"), event(event_id="b"), event(event_id="a"), event("u3", event_id="x")]
    update = found.updater.prepare([*batch, event("u2")], offsets(6), 0)
    assert dict(zip(update.users, update.last_events.tolist(), strict=True)) == {"u1": 2, "u2": 5, "u3": 4}


def test_preparing_changes_nothing() -> None:
    """However often a batch is prepared, the store stays as it was, and the outcome is the same."""
    found = world()
    found.feed([event(), event("u2", kind=EventType.PURCHASE)])
    before = contents(found)
    batch = [event(kind=EventType.PURCHASE, event_id="x"), event("u2", "i9"), event("new", kind=EventType.DISLIKE)]
    prepared = [found.updater.prepare(batch, offsets(3, 2), 0) for _ in range(2)]
    assert contents(found) == before
    rows = [[row_of(update.columns, row) for row in range(3)] for update in prepared]
    assert rows[0] == rows[1]
    assert prepared[0].excluded == prepared[1].excluded


def test_an_empty_batch_is_an_empty_update() -> None:
    """Nothing in, nothing out."""
    found = world()
    update = found.updater.prepare([], offsets(0), 0)
    assert (update.users, update.excluded, len(update.events), update.vectors.shape) == ([], [], 0, (0, 4))
    assert found.updater.apply(update).tolist() == []


def test_event_id_hashes_are_for_ever() -> None:
    """They lie in profiles: the same number on every machine, for any text, and never the one that means none."""
    assert hash_event_id("order-1") == 0x5FC46503368E2876
    assert hash_event_id("ä👟") == 0xF1B6BBE153B181E1
    ids = [hash_event_id(f"e{number}") for number in range(1000)]
    assert len(set(ids)) == 1000
    assert all(0 < number < 2**64 for number in ids)


def test_reencoding_the_history_gives_the_streamed_state() -> None:
    """For a user whose whole history is still at hand and drew them, up to the seconds that times are cut to."""
    found = world(recent_items=6)
    moments = [0.0, 5.0, 3 * 86_400.0, 86_400.0, 4 * 86_400.5, 4 * 86_400.5]
    found.feed([event(item_id=f"i{n}", kind=EVENT_TYPES[n % 4], at_s=at_s) for n, at_s in enumerate(moments)])
    found.feed([event("u2", "i3", at_s=9.0)], first_offset=6)
    streamed = found.store.take(found.store.slots(["u1", "u2", "nobody"]))
    rebuilt = found.store.take(found.store.slots(["u1", "u2", "nobody"]))
    rebuilt.state[:] = 77.0
    found.updater.reencode(["u1", "u2", "nobody"], rebuilt)
    assert rebuilt.state == pytest.approx(streamed.state, rel=1e-4, abs=1e-5)
    assert not rebuilt.state[2].any()


def test_reencoding_sees_no_gap_before_a_late_event() -> None:
    """A gap runs from the latest time so far, as it did in the stream."""
    found = world()
    found.feed([event(at_s=at_s) for at_s in (100.0, 50.0, 130.0)])
    found.encoder.gaps_s.clear()
    found.updater.reencode(["u1"], found.store.take(found.store.slots(["u1"])))
    assert found.encoder.gaps_s == [0.0, 0.0, 30.0]


users = st.sampled_from(["u1", "u2", "ü3", "👤"])
batches = st.lists(
    st.builds(
        event,
        users,
        st.sampled_from(["a", "b", "ç", "d", "e"]),
        st.sampled_from(EVENT_TYPES),
        st.integers(-3 * DAY_MS, 3 * DAY_MS).map(lambda ms: ms / 1000),
        st.none() | st.sampled_from(["", "1", "2", "3", "4", "5", "6"]),
        st.none() | st.floats(-1.0, 6.0),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(events=batches, cuts=st.sets(st.integers(1, 39)))
def test_any_split_into_batches_gives_the_same_profiles(events: list[Event], cuts: set[int]) -> None:
    """Integer columns, history, exclusions and the encoder's state are equal bit for bit, and every event is judged."""
    whole, split = world(ranking=False), world(ranking=False)
    given_verdicts = verdicts(whole, events)
    edges = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    split_verdicts = []
    for first, end in pairwise(edges):
        split_verdicts += verdicts(split, events[first:end], first)
    assert split_verdicts == given_verdicts
    assert contents(split)["profiles"] == contents(whole)["profiles"]
    counted = sum(row["events"] for row in contents(whole)["profiles"].values())
    assert counted == given_verdicts.count(ACCEPTED) == len(events) - given_verdicts.count(DUPLICATE)


@settings(max_examples=25, deadline=None)
@given(events=batches)
def test_compiled_loops_do_what_their_source_says(events: list[Event]) -> None:
    """The machine code and plain Python give the same columns, verdicts and gaps."""
    found = world(recent_items=3, event_id_window=2)
    outcomes = []
    compiled = module._fold, module._is_repeat
    try:
        for fold, is_repeat in (compiled, (compiled[0].py_func, compiled[1].py_func)):
            module._fold, module._is_repeat = fold, is_repeat
            found.encoder.gaps_s = []
            update = found.updater.prepare(events, offsets(len(events)), 0)
            rows = [row_of(update.columns, row) for row in range(len(update.users))]
            outcomes.append((rows, update.verdicts.tolist(), found.encoder.gaps_s))
    finally:
        module._fold, module._is_repeat = compiled
    assert outcomes[0] == outcomes[1]
