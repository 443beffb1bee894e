"""Judges the product's model beside baselines on a log, by full ranking."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from encoder.classical import LearnsValidation, VectorUserKnn, standard_baselines
from encoder.config import Kind, ModelConfig, TrainingConfig
from encoder.dataset import EventTable
from encoder.errors import EncoderError
from encoder.evaluate import Recommender, evaluate
from encoder.inference import encoder_of
from encoder.report import Report, Targets, peak_memory_mb
from encoder.served import ServedModel
from encoder.train import Progress, Validation
from encoder.trained import TrainedModel
from encoder.training_folder import TextVectors
from streams.core.errors import UsageError
from streams.train import SPLITS, read_model

Protocol = Literal["loo", "timeline"]
Factory = Callable[[int], Recommender]
USER_KNN = "user-knn over {}"


@dataclass(frozen=True, slots=True)
class EvaluatePlan:
    """What the person asked for."""

    protocol: Protocol
    targets: Targets = "new"
    types: tuple[str, ...] = ()
    saved: Path | None = None
    """Judge this model folder as it is; otherwise models are trained for each seed."""
    kinds: tuple[Kind, ...] = ("gated-recurrence",)
    model: ModelConfig = field(default_factory=ModelConfig)
    config: TrainingConfig = field(default_factory=TrainingConfig)
    seeds: tuple[int, ...] = (0,)
    ids_only: bool = False
    """Also a model that reads neither texts nor attributes."""
    user_knn: bool = True
    baselines: bool = True


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told what happens."""

    on_progress: Callable[[Progress], None] = lambda _: None
    on_validated: Callable[[Validation], None] = lambda _: None
    on_queries: Callable[[str, int, int], None] = lambda _model, _done, _total: None


def known_items(plan: EvaluatePlan) -> list[str]:
    """The items of the saved model, which must keep their rows.

    Raises:
        UsageError: there is no such model, or it cannot be read.
    """
    return [] if plan.saved is None else read_model(plan.saved).vocabulary.items


def evaluate_log(plan: EvaluatePlan, table: EventTable, texts: TextVectors | None, listeners: Listeners) -> Report:
    """The table of results, the product's own rows first.

    Raises:
        UsageError: the log cannot be split so, nothing is left to be asked, or the model folder cannot be used.
    """
    try:
        split = SPLITS[plan.protocol](table)
        contestants = _contestants(plan, table, texts, listeners)
        return evaluate(
            contestants,
            table,
            split,
            cpu_clock=time.process_time,
            seeds=plan.seeds,
            targets=plan.targets,
            types=plan.types or None,
            item_vectors=None if texts is None else texts.vectors,
            resident_mb=peak_memory_mb,
            progress=listeners.on_queries,
        )
    except EncoderError as error:
        raise UsageError(str(error)) from error


def _contestants(
    plan: EvaluatePlan, table: EventTable, texts: TextVectors | None, listeners: Listeners
) -> list[Recommender | Factory]:
    contestants: list[Recommender | Factory] = []
    if plan.saved is not None:
        served = ServedModel(encoder_of(read_model(plan.saved), table.type_names))
        contestants.append(served)
        if plan.user_knn:
            contestants.append(LearnsValidation(VectorUserKnn(served.users, name=USER_KNN.format(served.name))))
    else:
        contestants += _trained(plan, texts, listeners)
    if plan.baselines:
        contestants += standard_baselines(table)
    return contestants


def _trained(plan: EvaluatePlan, texts: TextVectors | None, listeners: Listeners) -> list[Recommender | Factory]:
    """A factory per kind, and the neighbours over the vectors of the first kind."""
    arms = [_Arm(plan, kind, texts, listeners) for kind in plan.kinds]
    contestants: list[Recommender | Factory] = [arm.train for arm in arms]
    if plan.user_knn:
        contestants.insert(1, arms[0].neighbours)
    if plan.ids_only:
        contestants.append(_Arm(plan, plan.kinds[0], None, listeners, ids_only=True).train)
    return contestants


class _Arm:
    """One kind of model, trained once for each seed."""

    def __init__(
        self, plan: EvaluatePlan, kind: Kind, texts: TextVectors | None, listeners: Listeners, *, ids_only: bool = False
    ) -> None:
        self._plan, self._texts, self._listeners, self._ids_only = plan, texts, listeners, ids_only
        self._model = replace(plan.model, kind=kind, content_dim=0 if texts is None else texts.vectors.shape[1])
        self._models: dict[int, TrainedModel] = {}

    def train(self, seed: int) -> Recommender:
        """A model of this seed, not yet trained."""
        self._models[seed] = TrainedModel(
            self._model,
            replace(self._plan.config, seed=seed),
            None if self._texts is None else self._texts.vectors,
            name=f"{self._model.kind}, ids only" if self._ids_only else None,
            ids_only=self._ids_only,
            on_progress=self._listeners.on_progress,
            on_validated=self._listeners.on_validated,
        )
        return self._models[seed]

    def neighbours(self, seed: int) -> Recommender:
        """Neighbours over the vectors of the model of this seed, which was trained before."""
        return LearnsValidation(VectorUserKnn(self._models[seed].users, name=USER_KNN.format(self._model.kind)))


def mean_rows(report: Report, figures: Sequence[str]) -> list[tuple[str, int, int, list[float], float]]:
    """Model, seeds, queries, mean figures and mean CPU seconds, in the order of the report."""
    models = dict.fromkeys(row.model for row in report.rows)
    rows = []
    for model in models:
        own = [row for row in report.rows if row.model == model]
        cpu_s = sum(row.cpu_fit_s + row.cpu_score_s for row in own) / len(own)
        rows.append((model, len(own), own[0].n, [report.mean(model, figure) for figure in figures], cpu_s))
    return rows
