"""EB-NeRD: what readers of a newspaper were shown, clicked and read."""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Any

from streams.core.errors import RejectedRecord, RejectReason
from streams.core.events import Event, EventType, Item, User
from streams.sources.files import find_beside, find_file
from streams.sources.layout import checked_id, row_id
from streams.sources.ordering import by_time
from streams.sources.parquet import read_rows
from streams.sources.port import Description, Skips

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.sources.parquet import Cells

BATCH_ROWS_MAX = 1_024
"""Few, since a row holds a list of articles, in the history one of hundreds."""
BEHAVIOUR_COLUMNS = (
    "impression_id", "user_id", "session_id", "impression_time", "article_id", "read_time", "article_ids_inview",
    "article_ids_clicked", "next_read_time",
)  # fmt: skip
HISTORY_COLUMNS = ("user_id", "article_id_fixed", "impression_time_fixed", "read_time_fixed")
READER_COLUMNS = ("user_id", "age", "gender", "postcode", "is_subscriber")
ARTICLE_COLUMNS = ("article_id", "title", "subtitle", "category_str")


class Ebnerd:
    """The folder with `behaviors.parquet` and, where they exist, `history.parquet` and `articles.parquet`.

    A row of `behaviors` is an impression of a list: a `view` of the page it stood on, unless that was the front
    page, with the seconds spent there as `value`; an `impression` of each article in the list; a `click` with the
    seconds then spent on the article. All have the impression's time, in this order, and but for the view its
    number as `rec_id`. The history is `view`s with seconds.
    """

    def __init__(self, path: str) -> None:
        self.name = "ebnerd"
        self.skips = Skips()
        self._path = find_file(path, ["behaviors.parquet"])
        self._history = find_beside(self._path, ["history.parquet"])
        self._articles = find_beside(self._path, ["articles.parquet"])

    def describe(self) -> Description:
        """Nothing: how many events the rows hold is only known by reading them."""
        return Description()

    def items(self) -> Iterator[Item]:
        """The articles, where their file is there."""
        if self._articles is None:
            return
        for _, (number, title, subtitle, category) in read_rows(self._articles, ARTICLE_COLUMNS, BATCH_ROWS_MAX):
            categories = [category] if category else []
            yield Item(item_id=str(number), title=title or None, categories=categories, text=subtitle or None)

    def users(self) -> Iterator[User]:
        """Readers as their first impression shows them; ages are decades, gender and postcode the log's codes."""
        seen: set[str] = set()
        for _, (number, age, gender, postcode, subscriber) in read_rows(self._path, READER_COLUMNS):
            user_id = str(number)
            if user_id in seen:
                continue
            seen.add(user_id)
            known = {"postcode": postcode, "subscriber": subscriber}
            yield User(
                user_id=user_id,
                age=age,
                gender=None if gender is None else str(gender),
                attributes={name: value for name, value in known.items() if value is not None},
            )

    def events(self) -> Iterator[Event]:
        """History and impressions, oldest first."""
        return by_time(chain(self._past_views(), self._reactions()))

    def _past_views(self) -> Iterator[Event]:
        if self._history is None:
            return
        for number, (user, *lists) in read_rows(self._history, HISTORY_COLUMNS, BATCH_ROWS_MAX):
            articles, times_ms, seconds = (column or [] for column in lists)
            if not len(articles) == len(times_ms) == len(seconds):
                uneven = RejectedRecord(RejectReason.INVALID_SCHEMA, "articles, times and seconds differ in number")
                self.skips.add(self._history, number, uneven)
                continue
            for place, (article, time_ms, dwell_s) in enumerate(zip(articles, times_ms, seconds, strict=True)):
                try:
                    yield _event("history", place, user, article, EventType.VIEW, time_ms, dwell_s)
                except RejectedRecord as rejected:
                    self.skips.add(self._history, number, rejected)

    def _reactions(self) -> Iterator[Event]:
        """Impressions whole: a row with one bad article is left out."""
        for number, row in read_rows(self._path, BEHAVIOUR_COLUMNS, BATCH_ROWS_MAX):
            try:
                events = list(_impression(row))
            except RejectedRecord as rejected:
                self.skips.add(self._path, number, rejected)
                continue
            yield from events


def _impression(row: Cells) -> Iterator[Event]:
    shown_as, user, session, time_ms, page, page_s, in_view, clicked, next_s = row
    if page is not None:
        yield _event(shown_as, 0, user, page, EventType.VIEW, time_ms, page_s, session)
    for place, article in enumerate(in_view or []):
        yield _event(shown_as, place, user, article, EventType.IMPRESSION, time_ms, None, session, str(shown_as))
    for place, article in enumerate(clicked or []):
        yield _event(shown_as, place, user, article, EventType.CLICK, time_ms, next_s, session, str(shown_as))


def _event(
    shown_as: Any, place: int, user: Any, article: Any, kind: EventType, time_ms: int | None, dwell_s: float | None,
    session: Any = None, rec_id: str | None = None,
) -> Event:  # fmt: skip
    if user is None or article is None or time_ms is None:
        raise RejectedRecord(RejectReason.INVALID_SCHEMA, f"user {user}, article {article} or time {time_ms} is absent")
    if dwell_s is not None and not math.isfinite(dwell_s):
        raise RejectedRecord(RejectReason.NOT_FINITE, f"read time {dwell_s} is not finite")
    return Event(
        user_id=checked_id(str(user), "user"),
        item_id=checked_id(str(article), "item"),
        type=kind,
        timestamp=time_ms,
        event_id=row_id([str(shown_as), str(place), str(user), str(article), kind, str(time_ms)]),
        value=dwell_s,
        rec_id=rec_id,
        session_id=None if session is None else str(session),
    )
