"""Reactions to lists, from the bytes of an event to what a lesson counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from streams.config import load_settings
from streams.core.events import EventType
from streams.core.shedding import Shedding
from streams.kafka.codec import decode_recommendation
from streams.kafka.dead_letter import DeadLetterBound
from streams.kafka.late_lists import Plan
from streams.kafka.processor import Processor
from streams.recommend.feedback import ListFeedback
from streams.recommend.rules import Rules
from streams.wiring import build_engine
from tests.fakes_core import START_MS, World, event, event_records, learned, world

if TYPE_CHECKING:
    from streams.core.events import Event
    from streams.core.recommendations import Recommendation

NOW_MS = START_MS + 5000
ITEMS = 12


class Shop:
    """A processor over a world whose users look at lists."""

    def __init__(self, exploration: float = 0.0, *, feedback: bool = True) -> None:
        self.world: World = world()
        if feedback:
            self.world.engine.feedback = ListFeedback(exploration, 5)
        self.processor = Processor(self.world.engine, "events", 1, 2, lambda: DeadLetterBound(1.0, 1000))
        self.offset = 0
        for n in range(ITEMS):
            self.sends(event(f"other{n % 4}", f"i{n}", at_s=n))

    def sends(self, *events: Event, plan: Plan | None = None) -> dict[str, Recommendation]:
        """Commits one batch; the lists by user."""
        records = event_records(list(events), self.offset)
        output = self.processor.prepare(records, 0, NOW_MS, plan or Plan())
        self.processor.apply(output)
        self.offset += len(events)
        return {key.decode(): decode_recommendation(value) for key, value in output.lists if value is not None}

    @property
    def feedback(self) -> ListFeedback:
        assert self.world.engine.feedback is not None
        return self.world.engine.feedback

    @property
    def by_place(self) -> list[float]:
        """Reactions so far."""
        return self.feedback.bias.counts[0, :5].round(3).tolist()


def named(rec_id: str, user: str, item: str, kind: EventType = EventType.CLICK) -> Event:
    """An event that says which list it comes from."""
    return msgspec.structs.replace(event(user, item, kind, at_s=100.0), rec_id=rec_id)


def test_a_reaction_is_told_by_the_rec_id_of_the_list() -> None:
    """Also to the list before the last one; once for each item; not by a list of somebody else."""
    shop = Shop()
    first = shop.sends(event("u1", "i0", at_s=50.0))["u1"]
    shop.sends(event("u1", "i1", at_s=60.0))
    third = first.items[2].item_id
    shop.sends(named(first.rec_id, "u1", third))
    assert shop.by_place == [0, 0, 1, 0, 0]
    shop.sends(named(first.rec_id, "u1", third, EventType.PURCHASE))
    shop.sends(named(first.rec_id, "u2", first.items[0].item_id))
    assert shop.by_place == [0, 0, 1, 0, 0]


def test_an_impression_says_that_an_item_was_seen() -> None:
    """A later event on it needs no rec_id; one on another item says nothing of places."""
    shop = Shop()
    first = shop.sends(event("u1", "i0", at_s=50.0))["u1"]
    shop.sends(named(first.rec_id, "u1", first.items[1].item_id, EventType.IMPRESSION))
    shop.sends(event("u1", first.items[3].item_id, at_s=110.0))
    assert shop.by_place == [0, 0, 0, 0, 0]
    shop.sends(event("u1", first.items[1].item_id, at_s=120.0))
    assert shop.by_place == [0, 1, 0, 0, 0]


def test_late_lists_have_names_of_their_own() -> None:
    """A list that was owed is found by the number in its name."""
    shop = Shop()
    shop.sends(event("u1", "i0", at_s=50.0))
    shop.sends(event("u1", "i1", at_s=60.0), plan=Plan(Shedding.CLICKS))
    late = shop.sends(plan=Plan(late_lists_max=5))["u1"]
    assert late.rec_id.count("-") == 2
    shop.sends(named(late.rec_id, "u1", late.items[1].item_id))
    assert shop.by_place == [0, 1, 0, 0, 0]


def test_a_log_says_nothing_of_places() -> None:
    """Events with another system's rec_ids, or none, teach to the last bit what they teach without this part."""
    with_feedback, without = Shop(), Shop(feedback=False)
    for shop in (with_feedback, without):
        for n in range(60):
            item, foreign = f"i{n * 5 % ITEMS}", str(90_000 + n)
            shop.sends(named(foreign, f"u{n % 5}", item, EventType.IMPRESSION), event("u9", item, at_s=n))
            shop.sends(named(foreign, f"u{n % 5}", item))
    mine, others = learned(with_feedback.world), learned(without.world)
    assert not np.any(mine.pop("fusion/reactions"))
    assert mine == others


def test_a_lesson_from_further_down_counts_more() -> None:
    """Two workers in the same state: the event that names the list's end moves the weights more than the same event
    without a name, as many times as the lesson weighs."""
    moved, weight = [], 0.0
    for is_named in (False, True):
        shop = Shop()
        list_ = shop.sends(event("u1", "i0", at_s=50.0))["u1"]
        item = list_.items[4].item_id
        weight = float(shop.feedback.bias.lesson_weights(np.array([4]))[0])
        before = shop.world.engine.weights
        shop.sends(named(list_.rec_id, "u1", item) if is_named else event("u1", item, EventType.CLICK, at_s=100.0))
        after = shop.world.engine.weights
        assert before is not None
        assert after is not None
        moved.append(after.by_history - before.by_history)
    assert weight > 1.2
    assert np.abs(moved[0]).max() > 0
    np.testing.assert_allclose(moved[1], weight * moved[0], rtol=1e-9)


