"""Sampled softmax against the full one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor

from encoder.batches import NegativeSampler
from encoder.losses import sampled_softmax

USERS, ITEMS, DIM, TEMPERATURE = 6, 40, 8, 0.3


def given() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    users = F.normalize(torch.randn(USERS, DIM, generator=generator), dim=-1)
    items = F.normalize(torch.randn(ITEMS, DIM, generator=generator), dim=-1)
    return users, items, torch.tensor([0, 1, 2, 3, 39, 39])


def full(users: Tensor, items: Tensor, positives: Tensor) -> Tensor:
    return F.cross_entropy(users @ items.T / TEMPERATURE, positives, reduction="none")


def sampled(users: Tensor, items: Tensor, positives: Tensor, negatives: Tensor, log_q: Tensor) -> Tensor:
    collisions = positives[:, None] == negatives[None]
    return sampled_softmax(users, items[positives], items[negatives], collisions, log_q, TEMPERATURE)


def test_all_items_as_negatives_are_the_full_softmax() -> None:
    """With every item as a negative once and no correction, the loss is the full cross-entropy."""
    users, items, positives = given()
    found = sampled(users, items, positives, torch.arange(ITEMS), torch.zeros(ITEMS))
    torch.testing.assert_close(found, full(users, items, positives), rtol=1e-5, atol=1e-5)


def test_a_collision_counts_for_nothing() -> None:
    """A negative that is the positive itself changes neither loss nor gradient, however often it was drawn."""
    users, items, positives = given()
    users, one = users[:1].requires_grad_(), positives[:1]
    without = sampled(users, items, one, torch.tensor([5, 6]), torch.zeros(2))
    with_it = sampled(users, items, one, torch.tensor([5, 0, 6, 0]), torch.zeros(4))
    assert torch.equal(without, with_it)
    first, second = (torch.autograd.grad(loss.sum(), users)[0] for loss in (without, with_it))
    assert torch.equal(first, second)


def test_only_collisions_leave_no_loss_and_no_nan() -> None:
    """Where all negatives are the positive there is nothing to learn: loss and gradient are zero."""
    users, items, positives = given()
    leaf = users[:1].requires_grad_()
    loss = sampled(leaf, items, positives[:1], torch.zeros(3, dtype=torch.int64), torch.zeros(3))
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_the_corrected_gradient_approaches_the_full_one() -> None:
    """Averaged over many draws of many negatives from a skewed log, the gradient is that of the full softmax."""
    users, items, positives = given()
    counts = np.repeat(np.arange(ITEMS), np.arange(1, ITEMS + 1) ** 2).astype(np.int32)
    sampler, rng = NegativeSampler(counts, ITEMS), np.random.default_rng(0)
    leaf = items.clone().requires_grad_()
    (exact,) = torch.autograd.grad(full(users, leaf, positives).sum(), leaf)
    total, plain, draws = torch.zeros_like(items), torch.zeros_like(items), 60
    for _ in range(draws):
        rows, log_q = sampler.draw(512, rng)
        negatives, correction = torch.from_numpy(rows), torch.from_numpy(log_q)
        total += torch.autograd.grad(sampled(users, leaf, positives, negatives, correction).sum(), leaf)[0] / draws
        no_correction = torch.full_like(correction, float(np.log(512 / ITEMS)))
        plain += torch.autograd.grad(sampled(users, leaf, positives, negatives, no_correction).sum(), leaf)[0] / draws
    error = float((total - exact).norm() / exact.norm())
    assert error < 0.02
    assert error < 0.1 * float((plain - exact).norm() / exact.norm())


def test_a_hotter_softmax_is_flatter() -> None:
    """The temperature divides the cosines: at a high one the loss is that of guessing."""
    users, items, positives = given()
    collisions = positives[:, None] == torch.arange(ITEMS)[None]
    loss = sampled_softmax(users, items[positives], items, collisions, torch.zeros(ITEMS), 1e6)
    torch.testing.assert_close(loss, torch.full((USERS,), float(np.log(ITEMS))), rtol=1e-4, atol=1e-4)
