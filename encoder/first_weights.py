"""What a model begins with: another model's weights, or the means of what it is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoder.errors import UnusableModel
from encoder.features import TableFeatures
from encoder.model import SequenceModel

State = dict[str, Tensor]

RATING_HEAD = "rating."
"""Parameters that begin so belong to a task, not to what pre-training learned."""


def begin(
    model: SequenceModel, features: TableFeatures, ratings: NDArray[np.floating[Any]], start: State | None
) -> None:
    """Sets the model's first weights where chance does not.

    Args:
        model: of random weights; moved in place.
        features: what it is told, whose means it keeps.
        ratings: of the learnable events, NaN where an event is none.
        start: weights to go on from; None for a new model.

    Raises:
        UnusableModel: `start` does not fit.
    """
    if start is not None:
        load_rows(model, start)
    else:
        if features.content is not None:
            model.tower.content_mean.copy_(_mean_of_known(features.content))
        if features.images is not None:
            model.tower.image_mean.copy_(_mean_of_known(features.images))
    if model.rating is not None and (start is None or f"{RATING_HEAD}mean" not in start):
        known = ratings[np.isfinite(ratings)]
        model.rating.mean.fill_(float(known.mean()) if len(known) else 0.0)


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
