"""What each remembered event adds to a user's cosine with an item, and what both would be without some of them.

Both speak of the events that a profile remembers (`Histories`), as a worker reads them when a new model comes into
service. Sizes: e events, R places of a history, k variants of it, i items, d dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from encoder.attribution import Attribution, attribute
from streams.core.histories import Histories, encoded_histories
from streams.core.ports import EncoderEvents

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streams.core.ports import Floats, ProfileEncoder


def events_of(history: Histories, item_vectors: Floats, type_weights: Floats) -> EncoderEvents:
    """The remembered events of one user as a model reads them.

    Raises:
        ValueError: the history is not of one user.
    """
    if len(history.counts) != 1:
        raise ValueError(f"expected the history of one user, got {len(history.counts)}: ask for each on its own")
    count = int(history.counts[0])
    types, times_s = history.types[0, :count], history.times_s[0, :count].astype(np.int64)
    latest_s = np.maximum.accumulate(times_s)
    gaps_s = np.zeros(count, np.float32)
    gaps_s[1:] = np.maximum(0, times_s[1:] - latest_s[:-1])
    return EncoderEvents(
        rows=np.zeros(count, np.int32),
        item_vectors=item_vectors[history.items[0, :count]],
        weights=type_weights[types],
        gaps_s=gaps_s,
        types=types,
        ratings=np.full(count, np.nan, np.float32),  # profiles do not keep them
    )


def event_effects(
    history: Histories,
    encoder: ProfileEncoder,
    item_vectors: Floats,
    type_weights: Floats,
    targets: Floats,
    start: Floats | None = None,
) -> Attribution:
    """What each event of one user adds to the cosines of the user's vector, encoded from these events, and items.

    Args:
        history: of one user, with e events.
        encoder: the model.
        item_vectors: (i, d) by catalogue slot, of the same model.
        type_weights: (codes,) how far an event of each type code moves a profile.
        targets: (n, d) unit vectors.
        start: (S,) where the user begins, as `core.user_facts.start_states` gives it; zeros when left out.

    Raises:
        ValueError: the history is not of one user.
        UnusableModel: nobody has said how a vector of this model is a sum over events.
    """
    return attribute(encoder, events_of(history, item_vectors, type_weights), targets, start)


def without(history: Histories, removed: NDArray[np.bool_]) -> Histories:
    """Variants of one user's history (k, R): the events marked in each row of `removed` (k, R) never happened.

    Raises:
        ValueError: the history is not of one user, or the marks have another width.
    """
    if len(history.counts) != 1 or removed.ndim != 2 or removed.shape[1] != history.items.shape[1]:
        raise ValueError(
            f"expected one history and marks of the shape (variants, {history.items.shape[1]}), got "
            f"{len(history.counts)} and {removed.shape}"
        )
    kept = (np.arange(removed.shape[1]) < history.counts[0]) & ~removed
    order = np.argsort(~kept, axis=1, kind="stable")
    counts = kept.sum(axis=1, dtype=np.int32)
    return Histories(history.items[0][order], history.types[0][order], history.times_s[0][order], counts)


def vectors_without(
    history: Histories,
    removed: NDArray[np.bool_],
    encoder: ProfileEncoder,
    item_vectors: Floats,
    type_weights: Floats,
    start: Floats | None = None,
) -> Floats:
    """(k, d) the user's vectors in each variant, begun at `start` (S,); raises ValueError as `without` does.

    Where no event is left they are those of the start: zeros, unless the model gives users with attributes a vector.
    """
    starts = None if start is None else np.tile(start, (len(removed), 1))
    return encoder.vectors(encoded_histories(without(history, removed), encoder, item_vectors, type_weights, starts))
