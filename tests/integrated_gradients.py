"""captum's integrated gradients of the torch model, to judge the closed form by another method.

Two paths, both to the events as they were. `presence`: every event enters state and residual by a share that goes from
0 to 1 while the gates stay those of the history; norms and ReLUs move along it. `items`: from events without an item -
type, gap and rating stay - so that gates move too; an event then also gets what its gates did to all the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from captum.attr import IntegratedGradients
from numpy.typing import NDArray
from torch import Tensor

from encoder.baselines import ProfileEvents
from encoder.checkpoint import SavedModel
from encoder.features import event_features
from encoder.model import EventInputs, SequenceModel
from encoder.scan import linear_recurrence
from tests.fakes_encoder import torch_model

STEPS = 128


class Integrated(NamedTuple):
    """What captum found for one user and one item."""

    parts: NDArray[np.float64]
    """(e,) what each event adds."""
    cosine: float
    """At the end of the path: the model's own."""
    begin: float
    """At the beginning of the path."""


def along_items(saved: SavedModel, events: ProfileEvents, event_types: tuple[str, ...], target: Tensor) -> Integrated:
    """The path `items`."""
    model, (types, features) = torch_model(saved), _columns(saved, events, event_types)

    def cosines(item_vectors: Tensor) -> Tensor:
        b, t, d = item_vectors.shape
        rows, nobody = torch.arange(b * t).view(b, t), torch.zeros(b, 1, dtype=torch.long)
        inputs = EventInputs(rows, types.expand(b, t), features.expand(b, t, -1), nobody)
        users: Tensor = model(inputs, item_vectors.reshape(b * t, d))
        return users[:, -1] @ target

    items = torch.from_numpy(np.array(events.item_vectors))[None]
    return _integrated(cosines, items)


def along_presence(
    saved: SavedModel, events: ProfileEvents, event_types: tuple[str, ...], target: Tensor
) -> Integrated:
    """The path `presence`, for a model of one block."""
    model, (types, features) = torch_model(saved), _columns(saved, events, event_types)
    rows, nobody = torch.arange(len(types))[None], torch.zeros(1, 1, dtype=torch.long)
    vectors = torch.from_numpy(np.array(events.item_vectors))
    x = model._inputs(EventInputs(rows, types[None], features[None], nobody), vectors)  # (1, t, d)
    return _integrated(lambda presence: _present(model, x, presence) @ target, torch.ones(1, len(types), 1))


def _present(model: SequenceModel, x: Tensor, presence: Tensor) -> Tensor:
    """(b, d) the user's vectors when each event enters by its share (b, t, 1) of itself."""
    (block,) = model.blocks
    normed = block.mix_norm(x)
    decays = torch.sigmoid(block.mix.decay(normed)).expand(len(presence), -1, -1)
    entering = (1 - decays) * block.mix.value(normed) * presence
    states = linear_recurrence(decays.contiguous(), entering, torch.zeros(len(presence), entering.shape[-1]))
    y = x * presence + block.mix.out(states * F.silu(block.mix.gate(normed)))
    y = y + block.feed_out(F.relu(block.feed_in(block.feed_norm(y))))
    return F.normalize(model.projection(model.norm(y[:, -1])), dim=-1)


def _columns(saved: SavedModel, events: ProfileEvents, event_types: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    types = torch.from_numpy(saved.vocabulary.type_rows(event_types)[events.types])  # (t,)
    return types, torch.from_numpy(event_features(events.gaps_s, events.ratings))  # (t, features)


def _integrated(cosines: Callable[[Tensor], Tensor], at: Tensor) -> Integrated:
    parts = IntegratedGradients(cosines).attribute(at, n_steps=STEPS, internal_batch_size=STEPS)
    with torch.no_grad():
        cosine, begin = cosines(torch.cat([at, torch.zeros_like(at)])).tolist()
    return Integrated(parts.sum(-1)[0].detach().numpy().astype(np.float64), cosine, begin)


PATHS = {"items": along_items, "presence": along_presence}
