"""How much each past event adds to the cosine of a user and an item, in closed form.

Sizes: e events, n items asked for, d dimensions, h width of the recurrent state, f = 4 d.

The rule for every model: what depends on the events but is no sum over them is held at the value that it has for this
history. For the decayed mean that is the length of the sum; for the gated recurrence the gates, the deviations of each
LayerNorm, which ReLUs are open, and the length of the output. The held model is affine in the events, and at this
history it is the model itself, so that the parts sum to the cosine. This is the rule under which layer-wise relevance
propagation conserves its sum through normalisation and gates (Ali et al. 2022, Arras et al. 2017).

A part says what the event adds to the cosine as it is. What the cosine would be without the event is another question:
then the gates of the next event see a longer gap, and what remains is normalised anew. That one is answered by encoding
the history without it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.baselines import NORM_MIN, DecayedMean, ProfileEvents, check_events
from encoder.errors import UnusableModel
from encoder.features import event_features
from encoder.recurrent import LAYER_NORM_EPSILON, BlockWeights, RecurrentEncoder
from encoder.vocabulary import UNKNOWN_TYPE

Doubles = NDArray[np.float64]


class Attribution(NamedTuple):
    """The cosines of one user and n items as sums over what made them."""

    events: Doubles
    """(n, e) what each event adds; 0 for an event that the model does not read."""
    start: Doubles
    """(n,) what the state before the first event adds."""
    constant: Doubles
    """(n,) what the model's biases add whatever the events are."""

    @property
    def cosines(self) -> Doubles:
        """(n,) the sums: the cosines that are served, to 1e-5; zeros for a user without direction."""
        total: Doubles = self.events.sum(axis=1) + self.start + self.constant
        return total


def attribute(
    encoder: object, events: ProfileEvents, targets: NDArray[np.floating], start: NDArray[np.floating] | None = None
) -> Attribution:
    """Splits the cosines of one user and some items.

    Args:
        encoder: a `DecayedMean` or a `RecurrentEncoder` of any number of blocks.
        events: all events of one user since `start`, in the order they happened; every row is 0.
        targets: (n, d) unit vectors of the items.
        start: (state_width,) the state before the first event; zeros by default.

    Raises:
        UnusableModel: the encoder is of another kind: nobody has said how it is a sum over events.
        ValueError: a shape does not fit, an event is of another user, or a value is not finite.
    """
    if not isinstance(encoder, DecayedMean | RecurrentEncoder):
        raise UnusableModel(
            f"The cosines of a {type(encoder).__name__} cannot be split by event: expected a decayed mean or a gated "
            "recurrence; compare its vectors with and without an event instead."
        )
    check_events(1, encoder.dim, events)
    begin = np.zeros(encoder.state_width) if start is None else start.astype(np.float64)
    if begin.shape != (encoder.state_width,) or not np.isfinite(begin).all():
        raise ValueError(f"start must be a finite state of the shape ({encoder.state_width},), got {begin.shape}.")
    if targets.ndim != 2 or targets.shape[1] != encoder.dim or not np.isfinite(targets).all():
        raise ValueError(f"targets must be finite vectors of the shape (items, {encoder.dim}), got {targets.shape}.")
    wide = targets.astype(np.float64)
    if isinstance(encoder, DecayedMean):
        return _of_mean(encoder, events, wide, begin)
    return _of_recurrence(encoder, events, wide, begin)


def _nothing(items: int, events: int) -> Attribution:
    return Attribution(np.zeros((items, events)), np.zeros(items), np.zeros(items))


def _of_mean(encoder: DecayedMean, events: ProfileEvents, targets: Doubles, start: Doubles) -> Attribution:
    """A state is 2^(-age / half-life) weight item, summed, and what is left of the start."""
    ages_s = np.cumsum(events.gaps_s[::-1], dtype=np.float64)[::-1]  # of the state before each event
    kept = 2.0 ** (-np.append(ages_s, 0.0) / encoder._half_life_s)  # (e + 1,)
    parts = (kept[1:] * events.weights)[:, None] * events.item_vectors  # (e, d)
    left = kept[0] * start
    length = np.linalg.norm(parts.sum(axis=0) + left)
    if length < NORM_MIN:
        return _nothing(len(targets), len(parts))
    return Attribution(targets @ parts.T / length, targets @ left / length, np.zeros(len(targets)))


def _of_recurrence(encoder: RecurrentEncoder, events: ProfileEvents, targets: Doubles, start: Doubles) -> Attribution:
    found = _nothing(len(targets), len(events.rows))
    read = np.flatnonzero((encoder._type_rows[events.types] != UNKNOWN_TYPE) | (events.weights > 0))
    if not len(read):  # then the last output, which the state ends with, is still that of the start
        output = start[-encoder.dim :]
        found.start[:] = targets @ output / max(float(np.linalg.norm(output)), NORM_MIN)
        return found
    x, width, traces = _inputs(encoder, events, read), encoder._config.width, []
    for number, weights in enumerate(encoder._blocks):
        trace = _Trace(weights, x, start[number * width : (number + 1) * width])
        traces.append(trace)
        x = trace.outputs
    gain, shift = encoder._norm
    normed, scale = _layer_norm(x[-1:], gain, shift)  # (1, d)
    length = np.linalg.norm(normed @ encoder._projection)
    if length < NORM_MIN:
        return found
    to_normed = targets @ encoder._projection.T / length  # (n, d)
    found.constant[:] = to_normed @ shift
    to_x = np.zeros((len(targets), *x.shape))  # (n, e, d) how the cosine changes with each output, all else held
    to_x[:, -1] = _through_norm(to_normed, gain, scale)
    for trace in reversed(traces[1:]):
        to_x = trace.pass_back(to_x, found)
    found.events[:, read] = traces[0].split(to_x, found)
    return found


