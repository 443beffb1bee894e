"""`nearstream demo`."""

from __future__ import annotations

import asyncio
import math
import signal
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from streams.cli import EXIT_INTERRUPTED
from streams.cli.feed import source_from, source_options
from streams.cli.kafka import progress_on_stderr
from streams.config import Settings, load_settings
from streams.core.errors import UsageError
from streams.demo import DemoPlan, DemoScene, DemoSummary, TrainingPlan, TrainingScene, run_demo

if TYPE_CHECKING:
    from streams.kafka.processes import OnProgress

SYNTHETIC_RATE = 200.0
LOG_RATE = 500.0
SHOP_PAST_EVENTS = 40_000
"""Twelve days of the shop; its drift comes ten thousand events later, in the live feed."""
BAR_WIDTH = 40


@click.command()
@click.option("--format", "format_name", default="synthetic", show_default=True, help="FORMAT of the data.")
@click.option("--data", "path", help="PATH of the data; none for synthetic.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Events per second. [default: 200, logs 500]")
@click.option("--once", is_flag=True, help="Stop after the events and print a JSON summary on stdout.")
@click.option(
    "--train/--no-train", "train", default=None,
    help="Train on the past first: 40,000 events of the shop, half of a log. [default: the shop only]",
)  # fmt: skip
@click.option("--no-browser", is_flag=True, help="Do not open the live page.")
@click.option("--port", "dashboard_port", type=int, help="Port of the live page; 0 = any free one.")
@source_options
def demo(
    format_name: str,
    path: str | None,
    rate: float | None,
    once: bool,
    train: bool | None,
    no_browser: bool,
    dashboard_port: int | None,
    **source_flags: Any,
) -> int:
    """Everything on this machine: Kafka, events, worker and the live page. Ctrl-C ends it all."""
    settings = load_settings(dashboard_port=dashboard_port)
    synthetic = format_name == "synthetic"
    events = source_flags["events"]
    source_flags["events"] = None  # a bound of the feed, not the size of the shop
    if synthetic:
        source_flags["endless"] = True
    if once and events is None:
        raise click.UsageError("--once needs --events N: after how many events to stop.")
    training = training_plan(
        wanted=train,
        synthetic=synthetic,
        model_is_given=settings.model != Settings.model_fields["model"].default,
        can_train=find_spec("torch") is not None,
    )
    if training is not None and path == "-":
        raise UsageError("--train reads the log twice, and standard input can be read once: give a file.")
    plan = DemoPlan(
        source=source_from(format_name, path, source_flags),
        rate=rate or (SYNTHETIC_RATE if synthetic else LOG_RATE),
        events=events,
        time_mode="now" if synthetic else "keep",
        once=once,
        training=training,
    )
    summary, interrupted = asyncio.run(_run(plan, settings, open_browser=not (no_browser or once)))
    if summary is not None:
        click.echo(msgspec.json.encode(summary))
    return EXIT_INTERRUPTED if interrupted else 0


def training_plan(
    *, wanted: bool | None, synthetic: bool, model_is_given: bool, can_train: bool
) -> TrainingPlan | None:
    """Whether the demo trains first: the shop by default, a log when asked.

    Raises:
        UsageError: it is asked for where it cannot be.
    """
    if wanted and not can_train:
        raise UsageError("--train needs torch, which is not installed: install nearstream[train], or leave it out.")
    if wanted is False or (wanted is None and (not synthetic or model_is_given)):
        return None
    if not can_train:
        click.echo("not trained: nearstream[train] is not installed; the built-in decayed mean serves", err=True)
        return None
    return TrainingPlan(SHOP_PAST_EVENTS if synthetic else None, required=bool(wanted))


