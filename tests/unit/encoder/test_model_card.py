"""What a model folder tells of its training: written with the weights, read without them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from encoder.checkpoint import _checksum, load_model, load_resume
from encoder.config import ModelConfig, TrainingConfig
from encoder.dataset import hold_out_last
from encoder.errors import UnusableModel
from encoder.model_card import read_card
from encoder.train import Validation
from encoder.training_folder import HISTORY_MAX, Training, _thinned, pack_state, start_training, unpack_state
from tests.fakes_encoder import planted_log

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "checkpoints" / "v1"
MODEL = ModelConfig(dim=8, width=8, history_max=12)
CONFIG = TrainingConfig(epochs_max=3, users_per_batch=32, negatives=16, validate_every_epochs=1, warmup_share=0.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, Path]:
    """A training of three epochs, and its folder."""
    table, folder = planted_log(users=80, items=24), tmp_path_factory.mktemp("model")
    made = start_training(
        table,
        hold_out_last(table),
        MODEL,
        CONFIG,
        texts=None,
        data={"events": len(table)},
        clock=lambda: 1_700_000_000.9,
    )
    made.trainer.run(lambda _: None, lambda _: None)
    made.save(folder)
    return made, folder


def test_the_card_has_every_look_at_the_validation(trained: tuple[Training, Path]) -> None:
    """Loss, figures, epoch and step as the trainer saw them; the time is that of the save."""
    made, folder = trained
    card, history = read_card(folder), made.trainer.state.history
    assert card.name == load_model(folder).name
    assert (card.kind, card.dim, card.objective, card.trained_at_s) == (MODEL.kind, 8, "next-item", 1_700_000_000)
    assert card.data == {"events": len(made.table)}
    assert [asdict(look) for look in card.history] == [
        {name: value for name, value in asdict(seen).items() if name != "score"} for seen in history
    ]
    steps = [look.step for look in card.history]
    assert len(steps) == 3
    assert steps == [made.trainer.steps * n // 3 for n in (1, 2, 3)]
    assert card.metrics == max(history, key=lambda seen: seen.score).metrics


def test_the_golden_folder_of_before_tells_what_it_knows() -> None:
    """No curve and no time, and that is no error."""
    card = read_card(GOLDEN)
    assert (card.name, card.dim, card.metrics) == ("gated-recurrence@41edc5b52c24", 8, {"ndcg@10": 0.1})
    assert (card.history, card.trained_at_s) == ((), None)


def test_a_training_that_an_older_program_stopped_goes_on(trained: tuple[Training, Path]) -> None:
    """Its looks have no steps."""
    _, folder = trained
    arrays = load_resume(folder)
    facts = json.loads(arrays["facts"].tobytes())
    for seen in facts["history"]:
        del seen["step"]
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    state = unpack_state(arrays)
    assert [seen.step for seen in state.history] == [0, 0, 0]
    assert pack_state(state).keys() == arrays.keys()


def test_a_long_history_is_thinned_and_keeps_the_best() -> None:
    """With the first and the last; a short one stays whole."""
    looks = [Validation(n, 1.0, float(n == 501), {}, 0.0, is_best=n in {0, 501}, step=n) for n in range(1000)]
    kept = [look.epoch for look in _thinned(looks)]
    assert len(kept) <= HISTORY_MAX
    assert kept == sorted(set(kept))
    assert {0, 501, 999} <= set(kept)
    assert _thinned(looks[:HISTORY_MAX]) == looks[:HISTORY_MAX]


def test_what_another_program_wrote_of_its_training_is_refused_whole(
    trained: tuple[Training, Path], tmp_path: Path
) -> None:
    """With the folder's name, not with a KeyError."""
    manifest = json.loads((trained[1] / "manifest.json").read_bytes())
    del manifest["history"][0]["loss"]
    manifest["checksum"] = _checksum(manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UnusableModel, match=r"says of its model cannot be read \(KeyError\('loss'\)\)"):
        read_card(tmp_path)
    with pytest.raises(UnusableModel, match="There is no model"):
        read_card(tmp_path / "nowhere")
