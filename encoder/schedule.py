"""How the weights are moved: the optimiser, and its learning rate from step to step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from encoder.config import TrainingConfig

SECOND_MOMENT_DECAY = 0.98
"""AdamW's beta 2, shorter than usual: rare items get few steps."""
MOMENTUM = 0.9


def new_optimizer(parameters: Iterable[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser that the config names, without moments yet."""
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, config.learning_rate, momentum=MOMENTUM, weight_decay=config.weight_decay)
    return torch.optim.AdamW(
        parameters, config.learning_rate, betas=(0.9, SECOND_MOMENT_DECAY), weight_decay=config.weight_decay
    )


def learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """Of the step after `step` of `steps`: rises in a line, then falls by half a cosine."""
    done = step / steps
    if done < config.warmup_share:
        return config.learning_rate * (step + 1) / (steps * config.warmup_share + 1)
    rest = min(1.0, (done - config.warmup_share) / (1.0 - config.warmup_share))
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * rest))
