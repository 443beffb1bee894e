"""Trains a model on a log or on the topics, into a folder that the worker serves."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from encoder.checkpoint import SavedModel, load_model, load_resume
from encoder.config import ModelConfig, TrainingConfig
from encoder.dataset import EventTable, Split, hold_out_last, leave_one_out, timeline
from encoder.devices import torch_device
from encoder.encode import catalogue_vectors
from encoder.errors import EncoderError
from encoder.item_images import ImageVectors, image_vectors
from encoder.tensorboard import TensorBoardLog
from encoder.text_cache import CachedTextEncoder
from encoder.text_encoders import open_text_encoder
from encoder.train import Progress, Validation
from encoder.trained import can_start
from encoder.training_folder import TextVectors, Training, start_training
from streams.core.errors import UsageError

Protocol = Literal["latest", "loo", "timeline"]
NO_TEXTS = "none"
TEXT_CACHE = "text-cache"
IMAGE_CACHE = "images"
DIGEST_DIGITS = 12

SPLITS: dict[Protocol, Callable[[EventTable], Split]] = {
    "latest": hold_out_last,
    "loo": leave_one_out,
    "timeline": timeline,
}


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """What the person asked for."""

    out: Path
    protocol: Protocol = "latest"
    model: ModelConfig = field(default_factory=ModelConfig)
    config: TrainingConfig = field(default_factory=TrainingConfig)
    text_encoder: str = "wordllama"
    start: Path | None = None
    """Go on from this model with new events: its vocabulary and sizes stay, what is new is appended."""
    resume: bool = False
    """Go on with the training that was stopped in `out`: the same data, and its settings instead of those here, but for
    device and threads."""
    int8: bool = False
    tensorboard: Path | None = None
    images: Path | None = None
    """Folder of the items' images, named by item id."""


