"""A training and its folder: what is saved, what is resumed, what is gone on from."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from encoder.checkpoint import load_model, load_resume
from encoder.config import ModelConfig, TrainingConfig
from encoder.dataset import EventTable, EventTableBuilder, hold_out_last
from encoder.errors import UnusableData, UnusableModel
from encoder.inference import encoder_of
from encoder.tower import hash_text
from encoder.training_folder import TextVectors, Training, pack_state, start_training, unpack_state
from tests.fakes_encoder import planted_log

if TYPE_CHECKING:
    from pathlib import Path

    from encoder.train import Progress, Validation

MODEL = ModelConfig(dim=8, width=8, history_max=12, dropout=0.1, input_dropout=0.1)
CONFIG = TrainingConfig(epochs_max=4, users_per_batch=32, negatives=16, validate_every_epochs=1, warmup_share=0.0)
TEXT_DIM = 6
VERSION = "letters@1"


class Stopped(Exception):
    """A training was ended from outside."""


@pytest.fixture(scope="module")
def table() -> EventTable:
    """A log with something to learn."""
    return planted_log(users=80, items=24)


def texts_of(table: EventTable, version: str = VERSION) -> TextVectors:
    """A vector for each item, drawn."""
    drawn = np.random.default_rng(0).normal(size=(len(table.item_ids), TEXT_DIM)).astype(np.float32)
    return TextVectors("letters", version, drawn)


def training(table: EventTable, model: ModelConfig = MODEL, **given: Any) -> Training:
    """A training on the table, ready to run."""
    given.setdefault("texts", None)
    return start_training(table, hold_out_last(table), model, CONFIG, data={"source": "planted"}, **given)


def ignore(_: Progress | Validation) -> None:
    """Nobody listens."""


def stopped_after(made: Training, epochs: int, folder: Path) -> None:
    """Runs and saves after each validation, and ends with an exception after so many epochs."""

    def save(seen: Validation) -> None:
        made.save(folder)
        if seen.epoch == epochs:
            raise Stopped

    with pytest.raises(Stopped):
        made.trainer.run(ignore, save)


def test_what_was_trained_is_what_is_saved(table: EventTable, tmp_path: Path) -> None:
    """Best weights, configs, figures of the best epoch, words and facts come back; the name is that of the folder."""
    made = training(table)
    made.trainer.run(ignore, ignore)
    saved = made.save(tmp_path, resume=False)
    read = load_model(tmp_path)
    assert read.name == saved.name
    assert (read.model, read.training, read.vocabulary) == (MODEL, CONFIG, made.vocabulary)
    assert read.data == {"source": "planted"}
    best = max(made.trainer.state.history, key=lambda seen: seen.score)
    assert read.metrics == best.metrics
    for name, tensor in made.trainer.model.state_dict().items():
        np.testing.assert_array_equal(read.weights[name], tensor.numpy())
    assert not load_resume(tmp_path)


def test_a_stopped_training_ends_as_if_it_had_not(table: EventTable, tmp_path: Path) -> None:
    """From the folder alone the rest of the training gives the same model, bit for bit."""
    whole = training(table)
    whole.trainer.run(ignore, ignore)
    stopped_after(training(table), 2, tmp_path)
    resumed = training(table, resume=load_resume(tmp_path))
    assert resumed.trainer.state.epoch == 2
    resumed.trainer.run(ignore, ignore)
    assert [seen.metrics for seen in resumed.trainer.state.history] == [
        seen.metrics for seen in whole.trainer.state.history
    ]
    assert resumed.save(tmp_path, resume=False).name == whole.save(tmp_path / "whole", resume=False).name
    assert not load_resume(tmp_path)


def test_the_state_comes_back_from_arrays(table: EventTable) -> None:
    """Packing and unpacking loses nothing: epochs, history, both weights, the optimiser's moments and all chance."""
    made = training(table)
    made.trainer.run(ignore, ignore)
    state = made.trainer.state
    found = unpack_state(pack_state(state))
    for name in ("epoch", "step", "best_score", "best_epoch", "cpu_s", "history", "rng"):
        assert getattr(found, name) == getattr(state, name), name
    for name in ("weights", "best_weights"):
        ours, theirs = getattr(found, name), getattr(state, name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    groups = [json.loads(json.dumps(each.optimizer["param_groups"])) for each in (found, state)]  # tuples are lists
    assert groups[0] == groups[1]
    for number, moments in state.optimizer["state"].items():
        for key, value in moments.items():
            assert torch.equal(found.optimizer["state"][number][key], value)
    assert found.torch_rng is not None
    assert state.torch_rng is not None
    assert torch.equal(found.torch_rng, state.torch_rng)


@pytest.mark.parametrize("harm", [{}, {"facts": np.frombuffer(b"{}", np.uint8)}, {"facts": np.zeros(3, np.uint8)}])
def test_a_state_of_another_version_is_refused(harm: dict[str, np.ndarray]) -> None:
    """The error says what can still be done."""
    with pytest.raises(UnusableModel, match="go on from its weights"):
        unpack_state(harm)


def test_each_distinct_text_is_kept_once(tmp_path: Path) -> None:
    """The folder holds a float16 vector for each different text, none for items without words."""
    builder = EventTableBuilder()
    for user in range(6):
        for step in range(4):
            builder.add(f"u{user}", f"i{(user + step) % 5}", "view", step)
    for item, text in enumerate(("red shoe", "red shoe", " ", "blue hat", "")):
        builder.describe_item(f"i{item}", text)
    table = builder.build()
    rows = {item: row for row, item in enumerate(table.item_ids)}
    vectors = texts_of(table).vectors
    vectors[rows["i1"]] = vectors[rows["i0"]]
    made = training(table, replace(MODEL, content_dim=TEXT_DIM), texts=TextVectors("letters", VERSION, vectors))
    made.trainer.run(ignore, ignore)
    made.save(tmp_path)
    read = load_model(tmp_path)
    assert (read.text_encoder, read.text_encoder_version) == ("letters", VERSION)
    kept = dict(zip(read.content["hashes"].tolist(), read.content["vectors"], strict=True))
    assert kept.keys() == {hash_text("red shoe"), hash_text("blue hat")}
    np.testing.assert_allclose(kept[hash_text("blue hat")], vectors[rows["i3"]], rtol=1e-3)


def test_a_grown_log_goes_on_from_a_model(table: EventTable, tmp_path: Path) -> None:
    """Old items keep their rows and, before the first step, their weights; new ones follow; the result is served."""
    first = training(table)
    first.trainer.run(ignore, ignore)
    first.save(tmp_path)
    start = load_model(tmp_path)
    builder = EventTableBuilder(start.vocabulary.items)
    for user in range(8):
        for step, item in enumerate(("new", "i1", "i2", "i3")):
            builder.add(f"v{user}", item, "bookmark", 60 * step)
    grown = training(builder.build(), start=start)
    old = len(start.vocabulary.items)
    assert grown.vocabulary.items == [*start.vocabulary.items, "new"]
    assert grown.vocabulary.types == [*start.vocabulary.types, "bookmark"]
    ids = grown.trainer.model.state_dict()["tower.ids.weight"].numpy()
    np.testing.assert_array_equal(ids[:old], start.weights["tower.ids.weight"])
    assert not ids[old:].any()
    grown.trainer.run(ignore, ignore)
    encoder = encoder_of(grown.save(tmp_path / "grown"), ("bookmark",))
    assert encoder.profiles.state_width > 0


def test_other_texts_than_those_learned_are_refused(table: EventTable, tmp_path: Path) -> None:
    """A model that reads one encoder's vectors cannot go on with another's, nor with none; both are named."""
    model = replace(MODEL, content_dim=TEXT_DIM)
    first = training(table, model, texts=texts_of(table))
    first.trainer.run(ignore, ignore)
    first.save(tmp_path)
    start = load_model(tmp_path)
    with pytest.raises(UnusableModel, match=rf"{VERSION}, the training has letters@2"):
        training(table, model, texts=texts_of(table, "letters@2"), start=start)
    with pytest.raises(UnusableModel, match=rf"{VERSION}, the training has none"):
        training(table, start=start)


def test_int8_needs_less_room(table: EventTable, tmp_path: Path) -> None:
    """The saved weights are smaller, and what was saved exactly differs by at most a step of each row's scale."""
    made = training(table)
    made.trainer.run(ignore, ignore)
    made.save(tmp_path / "exact", resume=False)
    made.save(tmp_path / "small", resume=False, int8=True)
    exact, small = (load_model(tmp_path / name).weights for name in ("exact", "small"))
    step = np.abs(exact["tower.ids.weight"]).max(axis=1, keepdims=True) / 127
    difference = np.abs(exact["tower.ids.weight"] - small["tower.ids.weight"])
    assert difference.max() > 0
    assert (difference <= step / 2 + 1e-7).all()


def test_nothing_is_written_before_there_is_a_model(tmp_path: Path) -> None:
    """Data that teach nothing are refused before any folder is made."""
    builder = EventTableBuilder()
    builder.add("a", "x", "view", 0)
    builder.add("a", "y", "view", 1)
    builder.add("b", "y", "view", 0)
    with pytest.raises(UnusableData):
        training(builder.build())
    assert not list(tmp_path.iterdir())
