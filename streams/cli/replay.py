"""`nearstream replay`."""

from __future__ import annotations

import platform
import shlex
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
import msgspec
from rich.console import Console

from encoder.report import Report, peak_memory_mb
from streams.cli.feed import source_from, source_options
from streams.cli.options import json_option
from streams.cli.replay_settings import overrides
from streams.cli.replay_words import compared, told
from streams.cli.train_progress import TrainProgress
from streams.config import load_settings
from streams.core.errors import UsageError
from streams.core.events import EventType
from streams.recommend.rerank import RerankConfig
from streams.recommend.rules import Rules
from streams.recommend.rules_file import parse_rules
from streams.replay import replay as play
from streams.replay import replay_last
from streams.replay_baselines import with_baselines
from streams.replay_compare import compare
from streams.replay_html import Conditions, Run, page
from streams.replay_judge import Protocol, ReplayPlan, Targets
from streams.replay_lists import BEFORE_RULES, ListPlan
from streams.replay_report import report
from streams.sources import FORMATS
from streams.wiring import build_engine, list_config

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.replay_compare import Comparison
    from streams.sources import Source

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be played, and what beside the engine's own ranking."""

    format_name: str
    path: str | None
    flags: dict[str, Any]
    plan: ReplayPlan
    diversities: tuple[float, ...]
    """Strengths to try in place of the settings' own; empty: that one."""
    lists: bool
    """Make lists although nothing is set that changes them."""
    baselines: bool

    def source(self) -> Source:
        """The log, from its beginning."""
        return source_from(self.format_name, self.path, dict(self.flags))


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
@click.option("--baselines", is_flag=True,
              help="Also popularity, item-kNN and co-occurrence, learned once or anew now and then.")  # fmt: skip
@click.option("--rules", type=click.Path(dir_okay=False), metavar="FILE",
              help="Also judge the lists that these business rules leave; default as the settings say.")  # fmt: skip
@click.option("--diversity", "diversities", type=click.FloatRange(0, 1), multiple=True, metavar="X",
              help="Also judge lists whose items must differ so much, 0 to 1; repeat for more.")  # fmt: skip
@click.option("--diversity-by", type=click.Choice(["msd", "mmr", "dpp"]), help="How difference counts.")
@click.option("--calibration", type=click.FloatRange(0, 1), metavar="X",
              help="Also judge lists that must have the user's categories so much, 0 to 1.")  # fmt: skip
@click.option("--compare", "sides", nargs=2, metavar="A B",
              help="Play the log twice and say whether B is better than A. Each is a model folder, a TOML file of "
              "settings, key=value[,key=value], or as-is.")  # fmt: skip
@click.option("--html", "html_file", type=click.Path(dir_okay=False, writable=True), metavar="FILE",
              help="Also write a page with curves, learned weights and tables; it needs no network.")  # fmt: skip
