"""Progress of a feed on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

import click
from rich.progress import BarColumn, Progress, TaskID, TextColumn

if TYPE_CHECKING:
    from rich.console import Console

    from streams.feed import FeedProgress

LINE_EVERY_S = 5.0


class ProgressBar:
    """A moving bar for each stage."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description:>7}"), BarColumn(), TextColumn("{task.fields[figures]}"), console=console
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, now: FeedProgress) -> None:
        """Moves the bar of a stage, which appears with its first record."""
        if not now.sent:
            return
        if now.stage not in self._tasks:
            self._tasks[now.stage] = self._bars.add_task(now.stage, total=now.expected, figures="")
        self._bars.update(self._tasks[now.stage], completed=now.acknowledged, figures=figures(now))


class PlainProgress:
    """A line every few seconds, for a log file or a pipe."""

    def __init__(self) -> None:
        self._due_s = time.monotonic() + LINE_EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, now: FeedProgress) -> None:
        """Says how far the feed is, when the last line is old enough."""
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + LINE_EVERY_S
        click.echo(f"{now.stage}: {figures(now)}", err=True)


def figures(now: FeedProgress) -> str:
    """Acknowledged, of how many, how fast, and how long it will take."""
    total = "" if now.expected is None else f" of {now.expected:,}"
    eta = "" if now.eta_s is None else f", {now.eta_s:,.0f} s to go"
    return f"{now.acknowledged:,}{total} at {now.per_s:,.0f}/s{eta}"
