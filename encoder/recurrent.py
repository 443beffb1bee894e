"""Serving of the gated recurrence: states move by one multiply-add per event, without torch.

Sizes: u users, e events, d dimensions, h width of the recurrent state, f = 4 d, l blocks. The parameters are those of
`encoder.model.SequenceModel`; the state of a user is the recurrent state of each block, then the last output before it
is normalised: l h + d numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.baselines import EventColumns, ProfileEvents, check_events, check_states, unit_vectors
from encoder.config import SIZE_STEP, ModelConfig
from encoder.errors import UnusableModel
from encoder.features import EVENT_FEATURES, event_features
from encoder.kernels import compiled
from encoder.vocabulary import NO_ATTRIBUTE, UNKNOWN_TYPE, Vocabulary, mean_of_rows
from encoder.weights import WeightReader, Weights

Floats = NDArray[np.float32]

LAYER_NORM_EPSILON = np.float32(1e-5)
INPUTS_AT_ONCE = SIZE_STEP
TYPE_CODES = 256
"""Codes are bytes."""


class BlockWeights(NamedTuple):
    """One block, matrices as (inputs, outputs)."""

    mix_gain: Floats
    mix_shift: Floats
    gates: Floats
    """(d, 3 h): value, decay and gate side by side."""
    gates_bias: Floats
    out: Floats
    """(h, d)"""
    out_bias: Floats
    feed_gain: Floats
    feed_shift: Floats
    feed_in: Floats
    """(d, f)"""
    feed_in_bias: Floats
    feed_out: Floats
    """(f, d)"""
    feed_out_bias: Floats


class RecurrentEncoder:
    """Moves states by events, one after the other; any split of the same events gives the same states, bit for bit."""

    def __init__(
        self, config: ModelConfig, vocabulary: Vocabulary, weights: Weights, *, name: str, event_types: Sequence[str]
    ) -> None:
        """Prepares the parameters.

        Args:
            config: of a `gated-recurrence`.
            vocabulary: gives the rows of types and user attributes.
            weights: of the torch model, by their names there.
            name: published with every list.
            event_types: what the codes of `ProfileEvents.types` mean; a code beyond them is an unknown type.

        Raises:
            UnusableModel: the model is of another kind or reads other event features, or a weight is missing, of
                another shape or not finite.
        """
        if config.kind != "gated-recurrence":
            raise UnusableModel(f"Only a gated-recurrence can be served, this model is a {config.kind}.")
        if config.event_features != EVENT_FEATURES:
            raise UnusableModel(
                f"The model reads {config.event_features} event features, this program makes {EVENT_FEATURES}: "
                "train again."
            )
        take = WeightReader(weights)
        d, h = config.dim, config.width
        self._config, self._vocabulary, self._name = config, vocabulary, name
        self._blocks = tuple(_block(take, f"blocks.{block}.", d, h) for block in range(config.blocks))
        self._features = take.matrix("features.weight", config.event_features, d)
        self._types = take("types.weight", (len(vocabulary.types) + 1, d))
        self._people = (
            take("people.weight", (len(vocabulary.user_attributes) + 1, h)) if vocabulary.user_attributes else None
        )
        self._nothing = take("hidden_item", (d,)) if config.starts else None
        self._norm = (take("norm.weight", (d,)), take("norm.bias", (d,)))
        self._projection = take.matrix("projection.weight", d, d)
        self._type_rows = np.full(TYPE_CODES, UNKNOWN_TYPE)
        self._type_rows[: len(event_types)] = vocabulary.type_rows(event_types)

    @property
    def name(self) -> str:
        """Kind and fingerprint of the model."""
        return self._name

    @property
    def dim(self) -> int:
        """Length d of a profile vector."""
        return self._config.dim

    @property
    def state_width(self) -> int:
        """Length of a state: l h + d; zeros are a user without history of whom nothing is known."""
        return self._config.blocks * self._config.width + self._config.dim

    def warm_up(self) -> None:
        """Compiles or loads the machine code of `step`, so that the first event is as fast as the next."""
        states = np.zeros((1, self.state_width), np.float32)
        nobody, nothing = np.zeros(1, np.int32), np.zeros(1, np.float32)
        vectors = np.zeros((1, self.dim), np.float32)
        self.step(states, EventColumns(nobody, vectors, nothing + 1, nothing, np.zeros(1, np.uint8), nothing))

    def initial_states(self, attributes: Sequence[Sequence[str]]) -> Floats:
        """(u, state_width) states of users without history of whom these attribute tokens are known.

        Zeros where the model knows none of a user's tokens. The vector of such a state is zero too, unless the model
        was trained to give one (`starts`).
        """
        states = np.zeros((len(attributes), self.state_width), np.float32)
        if self._people is None:
            return states
        rows = self._vocabulary.user_attribute_rows(attributes)  # (u, a)
        start = mean_of_rows(self._people, rows)  # (u, h)
        memory = self._config.blocks * self._config.width
        states[:, :memory] = np.tile(start, self._config.blocks)
        told = np.flatnonzero((rows != NO_ATTRIBUTE).any(axis=1))
        if self._nothing is not None and len(told):
            after = states[told]
            self.step(after, self._no_events(len(told), self._nothing))
            states[told, memory:] = after[:, memory:]
        return states

    def _no_events(self, users: int, item: Floats) -> EventColumns:
        """What stands in the place of a first event: no item, type, time or rating."""
        return EventColumns(
            rows=np.arange(users, dtype=np.int32),
            item_vectors=np.tile(item, (users, 1)),
            weights=np.ones(users, np.float32),
            gaps_s=np.zeros(users, np.float32),
            types=np.full(users, TYPE_CODES - 1, np.uint8),
            ratings=np.full(users, np.nan, np.float32),
        )

    def step(self, states: Floats, events: ProfileEvents) -> None:
        """Moves `states` (u, state_width) in place, one event after the other. All or nothing.

        An event that repels or does not count (weight <= 0) moves nothing when training never saw its type.

        Raises:
            ValueError: a shape does not fit, a row does not exist, a value is not finite or a gap is negative;
                the message names the event, and no state has changed.
        """
        check_states(states, self.state_width, writeable=True)
        check_events(len(states), self.dim, events)
        types = self._type_rows[events.types]
        read = np.flatnonzero((types != UNKNOWN_TYPE) | (events.weights > 0))
        rows = np.require(events.rows[read], np.int32, ("C", "W"))
        is_last = np.zeros(len(read), np.bool_)
        # of the user's events in this batch only the last one's output is kept
        is_last[len(read) - 1 - np.unique(rows[::-1], return_index=True)[1]] = True
        features = event_features(events.gaps_s[read], events.ratings[read])
        inputs = np.empty((len(read), self.dim), np.float32)
        # one layout, writeable or not, is one compiled kernel; so are whole states, whatever their number
        vectors = np.require(events.item_vectors, np.float32, ("C", "W"))
        _embed(vectors, read, types, features, self._types, self._features, inputs)
        for number, block in enumerate(self._blocks):
            final = number == len(self._blocks) - 1
            _run_block(rows, is_last, final, inputs, states, number * self._config.width, *block)
        _project(rows, is_last, inputs, *self._norm, self._projection, states)

    def vectors(self, states: Floats) -> Floats:
        """Unit vectors (u, d) of `states`; exact zeros for a user without events.

        Raises:
            ValueError: the shape does not fit or a state is not finite; the message names the row.
        """
        check_states(states, self.state_width)
        return unit_vectors(states[:, -self.dim :])


def _block(take: WeightReader, prefix: str, d: int, h: int) -> BlockWeights:
    gates = [take.matrix(f"{prefix}mix.{gate}.weight", d, h) for gate in ("value", "decay", "gate")]
    biases = [take(f"{prefix}mix.{gate}.bias", (h,)) for gate in ("value", "decay", "gate")]
    return BlockWeights(
        mix_gain=take(f"{prefix}mix_norm.weight", (d,)),
        mix_shift=take(f"{prefix}mix_norm.bias", (d,)),
        gates=np.ascontiguousarray(np.concatenate(gates, axis=1)),
        gates_bias=np.concatenate(biases),
        out=take.matrix(f"{prefix}mix.out.weight", h, d),
        out_bias=take(f"{prefix}mix.out.bias", (d,)),
        feed_gain=take(f"{prefix}feed_norm.weight", (d,)),
        feed_shift=take(f"{prefix}feed_norm.bias", (d,)),
        feed_in=take.matrix(f"{prefix}feed_in.weight", d, 4 * d),
        feed_in_bias=take(f"{prefix}feed_in.bias", (4 * d,)),
        feed_out=take.matrix(f"{prefix}feed_out.weight", 4 * d, d),
        feed_out_bias=take(f"{prefix}feed_out.bias", (d,)),
    )


# The kernels add in a fixed order, an event for itself, so that neither the batch nor a library's choice of algorithm
# changes a bit. A row of a matrix per input keeps the inner loops contiguous: they become vector instructions.


@compiled
def _embed(item_vectors, read, types, features, type_table, feature_matrix, inputs):  # type: ignore[no-untyped-def]
    """inputs[e] = sqrt(d) item + type + W features."""
    d = inputs.shape[1]
    scale = np.float32(math.sqrt(d))
    for e in range(len(read)):
        x, item, kind = inputs[e], item_vectors[read[e]], type_table[types[read[e]]]
        for axis in range(d):
            x[axis] = item[axis] * scale + kind[axis]
        _add_product(x, features[e], feature_matrix)


@compiled
def _add_product(total, vector, matrix):  # type: ignore[no-untyped-def]
    """total += vector @ matrix, input after input; four at once, so that a total is loaded and stored once for them."""
    for i in range(0, len(vector), INPUTS_AT_ONCE):
        v0, v1, v2, v3 = vector[i], vector[i + 1], vector[i + 2], vector[i + 3]
        m0, m1, m2, m3 = matrix[i], matrix[i + 1], matrix[i + 2], matrix[i + 3]
        for j in range(len(total)):
            total[j] = (((total[j] + v0 * m0[j]) + v1 * m1[j]) + v2 * m2[j]) + v3 * m3[j]


@compiled
def _layer_norm(x, gain, shift, y):  # type: ignore[no-untyped-def]
    d = len(x)
    mean = np.float32(0.0)
    for axis in range(d):
        mean += x[axis]
    mean /= np.float32(d)
    variance = np.float32(0.0)
    for axis in range(d):
        variance += (x[axis] - mean) * (x[axis] - mean)
    scale = np.float32(1.0) / np.sqrt(variance / np.float32(d) + LAYER_NORM_EPSILON)
    for axis in range(d):
        y[axis] = (x[axis] - mean) * scale * gain[axis] + shift[axis]


@compiled
def _run_block(  # type: ignore[no-untyped-def]
    rows,
    is_last,
    final,
    inputs,
    states,
    first,
    mix_gain,
    mix_shift,
    gates,
    gates_bias,
    out,
    out_bias,
    feed_gain,
    feed_shift,
    feed_in,
    feed_in_bias,
    feed_out,
    feed_out_bias,
):
    """Moves the block's memory, `states` from column `first` on, by all events and makes its outputs of `inputs`.

    Of the final block only the users' last outputs are made.
    """
    d, h = inputs.shape[1], len(out)
    one = np.float32(1.0)
    normed = np.empty(d, np.float32)
    z = np.empty(3 * h, np.float32)
    hidden = np.empty(feed_in.shape[1], np.float32)
    gated = np.empty(h, np.float32)
    for e in range(len(rows)):
        x, state = inputs[e], states[rows[e], first : first + h]
        _layer_norm(x, mix_gain, mix_shift, normed)
        z[:] = gates_bias
        _add_product(z, normed, gates)
        for k in range(h):
            keep = one / (one + np.exp(-z[h + k]))
            state[k] = keep * state[k] + (one - keep) * z[k]
        if final and not is_last[e]:
            continue
        for k in range(h):
            gate = z[2 * h + k]
            gated[k] = state[k] * gate / (one + np.exp(-gate))
        for axis in range(d):
            x[axis] += out_bias[axis]
        _add_product(x, gated, out)
        _layer_norm(x, feed_gain, feed_shift, normed)
        hidden[:] = feed_in_bias
        _add_product(hidden, normed, feed_in)
        for k in range(len(hidden)):
            hidden[k] = max(hidden[k], np.float32(0.0))
        for axis in range(d):
            x[axis] += feed_out_bias[axis]
        _add_product(x, hidden, feed_out)


@compiled
def _project(rows, is_last, inputs, gain, shift, projection, states):  # type: ignore[no-untyped-def]
    """The last d columns of a state = P layer_norm(x) of the user's last event."""
    d, width = inputs.shape[1], states.shape[1]
    normed = np.empty(d, np.float32)
    for e in range(len(rows)):
        if is_last[e]:
            _layer_norm(inputs[e], gain, shift, normed)
            y = states[rows[e], width - d : width]
            y[:] = np.float32(0.0)
            _add_product(y, normed, projection)
