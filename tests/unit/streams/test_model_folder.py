"""The model folder of the settings: what is served from it, and what serves when it is no good."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from encoder import inference
from encoder.checkpoint import save_model
from streams.config import load_settings
from streams.core.errors import ModelUnusable
from streams.recommend.engine import Engine
from streams.wiring import ModelFolder, build_engine, model_folder
from tests.fakes_core import event, offsets
from tests.fakes_encoder import random_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound model of 12 dimensions."""
    save_model(tmp_path / "model", random_model(12))
    return tmp_path / "model"


def served(folder: Path) -> Engine:
    """By settings that ask for another length of decayed means."""
    return build_engine(load_settings(model=str(folder), dim=16))


def test_a_trained_model_serves_with_its_own_dimensions(folder: Path) -> None:
    """`dim` is the built-in encoder's: states, catalogue and index have the model's."""
    engine = served(folder)
    refresh = engine.prepare([event("u1", "i1"), event("u2", "elsewhere")], offsets(2), 0)
    engine.apply(refresh)
    assert engine.encoder.name.startswith("gated-recurrence@")
    assert engine.fallback is None
    assert refresh.update.vectors.shape == (2, 12)
    assert engine.store.layout.state_width == engine.encoder.state_width
    assert engine.catalogue.vectors.shape == (2, 12)
    assert len(engine.index) == 2


def _truncated(folder: Path) -> None:
    (weights,) = folder.glob("weights-*")
    os.truncate(weights, weights.stat().st_size // 2)


def _emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def _of_another_kind(folder: Path) -> None:
    save_model(folder, random_model(12, kind="gru"))


def _of_something_else(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"schema": 1, "fingerprint": "0", "files": {}}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_truncated, "is damaged"),
        (_emptied, "There is no model in"),
        (_of_another_kind, "Only a gated-recurrence can be served"),
        (_of_something_else, "manifest.json is damaged"),
    ],
)
def test_a_bad_folder_means_decayed_mean_and_a_warning(
    folder: Path, damage: object, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Events go on; the engine knows why."""
    damage(folder)  # type: ignore[operator]
    engine = served(folder)
    assert engine.encoder.name == "decayed-mean@1"
    assert engine.encoder.dim == 16
    assert engine.fallback is not None
    assert said in engine.fallback
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert said in warning.getMessage()
    assert str(folder) in warning.getMessage()


def test_a_model_that_reads_texts_with_a_missing_package_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, not when the first item with words comes along."""

    def open_nothing(name: str) -> object:
        raise ModuleNotFoundError("Transformers need the package 'torch'; install nearstream[train].")

    monkeypatch.setattr(inference, "open_text_encoder", open_nothing)
    content = {"hashes": np.zeros(0, np.uint64), "vectors": np.zeros((0, 6), np.float16)}
    saved = random_model(12, content_dim=6)
    save_model(folder, type(saved)(saved.model, saved.vocabulary, saved.weights, "minilm", "minilm@1", content))
    engine = served(folder)
    assert engine.encoder.name == "decayed-mean@1"
    assert engine.fallback == "Transformers need the package 'torch'; install nearstream[train]."


def test_a_mark_tells_one_content_of_the_folder_from_another(folder: Path) -> None:
    """Also a missing folder from one that is there, and a mended file from a damaged one."""
    found = ModelFolder(str(folder))
    marks = [found.mark(), found.mark()]
    assert marks[0] == marks[1]
    _truncated(folder)
    marks.append(found.mark())
    save_model(folder, random_model(12, seed=1))
    marks.append(found.mark())
    _emptied(folder)
    marks.append(found.mark())
    assert len(set(marks)) == 4


def test_a_folder_knows_whether_its_model_serves(folder: Path) -> None:
    """By the fingerprint; one that does not say which model it holds is refused."""
    found = ModelFolder(str(folder))
    name = found.load().profiles.name
    assert found.is_served_by(name)
    save_model(folder, random_model(12, seed=1))
    assert not found.is_served_by(name)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ModelUnusable, match="is damaged"):
        found.is_served_by(name)


def test_a_built_in_model_has_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is one even where nothing lies there; a plain word is one only where there is such a folder."""
    monkeypatch.chdir(tmp_path)
    assert model_folder(load_settings()) is None
    assert model_folder(load_settings(model="word")) is None
    (tmp_path / "word").mkdir()
    assert model_folder(load_settings(model="word")) is not None
    assert model_folder(load_settings(model="no/where")) is not None