@source_options
@json_option
def replay(
    format_name: str, path: str | None, protocol: Protocol, targets: Targets, types: tuple[str, ...],
    from_s: float | None, until_s: float | None, skip: int, limit: int | None, delay_s: float, repeat_after_s: float,
    model: str | None, ablate: bool, baselines: bool, rules: str | None, diversities: tuple[float, ...],
    diversity_by: str | None, calibration: float | None, sides: tuple[str, str] | None, html_file: str | None,
    as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Predict each event of a log before learning from it, by the engine that the worker runs.

    All items are ranked. Beside the product: a mix of equal weights and each source alone, on the same candidates
    (`neighbours` is user-kNN alone, `profile` the encoder alone, `together` co-occurrence, learned as it goes).
    With rules, diversity or calibration the lists that would be published are judged too, beside those before.
    """
    given = {
        "model": model,
        "repeats": targets != "new" or None,
        "rules": rules,
        "diversity_by": diversity_by,
        "calibration": calibration,
    }
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
    asked = Asked(format_name, path, dict(flags), plan, diversities, lists=sides is not None, baselines=baselines)
    if path == STANDARD_INPUT and (sides or baselines):
        raise UsageError("--compare and --baselines read the log several times: give a file in place of -.")
    all_settings = [load_settings(**{**given, **overrides(side)}) for side in sides or ("as-is",)]
    with TrainProgress(Console(stderr=True)) as progress:
        runs = [_play(settings, asked, progress, name) for settings, name in zip(all_settings, "AB", strict=False)]
    comparison = None if sides is None else compare(runs[0].replayed, runs[1].replayed, sides)
    runs = [replace(run, name="" if comparison is None else run.name) for run in runs]
    if html_file is not None:
        _write(html_file, page(_conditions(asked, all_settings), runs, comparison))
    if as_json:
        click.echo(msgspec.json.encode(_to_json(format_name, runs, comparison)))
        return
    for run in runs:
        click.echo("\n".join(([f"{run.name}:"] if run.name else []) + told(run)))
    if comparison is not None:
        click.echo("\n".join(compared(comparison)))


def _play(settings: Settings, asked: Asked, progress: TrainProgress, name: str) -> Run:
    """One replay; its engine is gone when it returns."""
    plans = _list_plans(settings, asked)
    progress.stage("replaying")
    engine = build_engine(settings, lessons_max=None)
    rules = plans[-1].rules if plans else Rules()
    engine.take_rules(rules)
    started_s = time.process_time()
    run = play if asked.plan.protocol == "prequential" else replay_last
    replayed = run(engine, asked.source(), asked.plan, progress.events, plans)
    spent_s = time.process_time() - started_s
    for warning in engine.take_rules(rules):  # by now the catalogue is known
        click.echo(warning, err=True)
    if asked.baselines:
        progress.stage("baselines")
        replayed = with_baselines(replayed, asked.source(), asked.plan, progress.events)
    made = report(replayed, asked.plan, len(engine.catalogue), spent_s, peak_memory_mb())
    return Run(name, replayed, made)


def _list_plans(settings: Settings, asked: Asked) -> list[ListPlan]:
    """The lists before any rule, then those that the settings make; none when that is the same and nobody asks."""
    rules = _rules(settings)
    strengths = asked.diversities or (settings.diversity,)
    configs = {_named(settings, strength): replace(list_config(settings), diversity=strength) for strength in strengths}
    plain = RerankConfig(settings.list_items)
    if not asked.lists and rules == Rules() and all(config == plain for config in configs.values()):
        return []
    return [
        ListPlan(BEFORE_RULES, plain, counted=rules),
        *(ListPlan(name, config, rules) for name, config in configs.items()),
    ]


def _named(settings: Settings, strength: float) -> str:
    words = ["published" if strength == 0 else f"{settings.diversity_by} {strength:g}"]
    words += [f"calibration {settings.calibration:g}"] if settings.calibration else []
    return ", ".join(words)


def _rules(settings: Settings) -> Rules:
    if settings.rules is None:
        return Rules()
    try:
        content: bytes | None = settings.rules.read_bytes()
    except FileNotFoundError:
        content = None
    except OSError as error:
        raise UsageError(f"{settings.rules}: expected a file with rules that can be read, got {error}.") from error
    return parse_rules(content, str(settings.rules), settings.list_items)


def _write(file: str, text: str) -> None:
    try:
        Path(file).write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"--html {file}: expected a file that can be written, got {error}.") from error
    click.echo(f"wrote {file}", err=True)


def _conditions(asked: Asked, settings: list[Settings]) -> Conditions:
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    facts = {
        "log": " ".join(filter(None, (asked.format_name, asked.path))),
        "protocol": f"{asked.plan.protocol}, targets: {asked.plan.targets}",
        "model": ", ".join(dict.fromkeys(each.model for each in settings)),
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "memory, at most": f"{peak_memory_mb():,.0f} MB",
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return Conditions(f"Replay of {asked.format_name}", shlex.join(words), facts)


def _to_json(data: str, runs: list[Run], comparison: Comparison | None) -> dict[str, Any]:
    if comparison is None:
        return runs[0].report.to_json(data)
    rows = tuple(replace(row, model=f"{run.name}: {row.model}") for run in runs for row in run.report.rows)
    made = Report(runs[0].report.protocol, runs[0].report.targets, rows).to_json(data)
    return made | {"comparison": comparison.to_json()}


def _known(types: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [word for word in types if word not in set(EventType)]
    if unknown:
        raise UsageError(f"Unknown event type {', '.join(unknown)}. Known types are {', '.join(EventType)}.")
    return types