def test_frozen_weights_freeze_what_is_known_of_places() -> None:
    """And a reset begins anew; both go with the saved memory."""
    shop = Shop()
    list_ = shop.sends(event("u1", "i0", at_s=50.0))["u1"]
    shop.world.engine.frozen = True
    shop.sends(named(list_.rec_id, "u1", list_.items[0].item_id))
    assert shop.by_place == [0, 0, 0, 0, 0]
    shop.world.engine.frozen = False
    shop.sends(named(list_.rec_id, "u1", list_.items[1].item_id))
    saved = shop.world.engine.currents()
    other = Shop()
    other.world.engine.restore(saved._replace(views=dict(saved.views)))
    assert other.by_place == shop.by_place == [0, 1, 0, 0, 0]
    shop.world.engine.reset_weights(1)
    assert shop.by_place == [0, 0, 0, 0, 0]
    assert_array_equal(other.world.engine.reactions, saved.views["fusion/reactions"])


def test_what_others_learned_of_places_is_taken_over_with_their_weights() -> None:
    """As it is; counts that do not fit are refused, and nothing changes."""
    shop, engine = Shop(), world().engine
    weights = shop.world.engine.weights
    assert weights is not None
    counts = np.zeros_like(shop.feedback.bias.counts)
    counts[0, 1] = 5.0
    shop.world.engine.take_weights(weights, 3, counts)
    assert shop.by_place == [0, 5, 0, 0, 0]
    with pytest.raises(ValueError, match="expected finite counts of reactions"):
        shop.world.engine.take_weights(weights, 9, counts[:2])
    assert (shop.by_place, shop.world.engine.lessons) == ([0, 5, 0, 0, 0], 3)
    engine.take_weights(weights, 3, counts)
    assert engine.reactions is None


def test_a_forgotten_user_reacts_to_nothing() -> None:
    """Who comes back under the same name was shown nothing, and what was shown is out of memory."""
    shop = Shop()
    list_ = shop.sends(event("u1", "i0", at_s=50.0))["u1"]
    shown = shop.world.catalogue.slots([item.item_id for item in list_.items])
    remembered = shop.feedback._shown._lists.items
    lists = (remembered == shown).all(axis=1).sum()
    shop.world.engine.forget(["u1"])
    assert (remembered == shown).all(axis=1).sum() == lists - 1
    shop.sends(named(list_.rec_id, "u1", list_.items[0].item_id))
    assert shop.by_place == [0, 0, 0, 0, 0]


def test_exploration_changes_the_order_of_a_list_and_nothing_else() -> None:
    """The same items with the same scores; half of the lists have two of them the other way round; the same ones again
    when the events are played again."""
    plain, tried, again = Shop(), Shop(exploration=1.0), Shop(exploration=1.0)
    changed = 0
    for n in range(40):
        played = event(f"u{n}", f"i{n % ITEMS}", at_s=60.0 + n)
        one, other = plain.sends(played)[f"u{n}"].items, tried.sends(played)[f"u{n}"].items
        assert other == again.sends(played)[f"u{n}"].items
        assert {item.item_id: item.score for item in one} == {item.item_id: item.score for item in other}
        moved = sum(mine != theirs for mine, theirs in zip(one, other, strict=True))
        assert moved in (0, 2)
        changed += moved == 2
    assert 10 <= changed <= 30


def test_pins_stay_where_they_are() -> None:
    """However much is tried."""
    rules = Rules.model_validate({"pin": [{"item": "i7", "position": 1}, {"item": "i8", "position": 2}]})
    plain, tried = Shop(), Shop(exploration=1.0)
    for shop in (plain, tried):
        shop.world.engine.take_rules(rules)
    for n in range(30):
        played = event(f"u{n}", "i0", at_s=60.0 + n)
        items = tried.sends(played)[f"u{n}"].items
        assert [item.item_id for item in items[:2]] == ["i7", "i8"]
        assert items == plain.sends(played)[f"u{n}"].items  # each pair of five places has one of the first two


def test_floors_see_no_exchange_between_their_groups() -> None:
    """Items of a floor's group change places among themselves, and the others among themselves."""
    shop = Shop()
    reranker = shop.world.engine._ranker.reranker if shop.world.engine._ranker else None
    assert reranker is not None
    shop.world.engine.take_rules(Rules.model_validate({"floor": [{"item": ["i1", "i2"], "share": 0.01}]}))
    slots = shop.world.catalogue.slots(["i1", "i3", "i2", "i4"])
    kinds = reranker.exchangeable(np.array([[*slots, -1]], np.int32))[0].tolist()
    assert kinds[0] == kinds[2] != kinds[1] == kinds[3]
    assert kinds[4] == -1


@pytest.mark.parametrize("exploration", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(exploration: float) -> None:
    """With what was expected."""
    with pytest.raises(ValueError, match="exploration must be between 0 and 1"):
        ListFeedback(exploration, 5)


def test_settings_switch_it_off_with_its_exploration() -> None:
    """On, the share of the settings is tried; off, or where nothing is ranked, nothing is made of lists."""
    on = build_engine(load_settings(exploration=0.3))
    assert on.feedback is not None
    assert on.feedback.exploration == 0.3
    assert build_engine(load_settings(position_bias="off", exploration=0.3)).feedback is None
    assert build_engine(load_settings(), ranking=False).feedback is None
