"""Logs that are tables: one row, one event."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, TypeVar

from streams.core.errors import RejectedRecord, RejectReason
from streams.sources.files import count_lines, open_text
from streams.sources.layout import RowParser
from streams.sources.ordering import by_time, noting_disorder
from streams.sources.port import Description, Skips

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from streams.core.events import Event, Item, User
    from streams.sources.layout import Layout, Row

Record = TypeVar("Record")


class TableSource:
    """A `Source` over one table. Catalogue and users come from functions: each log keeps them elsewhere."""

    def __init__(
        self,
        name: str,
        path: str,
        layout: Layout,
        *,
        ordered: bool = True,
        items: Callable[[Skips], Iterator[Item]] | None = None,
        users: Callable[[Skips], Iterator[User]] | None = None,
    ) -> None:
        self.name = name
        self.skips = Skips()
        self._path = path
        self._layout = layout
        self._ordered = ordered
        self._items = items
        self._users = users

    def describe(self) -> Description:
        """Rows of a small file; items and users are not counted ahead."""
        lines = count_lines(self._path)
        header = 0 if self._layout.columns else 1
        return Description(events=None if lines is None else max(0, lines - header))

    def items(self) -> Iterator[Item]:
        """The catalogue, as far as the log has one; each item once."""
        return self._items(self.skips) if self._items is not None else iter(())

    def users(self) -> Iterator[User]:
        """Personal attributes, as far as the log has them; each user once."""
        return self._users(self.skips) if self._users is not None else iter(())

    def events(self) -> Iterator[Event]:
        """The rows as events: oldest first, unless the source was told to keep the order of the log."""
        rows = self._rows_as_events()
        return by_time(noting_disorder(rows, self.skips)) if self._ordered else rows

    def _rows_as_events(self) -> Iterator[Event]:
        with open_text(self._path, self._layout.encoding) as text:
            rows = numbered_rows(text, self._path, self._layout.delimiter, self.skips)
            columns = self._layout.columns or next(rows, (0, []))[1]
            parse = RowParser(self._layout, columns, self._path).parse
            for line, row in rows:
                try:
                    yield parse(row)
                except RejectedRecord as rejected:
                    self.skips.add(self._path, line, rejected)


def read_table(
    path: str,
    build: Callable[[dict[str, str]], Record],
    skips: Skips,
    *,
    columns: Sequence[str] = (),
    delimiter: str = ",",
    encoding: str = "utf-8",
    distinct_by: str = "",
) -> Iterator[Record]:
    """The rows of a catalogue or user table, each built from its fields by column name.

    A row of another width, or one that `build` refuses with ValueError or LookupError, is counted in `skips`.
    With `distinct_by` only the first row of each value of that column counts; memory grows with the values.
    """
    seen: set[str] = set()
    with open_text(path, encoding) as text:
        rows = numbered_rows(text, path, delimiter, skips)
        names = columns or next(rows, (0, []))[1]
        for line, row in rows:
            try:
                fields = dict(zip(names, row, strict=True))
                if distinct_by and fields[distinct_by] in seen:
                    continue
                yield build(fields)
                seen.add(fields.get(distinct_by, ""))
            except (ValueError, LookupError) as error:
                skips.add(path, line, RejectedRecord(RejectReason.INVALID_SCHEMA, f"not usable: {error}"))


def numbered_rows(text: Iterable[str], path: str, delimiter: str, skips: Skips) -> Iterator[tuple[int, Row]]:
    """Rows with the number of the line they end on; empty lines are left out, unreadable ones counted.

    A delimiter of several characters splits plainly, without quoting, as MovieLens' `::` needs.
    """
    if len(delimiter) > 1:
        for number, line in enumerate(text, 1):
            if stripped := line.rstrip("\r\n"):
                yield number, stripped.split(delimiter)
        return
    reader = csv.reader(text, delimiter=delimiter)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            skips.add(path, reader.line_num, RejectedRecord(RejectReason.INVALID_SCHEMA, f"not a row: {error}"))
            continue
        if row:
            yield reader.line_num, row
