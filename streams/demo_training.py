"""Trains the model that the demo serves, on the past of its source."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from encoder.config import ModelConfig, TrainingConfig
from streams.core.errors import UsageError
from streams.sources.event_table import MS_PER_S, event_table
from streams.sources.stretch import Stretch
from streams.train import Listeners, TrainPlan, train_model

if TYPE_CHECKING:
    from pathlib import Path

    from encoder.dataset import EventTable
    from encoder.train import Progress, Validation
    from streams.sources import Source

OnTraining = Callable[[str, int, int | None, float], None]
"""Called with a stage, how much of it is done, of how much (None: unknown), and the best NDCG@10 so far (NaN: none)."""

LOG_PAST_EVENTS_MAX = 200_000
TRAINING_S_MAX = 40.0
"""After so long the best model so far is taken; on two free cores a training ends by itself after about ten seconds."""
CPU_S_MAX = 30.0
BATCHES_PER_EPOCH = 16
USERS_PER_BATCH_MIN, USERS_PER_BATCH_MAX = 16, 128
SIZES = ModelConfig(width=64, history_max=30)
"""Half the usual state and history: a shop of a few thousand items asks for no more."""
SHOP_TARGETS = ("view",)
"""In the shop each new interest begins with a view. The steps down the funnel repeat its item, and to predict those
too would teach the model the latest item instead of the user's taste."""


class TrainingStopped(Exception):
    """The person does not want to wait for the end of it. Nothing that was written counts."""


class _EnoughTime(Exception):
    """The time is used up, and a model lies in the folder."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it. `past_events` were learned from, the last of them at `last_ms`, epoch ms."""

    past_events: int
    last_ms: int


def train_on_past(
    source: Source,
    past_events: int | None,
    folder: Path,
    text_cache: Path,
    on_training: OnTraining,
    is_stopped: Callable[[], bool],
) -> Trained:
    """Trains on the first events of a source; `folder` then holds a model that can be served.

    Blocks, at most about `TRAINING_S_MAX` once the events are read; on a slow machine until the first validation.

    Args:
        source: the whole log; it is read from its beginning.
        past_events: how many events are its past; None takes the first half, at most `LOG_PAST_EVENTS_MAX`.
        folder: where the model goes.
        text_cache: where text vectors are kept.
        on_training: told how far it is, in this thread.
        is_stopped: asked between batches.

    Raises:
        TrainingStopped: `is_stopped` said so.
        UsageError: the source cannot be read, or nothing can be learned from its past.
    """
    watch = _Watch(on_training, is_stopped)
    watch.stage("reading the past")
    count = _half_of(source, watch) if past_events is None else past_events
    table = event_table(Stretch(source, 0, count), on_progress=lambda read: watch.show(read, count))
    plan = TrainPlan(folder, model=SIZES, config=training_config(table, is_shop=source.name == "synthetic"))
    watch.deadline_s = time.monotonic() + TRAINING_S_MAX
    try:
        train_model(plan, table, text_cache, watch.listeners(), source=source.name)
    except _EnoughTime:
        watch.stage("training ended after its longest time")
    return Trained(len(table), int(np.max(table.times_s)) * MS_PER_S)


def training_config(table: EventTable, *, is_shop: bool) -> TrainingConfig:
    """What learns a few thousand users in seconds: small batches, for a small log too, and few negatives."""
    users = len(table.user_ids) // BATCHES_PER_EPOCH
    return TrainingConfig(
        target_types=SHOP_TARGETS if is_shop else (),
        epochs_max=12,
        cpu_s_max=CPU_S_MAX,
        users_per_batch=min(max(users, USERS_PER_BATCH_MIN), USERS_PER_BATCH_MAX),
        negatives=256,
        learning_rate=4e-3,
    )


@dataclass(slots=True)
class _Watch:
    """Passes on how far the training is, and ends it when it is stopped or late."""

    on_training: OnTraining
    is_stopped: Callable[[], bool]
    deadline_s: float = math.inf
    _stage: str = ""
    _best: float = math.nan
    """NaN as long as no model lies in the folder."""

    def listeners(self) -> Listeners:
        return Listeners(self.stage, self.show, self._step, self._validated)

    def stage(self, name: str) -> None:
        self._stage = name
        self.show(0, None)

    def show(self, done: int, total: int | None) -> None:
        if self.is_stopped():
            raise TrainingStopped
        self.on_training(self._stage, done, total, self._best)

    def _step(self, now: Progress) -> None:
        self.show(now.step, now.steps)
        if not math.isnan(self._best) and time.monotonic() > self.deadline_s:
            raise _EnoughTime

    def _validated(self, seen: Validation) -> None:
        if seen.is_best:
            self._best = seen.score


def _half_of(source: Source, watch: _Watch) -> int:
    """Half the events of a log, which has to be read to be counted."""
    count = 0
    for count, _ in enumerate(islice(source.events(), 2 * LOG_PAST_EVENTS_MAX), 1):
        if count % 10_000 == 0:
            watch.show(count, None)
    if count < 2:
        raise UsageError(f"The log has {count} event(s): there is no past to train on; leave out --train.")
    return count // 2
