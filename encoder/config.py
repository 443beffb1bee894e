"""Which encoder to load. Small and frozen: the program's settings fill it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

DIM_MAX = 256
"""Width of the pretrained word vectors; shorter prefixes of them are vectors too."""


@dataclass(frozen=True)
class EncoderConfig:
    """Names a model, `decayed-mean` or the folder of a trained one, and the few knobs of the former.

    Raises:
        ValueError: `dim` is outside 1..256, `half_life_days` is not a positive number, or `seed` is negative.
    """

    model: str = "decayed-mean"
    dim: int = 64
    half_life_days: float = 14.0
    seed: int = 0
    event_types: tuple[str, ...] = ()
    """What the codes of `ProfileEvents.types` mean; a trained model looks them up in its vocabulary."""

    def __post_init__(self) -> None:
        if not 1 <= self.dim <= DIM_MAX:
            raise ValueError(f"dim must lie in 1..{DIM_MAX}, got {self.dim}: choose a shorter vector.")
        if not (math.isfinite(self.half_life_days) and self.half_life_days > 0):
            raise ValueError(f"half_life_days must be a positive number, got {self.half_life_days}.")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}.")


SIZE_STEP = 4
"""Compiled loops take so many inputs at once."""


def _check_choice(name: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {value}.")


Kind = Literal["gated-recurrence", "self-attention", "gru"]


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a trained model. `gated-recurrence` is served; the others are yardsticks of equal width.

    Raises:
        ValueError: a size is below 1, a share outside [0, 1), or `dim` is no multiple of `heads`.
    """

    kind: Kind = "gated-recurrence"
    dim: int = 64
    """d, the length of a vector."""
    width: int = 128
    """h, the length of the recurrent state."""
    blocks: int = 1
    heads: int = 2
    history_max: int = 50
    """Events of a user that training and attention look at; a recurrence serves any number."""
    dropout: float = 0.4
    input_dropout: float = 0.4
    id_dropout: float = 0.1
    content_dim: int = 0
    """c, length of the frozen vectors of texts, 0 = the model reads none."""
    image_dim: int = 0
    """m, length of the frozen vectors of images, 0 = the model sees none."""
    event_features: int = 4
    """Numbers beside each event; `encoder.features` says which."""
    rates: bool = False
    """Also predicts ratings."""
    starts: bool = False
    """A user's attributes alone give a vector: training also predicted first events from them."""
    temperature: float = 0.08
    """tau: logits are cosines divided by it."""

    def __post_init__(self) -> None:
        _check_choice("kind", self.kind, Kind)
        for name in ("dim", "width", "blocks", "heads", "history_max", "event_features"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        for name in ("dropout", "input_dropout", "id_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}.")
        for name in ("content_dim", "image_dim"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        if self.dim % SIZE_STEP or self.width % SIZE_STEP:
            raise ValueError(f"dim and width must be multiples of {SIZE_STEP}, got {self.dim} and {self.width}.")
        if self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads, got {self.dim} and {self.heads}.")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}.")


Objective = Literal["next-item", "rating"]
Optimizer = Literal["adamw", "sgd"]


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Raises:
        ValueError: a number is out of its range; the message names it.
    """

    objective: Objective = "next-item"
    """`next-item`: sampled softmax over cosines. `rating`: squared error of the value, for logs of ratings."""
    target_types: tuple[str, ...] = ()
    """Predict only events of these types (fine-tuning on a task); all when empty."""
    type_weights: tuple[tuple[str, float], ...] = ()
    """Weight in the loss of predicting an event of a type; 1 where it is not named."""
    masked_share: float = 0.0
    """Share of events whose item is hidden and must be guessed from the past and from the event's type and time."""
    epochs_max: int = 40
    cpu_s_max: float = 900.0
    """Training ends after the epoch in which the process has used this much CPU time."""
    users_per_batch: int = 0
    """Users of one step; 0 = so many that an epoch has about 64 steps, 16 to 128: a small log needs small steps."""
    negatives: int = 1024
    """Sampled items that every prediction of a batch is compared with."""
    optimizer: Optimizer = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warmup_share: float = 0.05
    """Of all steps, those in which the learning rate rises; then it falls by a cosine."""
    gradient_norm_max: float = 5.0
    validate_every_epochs: int = 4
    patience_epochs: int = 12
    """Ends training after so many epochs without a better NDCG@10 (or squared error) in validation."""
    validation_queries_max: int = 6000
    attribute_dropout: float = 0.5
    """Share of users whose attributes are hidden in a batch, for most users of a running system give none."""
    seed: int = 0
    device: str = "cpu"
    """As torch names it, or `auto`: a GPU where there is one."""
    threads: int = 1

    def __post_init__(self) -> None:
        _check_choice("objective", self.objective, Objective)
        _check_choice("optimizer", self.optimizer, Optimizer)
        for kind, weight in self.type_weights:
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"type_weights must be finite and not negative, got {weight} for {kind}.")
        for name in (
            "epochs_max",
            "negatives",
            "validate_every_epochs",
            "patience_epochs",
            "threads",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        if self.users_per_batch < 0:
            raise ValueError(
                f"users_per_batch must be 1 or more, or 0 to let the log decide, got {self.users_per_batch}."
            )
        for name in ("masked_share", "warmup_share", "attribute_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}.")
        for name in ("cpu_s_max", "learning_rate", "gradient_norm_max"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
