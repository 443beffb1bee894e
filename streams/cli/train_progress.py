"""Progress of a training on stderr: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Self

import click
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from rich.console import Console

    from encoder.train import Progress as Step
    from encoder.train import Validation

LINE_EVERY_S = 10.0


class TrainProgress:
    """Shows a stage at a time: reading, texts, then the steps with loss, best validation and time to go."""

    def __init__(self, console: Console) -> None:
        self._console = console if console.is_terminal else None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._stage = ""
        self._due_s = time.monotonic() + LINE_EVERY_S

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def stage(self, name: str) -> None:
        """A new stage begins."""
        self._stage = name
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(name, total=None, figures="")

    def events(self, count: int) -> None:
        """Events read so far."""
        self._show(count, None, f"{count:,} events")

    def texts(self, done: int, total: int) -> None:
        """Texts encoded so far."""
        self._show(done, total, f"{done:,} of {total:,} texts")

    def images(self, done: int, total: int) -> None:
        """Images encoded so far."""
        self._show(done, total, f"{done:,} of {total:,} images")

    def step(self, now: Step) -> None:
        """A batch was learned."""
        best = "" if math.isnan(now.best) else f", best {abs(now.best):.4f}"
        self._show(now.step, now.steps, f"epoch {now.epoch}, loss {now.loss:.3f}{best}, {now.cpu_s:,.0f} s of CPU")

    def queries(self, model: str, done: int, total: int) -> None:
        """Queries that a model has answered."""
        self._show(done, total, f"{model}: {done:,} of {total:,} queries")

    def validated(self, seen: Validation) -> None:
        """A validation is done: a line that stays."""
        figures = ", ".join(
            f"{name} {seen.metrics[name]:.4f}" for name in ("hr@10", "ndcg@10", "rmse") if name in seen.metrics
        )
        self.say(f"epoch {seen.epoch}: loss {seen.loss:.3f}, {figures}{' *' if seen.is_best else ''}")

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._console is not None:
            self._console.print(line, markup=False)
        else:
            click.echo(line, err=True)

    def _show(self, done: int, total: int | None, figures: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total, figures=figures)
        if self._console is None and time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + LINE_EVERY_S
            click.echo(f"{self._stage}: {figures}", err=True)
