from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from streams.cli import cli
from streams.core.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

ROWS = (
    '{"user_id":"a","item_id":"x","type":"view","timestamp":1000}\n'
    '{"user_id":"a","item_id":"x","type":"cart","timestamp":2000}\n'
    '{"user_id":"b","item_id":"y","type":"view","timestamp":3000}\n'
    "broken\n"
)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["data", *arguments])


def test_words_say_what_the_json_says(tmp_path: Path) -> None:
    """Counts, funnel, coverage and problems stand in both forms."""
    (tmp_path / "events.jsonl").write_text(ROWS)
    (tmp_path / "items.jsonl").write_text('{"item_id":"x","title":"X"}\n')
    words = run("jsonl", str(tmp_path)).stdout
    assert "jsonl: 3 events, 2 users, 2 items" in words
    assert "1970-01-01T00:00:01Z to 1970-01-01T00:00:03Z" in words
    assert "50.00%" in words
    assert "skipped: not-json" in words
    figures = json.loads(run("jsonl", str(tmp_path), "--json").stdout)
    assert (figures["data"], figures["events"], figures["users"], figures["items"]) == ("jsonl", 3, 2, 2)
    assert figures["funnel"] == [
        {"type": "view", "pairs": 2, "conversion": None},
        {"type": "cart", "pairs": 1, "conversion": 0.5},
    ]
    assert figures["catalogue"]["text"] == 1
    assert {"problem": "users with one event", "count": 1, "examples": []} in figures["problems"]


def test_a_log_of_order_says_so(tmp_path: Path) -> None:
    """Made times are never shown as if they were the log's."""
    (tmp_path / "Beauty.txt").write_text("1 5 6\n2 5\n")
    assert "these times are made" in run("s3rec", str(tmp_path)).stdout
    assert "these times are made" not in run("synthetic", "--events", "50").stdout


def test_a_clean_log_has_no_problems(tmp_path: Path) -> None:
    """Nothing is told where there is nothing to tell."""
    rows = "".join(f'{{"user_id":"u{n % 3}","item_id":"x{n % 2}","type":"view","timestamp":{n}}}\n' for n in range(12))
    (tmp_path / "events.jsonl").write_text(rows)
    (tmp_path / "items.jsonl").write_text('{"item_id":"x0","title":"X"}\n{"item_id":"x1","title":"Y"}\n')
    assert "no problems found" in run("jsonl", str(tmp_path)).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("synthetic", "--endless"), "can never be counted"),
        (("synthetic", "--events", "0"), "no usable event"),
        (("nothing",), "Unknown format"),
        (("csv",), "needs a PATH"),
        (("jsonl", "--seed", "3"), "no option seed"),
    ],
)
def test_what_cannot_be_counted_is_an_error(arguments: tuple[str, ...], message: str) -> None:
    """Misuse is told in a sentence, before or instead of any figure."""
    result = run(*arguments)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert result.stdout == ""
