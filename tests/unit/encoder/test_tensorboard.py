"""What TensorBoard finds in the folder of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from encoder import tensorboard
from encoder.tensorboard import STEPS_PER_POINT, TensorBoardLog
from encoder.train import Progress, Validation

if TYPE_CHECKING:
    from pathlib import Path


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every scalar, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import (  # noqa: PLC0415 - slow, and tests may skip it
        EventAccumulator,
    )

    read = EventAccumulator(str(folder)).Reload()
    return {tag: [(each.step, each.value) for each in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def progress(step: int) -> Progress:
    """One batch."""
    return Progress(1, step, 100, loss=5.0 - step / 100, learning_rate=0.002, cpu_s=1.0, best=float("nan"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scalars_are_readable(tmp_path: Path) -> None:
    """Loss and learning rate every 20 steps, every figure of each validation at its step."""
    folder = tmp_path / "new" / "board"
    with TensorBoardLog(folder) as board:
        for step in range(1, 2 * STEPS_PER_POINT + 2):
            board.progress(progress(step))
        board.validation(Validation(3, 4.5, 0.25, {"ndcg@10": 0.25, "hr@10": 0.5}, 2.0, is_best=True), 40)
    found = scalars(folder)
    assert found["train/loss"] == [(20, pytest.approx(4.8)), (40, pytest.approx(4.6))]
    assert [step for step, _ in found["train/learning_rate"]] == [20, 40]
    assert found["validation/ndcg@10"] == [(40, 0.25)]
    assert found["validation/hr@10"] == [(40, 0.5)]


def test_items_stand_in_the_projector_with_their_words(tmp_path: Path) -> None:
    """A vector and a label each: one line, shortened, a dash for none; ids and words may be in any script."""
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    with TensorBoardLog(tmp_path) as board:
        board.items(vectors, ["i1", "i2", "i3", "ñ"], ["red\tshoe\nof  wool", "", "x" * 500, "日本"], 7)
    (labels,) = tmp_path.rglob("metadata.tsv")
    assert labels.read_text(encoding="utf-8").splitlines() == [
        "id\ttext", "i1\tred shoe of wool", "i2\t-", "i3\t" + "x" * 80, "ñ\t日本",
    ]  # fmt: skip
    (rows,) = tmp_path.rglob("tensors.tsv")
    np.testing.assert_array_equal(np.loadtxt(rows), vectors)


def test_the_projector_gets_no_more_than_a_browser_bears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further items are left out, their labels too."""
    monkeypatch.setattr(tensorboard, "ITEMS_MAX", 3)
    with TensorBoardLog(tmp_path) as board:
        board.items(np.ones((5, 2), np.float32), [f"i{n}" for n in range(5)], ["a"] * 5, 1)
    (rows,) = tmp_path.rglob("tensors.tsv")
    assert len(rows.read_text().splitlines()) == 3


def test_an_interrupted_training_leaves_what_it_wrote(tmp_path: Path) -> None:
    """Leaving by an exception flushes too."""

    def interrupted() -> None:
        with TensorBoardLog(tmp_path) as board:
            board.validation(Validation(1, 4.5, 0.25, {"ndcg@10": 0.25}, 2.0, is_best=True), 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (events,) = tmp_path.glob("events.out.tfevents.*")
    assert b"validation/ndcg@10" in events.read_bytes()
