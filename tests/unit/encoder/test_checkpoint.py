"""A model folder: whole or refused, whatever happens to its files, its writer or its reader."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoder import checkpoint
from encoder.checkpoint import MANIFEST, SavedModel, load_model, load_resume, read_fingerprint, save_model
from encoder.config import EncoderConfig, TrainingConfig
from encoder.errors import UnusableModel
from encoder.inference import encoder_of, load_encoder
from streams.core.ports import EncoderEvents, Floats
from tests.fakes_encoder import EVENT_TYPES, random_model

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "data" / "checkpoints" / "v1"
PARTS = ("weights", "vocabulary", "content", "training")
RESUME = {"step": np.array(7), "moments": np.ones((2, 3), np.float32), "rng": np.arange(9, dtype=np.uint8)}


def model(seed: int = 0, **more: Any) -> SavedModel:
    content = {"hashes": np.array([1, 2**63 + 5], np.uint64), "vectors": np.ones((2, 4), np.float16)}
    words = {"items": ("i1", "ï2"), "item_attributes": ("brand:a",), "seed": seed, "content_dim": 4} | more
    return replace(
        random_model(8, **words),
        text_encoder="static",
        text_encoder_version="static@1",
        content=content,
        training=TrainingConfig(target_types=("buy",), type_weights=(("view", 0.5),), seed=seed),
        metrics={"ndcg@10": 0.25},
        data={"format": "movielens", "events": 9},
    )


def assert_same(one: SavedModel, other: SavedModel) -> None:
    for name in ("model", "vocabulary", "text_encoder", "text_encoder_version", "training", "metrics", "data"):
        assert getattr(one, name) == getattr(other, name), name
    for arrays, others in ((one.weights, other.weights), (one.content, other.content)):
        assert arrays.keys() == others.keys()
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], others[name])
            assert arrays[name].dtype == others[name].dtype
            assert arrays[name].shape == others[name].shape


def part_of(folder: Path, part: str) -> Path:
    (path,) = folder.glob(f"{part}*")
    return path


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    """All fields, numbers without a dimension too, are read as they were written; the fingerprint names them."""
    saved = model()
    weights = {**saved.weights, "rating.mean": np.array(3.5, np.float32), "rating.scale": np.array(2.0, np.float32)}
    saved = replace(saved, weights=weights)
    fingerprint = save_model(tmp_path / "new" / "folder", saved, resume=RESUME)
    loaded = load_model(tmp_path / "new" / "folder")
    assert_same(loaded, saved)
    assert loaded.fingerprint == fingerprint == read_fingerprint(tmp_path / "new" / "folder")
    assert loaded.name == f"gated-recurrence@{fingerprint}"
    resume = load_resume(tmp_path / "new" / "folder")
    assert {name: array.shape for name, array in resume.items()} == {"step": (), "moments": (2, 3), "rng": (9,)}
    assert all(array.flags.writeable for array in (*loaded.weights.values(), *resume.values()))


def test_a_model_without_extras_comes_back(tmp_path: Path) -> None:
    """Texts, training and its state may be missing."""
    saved = random_model(8)
    save_model(tmp_path, saved)
    assert_same(load_model(tmp_path), saved)
    assert load_resume(tmp_path) == {}
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == [MANIFEST, "vocabulary", "weights"]


def test_strange_words_and_figures_come_back(tmp_path: Path) -> None:
    """Half a surrogate pair in an id, NaN figures and numbers as keys stop neither the writer nor the reader."""
    items = ("\ud800", "naïve", "\x00", "猫")
    saved = replace(random_model(8, items=items), metrics={"mrr": float("nan")}, data={"years": {10: 1, 9: 2}})
    save_model(tmp_path, saved)
    loaded = load_model(tmp_path)
    assert loaded.vocabulary == saved.vocabulary
    assert np.isnan(loaded.metrics["mrr"])
    assert loaded.data == {"years": {"10": 1, "9": 2}}


def test_a_fingerprint_tells_models_apart(tmp_path: Path) -> None:
    """Equal models have equal fingerprints; another weight, word or setting gives another."""
    first = random_model(8)
    others = [
        random_model(8, seed=1),
        random_model(8, items=("i1", "i3")),
        replace(first, model=replace(first.model, temperature=0.1)),
    ]
    found = [save_model(tmp_path / str(number), each) for number, each in enumerate([first, first, *others])]
    assert found[0] == found[1]
    assert len(set(found)) == 4


def test_a_new_model_replaces_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    """Files of the old model and leftovers of a killed writer are deleted; other people's files are not."""
    save_model(tmp_path, model(0), resume=RESUME)
    leftover = tmp_path / f"weights-{'0' * 12}.safetensors.part"
    strangers = [tmp_path / name for name in ("training-events.csv", "content-notes.txt", "weights-of-apples.json")]
    for path in (leftover, *strangers):
        path.write_text("mine")
    save_model(tmp_path, model(1))
    assert_same(load_model(tmp_path), model(1))
    assert not leftover.exists()
    assert all(path.read_text() == "mine" for path in strangers)
    assert len(list(tmp_path.iterdir())) == 4 + len(strangers)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[2 * len(content) // 3] ^= 1
    path.write_bytes(content)


def prolong(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"0")


@pytest.mark.parametrize("harm", [cut, empty, flip, prolong, Path.unlink], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("part", [*PARTS, MANIFEST])
def test_a_damaged_file_is_named(tmp_path: Path, part: str, harm: Callable[[Path], None]) -> None:
    """A file that is truncated, empty, changed by one bit, too long or missing is named, and nothing is loaded."""
    save_model(tmp_path, model(), resume=RESUME)
    path = part_of(tmp_path, part)
    harm(path)
    load: Callable[[Path], object] = load_resume if part == "training" else load_model
    with pytest.raises(UnusableModel) as caught:
        load(tmp_path)
    assert path.name in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_flipped_bit_of_a_manifest_is_seen(tmp_path: Path) -> None:
    """Wherever one bit of the manifest changes, it is refused or says the same as before."""
    save_model(tmp_path, random_model(8))
    path = tmp_path / MANIFEST
    sound = path.read_bytes()
    meaning = json.loads(sound)
    for place in range(0, len(sound), 3):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 4]) + sound[place + 1 :])
        try:
            load_model(tmp_path)
        except UnusableModel:
            continue
        assert json.loads(path.read_bytes()) == meaning


