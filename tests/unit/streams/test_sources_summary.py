from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from streams.core.errors import UsageError
from streams.core.events import Event, EventType, Item, User
from streams.sources import open_source
from streams.sources import pairs as pairs_module
from streams.sources import tally as tally_module
from streams.sources.pairs import PairTable
from streams.sources.port import Description, Skips
from streams.sources.summary import FunnelStep, LogSummary, summarise
from streams.sources.tally import HOUR_MS, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streams.sources import Source


class Shelf:
    """A source made of what a test gives it."""

    name = "shelf"

    def __init__(
        self,
        events: list[Event],
        items: list[Item] | None = None,
        users: list[User] | None = None,
        *,
        order_only: bool = False,
    ) -> None:
        self.skips = Skips()
        self._events, self._items, self._users = events, items or [], users or []
        self._order_only = order_only

    def describe(self) -> Description:
        return Description(order_only=self._order_only)

    def events(self) -> Iterator[Event]:
        return iter(self._events)

    def items(self) -> Iterator[Item]:
        return iter(self._items)

    def users(self) -> Iterator[User]:
        return iter(self._users)


def event(user: str, item: str, kind: str = "view", at_ms: int = 0, **more: Any) -> Event:
    return Event(user, item, EventType(kind), at_ms, **more)


def problems(summary: LogSummary) -> dict[str, int]:
    return {problem.problem: problem.count for problem in summary.problems}


def csv(tmp_path: Path, rows: str, **options: Any) -> Source:
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp,type,v\n" + rows)
    return open_source("csv", str(path), column={"value": "v"}, **options)


def test_counts_are_those_of_the_log() -> None:
    """Events, users, items, types, times, density and repeats of a log that can be counted by hand."""
    summary = summarise(
        Shelf(
            [
                event("a", "x"),
                event("a", "y", "like", 1000),
                event("a", "x", "view", 2000),
                event("b", "x", "view", 61_000),
            ]
        )
    )
    assert (summary.events, summary.users, summary.items) == (4, 2, 2)
    assert (summary.time.first, summary.time.last) == ("1970-01-01T00:00:00Z", "1970-01-01T00:01:01Z")
    assert [(each.type, each.events, each.share) for each in summary.types] == [("view", 3, 0.75), ("like", 1, 0.25)]
    assert summary.density == 3 / 4
    assert summary.repeats == 1 / 4
    assert summary.events_per_user == {
        "min": 1.0, "p25": 1.5, "p50": 2.0, "p75": 2.5, "p90": 2.8, "p99": 2.98, "max": 3.0, "mean": 2.0,
    }  # fmt: skip


def test_the_funnel_counts_pairs_that_reach_a_step() -> None:
    """Each step counts user-item pairs, and which share of those one step before went on; absent steps are left out."""
    summary = summarise(
        Shelf(
            [
                *(event("a", item) for item in "wxyz"),
                event("a", "w", at_ms=1), event("a", "w", "cart", 2), event("a", "x", "cart", 2),
                event("a", "w", "purchase", 3), event("b", "w", "purchase", 4),
            ]
        )
    )  # fmt: skip
    assert summary.funnel == [
        FunnelStep(EventType.VIEW, 4, None),
        FunnelStep(EventType.CART, 2, 0.5),
        FunnelStep(EventType.PURCHASE, 2, 0.5),
    ]


def test_a_log_of_one_step_has_no_funnel() -> None:
    """Ratings, or purchases alone, lead nowhere."""
    assert summarise(Shelf([event("a", "x", "purchase"), event("a", "y", "rating")])).funnel == []


def test_coverage_counts_items_that_have_events() -> None:
    """A catalogue covers items by field; entries nobody touched count only as entries."""
    catalogue = summarise(
        Shelf(
            [event("a", "x"), event("a", "y"), event("a", "z")],
            [
                Item("x", title="X", categories=["c"], price=1.0),
                Item("y", text="words", brand="b"),
                Item("unseen", title="U", price=float("nan")),
            ],
        )
    ).catalogue
    assert (catalogue.entries, catalogue.described, catalogue.text) == (3, 2, 2)
    assert (catalogue.category, catalogue.brand, catalogue.price, catalogue.image) == (1, 1, 1, 0)


def test_people_count_with_attributes_when_they_have_events() -> None:
    """A user without any attribute, or without events, is an entry only."""
    people = summarise(
        Shelf([event("a", "x"), event("b", "x")], users=[User("a", age=0), User("b"), User("c", age=3)])
    ).people
    assert (people.entries, people.with_attributes) == (3, 1)


def test_problems_are_counted() -> None:
    """Repeats of one moment, items without text, odd prices and users seen once are told."""
    same = event("a", "x", at_ms=5, event_id="e")
    found = problems(
        summarise(
            Shelf([same, same, event("b", "y", at_ms=6), event("b", "y", at_ms=6)], [Item("x", price=float("inf"))])
        )
    )
    assert found == {
        "exact duplicates": 2,
        "items without text": 2,
        "items with a price that is no number": 1,
    }


def test_events_that_only_look_alike_are_no_duplicates() -> None:
    """Another time, user, value or event id makes another event."""
    found = problems(
        summarise(
            Shelf(
                [
                    event("a", "x"), event("b", "x"), event("b", "x", value=1.0), event("b", "x", event_id="1"),
                    event("b", "x", event_id="2"), event("b", "x", at_ms=1),
                ]
            )
        )
    )  # fmt: skip
    assert "exact duplicates" not in found


def test_one_user_and_one_item_are_problems() -> None:
    """There is nobody to compare with, and nothing to rank."""
    found = problems(summarise(Shelf([event("a", "x")])))
    assert {"only one user: there are no neighbours to find", "only one item: there is nothing to rank"} <= set(found)


