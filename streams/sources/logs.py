"""Public logs that are tables, each by its layout. What the logs hold is told in docs/adr/0008-sources.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.core.events import EventType, Item
from streams.sources.files import STANDARD_INPUT, find_beside, find_file
from streams.sources.layout import Layout
from streams.sources.port import Skips
from streams.sources.table import TableSource, read_table
from streams.sources.timestamps import from_milliseconds, from_rfc3339, from_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TAOBAO_COLUMNS = ("user", "item", "category", "behaviour", "time")


def deskdrop(path: str) -> TableSource:
    """Articles read on a company's platform (CI&T Deskdrop): the folder, or `users_interactions.csv`.

    The log is unsorted and repeats rows exactly; a repeat has the `event_id` of its first. Titles come from
    `item_titles.csv` beside the log, when it is there.
    """
    log = find_file(path, ["users_interactions.csv"])
    titles = find_beside(log, ["item_titles.csv"])
    layout = Layout(
        user="personId",
        item="contentId",
        timestamp="timestamp",
        milliseconds_of=from_seconds,
        type="eventType",
        types={
            "VIEW": EventType.VIEW,
            "LIKE": EventType.LIKE,
            "BOOKMARK": EventType.BOOKMARK,
            "FOLLOW": EventType.FOLLOW,
            "COMMENT CREATED": EventType.COMMENT,
        },
        session="sessionId",
        id_from_row=True,
    )
    return TableSource("deskdrop", log, layout, items=lambda skips: _deskdrop_items(titles, skips))


def taobao(path: str) -> TableSource:
    """Taobao's UserBehavior (Tianchi 649): user, item, category, behaviour, seconds; no header."""
    log = find_file(path, ["UserBehavior.csv", "first983users_100k.csv"])
    layout = Layout(
        user="user",
        item="item",
        timestamp="time",
        milliseconds_of=from_seconds,
        type="behaviour",
        types={
            "pv": EventType.VIEW,
            "cart": EventType.CART,
            "fav": EventType.BOOKMARK,
            "buy": EventType.PURCHASE,
        },
        id_from_row=True,
        columns=TAOBAO_COLUMNS,
    )
    return TableSource("taobao", log, layout, items=lambda _: _first_rows(log, _taobao_item, "item", TAOBAO_COLUMNS))


def retailrocket(path: str) -> TableSource:
    """Retailrocket's events.csv: times in milliseconds, no texts."""
    log = find_file(path, ["events.csv", "sample_events.csv"])
    layout = Layout(
        user="visitorid",
        item="itemid",
        timestamp="timestamp",
        milliseconds_of=from_milliseconds,
        type="event",
        types={
            "view": EventType.VIEW,
            "addtocart": EventType.CART,
            "transaction": EventType.PURCHASE,
        },
        id_from_row=True,
    )
    return TableSource("retailrocket", log, layout)


def rees46(path: str) -> TableSource:
    """A month of REES46's multi-category shop: category path, brand and price stand in every row."""
    log = find_file(path, ["2019-Oct.csv", "2019-Nov.csv", "2019-Oct-head.csv"])
    layout = Layout(
        user="user_id",
        item="product_id",
        timestamp="event_time",
        milliseconds_of=from_rfc3339,
        type="event_type",
        types={
            "view": EventType.VIEW,
            "cart": EventType.CART,
            "remove_from_cart": EventType.REMOVE,
            "purchase": EventType.PURCHASE,
        },
        value="price",
        session="user_session",
        id_from_row=True,
    )
    return TableSource("rees46", log, layout, items=lambda _: _first_rows(log, _rees46_item, "product_id"))


def _deskdrop_items(titles: str | None, skips: Skips) -> Iterator[Item]:
    return iter(()) if titles is None else read_table(titles, _deskdrop_item, skips)


def _deskdrop_item(row: dict[str, str]) -> Item:
    return Item(item_id=row["contentId"], title=row["title"] or None)


def _taobao_item(row: dict[str, str]) -> Item:
    return Item(item_id=row["item"], categories=[row["category"]])


def _rees46_item(row: dict[str, str]) -> Item:
    return Item(
        item_id=row["product_id"],
        categories=row["category_code"].split(".") if row["category_code"] else [row["category_id"]],
        brand=row["brand"] or None,
        price=float(row["price"]) if row["price"] else None,
    )


def _first_rows(
    log: str, build: Callable[[dict[str, str]], Item], key: str, columns: Sequence[str] = ()
) -> Iterator[Item]:
    """Items as the log first shows them, in a reading of its own; bad rows are counted when events are read."""
    if log == STANDARD_INPUT:
        return iter(())
    return read_table(log, build, Skips(), columns=columns, distinct_by=key)
