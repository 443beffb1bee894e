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
from encoder.dataset import RATING, EventTable, Queries, Split
from encoder.encode import catalogue_vectors, user_vectors
from encoder.errors import UnusableData, UnusableModel
from encoder.features import TableFeatures
from encoder.losses import sampled_softmax
from encoder.metrics import FIGURES, Histories, rank, ranking_figures
from encoder.model import EventInputs, ModelSizes, RatingHead, SequenceModel
from encoder.vocabulary import NO_ATTRIBUTE, Vocabulary

Floats = NDArray[np.float32]
State = dict[str, Tensor]

SECOND_MOMENT_DECAY = 0.98
"""AdamW's beta 2, shorter than usual: rare items get few steps."""
STEPS_PER_EPOCH = 64
USERS_PER_BATCH_MIN, USERS_PER_BATCH_MAX = 16, 256
VALIDATION_SEED = 1
QUERIES_PER_BLOCK = 512
WEIGHT_MIN = 1e-6
NEW_SHARE_MIN = 0.05
"""Of the validation events of target types; with fewer new items among them, repeats choose the model."""
RATING_HEAD = "rating."
"""Parameters that begin so belong to a task, not to what pre-training learned."""


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


class Trainer:
    """Trains one model on the learnable part of a split.

    Args of the constructor: `features` as made by `TableFeatures.of` for the same table; `start`, weights to begin
    with (rows that `vocabulary` has more than they are new); `state`, of a training of the same data and configs
    that was stopped.

    Raises:
        UnusableData: nobody has two learnable events, no learnable event is of a target type, or ratings are to be
            predicted and there are none.
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
        self._device = torch.device(config.device)
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
        self._target_weights = _target_weights(table, config)
        self._check_data()
        learnable = split.train_mask(table)
        self._sampler = NegativeSampler(table.items[learnable], len(table.item_ids))
        self._valid = _validation_queries(table, split.valid, self._target_weights, config)
        self._rng = np.random.default_rng(config.seed)
        self._optimizer = self._new_optimizer()
        self.state = state or TrainingState()
        if start is not None:
            load_rows(self.model, start)
        else:
            if features.content is not None:
                self.model.tower.content_mean.copy_(_mean_of_known(features.content))
            if features.images is not None:
                self.model.tower.image_mean.copy_(_mean_of_known(features.images))
        if self.model.rating is not None and (start is None or f"{RATING_HEAD}mean" not in start):
            known = self._ratings[learnable & np.isfinite(self._ratings)]
            self.model.rating.mean.fill_(float(known.mean()) if len(known) else 0.0)
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
                        self._learning_rate(),
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
            group["lr"] = self._learning_rate()
        loss = self._rating_loss(batch) if self.config.objective == "rating" else self._ranking_loss(batch)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_norm_max)
        self._optimizer.step()
        return float(loss.detach())

    def _ranking_loss(self, batch: Batch) -> Tensor:
        """Next event, and the hidden events themselves, against sampled items."""
        config, real = self.config, batch.targets >= 0  # (b, t)
        negatives, log_q = self._sampler.draw(config.negatives, self._rng)
        masked = self._rng.random(real.shape) < config.masked_share if config.masked_share else None
        rows, places = np.unique(
            np.concatenate([batch.items.ravel(), batch.targets[real], negatives]), return_inverse=True
        )
        inputs, positives, others = np.split(places, [batch.items.size, batch.items.size + int(real.sum())])
        vectors = self._item_vectors(rows)  # (distinct items, d)
        events = self._events(batch, inputs, masked)
        users = self.model(events, vectors)  # (b, t, d)
        against = _Against(self._tensor(others), self._tensor(log_q), self.model.config.temperature)
        each = against.loss(users[self._tensor(real)], vectors, self._tensor(positives))  # (n,)
        weights = self._tensor(self._target_weights[batch.target_types[real]])  # (n,)
        if self.model.config.starts:
            told = (events.attributes != NO_ATTRIBUTE).any(dim=1)  # (b,)
            first = against.loss(self.model.starts(events.attributes[told]), vectors, events.items[told, 0])
            each = torch.cat([each, first])
            weights = torch.cat([weights, self._tensor(self._target_weights[batch.types[:, 0]])[told]])
        loss = (each * weights).sum() / weights.sum().clamp(min=WEIGHT_MIN)
        if masked is None or not (masked & real).any():
            return loss
        guessed = self._tensor(masked & real)
        return loss + config.masked_share * against.loss(users[guessed], vectors, events.items[guessed]).mean()

    def _rating_loss(self, batch: Batch) -> Tensor:
        """Squared error of the next event's rating, where it has one."""
        rated = np.isfinite(batch.target_ratings)  # (b, t)
        rows, places = np.unique(np.concatenate([batch.items.ravel(), batch.targets[rated]]), return_inverse=True)
        inputs, targets = np.split(places, [batch.items.size])
        vectors = self._item_vectors(rows)
        users = self.model(self._events(batch, inputs, None), vectors)[self._tensor(rated)]  # (n, d)
        ratings = self._head()(users, vectors[self._tensor(targets)], self._tensor(batch.targets[rated]))  # (n,)
        return torch.square(ratings - self._tensor(batch.target_ratings[rated])).sum() / max(1, int(rated.sum()))

    def _events(self, batch: Batch, inputs: NDArray[np.intp], masked: NDArray[np.bool_] | None) -> EventInputs:
        hidden = self._rng.random(len(batch.users)) < self.config.attribute_dropout
        return EventInputs(
            items=self._tensor(inputs.reshape(batch.items.shape)),
            types=self._tensor(self._features.types[batch.types]),
            features=self._tensor(batch.features),
            attributes=self._tensor(np.where(hidden[:, None], 0, self._features.user_attributes[batch.users])),
            masked=None if masked is None else self._tensor(masked),
        )

    def _item_vectors(self, rows: NDArray[np.int64]) -> Tensor:
        content = None if self._features.content is None else self._tensor(self._features.content[rows])
        images = None if self._features.images is None else self._tensor(self._features.images[rows]).float()
        vectors: Tensor = self.model.tower(
            self._tensor(rows), content, self._tensor(self._features.item_attributes[rows]), images
        )
        return vectors

    def _validate(self, loss: float) -> Validation:
        state = self.state
        items = catalogue_vectors(self.model, self._features)
        users = user_vectors(self.model, self._features, self._table, self._valid, items)
        if not (np.isfinite(items).all() and np.isfinite(users).all()):
            raise self._diverged(loss)
        if self.config.objective == "rating":
            metrics = {"rmse": self._rmse(users, items)}
            score = -metrics["rmse"]
        else:
            metrics = _ranking_metrics(users, items, self._table, self._valid)
            score = metrics["ndcg@10"]
        if not math.isfinite(score):
            raise self._diverged(loss)
        is_best = score > state.best_score
        validation = Validation(state.epoch, loss, score, metrics, state.cpu_s, is_best)
        state.history.append(validation)
        if is_best:
            state.best_score, state.best_epoch = score, state.epoch
            state.best_weights = copy.deepcopy(self.model.state_dict())
        # copies, for the next step moves the originals in place
        state.weights = copy.deepcopy(self.model.state_dict())
        state.optimizer = copy.deepcopy(self._optimizer.state_dict())
        state.rng, state.torch_rng = self._rng.bit_generator.state, torch.get_rng_state()
        return validation

    def _diverged(self, loss: float) -> UnusableData:
        return UnusableData(
            f"The training diverged after step {self.state.step} (loss {loss}): try a learning rate below "
            f"{self.config.learning_rate:g}; the checkpoint of the last validation stays."
        )

    @torch.inference_mode()
    def _rmse(self, users: Floats, items: Floats) -> float:
        targets, values = self._table.items[self._valid.positions], self._ratings[self._valid.positions]
        rows = self._tensor(targets.astype(np.int64))
        ratings = self._head()(self._tensor(users), self._tensor(items[targets]), rows).cpu().numpy()
        return float(np.sqrt(np.mean(np.square(ratings - values))))

    def _head(self) -> RatingHead:
        if self.model.rating is None:
            raise ValueError("The objective is `rating`, so the model's config must say `rates=True`.")
        return self.model.rating

    def _learning_rate(self) -> float:
        """Rises in a line, then falls by half a cosine."""
        config, done = self.config, self.state.step / self.steps
        if done < config.warmup_share:
            return config.learning_rate * (self.state.step + 1) / (self.steps * config.warmup_share + 1)
        rest = min(1.0, (done - config.warmup_share) / (1.0 - config.warmup_share))
        return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * rest))

    def _new_optimizer(self) -> torch.optim.Optimizer:
        config, parameters = self.config, self.model.parameters()
        if config.optimizer == "sgd":
            return torch.optim.SGD(parameters, config.learning_rate, momentum=0.9, weight_decay=config.weight_decay)
        return torch.optim.AdamW(
            parameters, config.learning_rate, betas=(0.9, SECOND_MOMENT_DECAY), weight_decay=config.weight_decay
        )

    def _resume(self, state: TrainingState) -> None:
        self.model.load_state_dict(state.weights)
        self._optimizer.load_state_dict(state.optimizer)
        self._rng.bit_generator.state = state.rng
        if state.torch_rng is not None:
            torch.set_rng_state(state.torch_rng)

    def _check_data(self) -> None:
        if not len(self._sequences):
            raise UnusableData("No user has two events to learn from: a next event needs one before it.")
        table, learnable = self._table, self._split.train_mask(self._table)
        if not self._target_weights[table.types[learnable]].any():
            raise UnusableData(
                f"No event to learn from is of the types {', '.join(self.config.target_types)}; "
                f"the log has {', '.join(table.type_names)}."
            )
        if self.config.objective == "rating" and not np.isfinite(self._ratings[learnable]).any():
            raise UnusableData(
                f"Ratings are to be predicted, but no event to learn from is a `{RATING}` with a value; "
                f"the log has {', '.join(table.type_names)}."
            )

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)