def _inputs(encoder: RecurrentEncoder, events: ProfileEvents, read: NDArray[np.intp]) -> Doubles:
    """(e, d) sqrt(d) item + type + W features, of the events that are read."""
    features = event_features(events.gaps_s[read], events.ratings[read])
    types = encoder._types[encoder._type_rows[events.types[read]]]
    scaled = math.sqrt(encoder.dim) * events.item_vectors[read].astype(np.float64)
    inputs: Doubles = scaled + types + features @ encoder._features.astype(np.float64)
    return inputs


class _Trace:
    """One block over one history, and the way back through it with gates, deviations and open ReLUs held."""

    def __init__(self, weights: BlockWeights, x: Doubles, start: Doubles) -> None:
        self._weights, self._x, self._start = weights, x, start
        h = len(start)
        normed, self._mix_scale = _layer_norm(x, weights.mix_gain, weights.mix_shift)  # (e, d)
        z = normed @ weights.gates + weights.gates_bias  # (e, 3 h)
        self._decays = _sigmoid(z[:, h : 2 * h])  # (e, h)
        self._gates = z[:, 2 * h :] * _sigmoid(z[:, 2 * h :])  # (e, h)
        self._entering = (1.0 - self._decays) * z[:, :h]  # (e, h) what each event puts into the state
        states = np.empty_like(self._entering)
        for event, entering in enumerate(self._entering):
            start = self._decays[event] * start + entering
            states[event] = start
        mixed = x + (states * self._gates) @ weights.out + weights.out_bias  # (e, d)
        normed, self._feed_scale = _layer_norm(mixed, weights.feed_gain, weights.feed_shift)
        hidden = normed @ weights.feed_in + weights.feed_in_bias  # (e, f)
        self._is_open = hidden > 0
        self.outputs: Doubles = mixed + (hidden * self._is_open) @ weights.feed_out + weights.feed_out_bias  # (e, d)

    def split(self, to_outputs: Doubles, found: Attribution) -> Doubles:
        """(n, e) what each event adds by the state and past it. For the first block: its inputs are the events'."""
        to_mixed, to_states = self._to_states(to_outputs, found)
        by_state: Doubles = np.einsum("neh,eh->ne", to_states, self._entering)
        past_it: Doubles = np.einsum("ned,ed->ne", to_mixed, self._x)
        return by_state + past_it

    def pass_back(self, to_outputs: Doubles, found: Attribution) -> Doubles:
        """(n, e, d) how the cosines change with the block's inputs; biases go into the constant."""
        to_mixed, to_states = self._to_states(to_outputs, found)
        weights, h = self._weights, len(self._start)
        to_values = to_states * (1.0 - self._decays)  # (n, e, h)
        to_normed = to_values @ weights.gates[:, :h].T
        found.constant[:] += to_values.sum(axis=1) @ weights.gates_bias[:h] + to_normed.sum(axis=1) @ weights.mix_shift
        return to_mixed + _through_norm(to_normed, weights.mix_gain, self._mix_scale)

    def _to_states(self, to_outputs: Doubles, found: Attribution) -> tuple[Doubles, Doubles]:
        """How the cosines change with what passes the state by (n, e, d) and with what enters it (n, e, h)."""
        weights = self._weights
        to_hidden = (to_outputs @ weights.feed_out.T) * self._is_open  # (n, e, f)
        to_normed = to_hidden @ weights.feed_in.T
        to_mixed = to_outputs + _through_norm(to_normed, weights.feed_gain, self._feed_scale)
        to_states = (to_mixed @ weights.out.T) * self._gates  # (n, e, h)
        for event in range(to_states.shape[1] - 2, -1, -1):
            to_states[:, event] += self._decays[event + 1] * to_states[:, event + 1]
        found.start[:] += (to_states[:, 0] * self._decays[0]) @ self._start
        found.constant[:] += (
            to_outputs.sum(axis=1) @ weights.feed_out_bias + to_hidden.sum(axis=1) @ weights.feed_in_bias
        )
        found.constant[:] += to_normed.sum(axis=1) @ weights.feed_shift + to_mixed.sum(axis=1) @ weights.out_bias
        return to_mixed, to_states


def _layer_norm(x: Doubles, gain: NDArray[np.float32], shift: NDArray[np.float32]) -> tuple[Doubles, Doubles]:
    """The normalised rows (e, d), and one by the deviation of each (e, 1)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = 1.0 / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + float(LAYER_NORM_EPSILON))
    return centred * scale * gain + shift, scale


def _through_norm(to_normed: Doubles, gain: NDArray[np.float32], scale: Doubles) -> Doubles:
    """Back through a LayerNorm whose deviation is held: the centring is linear."""
    scaled: Doubles = to_normed * gain * scale
    mean: Doubles = scaled.mean(axis=-1, keepdims=True)
    return scaled - mean


def _sigmoid(z: Doubles) -> Doubles:
    """By tanh, which does not overflow."""
    half: Doubles = 0.5 * (1.0 + np.tanh(0.5 * z))
    return half
