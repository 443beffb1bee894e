"""What a model folder tells people of its model: sizes, data, cost and how the training went. Reads no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encoder.checkpoint import read_manifest
from encoder.errors import UnusableModel


@dataclass(frozen=True, slots=True)
class TrainingLook:
    """One look at the validation queries during a training."""

    epoch: int
    step: int
    """Batches until then; 0 where the program that trained did not count them."""
    loss: float
    """Mean training loss since the look before."""
    metrics: dict[str, float]
    """Validation figures: ranks, or `rmse` for a model of ratings."""
    cpu_s: float
    is_best: bool


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A trained model in figures. What an older program did not write is None or empty."""

    name: str
    kind: str
    dim: int
    objective: str | None
    trained_at_s: int | None
    """Epoch seconds."""
    metrics: dict[str, float]
    """Validation figures of the weights that serve."""
    data: dict[str, Any] = field(default_factory=dict)
    """What it was trained on: source, protocol, events, users, items, last_time_s."""
    history: tuple[TrainingLook, ...] = ()
    """Oldest first."""


def read_card(folder: Path) -> ModelCard:
    """The card of the model that the folder holds now.

    Raises:
        UnusableModel: there is none, its manifest is damaged, or its figures are not readable.
    """
    manifest = read_manifest(folder)
    try:
        model, training = manifest["model"], manifest.get("training") or {}
        return ModelCard(
            name=f"{model['kind']}@{manifest['fingerprint']}",
            kind=str(model["kind"]),
            dim=int(model["dim"]),
            objective=training.get("objective"),
            trained_at_s=manifest.get("trained_at_s"),
            metrics=_numbers(manifest.get("metrics") or {}),
            data=dict(manifest.get("data") or {}),
            history=tuple(_look(seen) for seen in manifest.get("history") or ()),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableModel(f"What {folder} says of its model cannot be read ({error!r}): train again.") from error


def _look(seen: Mapping[str, Any]) -> TrainingLook:
    return TrainingLook(
        epoch=int(seen["epoch"]),
        step=int(seen["step"]),
        loss=float(seen["loss"]),
        metrics=_numbers(seen["metrics"]),
        cpu_s=float(seen["cpu_s"]),
        is_best=bool(seen["is_best"]),
    )


def _numbers(given: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in given.items()}
