"""StaticTextEncoder: pretrained word vectors, offline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encoder import text as text_module
from encoder.text import TEXT_CHARS_MAX, StaticTextEncoder

REPOSITORY = Path(__file__).resolve().parents[3]
TOPICS = {
    "kitchen": ["frying pan", "coffee maker", "chef knife", "cutting board"],
    "music": ["acoustic guitar", "drum kit", "violin strings", "trumpet case"],
    "computers": ["laptop computer", "wireless mouse", "usb keyboard", "graphics card"],
}


@pytest.fixture(scope="module")
def encoder() -> StaticTextEncoder:
    return StaticTextEncoder(64)


def test_same_topic_is_nearer_than_another(encoder: StaticTextEncoder) -> None:
    """Words of one topic are nearer to each other than to another topic's; unrelated ones are near 0."""
    vectors = encoder.encode([words for topic in TOPICS.values() for words in topic])
    topics = np.repeat(np.arange(len(TOPICS)), 4)
    similarities = vectors @ vectors.T
    same = (topics[:, None] == topics) & ~np.eye(len(topics), dtype=bool)
    other = topics[:, None] != topics
    assert similarities[same].mean() > similarities[other].mean() + 0.15
    assert abs(similarities[other].mean()) < 0.06


def test_portuguese_and_english_meet(encoder: StaticTextEncoder) -> None:
    """A Portuguese title is nearer to an English one on its subject than to one on another."""
    pt, same, other = encoder.encode(
        ["música e guitarra", "music and guitar lessons", "quarterly tax report for companies"]
    )
    assert pt @ same > pt @ other


def test_case_does_not_matter(encoder: StaticTextEncoder) -> None:
    """Capital letters change nothing: shops shout, people do not."""
    lower, upper = encoder.encode(["red running shoes", "RED Running Shoes"])
    assert lower.tobytes() == upper.tobytes()


def test_blank_texts_are_zeros(encoder: StaticTextEncoder) -> None:
    """A text without a word has no direction; one of emoji alone has, by its bytes."""
    vectors = encoder.encode(["", "  \n\t", "\N{GRINNING FACE}"])
    assert not vectors[:2].any()
    assert np.linalg.norm(vectors[2]) == pytest.approx(1.0, abs=1e-6)
    assert encoder.encode([]).shape == (0, 64)


def test_a_vector_depends_on_its_text_alone(encoder: StaticTextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches and their size change nothing, bit for bit."""
    texts = [f"title number {n} {'word ' * (n % 7)}" for n in range(50)] + ["", "ação e reação"]
    together = encoder.encode(texts)
    monkeypatch.setattr(text_module, "BATCH_TEXTS_MAX", 7)
    assert encoder.encode(texts).tobytes() == together.tobytes()
    for row, text in enumerate(texts):
        assert encoder.encode([text]).tobytes() == together[row : row + 1].tobytes()


def test_vectors_are_unit_float32_of_any_width() -> None:
    """Every width from 1 to 256 gives float32 unit vectors; others are refused."""
    for dim in (1, 8, 256):
        vectors = StaticTextEncoder(dim).encode(["red shoes", "blue hat"])
        assert vectors.shape == (2, dim)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    for dim in (0, 257):
        with pytest.raises(ValueError, match=r"1\.\.256"):
            StaticTextEncoder(dim)


def test_huge_texts_cost_no_more_than_their_beginning(encoder: StaticTextEncoder) -> None:
    """Only the first 2,000 characters are read."""
    beginning = ("shoes " * TEXT_CHARS_MAX)[:TEXT_CHARS_MAX]
    cut, whole = encoder.encode([beginning, beginning + "guitar " * 10_000])
    assert cut.tobytes() == whole.tobytes()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel the error says what to install."""
    monkeypatch.setattr(text_module, "_PACKAGE", "no_such_package_here")
    with pytest.raises(FileNotFoundError, match="install no_such_package_here"):
        StaticTextEncoder(8)


def test_loading_needs_no_network_no_home_and_no_import_of_the_package(tmp_path: Path) -> None:
    """Loading opens no socket, writes nothing at home and never imports the package that ships the vectors."""
    program = """
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("a socket was opened")

socket.socket.__init__ = refuse
from encoder.text import StaticTextEncoder

assert StaticTextEncoder(8).encode(["a hat"]).any()
assert "wordllama" not in sys.modules
"""
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr
    assert list(tmp_path.iterdir()) == []
