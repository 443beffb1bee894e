"""A training and its folder: what a trainer made, saved so that it can be served, gone on with, or resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.checkpoint import Arrays, SavedModel, save_model
from encoder.config import ModelConfig, TrainingConfig
from encoder.dataset import EventTable, Split
from encoder.errors import UnusableModel
from encoder.features import TableFeatures
from encoder.first_weights import State
from encoder.item_images import ImageVectors
from encoder.tower import hash_text
from encoder.train import Trainer, TrainingState, Validation
from encoder.vocabulary import Vocabulary

HISTORY_MAX = 64
"""Looks at the validation queries that a folder tells of."""
_FACTS = ("epoch", "step", "best_score", "best_epoch", "cpu_s")
_TORCH_RNGS = ("torch_rng", "cuda_rng")


@dataclass(frozen=True, slots=True)
class TextVectors:
    """The frozen text vectors of a table's items, and where they came from."""

    encoder: str
    """Name that `open_text_encoder` knows."""
    version: str
    """The encoder's own name."""
    vectors: NDArray[np.float32]
    """(i, c)"""


@dataclass(frozen=True, slots=True)
class Training:
    """A trainer, and all that its folder says beside its weights."""

    trainer: Trainer
    table: EventTable
    vocabulary: Vocabulary
    texts: TextVectors | None
    data: Mapping[str, Any]
    images: ImageVectors | None = None
    clock: Callable[[], float] | None = None
    """Epoch seconds; without it the folder does not say when it was written."""

    def save(self, folder: Path, *, resume: bool = True, int8: bool = False) -> SavedModel:
        """Writes the best weights so far and, with `resume`, the state to go on from; returns what was saved.

        Raises:
            OSError: the folder cannot be written; what was there before stays whole.
        """
        state = self.trainer.state
        best = next((seen.metrics for seen in reversed(state.history) if seen.is_best), {})
        saved = SavedModel(
            model=self.trainer.model.config,
            vocabulary=self.vocabulary,
            weights={name: tensor.cpu().numpy() for name, tensor in state.best_weights.items()},
            text_encoder="" if self.texts is None else self.texts.encoder,
            text_encoder_version="" if self.texts is None else self.texts.version,
            content={} if self.texts is None else _content(self.table, self.texts.vectors),
            image_encoder_version="" if self.images is None else self.images.version,
            images={} if self.images is None else _image_parts(self.images, state.best_weights),
            training=self.trainer.config,
            metrics=best,
            data=self.data,
            history=[_told(seen) for seen in _thinned(state.history)],
            trained_at_s=None if self.clock is None else int(self.clock()),
        )
        resumable = pack_state(state) if resume else None
        return replace(saved, fingerprint=save_model(folder, saved, resume=resumable, int8=int8))


def start_training(
    table: EventTable,
    split: Split,
    model: ModelConfig,
    config: TrainingConfig,
    *,
    texts: TextVectors | None,
    images: ImageVectors | None = None,
    data: Mapping[str, Any],
    start: SavedModel | None = None,
    resume: Arrays | None = None,
    clock: Callable[[], float] | None = None,
) -> Training:
    """A training that is ready to run.

    Args:
        table: the log; built on the items of `start`, when there is one.
        split: what is learned from, and what chooses the model.
        model: its sizes; those of `start` win where they must, so that the weights fit.
        config: how to train.
        texts: text vectors of the table's items, None for a model without.
        images: image vectors of the table's items, None for a model without.
        data: what is told of the data in the folder.
        start: a model to go on from: its vocabulary grows by what is new.
        resume: the state of the same training when it was stopped.
        clock: epoch seconds; None: the folder does not say when it was written.

    Raises:
        UnusableData: nothing can be learned from the table.
        UnusableModel: `start` or `resume` do not fit.
    """
    vocabulary = Vocabulary.of(table) if start is None else start.vocabulary.extended(table)
    content = None if texts is None else texts.vectors
    if start is not None:
        _check_same("text", start.text_encoder_version, "" if texts is None else texts.version)
        _check_same("image", start.image_encoder_version, "" if images is None else images.version)
    features = TableFeatures.of(table, vocabulary, content, None if images is None else images.vectors)
    trainer = Trainer(
        table,
        split,
        vocabulary,
        features,
        model,
        config,
        start=None if start is None else {name: torch.from_numpy(array) for name, array in start.weights.items()},
        state=unpack_state(resume) if resume else None,
    )
    return Training(trainer, table, vocabulary, texts, data, images, clock)


