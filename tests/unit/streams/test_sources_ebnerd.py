from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from streams.core.events import Event, EventType, Item, User
from streams.sources import open_source

if TYPE_CHECKING:
    from pathlib import Path

    from streams.sources import Source

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is missing; install nearstream[logs]")
parquet = pytest.importorskip("pyarrow.parquet")

SHOWN = datetime(2023, 2, 27, 3, 23, 27)  # noqa: DTZ001 - the files have no zone
SHOWN_MS = 1_677_468_207_000
IMPRESSION = {
    "impression_id": 9, "user_id": 7, "session_id": 70, "impression_time": SHOWN, "article_id": 100, "read_time": 17.0,
    "article_ids_inview": [1, 2], "article_ids_clicked": [2], "next_read_time": 8.0,
    "age": 40, "gender": 0, "postcode": None, "is_subscriber": True,
}  # fmt: skip
READ = {
    "user_id": 7, "article_id_fixed": [5, 6], "impression_time_fixed": [SHOWN, SHOWN], "read_time_fixed": [3.0, None],
}  # fmt: skip


def paper(tmp_path: Path, *behaviours: dict[str, Any], history: dict[str, Any] | None = None) -> Source:
    parquet.write_table(pyarrow.Table.from_pylist(list(behaviours)), tmp_path / "behaviors.parquet")
    if history is not None:
        parquet.write_table(pyarrow.Table.from_pylist([history]), tmp_path / "history.parquet")
    return open_source("ebnerd", str(tmp_path))


def told(event: Event) -> tuple[Any, ...]:
    return event.type, event.item_id, event.value, event.rec_id


def test_a_row_is_a_view_impressions_and_clicks_in_this_order(tmp_path: Path) -> None:
    """The page was viewed with its seconds; what was in view was shown; the click has the seconds that followed."""
    events = list(paper(tmp_path, IMPRESSION).events())
    assert [told(event) for event in events] == [
        (EventType.VIEW, "100", 17.0, None),
        (EventType.IMPRESSION, "1", None, "9"),
        (EventType.IMPRESSION, "2", None, "9"),
        (EventType.CLICK, "2", 8.0, "9"),
    ]
    assert {(event.user_id, event.timestamp, event.session_id) for event in events} == {("7", SHOWN_MS, "70")}
    assert len({event.event_id for event in events}) == 4


def test_the_front_page_is_no_view_and_unread_is_no_value(tmp_path: Path) -> None:
    """Absent article, list and seconds are left out."""
    front = {**IMPRESSION, "article_id": None, "article_ids_inview": None, "next_read_time": None}
    source = paper(tmp_path, {**front, "article_ids_clicked": [2]}, {**IMPRESSION, "article_ids_clicked": []})
    kinds = [told(event)[:3] for event in source.events()]
    assert kinds[0] == (EventType.CLICK, "2", None)
    assert EventType.CLICK not in {kind for kind, *_ in kinds[1:]}


def test_the_history_is_views(tmp_path: Path) -> None:
    """Each article that was read before, with its seconds where they are known; it needs no file."""
    alone = paper(tmp_path, {**IMPRESSION, "article_id": None})
    assert EventType.VIEW not in {event.type for event in alone.events()}
    views = [event for event in paper(tmp_path, IMPRESSION, history=READ).events() if event.type is EventType.VIEW]
    assert [(view.item_id, view.value, view.timestamp) for view in views] == [
        ("5", 3.0, SHOWN_MS), ("6", None, SHOWN_MS), ("100", 17.0, SHOWN_MS),
    ]  # fmt: skip


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    """An impression is left out whole; of a history only what is bad, unless its lists do not belong together."""
    history = {**READ, "article_id_fixed": [5, None], "read_time_fixed": [float("nan"), 1.0]}
    source = paper(tmp_path, {**IMPRESSION, "impression_time": None}, IMPRESSION, history=history)
    assert len(list(source.events())) == 4
    assert source.skips.counts == {"invalid-schema": 2, "not-finite": 1}
    uneven = paper(tmp_path, IMPRESSION, history={**READ, "read_time_fixed": [1.0]})
    assert len(list(uneven.events())) == 4
    assert "differ in number" in uneven.skips.examples[0]


def test_readers_have_what_their_first_impression_says(tmp_path: Path) -> None:
    """Age and codes of each reader once; absent ones are left out."""
    later = {**IMPRESSION, "user_id": 8, "age": None, "gender": None, "is_subscriber": None, "postcode": 2}
    source = paper(tmp_path, IMPRESSION, {**IMPRESSION, "age": 50}, later)
    assert list(source.users()) == [
        User("7", age=40, gender="0", attributes={"subscriber": True}),
        User("8", attributes={"postcode": 2}),
    ]


def test_articles_are_items_where_their_file_is_there(tmp_path: Path) -> None:
    """Title, subtitle and category of `articles.parquet`; without it there is no catalogue."""
    source = paper(tmp_path, IMPRESSION)
    assert list(source.items()) == []
    articles = [{"article_id": 1, "title": "Rain", "subtitle": "It rains.", "category_str": "weather"}]
    parquet.write_table(pyarrow.Table.from_pylist(articles), tmp_path / "articles.parquet")
    assert list(open_source("ebnerd", str(tmp_path)).items()) == [
        Item("1", title="Rain", categories=["weather"], text="It rains.")
    ]
