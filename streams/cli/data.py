"""`nearstream data`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console

from streams.cli.feed import source_from, source_options
from streams.cli.feed_progress import PlainProgress, ProgressBar
from streams.cli.options import json_option
from streams.core.errors import UsageError
from streams.feed import FeedProgress
from streams.sources import FORMATS
from streams.sources.summary import LogSummary, summarise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.sources import Source


@click.command(
    epilog=f"FORMAT: {' '.join(FORMATS)}. PATH: a file, a folder or - for standard input; none for synthetic."
)
@click.argument("format_name", metavar="FORMAT")
@click.argument("path", required=False)
@source_options
@json_option
def data(format_name: str, path: str | None, as_json: bool, **source_flags: Any) -> None:
    """Count a log before it is used: users, items, times, funnel, coverage and problems."""
    if source_flags["endless"]:
        raise UsageError("An endless shop can never be counted. Leave out --endless.")
    summary = _summarise(source_from(format_name, path, source_flags))
    click.echo(msgspec.json.encode(summary) if as_json else "\n".join(_lines(summary)))


def _summarise(source: Source) -> LogSummary:
    """Counts with progress on stderr."""
    expected = source.describe().events
    begun_s: float | None = None
    console = Console(stderr=True)
    with ProgressBar(console) if console.is_terminal else PlainProgress() as progress:

        def show(counted: int) -> None:
            nonlocal begun_s
            if begun_s is None:  # sorting, before the first event, is no pace to judge by
                begun_s = time.monotonic()
                return
            progress.show(FeedProgress("events", counted, counted, expected, time.monotonic() - begun_s))

        return summarise(source, show)


def _lines(summary: LogSummary) -> Iterator[str]:
    made = "  (the log knows only the order; these times are made)" if summary.time.order_only else ""
    yield f"{summary.data}: {summary.events:,} events, {summary.users:,} users, {summary.items:,} items"
    yield f"time      {summary.time.first} to {summary.time.last}{made}"
    yield f"density   {summary.density:.4%} of user-item pairs; {summary.repeats:.1%} of events repeat a pair"
    yield ""
    yield from _spread(summary)
    yield ""
    yield f"{'type':12}{'events':>12}{'share':>9}"
    for each in summary.types:
        yield f"{each.type:12}{each.events:>12,}{each.share:>9.2%}"
    yield from _funnel(summary)
    yield ""
    yield from _coverage(summary)
    yield ""
    yield from _problems(summary)


def _spread(summary: LogSummary) -> Iterator[str]:
    yield f"{'events per':12}" + "".join(f"{name:>9}" for name in summary.events_per_user)
    for what, quantiles in (("user", summary.events_per_user), ("item", summary.events_per_item)):
        yield f"{what:12}" + "".join(
            f"{value:>9,.4g}" if value < 1000 else f"{value:>9,.0f}" for value in quantiles.values()
        )


def _funnel(summary: LogSummary) -> Iterator[str]:
    if not summary.funnel:
        return
    yield ""
    yield f"{'funnel':12}{'pairs':>12}{'of the step before':>20}"
    for step in summary.funnel:
        yield f"{step.type:12}{step.pairs:>12,}" + ("" if step.conversion is None else f"{step.conversion:>20.2%}")


def _coverage(summary: LogSummary) -> Iterator[str]:
    catalogue, people = summary.catalogue, summary.people
    yield f"catalogue   {catalogue.entries:,} entries; of the {summary.items:,} items with events:"
    for name in ("described", "text", "category", "brand", "price", "image"):
        count = getattr(catalogue, name)
        yield f"  {name:10}{count:>12,}{count / summary.items:>9.1%}"
    yield f"users       {people.entries:,} entries; of the {summary.users:,} users with events:"
    yield f"  {'attributes':10}{people.with_attributes:>12,}{people.with_attributes / summary.users:>9.1%}"


def _problems(summary: LogSummary) -> Iterator[str]:
    yield "problems" if summary.problems else "no problems found"
    for problem in summary.problems:
        yield f"  {problem.count:>10,}  {problem.problem}"
        for example in problem.examples:
            yield f"{'':14}{example}"
