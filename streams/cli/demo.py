"""`nearstream demo`."""

from __future__ import annotations

import asyncio
import signal
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from streams.cli import EXIT_INTERRUPTED
from streams.cli.feed import source_from, source_options
from streams.cli.kafka import progress_on_stderr
from streams.config import Settings, load_settings
from streams.demo import DemoPlan, DemoScene, DemoSummary, run_demo

SYNTHETIC_RATE = 200.0
LOG_RATE = 500.0


@click.command()
@click.option("--format", "format_name", default="synthetic", show_default=True, help="FORMAT of the data.")
@click.option("--data", "path", help="PATH of the data; none for synthetic.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Events per second. [default: 200, logs 500]")
@click.option("--once", is_flag=True, help="Stop after the events and print a JSON summary on stdout.")
@click.option("--no-browser", is_flag=True, help="Do not open the live page.")
@click.option("--port", "dashboard_port", type=int, help="Port of the live page; 0 = any free one.")
@source_options
def demo(
    format_name: str,
    path: str | None,
    rate: float | None,
    once: bool,
    no_browser: bool,
    dashboard_port: int | None,
    **source_flags: Any,
) -> int:
    """Everything on this machine: Kafka, events, worker and the live page. Ctrl-C ends it all."""
    settings = load_settings(dashboard_port=dashboard_port)
    synthetic = format_name == "synthetic"
    events = source_flags["events"]
    if synthetic and events is None:
        source_flags["endless"] = True
    if not synthetic:
        source_flags["events"] = None
    if once and events is None:
        raise click.UsageError("--once needs --events N: after how many events to stop.")
    plan = DemoPlan(
        source=source_from(format_name, path, source_flags),
        rate=rate or (SYNTHETIC_RATE if synthetic else LOG_RATE),
        events=events,
        time_mode="now" if synthetic else "keep",
        once=once,
    )
    summary, interrupted = asyncio.run(_run(plan, settings, open_browser=not (no_browser or once)))
    if summary is not None:
        click.echo(msgspec.json.encode(summary))
    return EXIT_INTERRUPTED if interrupted else 0


async def _run(plan: DemoPlan, settings: Settings, *, open_browser: bool) -> tuple[DemoSummary | None, bool]:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def on_page(address: str) -> None:
        click.echo(f"live page: {address}   (Ctrl-C ends everything)", err=True)
        if open_browser:
            loop.run_in_executor(None, webbrowser.open, address)

    with progress_on_stderr() as on_progress, _terminal() as on_scene:
        summary = await run_demo(plan, settings, on_progress=on_progress, on_page=on_page, on_scene=on_scene, stop=stop)
    return summary, stop.is_set()


@contextmanager
def _terminal() -> Iterator[Callable[[DemoScene], None]]:
    """A table that refreshes itself on a terminal; elsewhere a line when the stage changes."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=False) as live:
            yield lambda scene: live.update(_table(scene), refresh=True)
        return
    shown: list[str] = []

    def show(scene: DemoScene) -> None:
        if shown[-1:] != [scene.stage]:
            shown.append(scene.stage)
            click.echo(scene.stage, err=True)

    yield show


def _table(scene: DemoScene) -> Table:
    workers = [] if scene.observation is None else scene.observation.workers
    lag = 0 if scene.observation is None else sum(p.lag for p in scene.observation.partitions)
    table = Table.grid(padding=(0, 2))
    table.add_row("state", scene.stage)
    table.add_row("page", scene.page or "-")
    table.add_row("events", f"{sum(w.totals.events for w in workers):,}  ({_sum(workers, 'events_per_s')}/s)")
    table.add_row("lists", f"{sum(w.totals.lists for w in workers):,}  ({_sum(workers, 'lists_per_s')}/s)")
    for worker in workers:
        fresh = worker.freshness_ms
        if fresh.p50 is not None and fresh.p99 is not None:
            table.add_row("freshness", f"p50 {fresh.p50:.0f} ms, p99 {fresh.p99:.0f} ms")
    table.add_row("lag", f"{lag:,} events")
    table.add_row("index", ", ".join(f"{w.index_users:,} users, {w.items:,} items" for w in workers) or "-")
    return table


def _sum(workers: list[Any], name: str) -> str:
    return f"{sum(getattr(worker, name) for worker in workers):,.0f}"