async def _run(plan: DemoPlan, settings: Settings, *, open_browser: bool) -> tuple[DemoSummary | None, bool]:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def on_page(address: str) -> None:
        click.echo(f"live page: {address}   (Ctrl-C ends everything)", err=True)
        if open_browser:
            loop.run_in_executor(None, webbrowser.open, address)

    with _terminal() as terminal:
        summary = await run_demo(
            plan, settings, on_progress=terminal.progress, on_page=on_page, on_scene=terminal.show, stop=stop
        )
    return summary, stop.is_set()


class _Terminal(Protocol):
    def progress(self, text: str, done: int = 0, total: int = 0) -> None:
        """A step of Kafka's start, from its thread; bytes where there are any."""

    def show(self, scene: DemoScene) -> None:
        """The scene as it is now."""


@contextmanager
def _terminal() -> Iterator[_Terminal]:
    """A table that refreshes itself on a terminal; elsewhere a line when something changes."""
    console = Console(stderr=True)
    if not console.is_terminal:
        with progress_on_stderr() as on_progress:
            yield _Lines(on_progress)
        return
    with Live(console=console, auto_refresh=False, transient=False) as live:
        yield _Picture(live)


class _Picture:
    """Everything in one table: two displays that refresh themselves would write over each other."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._download: ProgressBar | None = None

    def progress(self, text: str, done: int = 0, total: int = 0) -> None:
        if total:
            self._download = ProgressBar(total, done, width=BAR_WIDTH)
            return
        self._download = None
        self._live.console.print(text, highlight=False, markup=False)

    def show(self, scene: DemoScene) -> None:
        self._live.update(_table(scene, self._download), refresh=True)


class _Lines:
    """A line for each stage, each validation's best, each note and the model in service."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.progress = on_progress
        self._said: set[str] = set()

    def show(self, scene: DemoScene) -> None:
        models = [] if scene.observation is None else [f"model: {w.model}" for w in scene.observation.workers]
        for line in (scene.stage, _training_line(scene.training), scene.note, *models):
            if line is not None and line not in self._said:
                self._said.add(line)
                click.echo(line, err=True)


def _training_line(training: TrainingScene | None) -> str | None:
    if training is None or math.isnan(training.best):
        return None
    return f"best NDCG@10 in validation: {training.best:.4f}"


def _table(scene: DemoScene, download: ProgressBar | None) -> Table:
    workers = [] if scene.observation is None else scene.observation.workers
    lag = 0 if scene.observation is None else sum(p.lag for p in scene.observation.partitions)
    table = Table.grid(padding=(0, 2))
    table.add_row("state", scene.stage)
    if scene.note is not None:
        table.add_row("note", scene.note)
    if download is not None:
        table.add_row("Kafka's files", download)
    if scene.training is not None:
        _add_training(table, scene.training, is_over=scene.page is not None)
    table.add_row("page", scene.page or "-")
    table.add_row("events", f"{sum(w.totals.events for w in workers):,}  ({_sum(workers, 'events_per_s')}/s)")
    table.add_row("lists", f"{sum(w.totals.lists for w in workers):,}  ({_sum(workers, 'lists_per_s')}/s)")
    for worker in workers:
        fresh = worker.freshness_ms
        if fresh.p50 is not None and fresh.p99 is not None:
            table.add_row("freshness", f"p50 {fresh.p50:.0f} ms, p99 {fresh.p99:.0f} ms")
    table.add_row("lag", f"{lag:,} events")
    table.add_row("model", ", ".join(w.model for w in workers) or "-")
    table.add_row("index", ", ".join(f"{w.index_users:,} users, {w.items:,} items" for w in workers) or "-")
    return table


def _add_training(table: Table, training: TrainingScene, *, is_over: bool) -> None:
    if not is_over:
        table.add_row("training", training.stage)
        table.add_row("", ProgressBar(training.total, training.done, width=BAR_WIDTH, pulse=training.total is None))
    if not math.isnan(training.best):
        table.add_row("validation", f"best NDCG@10 {training.best:.4f}")


def _sum(workers: list[Any], name: str) -> str:
    return f"{sum(getattr(worker, name) for worker in workers):,.0f}"