class TrainSummary(msgspec.Struct, frozen=True):
    """What `nearstream train` prints."""

    out: str
    model: str
    epochs: int
    best_epoch: int
    validation: dict[str, float]
    cpu_s: float
    seconds: float
    events: int
    users: int
    items: int
    new_items: int


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told what happens."""

    on_stage: Callable[[str], None] = lambda _: None
    on_texts: Callable[[int, int], None] = lambda _done, _total: None
    on_progress: Callable[[Progress], None] = lambda _: None
    on_validated: Callable[[Validation], None] = lambda _: None
    on_images: Callable[[int, int], None] = lambda _done, _total: None
    on_bad_image: Callable[[str], None] = lambda _: None


def known_items(plan: TrainPlan) -> list[str]:
    """The items that must keep their rows: those of the model or of the training to go on from.

    Raises:
        UsageError: there is no such model, or it cannot be read.
    """
    earlier = plan.out if plan.resume else plan.start
    return [] if earlier is None else read_model(earlier).vocabulary.items


def check_device(name: str) -> None:
    """Whether torch can compute there.

    Raises:
        UsageError: there is no such device, or not on this machine.
    """
    try:
        torch_device(name)
    except ValueError as error:
        raise UsageError(str(error)) from error


def train_model(
    plan: TrainPlan, table: EventTable, text_cache: Path, listeners: Listeners, *, source: str
) -> TrainSummary:
    """Trains until a bound is reached; after each validation `plan.out` holds the best model so far, whole.

    Args:
        plan: what is wanted.
        table: built on `known_items(plan)`.
        text_cache: folder in which text vectors are kept, and those of images in a folder below.
        listeners: told of stages, texts, images, batches and validations.
        source: what the data are, for the folder's manifest.

    Raises:
        UsageError: the data, the plan or a model folder cannot be used; `plan.out` is as it was.
    """
    begun_s = time.monotonic()
    try:
        training, new_items = _prepare(plan, table, text_cache, listeners, source)
        saved = _run(training, plan, listeners)
    except EncoderError as error:
        raise UsageError(str(error)) from error
    state = training.trainer.state
    return TrainSummary(
        out=str(plan.out),
        model=saved.name,
        epochs=state.epoch,
        best_epoch=state.best_epoch,
        validation=dict(saved.metrics),
        cpu_s=state.cpu_s,
        seconds=time.monotonic() - begun_s,
        events=len(table),
        users=len(table.user_ids),
        items=len(table.item_ids),
        new_items=new_items,
    )


def text_vectors(
    name: str, texts: list[str], cache: Path, on_texts: Callable[[int, int], None], *, device: str
) -> TextVectors | None:
    """The frozen vectors of an item's words; None for `none` or where nothing has words.

    Raises:
        UsageError: there is no such text encoder, or its package is missing.
    """
    if name == NO_TEXTS or not any(text.strip() for text in texts):
        return None
    try:
        encoder = open_text_encoder(name, device=device)
    except (ValueError, ModuleNotFoundError, FileNotFoundError) as error:
        raise UsageError(f"The text encoder cannot be loaded: {error}") from error
    vectors = CachedTextEncoder(encoder, cache).encode(texts, on_texts)
    return TextVectors(name, encoder.name, vectors)


def _prepare(
    plan: TrainPlan, table: EventTable, text_cache: Path, listeners: Listeners, source: str
) -> tuple[Training, int]:
    start = read_model(plan.start) if plan.start is not None else None
    stopped = read_model(plan.out) if plan.resume else None
    data = _facts(table, source, plan.protocol)
    listeners.on_stage("reading texts")
    earlier = start or stopped  # of a stopped training the vocabulary, which may have grown from another model's
    reader, device = _text_encoder(plan, earlier), plan.config.device
    texts = text_vectors(reader, table.item_texts, text_cache, listeners.on_texts, device=device)
    if texts is None and earlier is not None and earlier.model.content_dim:
        texts = _no_words(earlier, table)
    model, config = plan.model, plan.config
    if stopped is not None:
        _check_same_data(stopped, data, plan.out)
        model = stopped.model
        if stopped.training is not None:  # where it is computed is this machine's affair
            config = replace(stopped.training, device=config.device, threads=config.threads)
    elif start is not None:
        model = replace(start.model, rates=start.model.rates or plan.config.objective == "rating")
    images = None if plan.images is None else _images(plan.images, table, text_cache / IMAGE_CACHE, config, listeners)
    model = replace(
        model,
        content_dim=0 if texts is None else texts.vectors.shape[1],
        image_dim=0 if images is None else images.vectors.shape[1],
        starts=model.starts or (stopped is None and can_start(model, config, table)),
    )
    resume = load_resume(plan.out) if plan.resume else None
    if plan.resume and not resume:
        raise UsageError(f"{plan.out} holds a finished model and no training to go on with; use --from {plan.out}.")
    listeners.on_stage("preparing")
    split = SPLITS[plan.protocol](table)
    training = start_training(
        table,
        split,
        model,
        config,
        texts=texts,
        images=images,
        data=data,
        start=earlier,
        resume=resume,
        clock=time.time,
    )
    return training, len(table.item_ids) - (0 if start is None else len(start.vocabulary.items))


def _run(training: Training, plan: TrainPlan, listeners: Listeners) -> SavedModel:
    listeners.on_stage("training")
    trainer = training.trainer
    if plan.tensorboard is None:
        trainer.run(listeners.on_progress, _saving(training, plan, listeners.on_validated))
        return training.save(plan.out, resume=False, int8=plan.int8)
    with TensorBoardLog(plan.tensorboard) as board:

        def progress(now: Progress) -> None:
            board.progress(now)
            listeners.on_progress(now)

        def validated(seen: Validation) -> None:
            board.validation(seen, trainer.state.step)
            listeners.on_validated(seen)

        trainer.run(progress, _saving(training, plan, validated))
        saved = training.save(plan.out, resume=False, int8=plan.int8)
        vectors = catalogue_vectors(trainer.model, trainer.features)
        board.items(vectors, training.table.item_ids, training.table.item_texts, trainer.state.step)
    return saved


def _saving(training: Training, plan: TrainPlan, then: Callable[[Validation], None]) -> Callable[[Validation], None]:
    def save(seen: Validation) -> None:
        training.save(plan.out, int8=plan.int8)
        then(seen)

    return save


def read_model(folder: Path) -> SavedModel:
    """A model folder. Raises UsageError: there is none, or it cannot be read."""
    try:
        return load_model(folder)
    except EncoderError as error:
        raise UsageError(str(error)) from error


def _images(folder: Path, table: EventTable, cache: Path, config: TrainingConfig, listeners: Listeners) -> ImageVectors:
    """The vectors of the items' images. Raises UsageError: a package is missing."""
    listeners.on_stage("reading images")
    try:
        encoder = import_module("encoder.image").ImageEncoder(device=config.device)
    except ModuleNotFoundError as error:
        raise UsageError(f"Images need {error.name}, which is not installed: install nearstream[images].") from error
    return image_vectors(
        encoder, folder, table.item_ids, cache, on_progress=listeners.on_images, on_bad=listeners.on_bad_image
    )


def _text_encoder(plan: TrainPlan, earlier: SavedModel | None) -> str:
    return plan.text_encoder if earlier is None else earlier.text_encoder or NO_TEXTS


def _no_words(earlier: SavedModel, table: EventTable) -> TextVectors:
    """For a log without words, trained on by a model that reads them."""
    nothing = np.zeros((len(table.item_ids), earlier.model.content_dim), np.float32)
    return TextVectors(earlier.text_encoder, earlier.text_encoder_version, nothing)


def _check_same_data(stopped: SavedModel, facts: Mapping[str, Any], out: Path) -> None:
    told = {name: stopped.data.get(name) for name in facts if name != "source"}  # a file may have moved
    differing = [f"{name} {facts[name]} (then {then})" for name, then in told.items() if then != facts[name]]
    if differing:
        raise UsageError(
            f"The training in {out} was on other data; these have {', '.join(differing)}: resume with the same data "
            f"and protocol, or go on from the model with --from {out}."
        )


def _facts(table: EventTable, source: str, protocol: str) -> dict[str, Any]:
    return {
        "source": source,
        "protocol": protocol,
        "events": len(table),
        "users": len(table.user_ids),
        "items": len(table.item_ids),
        "last_time_s": int(np.max(table.times_s)),
        "digest": _digest(table),
    }


def _digest(table: EventTable) -> str:
    """Tells two logs apart."""
    digest = hashlib.sha256("\0".join(table.item_ids).encode())
    for column in (table.offsets, table.items, table.types, table.times_s, table.values):
        digest.update(column.tobytes())
    return digest.hexdigest()[:DIGEST_DIGITS]
