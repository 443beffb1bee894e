"""A sequence model that is trained when it is fitted: the served kind and its yardsticks in one table of results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from encoder.config import ModelConfig, TrainingConfig
from encoder.dataset import EventTable, Queries, Split
from encoder.encode import catalogue_vectors, user_vectors
from encoder.features import TableFeatures
from encoder.train import Progress, Trainer, Validation
from encoder.vocabulary import Vocabulary

Floats = NDArray[np.float32]


def can_start(model: ModelConfig, config: TrainingConfig, table: EventTable) -> bool:
    """Whether first events can be predicted from the attributes of users alone."""
    return model.kind == "gated-recurrence" and config.objective == "next-item" and any(table.user_attributes)


class TrainedModel:
    """Trains on `fit`; scores by cosine of the user's vector just before a query and the items' vectors."""

    def __init__(
        self,
        model: ModelConfig,
        config: TrainingConfig,
        content: Floats | None,
        *,
        name: str | None = None,
        ids_only: bool = False,
        on_progress: Callable[[Progress], None] = lambda _: None,
        on_validated: Callable[[Validation], None] = lambda _: None,
    ) -> None:
        """Nothing is trained yet.

        Args:
            model: kind and sizes; `content_dim` must be the width of `content`.
            config: how to train; its seed counts.
            content: (i, c) text vectors of the table's items, None for a model without.
            name: stands in the report, by default the kind.
            ids_only: attributes are not read either.
            on_progress: called after each batch.
            on_validated: called after each validation.
        """
        self.name = name or model.kind
        self._model, self._config, self._content = model, config, content
        self._on_progress, self._on_validated, self._ids_only = on_progress, on_validated, ids_only

    def fit(self, table: EventTable, split: Split) -> None:
        """Trains, and keeps the weights of the best validation."""
        vocabulary = Vocabulary.of(table)
        if self._ids_only:
            vocabulary = replace(vocabulary, item_attributes=[], user_attributes=[])
        self._features = TableFeatures.of(table, vocabulary, self._content)
        starts = not self._ids_only and can_start(self._model, self._config, table)
        model = replace(self._model, starts=starts)
        trainer = Trainer(table, split, vocabulary, self._features, model, self._config)
        trainer.run(self._on_progress, self._on_validated)
        self._trained = trainer.model
        self.items = catalogue_vectors(trainer.model, self._features)  # (i, d)

    def users(self, table: EventTable, queries: Queries) -> Floats:
        """(q, d) unit vectors of the users just before each query."""
        return user_vectors(self._trained, self._features, table, queries, self.items)

    def scores(self, table: EventTable, queries: Queries) -> Floats:
        """(q, i) cosines."""
        return self.users(table, queries) @ self.items.T
