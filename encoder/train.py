"""The training loop. One loop for the served model and its yardsticks; what differs is in the configs."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoder.batches import Batch, NegativeSampler, Sequences
from encoder.config import ModelConfig, TrainingConfig
from encoder.dataset import RATING, EventTable, Split
from encoder.devices import torch_device
from encoder.errors import UnusableData
from encoder.features import TableFeatures
from encoder.first_weights import State, begin
from encoder.model import ModelSizes, SequenceModel
from encoder.objective import Objective, target_weights
from encoder.schedule import learning_rate, new_optimizer
from encoder.validation import Validator
from encoder.vocabulary import Vocabulary

Floats = NDArray[np.float32]

STEPS_PER_EPOCH = 64
USERS_PER_BATCH_MIN, USERS_PER_BATCH_MAX = 16, 128


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is, after each batch."""

    epoch: int
    step: int
    steps: int
    """Steps if no bound ends it earlier."""
    loss: float
    learning_rate: float
    cpu_s: float
    best: float
    """Best validation score so far, NaN before the first."""


@dataclass(frozen=True, slots=True)
class Validation:
    """One look at the validation queries."""

    epoch: int
    loss: float
    """Mean training loss since the look before."""
    score: float
    """What chooses the model, higher is better: NDCG@10, or minus the root of the mean squared error."""
    metrics: dict[str, float]
    cpu_s: float
    is_best: bool
    step: int = 0
    """Batches until then; 0 in what older programs saved."""


@dataclass(slots=True)
class TrainingState:
    """All that a training needs to go on as if it had not stopped."""

    epoch: int = 0
    step: int = 0
    best_score: float = -math.inf
    best_epoch: int = 0
    cpu_s: float = 0.0
    history: list[Validation] = field(default_factory=list)
    weights: State = field(default_factory=dict)
    best_weights: State = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    rng: Mapping[str, Any] = field(default_factory=dict)
    torch_rng: Tensor | None = None
    cuda_rng: Tensor | None = None
    """Of the GPU that was computed on; a training that goes on elsewhere does not read it."""


