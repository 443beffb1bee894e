"""What a worker tells of its rules file: in force, refused with lines, or missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streams.kafka.rules_watch import RulesWatch
from tests.fakes_core import World, event, world


async def at_once(function: Callable[..., Any], *arguments: object) -> Any:
    """The compute thread."""
    return function(*arguments)


@pytest.fixture
def found() -> World:
    """An engine that knows an item."""
    built = world()
    built.feed([event("u1", "i1")])
    return built


def watch(path: Path, found: World, moments: list[float]) -> RulesWatch:
    """Over the file; the clock's answer is the last of `moments`."""
    return RulesWatch(path, 20, found.engine, at_once, clock=lambda: moments[-1])


async def test_the_rules_in_force_are_told_in_sentences_with_their_warnings(tmp_path: Path, found: World) -> None:
    """And when they were loaded."""
    path, moments = tmp_path / "rules.toml", [100.0]
    path.write_text('[caps]\nbrand = 3\n[[pin]]\nitem = "nobody-knows"\nposition = 2\n')
    watching = watch(path, found, moments)
    assert watching.report().loaded_at is None
    await watching.look()
    report = watching.report()
    assert (report.path, report.problem, report.loaded_at, report.checked_at) == (str(path), None, 100_000, 100_000)
    assert [sentence.table for sentence in report.sentences] == ["pin", "caps"]
    assert "nobody-knows" in " ".join(report.warnings)


async def test_a_bad_file_is_told_with_its_lines_while_the_rules_of_before_serve(tmp_path: Path, found: World) -> None:
    """A good one clears the problem; a file that does not change is not loaded again."""
    path, moments = tmp_path / "rules.toml", [100.0]
    path.write_text("[caps]\nbrand = 3\n")
    watching = watch(path, found, moments)
    await watching.look()
    moments.append(200.0)
    path.write_text('[caps]\nbrand = 3\ncategory = "many"\n')
    await watching.look()
    report = watching.report()
    assert report.problem is not None
    assert "line 3, [caps], key category" in report.problem
    assert (report.loaded_at, report.checked_at) == (100_000, 200_000)
    assert [sentence.text for sentence in report.sentences] == ["A list holds at most 3 of one brand."]
    moments.append(300.0)
    path.write_text("[caps]\nbrand = 4\n")
    await watching.look()
    moments.append(400.0)
    await watching.look()
    report = watching.report()
    assert (report.problem, report.loaded_at, report.checked_at) == (None, 300_000, 300_000)
    assert [sentence.text for sentence in report.sentences] == ["A list holds at most 4 of one brand."]


async def test_a_missing_file_and_a_refusal_of_the_engine_are_told(tmp_path: Path, found: World) -> None:
    """Nothing was ever loaded then."""
    path = tmp_path / "rules.toml"
    watching = watch(path, found, [1.0])
    await watching.look()
    assert "there is none" in str(watching.report().problem)
    path.write_text('[[pin]]\nitem = "i1"\nposition = 1\n[[drop]]\nprice_max = 5\nitem = "i1"\n[[keep]]\nbrand = "x"\n')
    await watching.look()
    report = watching.report()
    assert report.problem is not None
    assert "i1" in report.problem
    assert (report.loaded_at, report.sentences) == (None, [])


async def test_a_long_complaint_is_cut(tmp_path: Path, found: World) -> None:
    """A record stays small whatever the file says."""
    path = tmp_path / "rules.toml"
    path.write_text("".join(f"[[drop]]\nwrong{n} = 1\n" for n in range(500)))
    watching = watch(path, found, [1.0])
    await watching.look()
    assert len(str(watching.report().problem)) == 2000
