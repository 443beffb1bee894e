"""Asking what a list would be: it changes nothing, supposes what would really come, and refuses what makes no sense."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numba.core.dispatcher import Dispatcher

from encoder.baselines import DecayedMean
from encoder.inference import encoder_of
from streams.config import DEFAULT_TYPE_WEIGHTS
from streams.core.catalogue import Catalogue
from streams.core.events import EVENT_TYPES, FUTURE_MS_MAX, Event, EventType, Item, User
from streams.core.ports import ProfileEncoder
from streams.core.profile import NO_ITEM, ProfileLayout, ProfileStore
from streams.core.recommendations import Neighbour
from streams.core.updater import ProfileUpdater
from streams.core.what_if import SupposedEvent, WhatIf, WhatIfQuestion, WhatIfRefusal
from streams.recommend.asked import with_stored
from streams.recommend.counterfactual import what_if
from streams.recommend.engine import Engine, Refresh
from streams.recommend.explain import recommended_lists
from streams.recommend.feedback import ListFeedback
from streams.recommend.ranker import Ranker
from streams.recommend.request import RankerConfig
from streams.recommend.rerank import RerankConfig, Reranker, ShortBecause
from streams.recommend.rules import Rules
from streams.recommend.views import Views
from tests.fakes_core import HALF_LIVES_S, START_MS, FakeIndex, FakeItems, offsets
from tests.fakes_encoder import random_model

RECENT, LIST_ITEMS, NEIGHBOURS, USERS = 5, 4, 3, 4
ITEMS = [f"i{number}" for number in range(12)]
NOW_MS = START_MS + 3_600_000
RULES = Rules.model_validate(
    {
        "pin": [{"item": "i3", "position": 2}],
        "caps": {"brand": 2},
        "fatigue": {"shown": 2, "rest_hours": 1},
        "floor": [{"category": "c0", "share": 0.2}],
    }
)
KINDS = (EventType.VIEW, EventType.PURCHASE, EventType.LIKE, EventType.DISLIKE, EventType.RATING, EventType.IMPRESSION)
CODE = (FunctionType, BuiltinFunctionType, MethodType, Dispatcher, type)
EVERYTHING = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Lived:
    """An engine with a past, and the offset of its next event."""

    engine: Engine
    offset: int


def an_engine(encoder: ProfileEncoder, rules: Rules | None, interests: int) -> Engine:
    """Everything on that can remember something: rules, feedback, exploration, groups."""
    store, items = ProfileStore(ProfileLayout(encoder.state_width, RECENT, 3)), FakeItems()
    catalogue, views = Catalogue(items), Views(HALF_LIVES_S)
    weights = tuple(DEFAULT_TYPE_WEIGHTS[kind] for kind in EVENT_TYPES)
    config = RankerConfig(list_items=LIST_ITEMS, candidates=6, interests=interests, type_weights=weights)
    reranker = Reranker(catalogue, RerankConfig(LIST_ITEMS, diversity=0.1))
    ranker = Ranker(store, catalogue, views, config, reranker)
    updater = ProfileUpdater(store, catalogue, encoder, DEFAULT_TYPE_WEIGHTS, 3)
    feedback = ListFeedback(0.5, LIST_ITEMS)
    engine = Engine(store, catalogue, updater, encoder, FakeIndex(), views, ranker, NEIGHBOURS, 8, feedback)
    engine.describe(
        [Item(item, title=item, brand=f"b{n % 3}", categories=[f"c{n % 2}"]) for n, item in enumerate(ITEMS)]
    )
    engine.describe_users([User("u0", age=34), User("u1", age=31, country="PT")])
    if rules is not None:
        assert engine.take_rules(rules) == []
    return engine


def models() -> dict[str, ProfileEncoder]:
    """Of the dimension of the fake items."""
    trained = encoder_of(random_model(FakeItems.dim, types=("view", "purchase")), tuple(EVENT_TYPES))
    return {"decayed mean": DecayedMean(FakeItems.dim, 86_400.0), "recurrence": trained.profiles}


MODELS = models()


@st.composite
def events(draw: st.DrawFn, count: int) -> list[Event]:
    """What some users did, not always in the order of time."""
    return [
        Event(
            f"u{draw(st.integers(0, USERS - 1))}",
            draw(st.sampled_from(ITEMS)),
            draw(st.sampled_from(KINDS)),
            START_MS + 1000 * draw(st.integers(0, 3000)),
            value=draw(st.sampled_from([None, 1.0, 4.5])),
            rec_id=draw(st.sampled_from([None, "0-3"])),
        )
        for _ in range(count)
    ]


@st.composite
def lives(draw: st.DrawFn) -> Lived:
    """Engines after some batches, ready: what reading refreshes was read."""
    model = MODELS[draw(st.sampled_from(sorted(MODELS)))]
    engine = an_engine(model, draw(st.sampled_from([None, RULES])), draw(st.integers(1, 2)))
    offset = 0
    for count in draw(st.lists(st.integers(1, 6), min_size=2, max_size=4)):
        batch = draw(events(count))
        engine.apply(engine.prepare(batch, offsets(count, offset), 0))
        offset += count
    engine.prepare([Event("u0", "i0", EventType.VIEW, NOW_MS)], offsets(1, offset), 0)
    return Lived(engine, offset)


@st.composite
def supposed_events(draw: st.DrawFn, least: int = 0) -> list[SupposedEvent]:
    """Some events that did not happen."""
    return [
        SupposedEvent(
            item_id=draw(st.sampled_from(ITEMS)),
            type=draw(st.sampled_from(KINDS)),
            value=draw(st.sampled_from([None, 5.0])),
            timestamp=draw(st.sampled_from([None, START_MS, NOW_MS - 5])),
        )
        for _ in range(draw(st.integers(least, 4)))
    ]


def bits(found: Any, seen: dict[int, int] | None = None) -> Any:  # noqa: PLR0911 - one for each kind
    """Everything that hangs on an object, as values that are equal only where every bit is."""
    seen = {} if seen is None else seen
    if found is None or isinstance(found, str | bytes | int | float | np.generic):
        return repr(found)
    if isinstance(found, CODE):
        return type(found).__name__
    if id(found) in seen:
        return seen[id(found)]
    seen[id(found)] = len(seen)
    if isinstance(found, np.ndarray):
        return found.dtype.str, found.shape, found.tobytes()
    if isinstance(found, dict):
        return [(repr(key), bits(value, seen)) for key, value in found.items()]
    if isinstance(found, list | tuple):
        return [bits(each, seen) for each in found]
    if isinstance(found, set | frozenset):
        return sorted(map(repr, found))
    slots = [name for kind in type(found).__mro__ for name in getattr(kind, "__slots__", ())]
    own = {name: getattr(found, name) for name in slots if hasattr(found, name)} | getattr(found, "__dict__", {})
    return type(found).__name__, [(name, bits(value, seen)) for name, value in own.items()]


def asked(lived: Lived, user: str, without: list[str] | None = None, more: list[SupposedEvent] | None = None) -> WhatIf:
    """The answer, which is no refusal."""
    found = what_if(lived.engine, user, WhatIfQuestion(without=without or [], events=more or []), NOW_MS, NEIGHBOURS)
    assert isinstance(found, WhatIf), found
    return found


def remembered(lived: Lived, user: str) -> list[str]:
    """Items of the history, each once."""
    row = lived.engine.store.take(lived.engine.store.slots([user]))
    slots = row.recent_items[0, : row.recent_count[0]].tolist()
    return list(dict.fromkeys(lived.engine.catalogue.item_ids[slot] for slot in slots))


def published(lived: Lived, refresh: Refresh) -> tuple[list[Neighbour], bytes, str | None]:
    """What the first user of a batch would be told."""
    engine, ranking = lived.engine, refresh.ranking
    assert ranking is not None
    near = [
        Neighbour(engine.store.user_ids[slot], round(float(similarity), 6))
        for slot, similarity in zip(refresh.neighbour_slots[0], refresh.similarities[0], strict=True)
        if slot >= 0
    ]
    facts = engine.catalogue.facts
    names = engine.store.facts.names_of(ranking.groups)
    items = recommended_lists(ranking, engine.store.user_ids, engine.catalogue.item_ids, facts.category_names, names)
    return near, msgspec.json.encode(items[0]), ShortBecause(int(ranking.short_because[0])).word


@EVERYTHING
@given(lives(), st.data())
def test_asking_changes_no_bit(lived: Lived, data: st.DataObject) -> None:
    """Store, catalogue, index, views, weights, rules, what was shown, and what is kept between calls are as before."""
    user = data.draw(st.sampled_from(list(lived.engine.store.slot_of)))
    history = remembered(lived, user)
    without = data.draw(st.lists(st.sampled_from(history), max_size=3)) if history else []
    before = bits(lived.engine)
    asked(lived, user, without, data.draw(supposed_events()))
    assert bits(lived.engine) == before


@EVERYTHING
@given(lives())
def test_a_question_without_a_change_finds_none(lived: Lived) -> None:
    """Both lists are equal, and they are the one that a late list would be."""
    for user in lived.engine.store.slot_of:
        found = asked(lived, user)
        assert found.now == found.then
        assert (found.entered, found.left, found.moved, found.left_out, found.added) == ([], [], [], 0, 0)
        assert found.profile_cosine is None or found.profile_cosine == pytest.approx(1.0, abs=1e-6)


@EVERYTHING
@given(lives(), supposed_events(least=1), st.integers(0, USERS - 1))
def test_supposed_events_give_the_list_that_they_give_when_they_come(
    lived: Lived, more: list[SupposedEvent], number: int
) -> None:
    """Neighbours, items, scores, reasons and why it is short, on the same state, to the last digit."""
    user = f"u{number}"
    assume(user in lived.engine.store.slot_of)
    found = asked(lived, user, more=more)
    coming = [Event(user, e.item_id, e.type, e.timestamp or NOW_MS, value=e.value) for e in more]
    refresh = lived.engine.prepare(coming, offsets(len(coming), lived.offset), 0)
    assert (found.then.neighbours, msgspec.json.encode(found.then.items), found.then.short_because) == published(
        lived, refresh
    )
    assert (found.added, found.profile_events) == (len(more), refresh.update.columns.events[0] - len(more))


@EVERYTHING
@given(lives(), st.data())
def test_what_is_left_out_is_as_if_it_had_never_been(lived: Lived, data: st.DataObject) -> None:
    """The list is that of a profile of the other remembered events; the difference says what changed, once."""
    engine = lived.engine
    user = data.draw(st.sampled_from(list(engine.store.slot_of)))
    history = remembered(lived, user)
    assume(history)
    gone = data.draw(st.lists(st.sampled_from(history), min_size=1, max_size=3, unique=True))
    found = asked(lived, user, gone)
    row = engine.store.take(engine.store.slots([user]))
    places = range(int(row.recent_count[0]))
    names = [engine.catalogue.item_ids[slot] for slot in row.recent_items[0].tolist()]
    kept = [place for place in places if names[place] not in gone]
    assert found.left_out == len(places) - len(kept)
    for column in (row.recent_items, row.recent_types, row.recent_times_s):
        column[0, : len(kept)] = column[0, kept]
    whole = engine.store.take(engine.store.slots([user]))
    row.recent_count[0] = len(kept)
    engine.reencode([user], row)
    engine.reencode([user], whole)
    ours, theirs = (engine.encoder.vectors(columns.state)[0] for columns in (whole, row))
    expected = round(float(ours @ theirs), 6) if ours.any() and theirs.any() else None
    assert found.profile_cosine == expected
    now, then = ([item.item_id for item in list_.items] for list_ in (found.now, found.then))
    row.recent_items[0, len(kept) :] = NO_ITEM
    row.recent_total -= found.left_out
    row.events *= bool(kept)
    nobody = engine.prepare([], offsets(0), 0, lists=False, lessons=False).update
    stored = with_stored(nobody, engine.store.slots([user]), engine.store, engine.encoder)
    hidden = tuple(item for item in stored.excluded[0] if engine.catalogue.item_ids[item] not in gone)
    other = replace(stored, columns=row, vectors=engine.encoder.vectors(row.state), excluded=[hidden])
    ranking = engine.lists(other).ranking
    assert ranking is not None
    assert then == [engine.catalogue.item_ids[slot] for slot in ranking.items[0].tolist() if slot >= 0]
    assert set(found.entered) == set(then) - set(now)
    assert set(found.left) == set(now) - set(then)
    assert {(m.item_id, m.from_rank, m.to_rank) for m in found.moved} == {
        (item, now.index(item) + 1, then.index(item) + 1)
        for item in set(now) & set(then)
        if now.index(item) != then.index(item)
    }
    seen = set(names[: len(places)]) - set(gone)
    assert not seen & set(then)
    assert not set(history) & set(now)


def lived_once(rules: Rules | None = None) -> Lived:
    """`u0` viewed i1 and bought i2, `u1` has both and more."""
    engine = an_engine(MODELS["decayed mean"], rules, 1)
    past = [
        Event("u0", "i1", EventType.VIEW, START_MS),
        Event("u0", "i2", EventType.PURCHASE, START_MS + 1000),
        *(Event("u1", item, EventType.VIEW, START_MS + 2000) for item in ("i1", "i2", "i4", "i5")),
        *(Event(f"u{n}", f"i{n}", EventType.VIEW, START_MS + 3000) for n in (6, 7, 8, 9)),
    ]
    engine.apply(engine.prepare(past, offsets(len(past)), 0))
    return Lived(engine, len(past))


def test_a_purchase_that_never_was_is_no_longer_hidden() -> None:
    """It may be recommended again; what was bought in truth stays away."""
    lived = lived_once()
    assert "i2" not in [item.item_id for item in asked(lived, "u0").now.items]
    found = asked(lived, "u0", ["i2"])
    assert "i2" in found.entered
    assert found.left_out == 1


def test_without_any_event_the_list_is_a_newcomers() -> None:
    """Everything left out: no direction, no neighbour, and what is popular; an event after that begins a profile."""
    lived = lived_once()
    found = asked(lived, "u0", ["i1", "i2"])
    assert (found.profile_cosine, found.then.neighbours, found.left_out) == (None, [], 2)
    assert found.then.items
    again = asked(lived, "u0", ["i1", "i2"], [SupposedEvent(item_id="i7", type=EventType.VIEW)])
    assert [near.user_id for near in again.then.neighbours][:1] == ["u7"]
    assert again.then.neighbours[0].similarity == pytest.approx(1.0, abs=1e-6)


def test_what_comes_after_a_gap_decays_from_the_last_event_that_is_left() -> None:
    """Without the newest event the time since the one before counts: as for a user who never had it."""
    lived = lived_once()
    day = 86_400_000
    past = [Event("u2", "i1", EventType.VIEW, START_MS), Event("u3", "i1", EventType.VIEW, START_MS)]
    past += [Event("u2", "i4", EventType.VIEW, START_MS + day)]
    lived.engine.apply(lived.engine.prepare(past, offsets(3, lived.offset), 0))
    more = [SupposedEvent(item_id="i7", type=EventType.VIEW, timestamp=START_MS + 2 * day)]
    question = WhatIfQuestion(without=["i4"], events=more)
    with_gap = what_if(lived.engine, "u2", question, START_MS + 2 * day, 3)
    never = what_if(lived.engine, "u3", WhatIfQuestion(events=more), START_MS + 2 * day, 3)
    assert isinstance(with_gap, WhatIf)
    assert isinstance(never, WhatIf)
    others = {near.user_id: near.similarity for near in never.then.neighbours if near.user_id != "u2"}
    assert others
    assert {near.user_id: near.similarity for near in with_gap.then.neighbours if near.user_id in others} == others


@pytest.mark.parametrize(
    ("user", "question", "reason", "words"),
    [
        ("nobody", WhatIfQuestion(), "unknown-user", "no profile of this user"),
        ("u0", WhatIfQuestion(without=["i4"]), "not-remembered", "came 'i4'; remembered are events of i2, i1."),
        ("u0", WhatIfQuestion(without=["hat"]), "not-remembered", "came 'hat'"),
        (
            "u0",
            WhatIfQuestion(events=[SupposedEvent(item_id="hat", type=EventType.VIEW)]),
            "unknown-item",
            "came 'hat', which is neither on the items topic nor in any event",
        ),
        (
            "u0",
            WhatIfQuestion(
                events=[SupposedEvent(item_id="i1", type=EventType.VIEW, timestamp=NOW_MS + FUTURE_MS_MAX + 1)]
            ),
            "future-timestamp",
            "at most an hour ahead",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(user: str, question: WhatIfQuestion, reason: str, words: str) -> None:
    """With what was expected and what came; the catalogue gets no new item by it."""
    lived = lived_once()
    before = bits(lived.engine)
    found = what_if(lived.engine, user, question, NOW_MS, NEIGHBOURS)
    assert isinstance(found, WhatIfRefusal)
    assert found.reason == reason
    assert words in found.message
    assert bits(lived.engine) == before


def test_somebody_whose_events_left_nothing_remembered_has_nothing_to_leave_out() -> None:
    """Impressions and dislikes are not remembered as items that attracted."""
    lived = lived_once()
    lived.engine.apply(
        lived.engine.prepare([Event("u3", "i1", EventType.DISLIKE, START_MS)], offsets(1, lived.offset), 0)
    )
    found = what_if(lived.engine, "u3", WhatIfQuestion(without=["i1"]), NOW_MS, NEIGHBOURS)
    assert isinstance(found, WhatIfRefusal)
    assert "no event is remembered" in found.message


def test_a_profile_is_moved_by_its_own_users_known_items_only() -> None:
    """What the updater is handed beside the profile must fit it."""
    lived = lived_once()
    update = lived.engine.prepare([Event("u0", "i1", EventType.VIEW, NOW_MS)], offsets(1, lived.offset), 0).update
    with pytest.raises(ValueError, match="expected events of the one user"):
        lived.engine.supposed(update, [Event("u1", "i1", EventType.VIEW, NOW_MS)], offsets(1, 99), 0)
    with pytest.raises(ValueError, match=r"expected items of the catalogue, got \['hat'\]"):
        lived.engine.supposed(update, [Event("u0", "hat", EventType.VIEW, NOW_MS)], offsets(1, 99), 0)
