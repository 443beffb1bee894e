"""What training minimises. Sizes: n predictions, m sampled negatives, d dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

IMPOSSIBLE = -1e4
"""A logit that no softmax counts; finite, so that no gradient is NaN."""


def sampled_softmax(
    users: Tensor, positives: Tensor, negatives: Tensor, collisions: Tensor, log_q: Tensor, temperature: float
) -> Tensor:
    """(n,) cross-entropy of the softmax over all items, estimated from negatives that all predictions share.

    A negative drawn with probability q stands for 1 / (m q) items, so its logit loses log(m q). The positive is
    always there and loses nothing: correcting it too is the usual mistake (Khrylchenko et al. 2025).

    Args:
        users: (n, d) unit vectors.
        positives: (n, d) unit vectors of the items that came.
        negatives: (m, d) unit vectors of the sampled items.
        collisions: (n, m) where a negative is the positive itself.
        log_q: (m,) logarithm of m times the probability that each negative was drawn with.
        temperature: tau; logits are cosines divided by it.
    """
    own = (users * positives).sum(-1, keepdim=True) / temperature  # (n, 1)
    others = users @ negatives.T / temperature - log_q  # (n, m)
    others = others.masked_fill(collisions, IMPOSSIBLE)
    return torch.logsumexp(torch.cat([own, others], dim=-1), dim=-1) - own[:, 0]
