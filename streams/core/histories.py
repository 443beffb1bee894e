"""Recent items -> encoder states: what a profile is worth to a model that did not see its events.

Sizes: u users, R recent items, i items, d dimensions, S encoder state width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import EncoderEvents, Floats, ProfileEncoder, Slots

if TYPE_CHECKING:
    from streams.core.profile import ProfileColumns


class Histories(NamedTuple):
    """What attracted u users, oldest first, left-aligned."""

    items: Slots
    """(u, R) catalogue slots."""
    types: NDArray[np.uint8]
    """(u, R) event type codes."""
    times_s: NDArray[np.uint32]
    """(u, R) event times, epoch seconds."""
    counts: NDArray[np.int32]
    """(u,) how many of the R places are in use."""

    @classmethod
    def of(cls, columns: ProfileColumns, rows: Slots | slice = slice(None)) -> Histories:
        """Those of the rows: copies when rows are named one by one, else views."""
        return cls(
            columns.recent_items[rows],
            columns.recent_types[rows],
            columns.recent_times_s[rows],
            columns.recent_count[rows],
        )


def encoded_histories(
    histories: Histories,
    encoder: ProfileEncoder,
    item_vectors: Floats,
    type_weights: Floats,
    starts: Floats | None = None,
) -> Floats:
    """The states (u, S) of users who did this and nothing else. Each is a function of its own history and start alone.

    Args:
        histories: of u users; every item has a row in `item_vectors`.
        encoder: the model.
        item_vectors: (i, d) by catalogue slot, of the same model.
        type_weights: (codes,) how far an event of each type code moves a profile.
        starts: (u, S) states before the first event, of the same model; zeros when left out.
    """
    places = np.arange(histories.items.shape[1]) < histories.counts[:, None]
    rows, _ = np.nonzero(places)
    times_s = histories.times_s.astype(np.int64)
    gaps_s = np.zeros(times_s.shape, np.float32)
    latest_s = np.maximum.accumulate(np.where(places, times_s, 0), axis=1)
    gaps_s[:, 1:] = np.maximum(0, times_s[:, 1:] - latest_s[:, :-1])
    shape = (len(histories.counts), encoder.state_width)
    states = np.zeros(shape, np.float32) if starts is None else np.array(starts, np.float32).reshape(shape)
    encoder.step(
        states,
        EncoderEvents(
            rows=rows.astype(np.int32),
            item_vectors=item_vectors[histories.items[places]],
            weights=type_weights[histories.types[places]],
            gaps_s=gaps_s[places],
            types=histories.types[places],
            ratings=np.full(len(rows), np.nan, np.float32),  # profiles do not keep them
        ),
    )
    return states
