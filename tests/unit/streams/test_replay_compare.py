"""Two replays beside each other: pairing, intervals, chance, and how sides are named on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from streams.cli.replay import replay as command
from streams.cli.replay_settings import overrides
from streams.core.errors import UsageError
from streams.replay_compare import COMPARED, compare
from streams.replay_judge import Judged, Replayed, WeightTrace

if TYPE_CHECKING:
    from pathlib import Path

SMALL = ["synthetic", "--events", "250", "--users", "20", "--items", "60", "--seed", "3"]


def _replayed(ranks: np.ndarray, events: np.ndarray, users: np.ndarray) -> Replayed:
    zeros = np.zeros(len(ranks), np.int64)
    judged = Judged(
        events=events, times_s=zeros, users=users, types=zeros.astype(np.uint8), history=zeros, item_events=zeros,
        repeats=zeros.astype(bool), ranks=ranks[:, None], top_chances=zeros.astype(np.float32),
        lists=np.zeros((len(ranks), 10), np.int32),
    )  # fmt: skip
    return Replayed(judged, ("nearstream",), (), WeightTrace(zeros[:1], np.zeros((1, 0))))


def _pair(seed: int, better: float) -> tuple[Replayed, Replayed]:
    """B finds the item first where A has it sixth, in a share of the events."""
    rng = np.random.default_rng(seed)
    events, users = np.arange(600), rng.integers(0, 60, 600)
    a = np.where(rng.random(600) < 0.5, 5.0, np.inf)
    b = np.where(rng.random(600) < better, 0.0, a)
    return _replayed(a, events, users), _replayed(b, events, users)


def test_a_real_difference_is_told_from_chance() -> None:
    """The interval holds the difference and excludes 0, and p is as small as so many draws can tell."""
    found = compare(*_pair(0, 0.3), ("one", "two")).differences["ndcg@10"]
    assert found.difference == pytest.approx(found.b - found.a)
    assert 0 < found.low < found.difference < found.high
    assert found.p < 0.005


def test_no_difference_is_not_made_one() -> None:
    """Equal replays differ by nothing with p 1; noise of either sign stays above the usual bound."""
    same = compare(_pair(1, 0.0)[0], _pair(1, 0.0)[0], ("a", "b")).differences["hr@10"]
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    rng = np.random.default_rng(2)
    ranks = rng.permuted(np.tile([0.0, np.inf], 300))
    events, users = np.arange(600), np.repeat(np.arange(60), 10)
    a, b = _replayed(ranks, events, users), _replayed(rng.permuted(ranks), events, users)
    assert compare(a, b, ("a", "b")).differences["hr@10"].p > 0.05


def test_users_and_not_events_are_drawn() -> None:
    """A difference that one user alone makes is no proof, however many events it has."""
    events, users = np.arange(400), np.where(np.arange(400) < 200, 0, np.arange(400))
    a = np.full(400, np.inf)
    b = np.where(users == 0, 0.0, np.inf)
    found = compare(_replayed(a, events, users), _replayed(b, events, users), ("a", "b")).differences["hr@10"]
    assert found.difference == 0.5
    assert found.p > 0.5
    assert found.low == 0


def test_events_are_paired_and_what_only_one_judged_is_left_out() -> None:
    """Pairs go by the event's number, not by the row."""
    a = _replayed(np.array([0.0, 5.0, 1.0]), np.array([3, 7, 9]), np.array([0, 1, 2]))
    b = _replayed(np.array([2.0, 5.0, 1.0]), np.array([2, 7, 9]), np.array([3, 1, 2]))
    found = compare(a, b, ("a", "b"))
    assert (found.n, found.left_out, found.users) == (2, 2, 2)
    assert all(found.differences[name].difference == 0 for name in COMPARED)
    with pytest.raises(UsageError, match="no event in common"):
        compare(a, _replayed(np.zeros(1), np.array([4]), np.array([0])), ("a", "b"))


def test_two_calls_give_the_same_interval() -> None:
    """Chance is seeded."""
    assert compare(*_pair(4, 0.1), ("a", "b")) == compare(*_pair(4, 0.1), ("a", "b"))


def test_a_side_is_a_folder_a_file_settings_or_nothing(tmp_path: Path) -> None:
    """Values are read as TOML reads them; commas within a list part nothing."""
    file = tmp_path / "other.toml"
    file.write_text("diversity = 0.3\nneighbours = 5\n")
    assert overrides("as-is") == {}
    assert overrides(str(tmp_path)) == {"model": str(tmp_path)}
    assert overrides(str(file)) == {"diversity": 0.3, "neighbours": 5}
    assert overrides("diversity=0.2,trend_half_lives_hours=[6, 48],diversity_by=dpp") == {
        "diversity": 0.2,
        "trend_half_lives_hours": [6, 48],
        "diversity_by": "dpp",
    }
    for wrong in ("missing-folder", "diversity=", "=3"):
        with pytest.raises(UsageError, match="--compare takes two of"):
            overrides(wrong)
    file.write_text("diversity = ")
    with pytest.raises(UsageError, match="expected a TOML file"):
        overrides(str(file))


def test_the_command_prints_rows_of_both_and_the_comparison(tmp_path: Path) -> None:
    """The contract of the JSON holds, rows say whose they are, and the page is written."""
    page = tmp_path / "page.html"
    asked = [*SMALL, "--compare", "as-is", "diversity=0.5", "--json", "--html", str(page)]
    done = CliRunner().invoke(command, asked, catch_exceptions=False)
    made = msgspec.json.decode(done.stdout)
    assert {"data", "protocol", "rows", "comparison"} <= made.keys()
    assert made["rows"][0]["model"] == "A: nearstream"
    assert "B: msd 0.5" in {row["model"] for row in made["rows"]}
    assert made["comparison"]["b"] == "diversity=0.5"
    assert made["comparison"]["differences"]["ndcg@10"].keys() == {"a", "b", "difference", "low", "high", "p"}
    text = page.read_text()
    assert "B beside A" in text
    assert "<script" not in text
    assert "http" not in text.replace("https://", "http").split("How it was run")[0], "nothing is fetched"


def test_an_unknown_setting_and_standard_input_are_refused() -> None:
    """What cannot work is said before anything is played."""
    with pytest.raises(UsageError, match="nonsense"):
        CliRunner().invoke(command, [*SMALL, "--compare", "as-is", "nonsense=1"], catch_exceptions=False)
    with pytest.raises(UsageError, match="several times"):
        CliRunner().invoke(command, ["jsonl", "-", "--compare", "as-is", "dim=32"], catch_exceptions=False)
