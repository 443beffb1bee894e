"""The loss of a batch: next and hidden events against sampled items, or the next rating.

Sizes: b users, t events, n predictions, d dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoder.batches import Batch, NegativeSampler
from encoder.config import TrainingConfig
from encoder.dataset import EventTable
from encoder.features import TableFeatures
from encoder.losses import sampled_softmax
from encoder.model import EventInputs, SequenceModel
from encoder.vocabulary import NO_ATTRIBUTE

Floats = NDArray[np.float32]

WEIGHT_MIN = 1e-6


def target_weights(table: EventTable, config: TrainingConfig) -> Floats:
    """(types,) weight of predicting an event of each type."""
    weights = np.array([dict(config.type_weights).get(name, 1.0) for name in table.type_names], np.float32)
    if config.target_types:
        table.of_types(config.target_types)  # says which type does not exist
        weights[[name not in config.target_types for name in table.type_names]] = 0.0
    return weights


class Objective:
    """What one model is to learn of one table."""

    def __init__(
        self,
        model: SequenceModel,
        features: TableFeatures,
        sampler: NegativeSampler,
        target_weights: Floats,
        config: TrainingConfig,
    ) -> None:
        """Takes the parts.

        Args:
            model: on the device where the losses are computed.
            features: of the table whose batches come.
            sampler: draws what is compared with.
            target_weights: (types,) what predicting an event of each type of the table counts.
            config: says which objective.
        """
        self._model, self._features, self._sampler = model, features, sampler
        self._target_weights, self._config = target_weights, config
        self._device = next(model.parameters()).device

    def loss(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """A scalar with its gradient; `rng` draws negatives and what is hidden."""
        return self._rating_loss(batch, rng) if self._config.objective == "rating" else self._ranking_loss(batch, rng)

    def _ranking_loss(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """Next event, and the hidden events themselves, against sampled items."""
        config, real = self._config, batch.targets >= 0  # (b, t)
        negatives, log_q = self._sampler.draw(config.negatives, rng)
        masked = rng.random(real.shape) < config.masked_share if config.masked_share else None
        rows, places = np.unique(
            np.concatenate([batch.items.ravel(), batch.targets[real], negatives]), return_inverse=True
        )
        inputs, positives, others = np.split(places, [batch.items.size, batch.items.size + int(real.sum())])
        vectors = self._item_vectors(rows)  # (distinct items, d)
        events = self._events(batch, inputs, masked, rng)
        users = self._model(events, vectors)  # (b, t, d)
        against = _Against(self._tensor(others), self._tensor(log_q), self._model.config.temperature)
        each = against.loss(users[self._tensor(real)], vectors, self._tensor(positives))  # (n,)
        weights = self._tensor(self._target_weights[batch.target_types[real]])  # (n,)
        if self._model.config.starts:
            told = (events.attributes != NO_ATTRIBUTE).any(dim=1)  # (b,)
            first = against.loss(self._model.starts(events.attributes[told]), vectors, events.items[told, 0])
            each = torch.cat([each, first])
            weights = torch.cat([weights, self._tensor(self._target_weights[batch.types[:, 0]])[told]])
        loss = (each * weights).sum() / weights.sum().clamp(min=WEIGHT_MIN)
        if masked is None or not (masked & real).any():
            return loss
        guessed = self._tensor(masked & real)
        return loss + config.masked_share * against.loss(users[guessed], vectors, events.items[guessed]).mean()

    def _rating_loss(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """Squared error of the next event's rating, where it has one."""
        rated = np.isfinite(batch.target_ratings)  # (b, t)
        rows, places = np.unique(np.concatenate([batch.items.ravel(), batch.targets[rated]]), return_inverse=True)
        inputs, targets = np.split(places, [batch.items.size])
        vectors = self._item_vectors(rows)
        users = self._model(self._events(batch, inputs, None, rng), vectors)[self._tensor(rated)]  # (n, d)
        ratings = self._model.rating_head()(
            users, vectors[self._tensor(targets)], self._tensor(batch.targets[rated])
        )  # (n,)
        return torch.square(ratings - self._tensor(batch.target_ratings[rated])).sum() / max(1, int(rated.sum()))

    def _events(
        self, batch: Batch, inputs: NDArray[np.intp], masked: NDArray[np.bool_] | None, rng: np.random.Generator
    ) -> EventInputs:
        hidden = rng.random(len(batch.users)) < self._config.attribute_dropout
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
        vectors: Tensor = self._model.tower(
            self._tensor(rows), content, self._tensor(self._features.item_attributes[rows]), images
        )
        return vectors

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