@dataclass(frozen=True, slots=True)
class _Against:
    """The negatives of a batch."""

    rows: Tensor
    log_q: Tensor
    temperature: float

    def loss(self, users: Tensor, vectors: Tensor, positives: Tensor) -> Tensor:
        """(n,)"""
        return sampled_softmax(
            users,
            vectors[positives],
            vectors[self.rows],
            positives[:, None] == self.rows[None],
            self.log_q,
            self.temperature,
        )


def load_rows(model: SequenceModel, weights: State) -> None:
    """Takes over weights; the new rows of tables that have grown are zero. A rating head may be new, or left behind.

    Raises:
        UnusableModel: a weight is missing, of other sizes or one too many: the configs are not the same.
    """
    own_weights = model.state_dict()
    surplus = sorted(name for name in weights if name not in own_weights and not name.startswith(RATING_HEAD))
    if surplus:
        raise UnusableModel(
            f"The checkpoint has weights that this model lacks: {', '.join(surplus)}; "
            "train with the checkpoint's own sizes."
        )
    with torch.no_grad():
        for name, own in own_weights.items():
            given = weights.get(name)
            if given is None and name.startswith(RATING_HEAD):
                continue
            if given is None or not _fits(given, own):
                raise UnusableModel(
                    f"The weights {name} of the checkpoint do not fit: expected {tuple(own.shape)} or fewer rows, "
                    f"got {None if given is None else tuple(given.shape)}; train with the checkpoint's own sizes."
                )
            if own.dim() and len(given) < len(own):
                own[len(given) :] = 0.0  # a new item then is what its words and attributes say
                own[: len(given)] = given
            else:
                own.copy_(given)


