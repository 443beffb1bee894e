"""The linear recurrence h[t] = a[t] * h[t-1] + u[t], over whole sequences, with its gradient.

On the CPU one pass of compiled code, forwards and back; on other devices a scan in log2(time) steps of torch
operations (Hillis and Steele 1986; the pairs (a, u) combine associatively, as in Martin and Cundy 2018).
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoder.kernels import compiled


def linear_recurrence(decays: Tensor, inputs: Tensor, initial: Tensor) -> Tensor:
    """All states of the recurrence.

    Args:
        decays: a, (batch, time, width).
        inputs: u, (batch, time, width).
        initial: the state before the first step, (batch, width).
    """
    if decays.device.type == "cpu":
        return cast("Tensor", _CompiledRecurrence.apply(decays, inputs, initial))
    return doubling_scan(decays, inputs, initial)


def doubling_scan(decays: Tensor, inputs: Tensor, initial: Tensor) -> Tensor:
    """The same in log2(time) steps: after step k, position t holds the effect of the 2^k inputs up to t."""
    states = torch.cat([inputs[:, :1] + decays[:, :1] * initial[:, None], inputs[:, 1:]], dim=1)  # (batch, time, width)
    reach = 1
    while reach < states.shape[1]:
        states = torch.cat([states[:, :reach], states[:, reach:] + decays[:, reach:] * states[:, :-reach]], dim=1)
        decays = torch.cat([decays[:, :reach], decays[:, reach:] * decays[:, :-reach]], dim=1)
        reach *= 2
    return states


class _CompiledRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, decays: Tensor, inputs: Tensor, initial: Tensor) -> Tensor:
        states = torch.empty_like(inputs, memory_format=torch.contiguous_format)
        _forward(_array(decays), _array(inputs), _array(initial), states.numpy())
        ctx.save_for_backward(decays, states, initial)
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decays, states, initial = ctx.saved_tensors
        to_decays, to_inputs, to_initial = torch.empty_like(states), torch.empty_like(states), torch.empty_like(initial)
        _backward(
            _array(decays),
            states.numpy(),
            _array(initial),
            _array(gradients[0]),
            to_decays.numpy(),
            to_inputs.numpy(),
            to_initial.numpy(),
        )
        return to_decays, to_inputs, to_initial


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", tensor.detach().contiguous().numpy())


@compiled
def _forward(
    decays: NDArray[np.float32],
    inputs: NDArray[np.float32],
    initial: NDArray[np.float32],
    states: NDArray[np.float32],
) -> None:
    batch, time, width = inputs.shape
    for b in range(batch):
        for axis in range(width):
            states[b, 0, axis] = decays[b, 0, axis] * initial[b, axis] + inputs[b, 0, axis]
        for t in range(1, time):
            for axis in range(width):
                states[b, t, axis] = decays[b, t, axis] * states[b, t - 1, axis] + inputs[b, t, axis]


@compiled
def _backward(
    decays: NDArray[np.float32],
    states: NDArray[np.float32],
    initial: NDArray[np.float32],
    to_states: NDArray[np.float32],
    to_decays: NDArray[np.float32],
    to_inputs: NDArray[np.float32],
    to_initial: NDArray[np.float32],
) -> None:
    """du[t] = dh[t] + a[t+1] du[t+1];  da[t] = du[t] h[t-1]."""
    batch, time, width = states.shape
    for b in range(batch):
        for t in range(time - 1, -1, -1):
            for axis in range(width):
                later = decays[b, t + 1, axis] * to_inputs[b, t + 1, axis] if t + 1 < time else np.float32(0.0)
                to_inputs[b, t, axis] = to_states[b, t, axis] + later
                before = states[b, t - 1, axis] if t > 0 else initial[b, axis]
                to_decays[b, t, axis] = to_inputs[b, t, axis] * before
        for axis in range(width):
            to_initial[b, axis] = decays[b, 0, axis] * to_inputs[b, 0, axis]
