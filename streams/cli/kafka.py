"""`nearstream kafka`: the embedded broker of this machine."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from streams.cli.options import json_option
from streams.config import load_settings
from streams.kafka.broker import PORT_MAX, PORT_MIN, EmbeddedKafka

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import TaskID

    from streams.kafka.broker import BrokerInfo
    from streams.kafka.processes import OnProgress

_data_dir = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the broker's jars and data; default NEARSTREAM_DATA_DIR or ~/.local/share/nearstream.",
)


@click.group()
def kafka() -> None:
    """A real Apache Kafka on this machine, for trying things out; its topics are kept between starts."""


@kafka.command()
@click.option("--brokers", type=click.Choice(["1", "3"]), help="1, or 3 for a replicated one. [default: as before, 1]")
@click.option(
    "--port", type=click.IntRange(PORT_MIN, PORT_MAX), help="Client port. [default: as before, 9092, any free]"
)
@_data_dir
@json_option
def start(brokers: str | None, port: int | None, data_dir: Path | None, as_json: bool) -> None:
    """Start the broker, or find the one that runs. It goes on when this command ends."""
    broker = EmbeddedKafka(_folder(data_dir), None if brokers is None else int(brokers), port)
    with progress_on_stderr() as on_progress:
        info = broker.start(on_progress)
    _report(info, as_json, "started" if info.started else "was running already")


@kafka.command()
@_data_dir
@json_option
def stop(data_dir: Path | None, as_json: bool) -> None:
    """Stop the broker, whoever started it. Its topics are kept."""
    before = EmbeddedKafka(_folder(data_dir)).status()
    info = EmbeddedKafka(_folder(data_dir)).stop()
    _report(info, as_json, "stopped" if before is not None and before.pids else "was not running")


@kafka.command()
@_data_dir
@json_option
def status(data_dir: Path | None, as_json: bool) -> None:
    """Say whether the broker runs, and where."""
    info = EmbeddedKafka(_folder(data_dir)).status()
    _report(info, as_json, "runs" if info is not None and info.running else "does not run")


@contextmanager
def progress_on_stderr() -> Iterator[OnProgress]:
    """Shows what a start does: a bar while bytes arrive, else a line for each step."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(text: str, done: int = 0, total: int = 0) -> None:
            if total == 0:
                bar.console.print(text, highlight=False, markup=False)
                return
            if text not in tasks:
                tasks[text] = bar.add_task(text, total=total)
            bar.update(tasks[text], completed=done)

        yield show


def _folder(data_dir: Path | None) -> Path:
    return load_settings(data_dir=data_dir).data_dir


def _report(info: BrokerInfo | None, as_json: bool, what: str) -> None:
    if as_json:
        click.echo(orjson.dumps(_fields(info)))
    elif info is None:
        click.echo("No broker was ever started from this data directory.")
    else:
        pids = f" (pid {', '.join(map(str, info.pids))})" if info.pids else ""
        click.echo(f"Apache Kafka {info.version} {what}: {info.bootstrap}{pids}, data in {info.data_dir}")


def _fields(info: BrokerInfo | None) -> dict[str, Any]:
    if info is None:
        return {"running": False, "bootstrap": None, "brokers": 0, "pids": [], "ports": [], "data_dir": None}
    return {
        "running": info.running,
        "bootstrap": info.bootstrap,
        "brokers": len(info.nodes),
        "pids": info.pids,
        "ports": info.ports,
        "data_dir": str(info.data_dir),
        "version": info.version,
    }
