"""What the core asks of the encoder and of the index, and nothing more. Shapes: u users, e events, d dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from index import IndexStats, RecallReport

Floats = NDArray[np.float32]
Slots = NDArray[np.int32]


class EncoderEvents(NamedTuple):
    """Events in the order they happened; several may belong to one user."""

    rows: Slots
    """(e,) row of the user's state."""
    item_vectors: Floats
    """(e, d) unit vector of each event's item."""
    weights: Floats
    """(e,) how far the event moves the profile; negative repels."""
    gaps_s: Floats
    """(e,) seconds since the user's latest event before this one, 0 when late or first."""
    types: NDArray[np.uint8]
    """(e,) `EventType.code`."""
    ratings: Floats
    """(e,) the value of a rating, NaN for an event of another type or without one."""


class ProfileEncoder(Protocol):
    """Moves user states by events. Pure: the same calls give the same states on every machine."""

    @property
    def name(self) -> str:
        """Name and version, as published in `profile.model`."""
        ...

    @property
    def dim(self) -> int:
        """Length d of a profile vector."""
        ...

    @property
    def state_width(self) -> int:
        """Length of one user's state; a state of zeros is a user without history."""
        ...

    def step(self, states: Floats, events: EncoderEvents) -> None:
        """Moves `states` (u, state_width) in place, one event after the other."""
        ...

    def vectors(self, states: Floats) -> Floats:
        """The profile vectors (u, d): unit length, or zeros for a user without direction."""
        ...


class ItemEncoder(Protocol):
    """Gives an item its vector, from its words when it has any."""

    @property
    def dim(self) -> int:
        """Length d of a vector."""
        ...

    def encode(
        self, item_ids: Sequence[str], descriptions: Sequence[str], attributes: Sequence[Sequence[str]]
    ) -> Floats:
        """Unit vectors (n, d). Of whom nothing is known gets a random direction seeded by the id."""
        ...


class Matches(Protocol):
    """Search results, best first. Both (queries, k); short rows are padded with None and NaN."""

    @property
    def ids(self) -> NDArray[np.object_]:
        """The ids as they were given to `upsert`."""
        ...

    @property
    def similarities(self) -> Floats:
        """Cosines."""
        ...


class WatchedIndex(Protocol):
    """What its health is read from."""

    def stats(self) -> IndexStats:
        """The figures that cost nothing to read; from any thread."""
        ...

    def check_recall(self, queries: int, *, rng: np.random.Generator) -> RecallReport:
        """Searches for stored vectors and compares with the exact answer, in any thread beside the writer's."""
        ...


class VectorIndex(WatchedIndex, Protocol):
    """Cosine neighbours over vectors that move."""

    def upsert(self, ids: Sequence[int], vectors: Floats) -> object:
        """Adds or moves; the next search sees it."""
        ...

    def remove(self, ids: Sequence[int]) -> object:
        """Takes ids out; unknown ones are left alone."""
        ...

    def forget(self, ids: Sequence[str | int]) -> object:
        """Takes ids out so that no byte of their vectors stays behind."""
        ...

    def search(self, vectors: Floats, k: int) -> Matches:
        """The k nearest of each row."""
        ...

    def ids(self) -> Sequence[str | int]:
        """All that are there."""
        ...

    def close(self) -> None:
        """Ends what runs in the background; answers go on."""
        ...

    def __len__(self) -> int: ...
