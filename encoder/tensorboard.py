"""A training for TensorBoard: scalars while it runs, and the items in the embedding projector."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.train import Progress, Validation

STEPS_PER_POINT = 20
ITEMS_MAX = 10_000
"""The projector in a browser is slow beyond."""
LABEL_CHARS_MAX = 80


class TensorBoardLog:
    """Writes into a folder that `tensorboard --logdir` reads. A context manager: leaving it flushes."""

    def __init__(self, folder: Path) -> None:
        """Creates the folder.

        Raises:
            ModuleNotFoundError: tensorboard is not installed; the extra `train` brings it.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of tensorboard's own imports
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - only who asks for it pays for it
        self._writer = SummaryWriter(str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def progress(self, now: Progress) -> None:
        """Loss and learning rate, every 20 steps."""
        if now.step % STEPS_PER_POINT == 0:
            self._writer.add_scalar("train/loss", now.loss, now.step)
            self._writer.add_scalar("train/learning_rate", now.learning_rate, now.step)

    def validation(self, seen: Validation, step: int) -> None:
        """Every figure of a validation."""
        for name, value in seen.metrics.items():
            self._writer.add_scalar(f"validation/{name}", value, step)

    def items(self, vectors: NDArray[np.float32], ids: Sequence[str], texts: Sequence[str], step: int) -> None:
        """The first 10,000 items with their words, for the projector."""
        named = zip(ids[:ITEMS_MAX], texts[:ITEMS_MAX], strict=True)
        labels = [[item, " ".join(text.split())[:LABEL_CHARS_MAX] or "-"] for item, text in named]
        self._writer.add_embedding(
            torch.from_numpy(vectors[:ITEMS_MAX]), labels, tag="items", global_step=step, metadata_header=["id", "text"]
        )