def test_skips_and_disorder_of_a_file_are_told_with_examples(tmp_path: Path) -> None:
    """NaN and other bad rows are counted by reason with the line of one; rows out of order are counted."""
    rows = "a,x,5,view,1\na,x,3,view,\n" + "broken\n" * 20 + "b,y,9,stare,\na,x,4,view,nan\n"
    summary = summarise(csv(tmp_path, rows))
    assert summary.events == 2
    found = problems(summary)
    assert (found["skipped: not-finite"], found["skipped: invalid-schema"], found["unsorted rows"]) == (1, 21, 1)
    [not_finite] = [problem for problem in summary.problems if problem.problem == "skipped: not-finite"]
    assert "line 25" in not_finite.examples[0]


def test_disorder_of_a_log_that_is_not_sorted_is_seen(tmp_path: Path) -> None:
    """With `order=log` the rows arrive as they are, and the range of time is still right."""
    summary = summarise(csv(tmp_path, "a,x,5000,view,\na,x,3000,view,\nb,y,9000,view,\n", order="log"))
    assert problems(summary)["unsorted rows"] == 1
    assert (summary.time.first, summary.time.last) == ("1970-01-01T00:00:03Z", "1970-01-01T00:00:09Z")


def hours(*per_hour: tuple[int, int]) -> list[Event]:
    """So many events in hour h, each by a user of its own."""
    return [
        event(f"u{hour}-{n}", f"i{n % 7}", at_ms=hour * HOUR_MS + n) for hour, count in per_hour for n in range(count)
    ]


def test_strays_far_from_the_bulk_of_time_are_counted() -> None:
    """Single events weeks before and days after are told, with where the bulk lies."""
    summary = summarise(Shelf(hours((0, 1), (500, 200), (501, 5), (502, 200), (530, 2))))
    [strays] = [problem for problem in summary.problems if "outside the bulk" in problem.problem]
    assert strays.count == 3
    assert strays.examples == ["the bulk lies between 1970-01-21T20:00:00Z and 1970-01-21T23:00:00Z"]


@pytest.mark.parametrize(
    "events",
    [
        hours((0, 1), (1, 200), (2, 200), (3, 1)),
        hours((0, 1), (1000, 1), (2000, 1)),
        hours((0, 9), (500, 200), (501, 200)),
    ],
    ids=["begins inside an hour", "sparse", "a quiet time, not a stray"],
)
def test_a_log_with_ordinary_ends_has_no_strays(events: list[Event]) -> None:
    """Thin first and last hours, sparse logs and long quiet beginnings are no problem."""
    assert not [problem for problem in problems(summarise(Shelf(events))) if "outside the bulk" in problem]


def test_made_times_have_no_strays() -> None:
    """Where only the order is known, few events late mean a long history, not a wrong clock."""
    summary = summarise(Shelf(hours((0, 1), (500, 200), (501, 200)), order_only=True))
    assert summary.time.order_only
    assert not [problem for problem in problems(summary) if "outside the bulk" in problem]


@pytest.mark.parametrize(
    ("rows", "message"),
    [("", "It is empty"), ("a,x,1,view,nan\nb\n", "1 rows skipped as not-finite, 1 rows skipped as invalid-schema")],
)
def test_a_log_without_events_is_an_error(tmp_path: Path, rows: str, message: str) -> None:
    """Nothing to count is told, with the reasons why every row was refused."""
    with pytest.raises(UsageError, match=message):
        summarise(csv(tmp_path, rows))


def test_a_summary_is_plain_json() -> None:
    """Everything survives JSON, types by their names."""
    summary = summarise(Shelf([event("a", "x"), event("b", "x", "cart", 1)]))
    decoded = json.loads(msgspec.json.encode(summary))
    assert decoded["types"][0] == {"type": "view", "events": 1, "share": 0.5}
    assert msgspec.convert(decoded, LogSummary) == summary


def test_progress_is_told_on_the_way() -> None:
    """The events counted so far, at regular counts."""
    told: list[int] = []
    summarise(Shelf([event(f"u{n}", "x", at_ms=n) for n in range(9000)]), told.append)
    assert told == [4096, 8192]


def test_blocks_do_not_change_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting in small blocks, with new users in each, equals counting at once."""
    rng = random.Random(5)
    events = [event(f"u{rng.randrange(30)}", f"i{rng.randrange(40)}", at_ms=n) for n in range(500)]

    def counted(block: int) -> tuple[list[int], list[int], int]:
        monkeypatch.setattr(tally_module, "BLOCK_EVENTS", block)
        tally = Tally()
        for each in events:
            tally.add(each)
        tally.finish()
        return tally.user_events.tolist(), tally.item_events.tolist(), len(tally.pairs.masks())

    assert counted(7) == counted(10_000)
    assert counted(7)[2] == len({(each.user_id, each.item_id) for each in events})


@pytest.mark.parametrize("seed", range(5))
def test_pairs_equal_a_dictionary_of_sets(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Whatever the order and size of additions, each pair has exactly the ways in which it was added."""
    monkeypatch.setattr(pairs_module, "PENDING_MIN", 16)
    rng = np.random.default_rng(seed)
    table, expected = PairTable(), {}
    for size in rng.integers(1, 40, 20).tolist():
        users, items, ways = rng.integers(0, 9, size), rng.integers(0, 9, size), rng.integers(0, 14, size)
        table.add(users, items, ways)
        for user, item, way in zip(users.tolist(), items.tolist(), ways.tolist(), strict=True):
            expected[user, item] = expected.get((user, item), 0) | 1 << way
    assert sorted(table.masks().tolist()) == sorted(expected.values()), f"seed {seed}"
