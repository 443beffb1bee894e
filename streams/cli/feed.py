"""`nearstream feed`, and the options of a source that other commands share."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
from rich.console import Console

from streams.cli import EXIT_INTERRUPTED
from streams.cli.feed_progress import PlainProgress, ProgressBar
from streams.cli.options import json_option, kafka_options
from streams.config import load_settings
from streams.core.errors import UsageError
from streams.feed import FeedSummary
from streams.feed import feed as publish
from streams.sources import FORMATS, open_source
from streams.sources.timestamps import TIMESTAMP_FORMATS

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.feed import TimeMode
    from streams.sources import Source

F = TypeVar("F", bound=Callable[..., Any])


SOURCE_OPTIONS = {
    "column": click.option("--column", multiple=True, metavar="FIELD=NAME", help="csv: the column of a field."),
    "timestamp_format": click.option(
        "--timestamp-format", type=click.Choice(list(TIMESTAMP_FORMATS)), help="csv: default ms."
    ),
    "event_type": click.option("--type", "event_type", metavar="TYPE", help="csv: the type of every row."),
    "type_map": click.option(
        "--type-map", multiple=True, metavar="VALUE=TYPE", help="csv: what a value of the type column means."
    ),
    "delimiter": click.option("--delimiter", metavar="CHAR", help="csv: between two fields, default a comma."),
    "order": click.option(
        "--order", type=click.Choice(["time", "log"]), help="csv, jsonl: sort by time, or as logged."
    ),
    "users": click.option("--users", type=int, help="synthetic: people in the shop."),
    "items": click.option("--items", type=int, help="synthetic: things it sells."),
    "communities": click.option("--communities", type=int, help="synthetic: planted communities of taste."),
    "events": click.option("--events", type=int, help="synthetic: events it makes."),
    "endless": click.option("--endless", is_flag=True, default=None, help="synthetic: never stop."),
    "days": click.option("--days", type=float, help="synthetic: days over which its events spread."),
    "seed": click.option("--seed", type=int, help="synthetic: another seed, another shop."),
}


def source_options(command: F) -> F:
    """The options by which a format can be told more; absent ones arrive as None or empty."""
    for option in reversed(SOURCE_OPTIONS.values()):
        command = option(command)
    return command


def source_from(name: str, path: str | None, flags: dict[str, Any]) -> Source:
    """Opens a source and takes its options out of `flags`. Raises UsageError."""
    options = {option: flags.pop(option) for option in SOURCE_OPTIONS}
    for pairs in ("column", "type_map"):
        options[pairs] = _mapping(options[pairs], pairs) if options[pairs] else None
    return open_source(name, path, **options)


@click.command(
    epilog=f"FORMAT: {' '.join(FORMATS)}. PATH: a file, a folder or - for standard input; none for synthetic."
)
@click.argument("format_name", metavar="FORMAT")
@click.argument("path", required=False)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Events per second; default flat out.")
@click.option("--limit", type=click.IntRange(min=0), help="Send at most this many events.")
@click.option(
    "--time", "time_mode", type=click.Choice(["keep", "now"]),
    help="Keep the events' times, or make them the moment of sending; default now with --rate or --endless.",
)  # fmt: skip
@source_options
@kafka_options
@json_option
def feed(
    format_name: str, path: str | None, rate: float | None, limit: int | None, time_mode: TimeMode | None,
    bootstrap: str | None, prefix: str | None, as_json: bool, **source_flags: Any,
) -> int:  # fmt: skip
    """Publish a public log, a file or the synthetic shop as events, with its items and users first."""
    settings = load_settings(bootstrap=bootstrap, prefix=prefix)
    live = rate is not None or bool(source_flags["endless"])
    source = source_from(format_name, path, source_flags)
    summary = asyncio.run(_run(source, settings, rate, limit, time_mode or ("now" if live else "keep")))
    for example in source.skips.examples:
        click.echo(f"skipped {example}", err=True)
    click.echo(msgspec.json.encode(summary) if as_json else _sentence(summary))
    return EXIT_INTERRUPTED if summary.interrupted else 0


async def _run(
    source: Source, settings: Settings, rate: float | None, limit: int | None, time_mode: TimeMode
) -> FeedSummary:
    """Feeds until done or interrupted; a second interrupt ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupt(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt, number)
    console = Console(stderr=True)
    with ProgressBar(console) if console.is_terminal else PlainProgress() as progress:
        return await publish(
            source, settings, rate=rate, limit=limit, time_mode=time_mode, on_progress=progress.show, stop=stop
        )


def _sentence(summary: FeedSummary) -> str:
    skipped = "".join(f", {count:,} skipped as {reason}" for reason, count in summary.skipped.items())
    end = "interrupted" if summary.interrupted else "done"
    return (
        f"{end}: {summary.events:,} events, {summary.items:,} items and {summary.users:,} users acknowledged "
        f"in {summary.seconds:.1f} s ({summary.events_per_s:,.0f} events/s){skipped}"
    )


def _mapping(pairs: tuple[str, ...], option: str) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    bad = [pair for pair, (left, equals, right) in zip(pairs, split, strict=True) if not (left and equals and right)]
    if bad:
        raise UsageError(f"--{option.replace('_', '-')} takes LEFT=RIGHT, not {', '.join(bad)}.")
    return {left: right for left, _, right in split}
