"""A source as the table that training reads."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from streams.core.errors import UsageError
from streams.core.events import Event, EventType, Item, User
from streams.sources import ShopConfig, Skips, SyntheticShop, open_source
from streams.sources.event_table import PROGRESS_EVENTS, event_table
from streams.sources.port import Description

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGS = Path(__file__).resolve().parents[3] / "../shared/data"


class Written:
    """A source of given events."""

    name = "written"

    def __init__(
        self,
        events: list[Event],
        items: tuple[Item, ...] = (),
        users: tuple[User, ...] = (),
        *,
        order_only: bool = False,
    ) -> None:
        self._events, self._items, self._users, self._order_only = events, items, users, order_only
        self.skips = Skips()

    def describe(self) -> Description:
        return Description(order_only=self._order_only)

    def items(self) -> Iterator[Item]:
        return iter(self._items)

    def users(self) -> Iterator[User]:
        return iter(self._users)

    def events(self) -> Iterator[Event]:
        return iter(self._events)


def view(user: str, item: str, at_ms: int = 0, value: float | None = None) -> Event:
    """One event; a rating if it has a value."""
    return Event(user, item, EventType.VIEW if value is None else EventType.RATING, at_ms, value=value)


THREE = [view("a", "x", 5_999), view("b", "y", 3_000, 4.5), view("a", "y", 2_000)]


def test_events_stand_by_user_and_time() -> None:
    """Each user's events are together, oldest first, with whole seconds, types by name and NaN where no value is."""
    table = event_table(Written(THREE))
    assert (table.user_ids, table.item_ids, table.type_names) == (["a", "b"], ["x", "y"], ("view", "rating"))
    assert table.offsets.tolist() == [0, 2, 3]
    assert [table.item_ids[item] for item in table.items] == ["y", "x", "y"]
    assert table.times_s.tolist() == [2, 5, 3]
    assert [table.type_names[kind] for kind in table.types] == ["view", "view", "rating"]
    np.testing.assert_array_equal(table.values, np.array([np.nan, np.nan, 4.5], np.float32))


def test_descriptions_and_attributes_come_along() -> None:
    """Words and tokens of items and users; an item nobody touched enters, a user without events does not."""
    items = (Item("y", title="Red", categories=["shoes"]), Item("z", title="Blue", brand="acme"))
    users = (User("b", age=34, country="pt"), User("nobody", gender="f"))
    table = event_table(Written(THREE, items, users))
    assert table.item_ids == ["x", "y", "z"]
    assert table.item_texts == ["", "Red shoes", "Blue acme"]
    assert table.item_attributes == [(), ("category:shoes",), ("brand:acme",)]
    assert table.user_ids == ["a", "b"]
    assert table.user_attributes == [(), ("age:30", "country:pt")]


def test_known_items_keep_their_rows() -> None:
    """A model's vocabulary comes first, in its order, even items that this log does not have."""
    table = event_table(Written(THREE), known_items=["gone", "y"])
    assert table.item_ids == ["gone", "y", "x"]
    assert table.items.tolist() == [1, 2, 1]


def test_a_limit_ends_the_reading() -> None:
    """Exactly the first `limit` events are taken, from an endless source too."""
    shop = SyntheticShop(ShopConfig(users=20, items=40, events=None))
    table = event_table(shop, limit=50)
    assert len(table) == 50
    assert sorted(table.times_s.tolist()) == [event.timestamp // 1000 for event in islice(shop.events(), 50)]


def test_progress_is_told_now_and_then() -> None:
    """Every 10,000 events and at the end."""
    told: list[int] = []
    event_table(SyntheticShop(ShopConfig(users=50, items=40, events=PROGRESS_EVENTS + 7)), on_progress=told.append)
    assert told == [PROGRESS_EVENTS, PROGRESS_EVENTS + 7]


def test_made_times_say_nothing() -> None:
    """Of a log that tells the order only, the order is kept and all gaps are 0."""
    table = event_table(Written(THREE[::-1], order_only=True))
    assert table.times_s.tolist() == [0, 0, 0]
    assert [table.item_ids[item] for item in table.items] == ["y", "x", "y"]
    assert not table.gaps_s().any()


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "The log has no events: expected at least two users and two items; check FORMAT and PATH."),
        ([view("a", "x"), view("a", "y")], r"1 user\(s\) and 2 item\(s\): expected at least 2 and 2"),
        ([view("a", "x"), view("b", "x")], r"2 user\(s\) and 1 item\(s\): expected at least 2 and 2"),
        ([*THREE, view("b", "x", 1, float("nan"))], "The rating of item x by user b has the value nan"),
        ([*THREE, view("b", "x", 1, float("inf"))], "expected a finite number, or none"),
    ],
)
def test_a_log_that_teaches_nothing_is_refused(events: list[Event], message: str) -> None:
    """Misuse, said in a sentence: nothing there, nobody or nothing to compare with, values that are none."""
    with pytest.raises(UsageError, match=message):
        event_table(Written(events))


@pytest.mark.logs
def test_a_real_log_becomes_a_table() -> None:
    """Deskdrop, unsorted on disk: all its events, in order; most titles of its README, some being without words."""
    folder = LOGS / "deskdrop"
    if not folder.exists():
        pytest.skip("the public logs are not at ../shared/data")
    table = event_table(open_source("deskdrop", str(folder)))
    assert (len(table.user_ids), len(table)) == (1_895, 72_312)
    times = np.split(table.times_s, table.offsets[1:-1])
    assert all((np.diff(each) >= 0).all() for each in times)
    assert sum(1 for text in table.item_texts if text) >= 1_250
