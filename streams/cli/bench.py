"""`nearstream bench`."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from streams.bench.ingest import measure_ingest
from streams.bench.latency import measure_latency
from streams.bench.memory import measure_memory
from streams.cli.kafka import progress_on_stderr
from streams.cli.options import json_option
from streams.config import Settings, load_settings
from streams.kafka.broker import EmbeddedKafka
from streams.kafka.processes import free_ports
from streams.sources import open_source

if TYPE_CHECKING:
    from streams.bench.report import Report
    from streams.sources import Source


@click.group()
def bench() -> None:
    """Measure this machine. Each prints its conditions, its bars and whether they hold."""
    logging.basicConfig(level=logging.WARNING)


@bench.command()
@click.option("--events", type=click.IntRange(min=1000), default=100_000, show_default=True, help="Synthetic events.")
@click.option("--deskdrop", type=click.Path(exists=True), help="Also drain this deskdrop log.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Interleaved repetitions.")
@click.option("--partitions", type=int, help="Partitions of the topics.")
@json_option
def ingest(events: int, deskdrop: str | None, rounds: int, partitions: int | None, as_json: bool) -> None:
    """Events per second into committed lists, beside a bare consumer loop."""
    sources: dict[str, Source] = {"synthetic": open_source("synthetic", events=events, seed=0)}
    if deskdrop is not None:
        sources["deskdrop"] = open_source("deskdrop", deskdrop)
    with _broker(partitions) as settings:
        _print(asyncio.run(measure_ingest(settings, sources, rounds, _say)), as_json)


@bench.command()
@click.option("--rate", "rates", type=float, multiple=True, default=(500.0, 2000.0), show_default=True)
@click.option("--seconds", type=click.FloatRange(min=5), default=20.0, show_default=True, help="Measured, per rate.")
@click.option("--partitions", type=int, default=4, show_default=True, help="Partitions of the topics.")
@json_option
def latency(rates: tuple[float, ...], seconds: float, partitions: int, as_json: bool) -> None:
    """Event sent -> list visible to a read_committed reader."""
    with _broker(partitions) as settings:
        _print(asyncio.run(measure_latency(settings, list(rates), seconds, _say)), as_json)


@bench.command()
@click.option("--users", type=click.IntRange(min=10_000), default=200_000, show_default=True)
@json_option
def memory(users: int, as_json: bool) -> None:
    """Resident memory per user."""
    _print(measure_memory(load_settings(), users, _say), as_json)


@contextmanager
def _broker(partitions: int | None) -> Iterator[Settings]:
    """Settings for an embedded broker with empty topics, which goes with the measurement."""
    settings = load_settings(partitions=partitions)
    with tempfile.TemporaryDirectory(prefix="nearstream-bench-") as folder, progress_on_stderr() as on_progress:
        jars = settings.data_dir / "kafka" / "jars"
        broker = EmbeddedKafka(Path(folder), brokers=1, port=free_ports(1)[0], die_with_owner=True, jars_dir=jars)
        info = broker.start(on_progress)
        try:
            yield settings.model_copy(update={"bootstrap": info.bootstrap})
        finally:
            broker.stop()


def _say(text: str) -> None:
    click.echo(text, err=True)


def _print(report: Report, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(report))
        return
    click.echo(", ".join(f"{name} {value}" for name, value in report.conditions.items()))
    for measured in report.bars:
        bound = "" if measured.must is None else f"  ({measured.sense} {measured.must:g})"
        verdict = {None: "", True: "  holds", False: "  MISSED"}[measured.holds]
        click.echo(f"{measured.name:45} {measured.value:>12,.2f} {measured.unit}{bound}{verdict}")
