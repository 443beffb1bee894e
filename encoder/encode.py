"""A trained torch model over a whole table: the catalogue's vectors, and users' vectors where they are asked for."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoder.dataset import EventTable, Queries
from encoder.features import TableFeatures
from encoder.model import EventInputs, SequenceModel

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

ITEMS_PER_BLOCK = 8192
EVENTS_PER_BLOCK = 16_384


@torch.inference_mode()
def catalogue_vectors(model: SequenceModel, features: TableFeatures) -> Floats:
    """(i, d) unit vectors of all items of a table."""
    model.eval()
    device = next(model.parameters()).device
    blocks = []
    for first in range(0, len(features.item_attributes), ITEMS_PER_BLOCK):
        rows = np.arange(first, min(first + ITEMS_PER_BLOCK, len(features.item_attributes)))
        items, attributes = _tensor(features.items[rows], device), _tensor(features.item_attributes[rows], device)
        content = None if features.content is None else _tensor(features.content[rows], device)
        images = None if features.images is None else _tensor(features.images[rows], device).float()
        blocks.append(model.tower(items, content, attributes, images).cpu().numpy())
    return np.concatenate(blocks)


@torch.inference_mode()
def user_vectors(
    model: SequenceModel, features: TableFeatures, table: EventTable, queries: Queries, items: Floats
) -> Floats:
    """(q, d) unit vectors of the users just before each query's position, from their newest `history_max` events.

    Args:
        model: in any mode; it is in evaluation mode after the call.
        features: of the same table.
        table: the events.
        queries: the positions.
        items: (i, d) as from `catalogue_vectors`.
    """
    model.eval()
    device = next(model.parameters()).device
    vectors = torch.from_numpy(items).to(device)
    lengths = np.minimum(queries.positions - table.offsets[queries.users], model.config.history_max)
    found = np.empty((len(queries), model.config.dim), np.float32)
    order = np.argsort(lengths, kind="stable")
    for rows in _blocks(order, lengths):
        windows = _windows(queries.positions[rows], lengths[rows])  # (b, t)
        real = windows >= 0
        events = EventInputs(
            items=_tensor(np.where(real, table.items[windows], 0).astype(np.int64), device),
            types=_tensor(np.where(real, features.types[table.types[windows]], 0), device),
            features=_tensor(np.where(real[..., None], features.events[windows], np.float32(0)), device),
            attributes=_tensor(features.user_attributes[queries.users[rows]], device),
        )
        users = model(events, vectors)  # (b, t, d)
        last = torch.from_numpy(lengths[rows] - 1).to(device)
        found[rows] = users[torch.arange(len(rows), device=device), last].cpu().numpy()
    return found


def _windows(positions: Ints, lengths: Ints) -> Ints:
    """(b, t) rows of the table, -1 behind the end of a history."""
    places = np.arange(int(lengths.max()))
    return np.where(places < lengths[:, None], (positions - lengths)[:, None] + places, -1)


def _blocks(order: Ints, lengths: Ints) -> list[Ints]:
    """Queries of similar length together, so many that their padded events fit a block."""
    blocks, first = [], 0
    while first < len(order):
        end = first + 1
        while end < len(order) and (end + 1 - first) * lengths[order[end]] <= EVENTS_PER_BLOCK:
            end += 1
        blocks.append(order[first:end])
        first = end
    return blocks


def _tensor(values: NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device)