def _fits(given: Tensor, own: Tensor) -> bool:
    """Whether the weights are as large, or fewer rows of a table."""
    if given.shape == own.shape:
        return True
    return given.dim() == own.dim() > 0 and given.shape[1:] == own.shape[1:] and len(given) < len(own)


def _mean_of_known(vectors: NDArray[Any]) -> Tensor:
    """(c,) of those that are not zero; zeros where all are."""
    known = vectors[vectors.any(axis=1)].astype(np.float32)
    return torch.from_numpy(known.mean(axis=0)) if len(known) else torch.zeros(vectors.shape[1])


def _check_content(features: TableFeatures, config: ModelConfig) -> None:
    for name, vectors, wanted in (
        ("content", features.content, config.content_dim),
        ("image", features.images, config.image_dim),
    ):
        given = 0 if vectors is None else vectors.shape[1]
        if given != wanted:
            raise ValueError(f"The items have {given} {name} dimensions, the model's config says {wanted}.")


def _target_weights(table: EventTable, config: TrainingConfig) -> Floats:
    """(types,) weight of predicting an event of each type."""
    weights = np.array([dict(config.type_weights).get(name, 1.0) for name in table.type_names], np.float32)
    if config.target_types:
        table.of_types(config.target_types)  # says which type does not exist
        weights[[name not in config.target_types for name in table.type_names]] = 0.0
    return weights


def _validation_queries(table: EventTable, queries: Queries, weights: Floats, config: TrainingConfig) -> Queries:
    """A fixed sample of those that the objective is about: new items of a target type, or rated ones.

    Where next to no event of the target types is one with a new item, as purchases follow views, repeats count.
    """
    kept = weights[table.types[queries.positions]] > 0
    if config.objective == "rating":
        kept &= np.isfinite(table.ratings()[queries.positions])
    else:
        new = kept & ~Histories.of(table, queries).contain(table.items[queries.positions])
        repetitive = new.sum() <= NEW_SHARE_MIN * kept.sum()
        kept = kept if config.target_types and repetitive else new
    rows = np.flatnonzero(kept)
    if not len(rows):
        raise UnusableData("No validation event is one to be predicted; the log is too short or too repetitive.")
    drawn = np.random.default_rng(VALIDATION_SEED).permutation(rows)[: config.validation_queries_max]
    return queries.take(np.sort(drawn))


def _ranking_metrics(users: Floats, items: Floats, table: EventTable, queries: Queries) -> dict[str, float]:
    """Of new targets among new items, of repeats among all."""
    ranks = np.empty(len(queries))
    repeats = Histories.of(table, queries).contain(table.items[queries.positions]).any()
    for first in range(0, len(queries), QUERIES_PER_BLOCK):
        rows = np.arange(first, min(first + QUERIES_PER_BLOCK, len(queries)))
        block = queries.take(rows)
        scores = users[rows] @ items.T  # (b, i)
        masked = Histories.none(len(block)) if repeats else Histories.of(table, block)
        ranks[rows] = rank(scores, table.items[block.positions], masked, list_length=0).ranks
    return dict(zip(FIGURES, ranking_figures(ranks).mean(axis=0).tolist(), strict=True))