def pack_state(state: TrainingState) -> Arrays:
    """A training's state as arrays."""
    facts = {name: getattr(state, name) for name in _FACTS}
    facts |= {"history": [asdict(seen) for seen in state.history], "rng": dict(state.rng)}
    groups = state.optimizer.get("param_groups", [])
    moments = state.optimizer.get("state", {})
    facts |= {"groups": groups}
    arrays: Arrays = {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}
    arrays |= {f"weights.{name}": tensor.cpu().numpy() for name, tensor in state.weights.items()}
    arrays |= {f"best.{name}": tensor.cpu().numpy() for name, tensor in state.best_weights.items()}
    for number, moment in moments.items():
        arrays |= {
            f"optimizer.{number}.{name}": value.cpu().numpy() for name, value in moment.items() if value is not None
        }
    arrays |= {name: rng.numpy() for name in _TORCH_RNGS if (rng := getattr(state, name)) is not None}
    return arrays


def unpack_state(arrays: Arrays) -> TrainingState:
    """The state that `pack_state` wrote.

    Raises:
        UnusableModel: it was written by another version.
    """
    try:
        facts = json.loads(arrays["facts"].tobytes())
        state = TrainingState(**{name: facts[name] for name in _FACTS})
        state.history = [Validation(**seen) for seen in facts["history"]]
        state.rng, groups = facts["rng"], facts["groups"]
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableModel(
            f"The state of the stopped training cannot be read ({error!r}); train anew, or go on from its weights."
        ) from error
    state.weights, state.best_weights = _tensors(arrays, "weights."), _tensors(arrays, "best.")
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in _tensors(arrays, "optimizer.").items():
        number, name = key.split(".", 1)
        moments.setdefault(int(number), {})[name] = tensor
    state.optimizer = {"state": moments, "param_groups": groups}
    for name in _TORCH_RNGS:
        setattr(state, name, torch.from_numpy(np.array(arrays[name])) if name in arrays else None)
    return state


def _thinned(history: Sequence[Validation]) -> list[Validation]:
    """At most HISTORY_MAX of them, evenly spread, with the first, the last and the best."""
    if len(history) <= HISTORY_MAX:
        return list(history)
    kept = set(np.linspace(0, len(history) - 1, HISTORY_MAX - 1).round().astype(int).tolist())
    kept.add(max(place for place, seen in enumerate(history) if seen.is_best))
    return [history[place] for place in sorted(kept)]


def _told(seen: Validation) -> dict[str, Any]:
    return {name: value for name, value in asdict(seen).items() if name != "score"}


def _tensors(arrays: Arrays, prefix: str) -> State:
    return {
        key.removeprefix(prefix): torch.from_numpy(np.array(array))
        for key, array in arrays.items()
        if key.startswith(prefix)
    }


def _content(table: EventTable, vectors: NDArray[np.float32]) -> Arrays:
    """Each distinct text once; float16 is finer than what a text vector knows."""
    rows = {hash_text(text): row for row, text in enumerate(table.item_texts) if text.strip()}
    return {
        "hashes": np.array(list(rows), np.uint64),
        "vectors": vectors[np.array(list(rows.values()), np.int64)].astype(np.float16),
    }


def _image_parts(images: ImageVectors, weights: State) -> Arrays:
    """What each image adds to its item's vector before that is cut to length 1: constant once training is over."""
    matrix, mean = weights["tower.image.weight"].cpu().numpy(), weights["tower.image_mean"].cpu().numpy()
    rows = np.flatnonzero(images.vectors.any(axis=1))  # the table's items are the vocabulary's, in its order
    parts = (images.vectors[rows].astype(np.float32) - mean) @ matrix.T  # (n, d)
    return {"rows": rows, "parts": parts}


def _check_same(kind: str, of_start: str, given: str) -> None:
    if given != of_start:
        raise UnusableModel(
            f"The model to go on from reads the {kind} vectors {of_start or 'of none'}, the training has "
            f"{given or 'none'}: give the same {kind}s and encoder, or train anew."
        )
