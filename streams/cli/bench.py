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
from threadpoolctl import threadpool_limits

from index import IndexConfig
from streams.bench.index.case import Plan
from streams.bench.index.data import KINDS
from streams.bench.index.table import PARTS, measure_index
from streams.bench.ingest import measure_ingest
from streams.bench.latency import measure_latency
from streams.bench.memory import measure_memory
from streams.bench.views_memory import measure_views
from streams.cli.kafka import progress_on_stderr
from streams.cli.options import json_option
from streams.config import Settings, load_settings
from streams.kafka.broker import EmbeddedKafka
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
@click.option("--users", type=click.IntRange(min=3000), default=200_000, show_default=True)
@click.option("--views", is_flag=True, help="Measure what the ranking remembers and the index instead.")
@click.option("--items", type=click.IntRange(min=100), default=20_000, show_default=True, help="With --views.")
@json_option
def memory(users: int, views: bool, items: int, as_json: bool) -> None:
    """Resident memory per user; with --views the bytes of each part of the ranking, and for a million users."""
    settings = load_settings()
    measured = measure_views(settings, users, items, _say) if views else measure_memory(settings, users, _say)
    _print(measured, as_json)


@bench.command()
@click.option("--size", "sizes", type=click.IntRange(min=1000), multiple=True, default=(100_000,), show_default=True)
@click.option(
    "--data", "kinds", type=click.Choice(KINDS), multiple=True, default=("clustered", "cloud"), show_default=True
)
@click.option(
    "--part", "parts", type=click.Choice(PARTS), multiple=True, help="Only these parts; rivals only when asked for."
)
@click.option("--dim", type=click.IntRange(min=2), default=64, show_default=True, help="Length of a vector.")
@click.option(
    "--queries", type=click.IntRange(min=64), default=512, show_default=True, help="Behind every recall figure."
)
@click.option("--stress-queries", type=click.IntRange(min=1), default=1_000_000, show_default=True)
@click.option("--rate", type=click.FloatRange(min=1), default=10_000.0, show_default=True, help="Changes per second.")
@click.option("--million", is_flag=True, help="Also build a million vectors.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--quick", is_flag=True, help="Go through all parts with few vectors; the figures mean nothing.")
@json_option
def index(
    sizes: tuple[int, ...],
    kinds: tuple[str, ...],
    parts: tuple[str, ...],
    dim: int,
    queries: int,
    stress_queries: int,
    rate: float,
    million: bool,
    seed: int,
    quick: bool,
    as_json: bool,
) -> None:
    """Recall, cost and memory of the vector index while every vector moves, beside exact search and rivals."""
    plan = Plan(
        sizes=sizes,
        kinds=kinds,
        parts=parts,
        million=million,
        config=IndexConfig(dim=dim, seed=seed),
        seed=seed,
        queries=queries,
        stress_queries=stress_queries,
        changes_per_s=rate,
    )
    with threadpool_limits(1):
        _print(measure_index(plan.quick() if quick else plan, _say), as_json)


@contextmanager
def _broker(partitions: int | None) -> Iterator[Settings]:
    """Settings for an embedded broker with empty topics, which goes with the measurement."""
    settings = load_settings(partitions=partitions)
    with tempfile.TemporaryDirectory(prefix="nearstream-bench-") as folder, progress_on_stderr() as on_progress:
        jars = settings.data_dir / "kafka" / "jars"
        broker = EmbeddedKafka(Path(folder), brokers=1, port=0, die_with_owner=True, jars_dir=jars)
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
    width = max((len(measured.name) for measured in report.bars), default=0)
    for measured in report.bars:
        bound = "" if measured.must is None else f"  ({measured.sense} {measured.must:g})"
        verdict = {None: "", True: "  holds", False: "  MISSED"}[measured.holds]
        click.echo(f"{measured.name:{width}} {measured.value:>12,.3f} {measured.unit}{bound}{verdict}")
