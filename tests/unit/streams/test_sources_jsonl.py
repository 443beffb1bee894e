from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from streams.core.errors import UsageError
from streams.core.events import Event, EventType, Item, User
from streams.sources import ShopConfig, SyntheticShop, open_source

if TYPE_CHECKING:
    from pathlib import Path

GOOD = {"user_id": "u", "item_id": "i", "type": "view", "timestamp": 5}


def line(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def written(tmp_path: Path, *lines: bytes) -> str:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(each + b"\n" for each in lines))
    return str(path)


def test_what_feed_would_publish_reads_back_unchanged(tmp_path: Path) -> None:
    """Events, items and users written with our encoder come back field for field, compressed too."""
    shop = SyntheticShop(ShopConfig(users=20, items=20, events=200))
    kinds = {"events": list(shop.events()), "items": list(shop.items()), "users": list(shop.users())}
    for name, records in kinds.items():
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(msgspec.json.Encoder().encode_lines(records)))
    log = open_source("jsonl", str(tmp_path))
    assert {"events": list(log.events()), "items": list(log.items()), "users": list(log.users())} == kinds
    assert log.describe().events == 200
    assert not log.skips.counts


def test_all_fields_and_both_forms_of_time_are_read(tmp_path: Path) -> None:
    """Every field of the schema arrives; RFC 3339 becomes milliseconds; unknown fields are ignored."""
    full = line(
        event_id="e", type="rating", timestamp="1970-01-01T00:00:01Z", value=4, rec_id="r", session_id="s",
        properties={"a": [1]}, unknown=1,
    )  # fmt: skip
    log = open_source("jsonl", written(tmp_path, full))
    assert list(log.events()) == [Event("u", "i", EventType.RATING, 1000, "e", 4.0, "r", "s", {"a": [1]})]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "not-json"),
        (b"\xff\xfe", "not-json"),
        (b'{"user_id": "\xff", "item_id": "i", "type": "view", "timestamp": 1}', "invalid-utf8"),
        (b"[" * 10_000, "invalid-schema"),
        (b'{"x": ' + b"[" * 10_000, "too-deep"),
        (b"7", "invalid-schema"),
        (line(type="stare"), "invalid-schema"),
        (line(user_id=""), "invalid-schema"),
        (line(item_id="i" * 257), "invalid-schema"),
        (line(timestamp="soon"), "invalid-schema"),
        (line(timestamp=10**30), "invalid-schema"),
        (line(timestamp=1.5), "invalid-schema"),
        (line(value=float("nan")), "not-json"),
        (line(properties={"a": "x" * 4096}), "oversized"),
        (line(properties={"a": "x" * 20_000}), "oversized"),
        (b"x" * 100_000, "oversized"),
    ],
)
def test_a_bad_line_is_skipped_and_counted_with_its_number(tmp_path: Path, bad: bytes, reason: str) -> None:
    """A line that is no event costs only itself; the lines after it keep their numbers."""
    log = open_source("jsonl", written(tmp_path, line(), b"", bad, line(timestamp=6), b"{"))
    assert [event.timestamp for event in log.events()] == [5, 6]
    assert sum(log.skips.counts.values()) == 2
    assert log.skips.counts[reason] >= 1
    assert f"events.jsonl line 3: {reason}: " in log.skips.examples[0]
    assert "events.jsonl line 5: not-json: " in log.skips.examples[1]


def test_a_last_line_without_newline_counts(tmp_path: Path) -> None:
    """The end of the file ends the line."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(line() + b"\n" + line())
    assert len(list(open_source("jsonl", str(path)).events())) == 2


def test_bad_items_and_users_are_counted_too(tmp_path: Path) -> None:
    """The catalogue is checked like the events."""
    path = written(tmp_path, line())
    (tmp_path / "items.jsonl").write_bytes(b'{"item_id": "i", "title": "t"}\n{"title": "no id"}\n')
    (tmp_path / "users.jsonl").write_bytes(b'{"user_id": "u", "age": "old"}\n{"user_id": "u"}\n')
    log = open_source("jsonl", path)
    assert list(log.items()) == [Item("i", title="t")]
    assert list(log.users()) == [User("u")]
    assert log.skips.counts == {"invalid-schema": 2}
    assert "items.jsonl line 2" in log.skips.examples[0]


def test_a_file_is_sorted_unless_the_logs_order_is_wanted(tmp_path: Path) -> None:
    """Default for a file is time order; `order=log` keeps the lines as they are."""
    path = written(tmp_path, line(timestamp=2), line(timestamp=1))
    assert [event.timestamp for event in open_source("jsonl", path).events()] == [1, 2]
    assert [event.timestamp for event in open_source("jsonl", path, order="log").events()] == [2, 1]


def test_another_order_is_refused(tmp_path: Path) -> None:
    """Only `time` and `log` are orders."""
    with pytest.raises(UsageError, match="`time` or `log`"):
        open_source("jsonl", written(tmp_path), order="random")