def test_no_model_is_not_a_damaged_model(tmp_path: Path) -> None:
    """An empty folder, or none, is said to hold no model."""
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UnusableModel, match=f"There is no model in {folder}: expected a folder with manifest.json"):
            load_model(folder)


def rewrite(folder: Path, **changes: Any) -> None:
    """A manifest as another program would have written it."""
    manifest = json.loads((folder / MANIFEST).read_bytes()) | changes
    manifest["checksum"] = checkpoint._checksum(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("schema", [2, 10**9])
def test_a_newer_schema_asks_for_an_update(tmp_path: Path, schema: int) -> None:
    """A folder of a later schema is not guessed at."""
    save_model(tmp_path, random_model(8))
    rewrite(tmp_path, schema=schema)
    with pytest.raises(UnusableModel, match=f"manifest.json has the schema {schema}, this program reads up to 1"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", ["[]", "null", "3", "{}", "nonsense", '{"schema": "x"}', '{"schema": 1}', "\xff"])
def test_what_is_no_manifest_is_named(tmp_path: Path, content: str) -> None:
    """JSON of another form, or none, is refused."""
    (tmp_path / MANIFEST).write_text(content, encoding="latin-1")
    with pytest.raises(UnusableModel, match=r"manifest\.json"):
        load_model(tmp_path)


def test_an_unknown_setting_of_a_model_is_refused_one_of_a_training_is_not(tmp_path: Path) -> None:
    """What changes a model's meaning must be known; how it was trained need not be, and old folders get defaults."""
    saved = model()
    save_model(tmp_path, saved)
    known = asdict(saved.model)
    rewrite(tmp_path, training={**asdict(TrainingConfig()), "schedule": "cosine"}, extra="field")
    assert load_model(tmp_path).training == TrainingConfig()
    rewrite(tmp_path, model={name: value for name, value in known.items() if name != "temperature"})
    assert load_model(tmp_path).model.temperature == 0.08
    rewrite(tmp_path, model={**known, "rope": True})
    with pytest.raises(UnusableModel, match="settings that this program does not know: rope"):
        load_model(tmp_path)
    rewrite(tmp_path, model={**known, "dim": 7})
    with pytest.raises(UnusableModel, match="dim and width must be multiples of 4"):
        load_model(tmp_path)


def test_a_vocabulary_of_another_model_is_refused(tmp_path: Path) -> None:
    """Sound files of two models do not make one: the weights that do not fit are named with both shapes."""
    save_model(tmp_path / "small", random_model(8))
    save_model(tmp_path / "large", random_model(8, items=("i1", "i2", "i3")))
    words = part_of(tmp_path / "large", "vocabulary")
    (tmp_path / "small" / words.name).write_bytes(words.read_bytes())
    files = json.loads((tmp_path / "small" / MANIFEST).read_bytes())["files"]
    other = json.loads((tmp_path / "large" / MANIFEST).read_bytes())["files"]
    rewrite(tmp_path / "small", files={**files, "vocabulary": other["vocabulary"]})
    with pytest.raises(UnusableModel, match=r"tower.ids.weight do not fit: expected the shape \(3, 8\).*\(2, 8\)"):
        load_encoder(EncoderConfig(model=str(tmp_path / "small")))


@pytest.mark.parametrize("words", [b"[]", b"{}", b'{"items": ["a", "a"]}', b"nonsense"])
def test_what_is_no_vocabulary_is_refused(tmp_path: Path, words: bytes) -> None:
    """A vocabulary of another form, though its checksum fits, is refused."""
    save_model(tmp_path, random_model(8))
    files = json.loads((tmp_path / MANIFEST).read_bytes())["files"]
    part_of(tmp_path, "vocabulary").write_bytes(words)
    entry = {**files["vocabulary"], "bytes": len(words), "sha256": hashlib.sha256(words).hexdigest()}
    rewrite(tmp_path, files={**files, "vocabulary": entry})
    with pytest.raises(UnusableModel, match=r"vocabulary of .* is not usable"):
        load_model(tmp_path)


def test_int8_is_a_quarter_of_the_size_and_nearly_the_same(tmp_path: Path) -> None:
    """Matrices become int8 rows: the file shrinks below 30 %, each row keeps its direction, numbers stay exact."""
    saved = random_model(64, items=[f"i{number}" for number in range(300)], rates=True)
    weights = {**saved.weights, "rating.scale": np.array(1.7, np.float32), "zeros": np.zeros((2, 3), np.float32)}
    saved = replace(saved, weights=weights)
    plain, small = tmp_path / "plain", tmp_path / "small"
    assert save_model(plain, saved) != save_model(small, saved, int8=True)
    assert part_of(small, "weights").stat().st_size <= 0.3 * part_of(plain, "weights").stat().st_size
    loaded = load_model(small).weights
    assert loaded.keys() == weights.keys()
    for name, array in weights.items():
        assert loaded[name].dtype == np.float32
        if array.ndim == 2:
            assert np.abs(loaded[name] - array).max(initial=0) <= np.abs(array).max() / 254 * 1.01
        else:
            np.testing.assert_array_equal(loaded[name], array)
    items = [encoder_of(replace(saved, weights=each), ()).items for each in (weights, loaded)]
    one, other = (each.encode(saved.vocabulary.items, [""] * 300, [()] * 300) for each in items)
    assert (one * other).sum(axis=1).min() > 0.999


WRITER = """
import sys
from pathlib import Path
from encoder.checkpoint import load_model, save_model
models = [load_model(Path(folder)) for folder in sys.argv[2:]]
number = 0
while True:
    save_model(Path(sys.argv[1]), models[number % len(models)])
    number += 1
    print(number, flush=True)
"""


def is_one_of_three(loaded: SavedModel) -> None:
    assert loaded.training is not None
    assert_same(loaded, model(loaded.training.seed))


@pytest.mark.timeout(120)
def test_a_reader_beside_a_killed_writer_sees_whole_models(tmp_path: Path) -> None:
    """While a process replaces the model without pause, each load gives one model whole; so does one after SIGKILL."""
    models = [str(tmp_path / str(seed)) for seed in range(3)]
    for seed, folder in enumerate(models):
        save_model(Path(folder), model(seed))
    shared = tmp_path / "shared"
    for kill in range(3):
        command = [sys.executable, "-c", WRITER, str(shared), *models]
        writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline()
            for _ in range(20 + 7 * kill):
                is_one_of_three(load_model(shared))
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        is_one_of_three(load_model(shared))


def test_a_writer_killed_at_any_step_leaves_a_whole_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever call to the system is the last one that happens, the folder holds the old model or the new one."""
    calls = 0

    def dies(at: int, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > at:
                raise KeyboardInterrupt
            return call(*args, **more)

        return counted

    finished, at = False, 0
    while not finished:
        folder, calls = tmp_path / str(at), 0
        save_model(folder, model(0))
        with monkeypatch.context() as patched:
            for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "open")):
                patched.setattr(owner, name, dies(at, getattr(owner, name)))
            try:
                save_model(folder, model(1))
                finished = True
            except KeyboardInterrupt:
                pass
        loaded = load_model(folder)
        assert loaded.training is not None
        assert_same(loaded, model(loaded.training.seed))
        at += 1
    assert at > 15
    assert loaded.training.seed == 1


def test_a_full_disk_keeps_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full the error says so, the old model is whole and no half file stays."""
    save_model(tmp_path, model(0))
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(tmp_path, model(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert_same(load_model(tmp_path), model(0))


def test_a_reader_takes_the_new_model_when_the_old_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that replaces the folder between the reading of its manifest and its files costs a second look."""
    save_model(tmp_path, model(0))
    read, replaced = checkpoint.read_manifest, []

    def replaced_behind(folder: Path) -> dict[str, Any]:
        manifest = read(folder)
        if len(replaced) < 3:
            replaced.append(save_model(folder, model(1 + len(replaced))))
        return manifest

    monkeypatch.setattr(checkpoint, "read_manifest", replaced_behind)
    assert_same(load_model(tmp_path), model(3))


def test_a_reader_gives_up_on_a_folder_that_never_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second looks are bounded: the file that is always gone is named in the end."""
    save_model(tmp_path, model(0))
    read, replaced = checkpoint.read_manifest, []

    def always_replaced(folder: Path) -> dict[str, Any]:
        manifest = read(folder)
        replaced.append(save_model(folder, model(1 + len(replaced))))
        return manifest

    monkeypatch.setattr(checkpoint, "read_manifest", always_replaced)
    with pytest.raises(UnusableModel, match=r"weights-.* is missing"):
        load_model(tmp_path)
    assert len(replaced) == checkpoint.READS_MAX


def test_many_readers_share_a_folder_with_a_writer(tmp_path: Path) -> None:
    """Threads that load while another saves see whole models only."""
    save_model(tmp_path, model(0))
    done, faults = threading.Event(), []

    def load_often() -> None:
        while not done.is_set():
            try:
                is_one_of_three(load_model(tmp_path))
            except Exception as fault:  # noqa: BLE001 - shown by the assertion below
                faults.append(fault)

    readers = [threading.Thread(target=load_often) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(15):
        save_model(tmp_path, model(number % 3))
    done.set()
    for reader in readers:
        reader.join()
    assert faults == []


def test_a_folder_of_the_first_schema_stays_readable() -> None:
    """The golden folder loads and gives the vectors that were recorded with it."""
    recorded = json.loads((GOLDEN / "expected.json").read_text())
    loaded = load_model(GOLDEN)
    assert (loaded.fingerprint, loaded.training) == (
        recorded["fingerprint"],
        TrainingConfig(seed=7, epochs_max=60, validate_every_epochs=3, users_per_batch=256),
    )
    encoder = load_encoder(EncoderConfig(model=str(GOLDEN), event_types=EVENT_TYPES))
    items = encoder.items.encode(["i1", "i3", "new"], ["", "", ""], [["brand:a"], [], ["brand:b"]])
    np.testing.assert_allclose(items, recorded["items"], rtol=0, atol=1e-6)
    states = encoder.profiles.initial_states([["gender:f"], []])
    encoder.profiles.step(states, golden_events(items))
    np.testing.assert_allclose(encoder.profiles.vectors(states), recorded["users"], rtol=0, atol=1e-5)
    assert load_resume(GOLDEN)["step"] == 7


def golden_events(items: Floats) -> EncoderEvents:
    """Six events of two users on the golden items."""
    return EncoderEvents(
        rows=np.array([0, 1, 0, 0, 1, 0], np.int32),
        item_vectors=items[[0, 1, 2, 1, 0, 2]],
        weights=np.array([1, 1, -1, 2, 1, -1], np.float32),
        gaps_s=np.array([0, 0, 10, 90_000, 3600, 1], np.float32),
        types=np.array([0, 1, 1, 0, 2, 2], np.uint8),
        ratings=np.array([np.nan, 5, np.nan, 1, np.nan, np.nan], np.float32),
    )


@pytest.mark.parametrize(
    "modules", ["encoder", "encoder.inference, encoder.checkpoint, encoder.recurrent, encoder.tower"]
)
def test_serving_imports_no_training_stack(modules: str) -> None:
    """Neither the front door nor the serving modules import torch or transformers; nor does loading a model."""
    program = (
        f"import sys, {modules}\n"
        "from encoder import EncoderConfig, load_encoder\n"
        f"load_encoder(EncoderConfig(model={str(GOLDEN)!r}))\n"
        "assert not {'torch', 'transformers', 'tensorboard'} & set(sys.modules), sys.modules.keys()"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
