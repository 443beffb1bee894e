"""Which of two states of a training is the better one: figures of events that it does not learn from.

Sizes: q queries, i items, d dimensions.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.config import TrainingConfig
from encoder.dataset import EventTable, Queries
from encoder.encode import catalogue_vectors, user_vectors
from encoder.errors import UnusableData
from encoder.evaluate import rank_vectors
from encoder.features import TableFeatures
from encoder.metrics import FIGURES, Histories, ranking_figures
from encoder.model import SequenceModel
from encoder.report import Targets

Floats = NDArray[np.float32]

VALIDATION_SEED = 1
NEW_SHARE_MIN = 0.05
"""Of the validation events of target types; with fewer new items among them, repeats choose the model."""


class Validator:
    """A fixed sample of a table's validation events, and what they say of a model."""

    def __init__(
        self,
        table: EventTable,
        queries: Queries,
        features: TableFeatures,
        target_weights: Floats,
        config: TrainingConfig,
    ) -> None:
        """Draws the sample.

        Raises:
            UnusableData: none of the queries is one to be predicted.
        """
        self._table, self._features, self._config = table, features, config
        self.queries = _sample(table, queries, target_weights, config)
        """(q,) that are asked for at each validation."""
        repeats = Histories.of(table, self.queries).contain(table.items[self.queries.positions])
        self._targets: Targets = "all" if repeats.any() else "new"

    def score(self, model: SequenceModel) -> tuple[float, dict[str, float]]:
        """What chooses the model, higher is better, and all figures; NaN and none where its vectors are not finite.

        The score is NDCG@10, or minus the root of the mean squared error of ratings. The model is in evaluation mode
        after the call.
        """
        items = catalogue_vectors(model, self._features)
        users = user_vectors(model, self._features, self._table, self.queries, items)
        if not (np.isfinite(items).all() and np.isfinite(users).all()):
            return math.nan, {}
        if self._config.objective == "rating":
            rmse = self._rmse(model, users, items)
            return -rmse, {"rmse": rmse}
        ranks = rank_vectors(users, items, self._table, self.queries, self._targets)
        metrics = dict(zip(FIGURES, ranking_figures(ranks).mean(axis=0).tolist(), strict=True))
        return metrics["ndcg@10"], metrics

    @torch.inference_mode()
    def _rmse(self, model: SequenceModel, users: Floats, items: Floats) -> float:
        head, positions = model.rating_head(), self.queries.positions
        device, targets = head.mean.device, self._table.items[positions]
        rows = torch.from_numpy(targets.astype(np.int64)).to(device)
        vectors = (torch.from_numpy(array).to(device) for array in (users, items[targets]))
        ratings = head(*vectors, rows).cpu().numpy()
        return float(np.sqrt(np.mean(np.square(ratings - self._table.ratings()[positions]))))


def _sample(table: EventTable, queries: Queries, weights: Floats, config: TrainingConfig) -> Queries:
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
