"""The linear recurrence over whole sequences, against a loop that anybody can read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from encoder.scan import doubling_scan, linear_recurrence

Scan = Callable[[Tensor, Tensor, Tensor], Tensor]
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def loop(decays: Tensor, inputs: Tensor, initial: Tensor) -> Tensor:
    states, state = [], initial
    for t in range(inputs.shape[1]):
        state = decays[:, t] * state + inputs[:, t]
        states.append(state)
    return torch.stack(states, dim=1)


def problem(batch: int, time: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch * 1000 + time)
    decays = torch.rand(batch, time, width, generator=generator)
    inputs, towards = (torch.randn(batch, time, width, generator=generator) for _ in range(2))
    return decays, inputs, torch.randn(batch, width, generator=generator), towards


def values_and_gradients(scan: Scan, decays: Tensor, inputs: Tensor, initial: Tensor, towards: Tensor) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in (decays, inputs, initial)]
    states = scan(*leaves)
    return [states.detach(), *torch.autograd.grad((states * towards).sum(), leaves)]


@pytest.mark.parametrize("scan", [linear_recurrence, doubling_scan])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 3), (3, 1, 4), (5, 16, 8), (2, 33, 5), (2, 200, 3)])
def test_states_and_gradients_are_those_of_a_loop(scan: Scan, shape: tuple[int, int, int]) -> None:
    """Values and the gradients of decays, inputs and initial state equal autograd's through a plain loop."""
    given = problem(*shape)
    for found, expected in zip(values_and_gradients(scan, *given), values_and_gradients(loop, *given), strict=True):
        torch.testing.assert_close(found, expected, **TOLERANCE)


def test_strided_tensors_are_read_as_they_stand() -> None:
    """Transposed and expanded inputs, and a gradient that is not contiguous, give what contiguous ones give."""
    decays, inputs, initial, towards = problem(6, 9, 4)
    strided = [
        decays.transpose(0, 2).contiguous().transpose(0, 2),
        inputs.permute(1, 0, 2).contiguous().permute(1, 0, 2),
        initial.T.contiguous().T,
        towards.transpose(1, 2).contiguous().transpose(1, 2),
    ]
    assert not any(tensor.is_contiguous() for tensor in strided)
    found = values_and_gradients(linear_recurrence, *strided)
    for one, other in zip(found, values_and_gradients(loop, decays, inputs, initial, towards), strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


def test_an_initial_state_may_be_shared() -> None:
    """One expanded initial state collects the gradients of all sequences."""
    decays, inputs, initial, towards = problem(4, 5, 3)
    gradients = []
    for scan in (linear_recurrence, loop):
        shared = initial[:1].detach().requires_grad_()
        (scan(decays, inputs, shared.expand(4, -1)) * towards).sum().backward()
        gradients.append(shared.grad)
    torch.testing.assert_close(*gradients, **TOLERANCE)


def test_nothing_is_changed_in_place() -> None:
    """The inputs keep their values, also after the gradient was taken twice."""
    decays, inputs, initial, towards = problem(2, 4, 3)
    kept = [tensor.clone() for tensor in (decays, inputs, initial)]
    first = values_and_gradients(linear_recurrence, decays, inputs, initial, towards)
    again = values_and_gradients(linear_recurrence, decays, inputs, initial, towards)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(kept, (decays, inputs, initial), strict=True))
