"""Encoders without training. Shapes: u users, e events, d dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from encoder.kernels import decayed_sums

Floats = NDArray[np.float32]

NORM_MIN = 1e-6
"""Below this a sum of unit vectors is rounding noise (float32 keeps 7 digits): it has no direction."""


class ProfileEvents(Protocol):
    """What `step` reads: events in the order they happened; several may belong to one user."""

    @property
    def rows(self) -> NDArray[np.int32]:
        """(e,) row of the user's state."""
        ...

    @property
    def item_vectors(self) -> Floats:
        """(e, d) unit vector of each event's item."""
        ...

    @property
    def weights(self) -> Floats:
        """(e,) how far the event moves the profile; negative repels."""
        ...

    @property
    def gaps_s(self) -> Floats:
        """(e,) seconds since the user's latest event before this one, 0 when late or first."""
        ...

    @property
    def types(self) -> NDArray[np.uint8]:
        """(e,) code of the event's type."""
        ...

    @property
    def ratings(self) -> Floats:
        """(e,) the value of a rating, NaN for an event of another type or without one."""
        ...


class EventColumns(NamedTuple):
    """`ProfileEvents` as plain columns."""

    rows: NDArray[np.int32]
    item_vectors: Floats
    weights: Floats
    gaps_s: Floats
    types: NDArray[np.uint8]
    ratings: Floats


class DecayedMean:
    """A profile is the weighted sum of item vectors, each halved every `half_life_s` seconds, then normalised.

    The state is the un-normalised sum (float32, width d). An event costs one multiply-add per dimension,
    whatever the length of the history. Batches are only a convenience: any split of the same events into
    batches gives the same states, bit for bit.
    """

    def __init__(self, dim: int, half_life_s: float) -> None:
        if dim < 1:
            raise ValueError(f"dim must be 1 or more, got {dim}.")
        if not (math.isfinite(half_life_s) and half_life_s > 0):
            raise ValueError(f"half_life_s must be a positive number of seconds, got {half_life_s}.")
        self._dim = dim
        self._half_life_s = float(half_life_s)

    @property
    def name(self) -> str:
        """Name and version of the model; a change of the formula changes the version."""
        return "decayed-mean@1"

    @property
    def dim(self) -> int:
        """Length d of a profile vector."""
        return self._dim

    @property
    def state_width(self) -> int:
        """Length of a state, here d; zeros are a user without history."""
        return self._dim

    def warm_up(self) -> None:
        """Compiles or loads the machine code of `step`, so that the first event is as fast as the next."""
        no_rows, no_values = np.zeros(0, np.int32), np.zeros(0, np.float32)
        no_vectors = np.zeros((0, self._dim), np.float32)
        decayed_sums(no_vectors, no_rows, no_vectors, no_values, no_values, self._half_life_s)

    def initial_states(self, attributes: Sequence[Sequence[str]]) -> Floats:
        """(u, d) zeros: nothing is known before the first event, whatever the attributes."""
        return np.zeros((len(attributes), self._dim), np.float32)

    def step(self, states: Floats, events: ProfileEvents) -> None:
        """Moves `states` (u, d) in place, one event after the other. All or nothing.

        Raises:
            ValueError: a shape does not fit, a row does not exist, a value is not finite or a gap is negative;
                the message names the event, and no state has changed.
        """
        check_states(states, self._dim, writeable=True)
        check_events(len(states), self._dim, events)
        decayed_sums(
            states,
            _plain(events.rows, np.int32),
            _plain(events.item_vectors, np.float32),
            _plain(events.weights, np.float32),
            _plain(events.gaps_s, np.float32),
            self._half_life_s,
        )

    def vectors(self, states: Floats) -> Floats:
        """Unit vectors (u, d) of `states`; exact zeros for a state without direction (norm below 1e-6).

        Raises:
            ValueError: the shape does not fit or a state is not finite; the message names the row.
        """
        check_states(states, self._dim)
        return unit_vectors(states)


def unit_vectors(sums: Floats) -> Floats:
    """(u, d) at unit length; exact zeros for a row without direction (norm below 1e-6).

    Raises:
        ValueError: a row is not finite; the message names it.
    """
    wide = sums.astype(np.float64)
    norms = np.sqrt(np.square(wide).sum(axis=1))
    _refuse("state", "is not finite", ~np.isfinite(norms))
    has_direction = norms >= NORM_MIN
    scales = np.divide(1.0, norms, out=np.zeros_like(norms), where=has_direction)
    unit: Floats = (wide * scales[:, None]).astype(np.float32)
    return unit


def check_states(states: Floats, width: int, *, writeable: bool = False) -> None:
    """Raises ValueError when the states have another shape than (users, width) or cannot be moved in place."""
    if states.ndim != 2 or states.shape[1] != width:
        raise ValueError(f"states must have the shape (users, {width}), got {states.shape}.")
    if writeable and not (states.flags.writeable and states.flags.c_contiguous and states.dtype == np.float32):
        raise ValueError("states must be a writeable C-contiguous float32 array, to be moved in place.")


def check_events(users: int, dim: int, events: ProfileEvents) -> None:
    """Raises ValueError, naming the event, when shapes differ, a row does not exist or a value is none."""
    rows, item_vectors, weights, gaps_s = events.rows, events.item_vectors, events.weights, events.gaps_s
    if rows.ndim != 1 or {weights.shape, gaps_s.shape, events.types.shape, events.ratings.shape} != {rows.shape}:
        raise ValueError(
            f"rows, weights, gaps_s, types and ratings must have one value per event, got the shapes {rows.shape}, "
            f"{weights.shape}, {gaps_s.shape}, {events.types.shape} and {events.ratings.shape}."
        )
    if item_vectors.shape != (len(rows), dim):
        raise ValueError(f"item_vectors must have the shape ({len(rows)}, {dim}), got {item_vectors.shape}.")
    _refuse("event", f"names a row outside 0..{users - 1}", (rows < 0) | (rows >= users))
    _refuse("event", "has an item vector that is not finite", ~np.isfinite(item_vectors).all(axis=1))
    _refuse("event", "has a weight that is not finite", ~np.isfinite(weights))
    _refuse("event", "has a gap that is negative or not finite", ~(np.isfinite(gaps_s) & (gaps_s >= 0)))
    _refuse("event", "has an infinite rating", np.isinf(events.ratings))


def _plain(values: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    # one layout, writeable or not, is one compiled kernel: a read-only view would compile a second one
    return np.require(values, dtype, ("C_CONTIGUOUS", "WRITEABLE"))


def _refuse(what: str, fault: str, bad: NDArray[np.bool_] | np.bool_) -> None:
    if bad.any():
        raise ValueError(f"{what} {int(bad.argmax())} of {bad.size} {fault}; mend or drop it before the call.")
