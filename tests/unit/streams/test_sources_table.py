from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from streams.core.errors import UsageError
from streams.core.events import Event, EventType
from streams.sources import open_source

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "user_id,item_id,timestamp,type\n"


def source(tmp_path: Path, text: str | bytes, **options: Any) -> Any:
    path = tmp_path / "log.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return open_source("csv", str(path), **options)


def test_columns_are_mapped_by_name(tmp_path: Path) -> None:
    """Every field can come from a column of any name, whatever the order of the columns."""
    log = source(
        tmp_path,
        "when;who;what;how;paid;visit;nr\n1500;ann;book;bought;9.5;v1;n1\n",
        column={
            "user": "who", "item": "what", "timestamp": "when", "type": "how",
            "value": "paid", "session": "visit", "event_id": "nr",
        },
        type_map={"bought": "purchase"},
        delimiter=";",
        timestamp_format="s",
    )  # fmt: skip
    assert list(log.events()) == [
        Event("ann", "book", EventType.PURCHASE, 1_500_000, "n1", 9.5, None, "v1"),
    ]


@pytest.mark.parametrize(
    ("timestamp_format", "written", "milliseconds"),
    [
        ("s", "1500.25", 1_500_250),
        ("ms", "1500", 1500),
        ("rfc3339", "2025-01-01T01:00:00.5+01:00", 1_735_689_600_500),
        ("rfc3339", "2025-01-01T00:00:00Z", 1_735_689_600_000),
        ("rfc3339", "2025-01-01 00:00:00 UTC", 1_735_689_600_000),
        ("rfc3339", "2025-01-01 00:00:00", 1_735_689_600_000),
    ],
)
def test_timestamps_become_epoch_milliseconds(
    tmp_path: Path, timestamp_format: str, written: str, milliseconds: int
) -> None:
    """Each format, with and without offset, gives milliseconds UTC."""
    log = source(tmp_path, HEADER + f"u,i,{written},view\n", timestamp_format=timestamp_format)
    assert [event.timestamp for event in log.events()] == [milliseconds]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"u,i,1,view,more", "invalid-schema"),
        (b"u,i,1", "invalid-schema"),
        (b",i,1,view", "invalid-schema"),
        (b"u,,1,view", "invalid-schema"),
        (b"u" * 257 + b",i,1,view", "invalid-schema"),
        (b"u,i,soon,view", "invalid-schema"),
        (b"u,i,,view", "invalid-schema"),
        (b"u,i,99999999999999999999,view", "invalid-schema"),
        (b"u,i,1,stare", "invalid-schema"),
        (b"\xff,i,1,view", "invalid-utf8"),
        (b"u,\xc3,1,view", "invalid-utf8"),
        (b"u," + b"i" * 200_000 + b",1,view", "invalid-schema"),
    ],
)
def test_a_bad_row_is_skipped_and_counted_with_its_line(tmp_path: Path, row: bytes, reason: str) -> None:
    """A row that cannot be an event costs only itself, and the line it stands on is told."""
    log = source(tmp_path, HEADER.encode() + b"a,i,1,view\n" + row + b"\nb,i,2,view\n")
    assert [event.user_id for event in log.events()] == ["a", "b"]
    assert log.skips.counts == {reason: 1}
    assert "log.csv line 3: " in log.skips.examples[0]


@pytest.mark.parametrize("value", ["nan", "inf", "-Infinity", "1e999"])
def test_a_value_that_is_not_finite_is_skipped(tmp_path: Path, value: str) -> None:
    """NaN and infinity never become events."""
    log = source(tmp_path, f"user_id,item_id,timestamp,type,v\nu,i,1,view,{value}\n", column={"value": "v"})
    assert list(log.events()) == []
    assert log.skips.counts == {"not-finite": 1}


def test_an_empty_value_and_session_are_absent(tmp_path: Path) -> None:
    """An empty optional field means that there is none."""
    log = source(tmp_path, "user_id,item_id,timestamp,type,v,s\nu,i,1,view,,\n", column={"value": "v", "session": "s"})
    assert list(log.events()) == [Event("u", "i", EventType.VIEW, 1)]


def test_a_byte_order_mark_and_quotes_are_understood(tmp_path: Path) -> None:
    """Spreadsheets write a mark before the header and quote fields with commas and line breaks."""
    log = source(tmp_path, '\ufeffuser_id,item_id,timestamp,type\n"a,b","i\n1",1,view\n')
    assert list(log.events()) == [Event("a,b", "i\n1", EventType.VIEW, 1)]


def test_only_the_first_examples_of_skips_are_kept(tmp_path: Path) -> None:
    """A log of nothing but bad rows is counted without growing memory."""
    log = source(tmp_path, HEADER + "bad\n" * 1000)
    assert list(log.events()) == []
    assert log.skips.counts == {"invalid-schema": 1000}
    assert len(log.skips.examples) == 10


def test_a_file_is_sorted_unless_the_logs_order_is_wanted(tmp_path: Path) -> None:
    """Default for a file is time order; `order=log` keeps the rows as they are."""
    rows = HEADER + "a,i,2,view\nb,i,1,view\n"
    assert [event.user_id for event in source(tmp_path, rows).events()] == ["b", "a"]
    assert [event.user_id for event in source(tmp_path, rows, order="log").events()] == ["a", "b"]


def test_one_type_for_all_rows_needs_no_type_column(tmp_path: Path) -> None:
    """A log of purchases only has no type column."""
    log = source(tmp_path, "user_id,item_id,timestamp\nu,i,1\n", event_type="purchase")
    assert [event.type for event in log.events()] == [EventType.PURCHASE]


def test_without_event_id_column_rows_have_no_id(tmp_path: Path) -> None:
    """Rows of an unknown log all count: only a mapped column makes an event id."""
    assert [event.event_id for event in source(tmp_path, HEADER + "u,i,1,view\nu,i,1,view\n").events()] == [None, None]


def test_the_size_is_known_ahead(tmp_path: Path) -> None:
    """The rows of a small file are counted for the ETA, without the header."""
    assert source(tmp_path, HEADER + "u,i,1,view\nu,i,1,view\n").describe().events == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": {"usr": "x"}}, "No such field: usr"),
        ({"column": {"user": "who"}}, "no column 'who'"),
        ({"timestamp_format": "days"}, "No timestamp format 'days'"),
        ({"event_type": "stare"}, "No event type 'stare'"),
        ({"type_map": {"x": "stare"}}, "No event type 'stare'"),
        ({"event_type": "view", "type_map": {"x": "view"}}, "not both"),
        ({"delimiter": "::"}, "one character"),
        ({"order": "random"}, "`time` or `log`"),
        ({"seed": 3}, "no option seed"),
    ],
)
def test_unusable_options_say_what_is_expected(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """A wrong option ends in an error that names it."""
    with pytest.raises(UsageError, match=message):
        list(source(tmp_path, HEADER, **options).events())


def test_an_unknown_format_names_the_known_ones() -> None:
    """The error lists every format."""
    with pytest.raises(UsageError, match=r"Known formats are synthetic, deskdrop, .*csv, jsonl"):
        open_source("parquet", "x")


def test_formats_that_read_need_a_path_and_synthetic_takes_none() -> None:
    """A forgotten and a superfluous path are both told."""
    with pytest.raises(UsageError, match="deskdrop needs a PATH"):
        open_source("deskdrop")
    with pytest.raises(UsageError, match="makes its own data"):
        open_source("synthetic", "somewhere")
