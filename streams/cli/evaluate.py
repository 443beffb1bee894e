"""`nearstream evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
import msgspec
from rich.console import Console

from encoder.config import Kind
from streams.cli.feed import source_from, source_options
from streams.cli.options import json_option
from streams.cli.train import configs_from, table_from, training_options
from streams.cli.train_progress import TrainProgress
from streams.config import load_settings
from streams.core.errors import UsageError
from streams.evaluate import EvaluatePlan, Listeners, Protocol, evaluate_log, known_items, mean_rows
from streams.sources import FORMATS
from streams.train import TEXT_CACHE, text_vectors

if TYPE_CHECKING:
    from encoder.report import Report, Targets

FIGURES = ("hr@10", "ndcg@10", "mrr@20", "coverage@10", "novelty@10", "diversity@10")


@click.command(
    epilog=f"FORMAT: {' '.join(FORMATS)}. PATH: a file, a folder or - for standard input; none for synthetic."
)
@click.argument("format_name", metavar="FORMAT")
@click.argument("path", required=False)
@click.option(
    "--protocol", type=click.Choice(get_args(Protocol)), required=True,
    help="loo: each user's last event is to be found. timeline: everything after one cut in time is.",
)  # fmt: skip
@click.option("--model", "saved", type=click.Path(path_type=Path), help="Judge this folder; else models are trained.")
@click.option("--targets", type=click.Choice(["new", "all"]), default="new", show_default=True, help="Repeats too?")
@click.option("--only", "types", multiple=True, metavar="TYPE", help="Ask only for events of this type.")
@click.option("--also", "also", type=click.Choice(get_args(Kind)), multiple=True, help="Train this yardstick too.")
@click.option("--ids-only", is_flag=True, help="Also train the model without texts and attributes.")
@click.option("--seeds", type=click.IntRange(min=1, max=20), default=1, show_default=True, help="How many.")
@click.option("--baselines/--no-baselines", default=True, show_default=True)
@click.option("--user-knn/--no-user-knn", default=True, show_default=True, help="Neighbours over learned vectors.")
@click.option("--text-encoder", default="wordllama", show_default=True, help="As for train.")
@click.option("--limit", type=click.IntRange(min=1), help="Read at most this many events.")
@training_options
@source_options
@json_option
def evaluate(
    format_name: str, path: str | None, protocol: Protocol, saved: Path | None, targets: Targets,
    types: tuple[str, ...], also: tuple[Kind, ...], ids_only: bool, seeds: int, baselines: bool, user_knn: bool,
    text_encoder: str, limit: int | None, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Rank all items for held-out events: the product's model, yardsticks and baselines in one table."""
    settings = load_settings()
    model, config = configs_from(flags)
    kinds = tuple(dict.fromkeys([model.kind, *also]))
    plan = EvaluatePlan(
        protocol, targets, types, saved, kinds, model, config, tuple(range(seeds)), ids_only, user_knn, baselines
    )
    if config.objective == "rating":
        raise UsageError("Ratings are judged by their error in `nearstream train --objective rating`, not by ranking.")
    with TrainProgress(Console(stderr=True)) as progress:
        progress.stage("reading events")
        opened = source_from(format_name, path, flags)
        table = table_from(opened, known_items(plan), limit, progress.events)
        progress.stage("reading texts")
        texts = text_vectors(
            text_encoder, table.item_texts, settings.data_dir / TEXT_CACHE, progress.texts, device=config.device
        )
        progress.stage("judging")
        report = evaluate_log(plan, table, texts, Listeners(progress.step, progress.validated, progress.queries))
    click.echo(msgspec.json.encode(report.to_json(format_name)) if as_json else "\n".join(_lines(report)))


def _lines(report: Report) -> list[str]:
    lines = [f"{'model':36}{'seeds':>6}{'n':>9}" + "".join(f"{name:>14}" for name in FIGURES) + f"{'CPU s':>9}"]
    for model, seeds, n, figures, cpu_s in mean_rows(report, FIGURES):
        lines.append(
            f"{model:36}{seeds:>6}{n:>9,}" + "".join(f"{value:>14.4f}" for value in figures) + f"{cpu_s:>9.0f}"
        )
    return lines
