"""`nearstream replay`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

import click
import msgspec
from rich.console import Console

from encoder.report import peak_memory_mb
from streams.cli.feed import source_from, source_options
from streams.cli.options import json_option
from streams.cli.train_progress import TrainProgress
from streams.config import load_settings
from streams.core.errors import UsageError
from streams.core.events import EventType
from streams.replay import replay as play
from streams.replay import replay_last
from streams.replay_judge import Protocol, ReplayPlan, Targets
from streams.replay_report import report
from streams.sources import FORMATS
from streams.wiring import build_engine

if TYPE_CHECKING:
    from encoder.report import Report
    from streams.config import Settings

FIGURES = ("hr@10", "ndcg@10", "mrr@20")


def _moment(_context: click.Context, parameter: click.Parameter, given: str | None) -> float | None:
    """Epoch seconds of an RFC 3339 date or time."""
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(given)
    except ValueError as error:
        raise click.BadParameter(f"expected a date such as 2016-12-01, got {given!r}", param=parameter) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@click.command(
    epilog=f"FORMAT: {' '.join(FORMATS)}. PATH: a file, a folder or - for standard input; none for synthetic."
)
@click.argument("format_name", metavar="FORMAT")
@click.argument("path", required=False)
@click.option("--protocol", type=click.Choice(get_args(Protocol)), default="prequential", show_default=True,
              help="Every event in order, or each user's last one after all others (loo).")  # fmt: skip
@click.option("--targets", type=click.Choice(get_args(Targets)), default="new", show_default=True,
              help="Judge items new to the user, those the user had, or both; repeats are on then.")  # fmt: skip
@click.option("--only", "types", multiple=True, metavar="TYPE", help="Judge only events of this type.")
@click.option("--from", "from_s", metavar="TIME", callback=_moment, help="Judge from here on; learn from all before.")
@click.option("--until", "until_s", metavar="TIME", callback=_moment, help="Stop here.")
@click.option("--skip", type=click.IntRange(min=0), default=0, help="Judge none of the first events.")
@click.option("--limit", type=click.IntRange(min=1), help="Read at most this many events.")
@click.option("--delay", "delay_s", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS",
              help="Learn from a reaction this much later.")  # fmt: skip
@click.option("--repeat-after", "repeat_after_s", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS",
              help="What the user had more lately is the same visit, not a repeat, and is not judged.")  # fmt: skip
@click.option("--model", help="A model folder, or decayed-mean; default as the settings say.")
@click.option("--ablate", is_flag=True, help="Also learn without each of the sources.")
@source_options
@json_option
def replay(
    format_name: str, path: str | None, protocol: Protocol, targets: Targets, types: tuple[str, ...],
    from_s: float | None, until_s: float | None, skip: int, limit: int | None, delay_s: float, repeat_after_s: float,
    model: str | None, ablate: bool, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Predict each event of a log before learning from it, by the engine that the worker runs.

    All items are ranked. Beside the product: a mix of equal weights and each source alone, on the same candidates.
    """
    settings = load_settings(model=model, repeats=targets != "new" or None)
    plan = ReplayPlan(
        protocol=protocol,
        targets=targets,
        types=frozenset(_known(types)),
        from_s=-float("inf") if from_s is None else from_s,
        until_s=float("inf") if until_s is None else until_s,
        skip_events=skip,
        limit=limit,
        delay_s=delay_s,
        ablate=ablate,
        repeat_after_s=repeat_after_s,
    )
    with TrainProgress(Console(stderr=True)) as progress:
        progress.stage("replaying")
        made = _play(settings, format_name, path, dict(flags), plan, progress)
    if as_json:
        click.echo(msgspec.json.encode(made.to_json(format_name)))
        return
    click.echo("\n".join(_lines(made)))


def _play(
    settings: Settings, format_name: str, path: str | None, flags: dict[str, Any], plan: ReplayPlan,
    progress: TrainProgress,
) -> Report:  # fmt: skip
    source = source_from(format_name, path, flags)
    engine = build_engine(settings, lessons_max=None)
    started_s = time.process_time()
    run = play if plan.protocol == "prequential" else replay_last
    replayed = run(engine, source, plan, progress.events)
    spent_s = time.process_time() - started_s
    return report(replayed, plan, len(engine.catalogue), spent_s, peak_memory_mb())


def _known(types: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [word for word in types if word not in set(EventType)]
    if unknown:
        raise UsageError(f"Unknown event type {', '.join(unknown)}. Known types are {', '.join(EventType)}.")
    return types


def _lines(report: Report) -> list[str]:
    first = report.rows[0]
    lines = [f"{'':24}{'n':>9}" + "".join(f"{name:>10}" for name in FIGURES) + "   95 % of ndcg@10, behind the first"]
    for row in report.rows:
        behind = row.ahead_of_first.get("ndcg@10")
        note = "" if behind is None else f"   {behind[0]:+.4f} to {behind[1]:+.4f}"
        figures = "".join(f"{row.figures[name]:>10.4f}" for name in FIGURES)
        lines.append(f"{row.model:24}{row.n:>9,}{figures}{note}")
    extra = ("coverage@10", "gini@10", "calibration_error", "candidates_found")
    lines.append("of the first: " + ", ".join(f"{name} {first.figures[name]:.3f}" for name in extra))
    lines.append(f"{first.cpu_score_s:,.0f} s of CPU, {first.memory_mb:,.0f} MB")
    return lines