class Trainer:
    """Trains one model on the learnable part of a split.

    Args of the constructor: `features` as made by `TableFeatures.of` for the same table; `start`, weights to begin
    with (rows that `vocabulary` has more than they are new); `state`, of a training of the same data and configs
    that was stopped.

    Raises:
        UnusableData: nobody has two learnable events, no learnable event is of a target type, or ratings are to be
            predicted and there are none.
        ValueError: this machine has no such device.
    """

    def __init__(
        self,
        table: EventTable,
        split: Split,
        vocabulary: Vocabulary,
        features: TableFeatures,
        model_config: ModelConfig,
        config: TrainingConfig,
        *,
        start: State | None = None,
        state: TrainingState | None = None,
    ) -> None:
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        _check_content(features, model_config)
        self._table, self._split, self._features, self.config = table, split, features, config
        self._ratings = table.ratings()
        self._device = torch_device(config.device)
        self.model = SequenceModel(
            model_config,
            ModelSizes(
                items=len(vocabulary.items),
                item_attributes=len(vocabulary.item_attributes),
                user_attributes=len(vocabulary.user_attributes),
                types=len(vocabulary.types),
            ),
        ).to(self._device)
        self._sequences = Sequences(table, split, model_config.history_max)
        weights = target_weights(table, config)
        self._check_data(weights)
        learnable = split.train_mask(table)
        sampler = NegativeSampler(table.items[learnable], len(table.item_ids))
        self._objective = Objective(self.model, features, sampler, weights, config)
        self._validator = Validator(table, split.valid, features, weights, config)
        self._rng = np.random.default_rng(config.seed)
        self._optimizer = new_optimizer(self.model.parameters(), config)
        self.state = state or TrainingState()
        begin(self.model, features, self._ratings[learnable], start)
        if state is not None:
            self._resume(state)

    @property
    def features(self) -> TableFeatures:
        """What the model is told of the table's items and users."""
        return self._features

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return self.config.epochs_max * math.ceil(len(self._sequences) / self._users_per_batch)

    @property
    def _users_per_batch(self) -> int:
        wanted = len(self._sequences) // STEPS_PER_EPOCH
        return self.config.users_per_batch or min(max(wanted, USERS_PER_BATCH_MIN), USERS_PER_BATCH_MAX)

    def run(self, on_progress: Callable[[Progress], None], on_validated: Callable[[Validation], None]) -> TrainingState:
        """Trains until the epochs, the CPU time or the patience is used up; the model then has its best weights.

        After each validation, `state` and `model` hold what a checkpoint needs; an exception raised by a callback,
        a KeyboardInterrupt too, ends the training there.
        """
        state, config = self.state, self.config
        began_s = time.process_time() - state.cpu_s
        losses: list[float] = []
        while state.epoch < config.epochs_max and state.cpu_s < config.cpu_s_max:
            self.model.train()
            for batch in self._sequences.epoch(self._users_per_batch, self._rng):
                losses.append(self._learn(batch))
                if not math.isfinite(losses[-1]):
                    raise self._diverged(losses[-1])
                state.step += 1
                state.cpu_s = time.process_time() - began_s
                on_progress(
                    Progress(
                        state.epoch + 1,
                        state.step,
                        self.steps,
                        losses[-1],
                        learning_rate(self.config, self.state.step, self.steps),
                        state.cpu_s,
                        state.best_score if state.history else math.nan,
                    )
                )
            state.epoch += 1
            last = state.epoch == config.epochs_max or state.cpu_s >= config.cpu_s_max
            if last or state.epoch % config.validate_every_epochs == 0:
                on_validated(self._validate(float(np.mean(losses))))
                losses = []
                if state.epoch - state.best_epoch >= config.patience_epochs:
                    break
        self.model.load_state_dict(state.best_weights)
        self.model.eval()
        return state

    def _learn(self, batch: Batch) -> float:
        """One step."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.state.step, self.steps)
        loss = self._objective.loss(batch, self._rng)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_norm_max)
        self._optimizer.step()
        return float(loss.detach())

    def _validate(self, loss: float) -> Validation:
        state = self.state
        score, metrics = self._validator.score(self.model)
        if not math.isfinite(score):
            raise self._diverged(loss)
        is_best = score > state.best_score
        validation = Validation(state.epoch, loss, score, metrics, state.cpu_s, is_best, state.step)
        state.history.append(validation)
        if is_best:
            state.best_score, state.best_epoch = score, state.epoch
            state.best_weights = copy.deepcopy(self.model.state_dict())
        # copies, for the next step moves the originals in place
        state.weights = copy.deepcopy(self.model.state_dict())
        state.optimizer = copy.deepcopy(self._optimizer.state_dict())
        state.rng, state.torch_rng = self._rng.bit_generator.state, torch.get_rng_state()
        state.cuda_rng = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        return validation

    def _diverged(self, loss: float) -> UnusableData:
        return UnusableData(
            f"The training diverged after step {self.state.step} (loss {loss}): try a learning rate below "
            f"{self.config.learning_rate:g}; the checkpoint of the last validation stays."
        )

    def _resume(self, state: TrainingState) -> None:
        self.model.load_state_dict(state.weights)
        self._optimizer.load_state_dict(state.optimizer)
        self._rng.bit_generator.state = state.rng
        if state.torch_rng is not None:
            torch.set_rng_state(state.torch_rng)
        if state.cuda_rng is not None and self._device.type == "cuda":
            torch.cuda.set_rng_state(state.cuda_rng, self._device)

    def _check_data(self, weights: Floats) -> None:
        if not len(self._sequences):
            raise UnusableData("No user has two events to learn from: a next event needs one before it.")
        table, learnable = self._table, self._split.train_mask(self._table)
        if not weights[table.types[learnable]].any():
            raise UnusableData(
                f"No event to learn from is of the types {', '.join(self.config.target_types)}; "
                f"the log has {', '.join(table.type_names)}."
            )
        if self.config.objective == "rating" and not np.isfinite(self._ratings[learnable]).any():
            raise UnusableData(
                f"Ratings are to be predicted, but no event to learn from is a `{RATING}` with a value; "
                f"the log has {', '.join(table.type_names)}."
            )


def _check_content(features: TableFeatures, config: ModelConfig) -> None:
    for name, vectors, wanted in (
        ("content", features.content, config.content_dim),
        ("image", features.images, config.image_dim),
    ):
        given = 0 if vectors is None else vectors.shape[1]
        if given != wanted:
            raise ValueError(f"The items have {given} {name} dimensions, the model's config says {wanted}.")
