"""CachedTextEncoder: only misses are encoded, and what a crash leaves behind is whole."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

import numpy as np
import pytest

from encoder import text_cache
from encoder.errors import UnusableData
from encoder.text_cache import CACHE_FILE, CachedTextEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[3]
DIM = 4


class CountingEncoder:
    """Vectors by the length of a text; keeps what it was asked, and fails at a text named `bad`."""

    def __init__(self, name: str = "counting@1", dim: int = DIM) -> None:
        self.name = name
        self.dim = dim
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        if "bad" in texts:
            raise RuntimeError("the model broke")
        return np.array([np.eye(self.dim, dtype=np.float32)[len(text) % self.dim] for text in texts])


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


def entries(folder: Path) -> int:
    connection = sqlite3.connect(folder / CACHE_FILE)
    count: int = connection.execute("SELECT count(*) FROM vectors").fetchone()[0]
    connection.close()
    return count


def test_only_misses_are_encoded(encoder: CountingEncoder, tmp_path: Path) -> None:
    """A text is encoded once, however often and in whatever order it is asked for, also by the next process."""
    first = CachedTextEncoder(encoder, tmp_path).encode(["a", "bb", "a", "ccc"])
    assert encoder.asked == ["a", "bb", "ccc"]
    later = CountingEncoder()
    again = CachedTextEncoder(later, tmp_path).encode(["ccc", "dddd", "a"])
    assert later.asked == ["dddd"]
    assert again.dtype == np.float32
    assert again[[0, 2]].tobytes() == first[[3, 0]].tobytes()
    assert again.tobytes() == CountingEncoder().encode(["ccc", "dddd", "a"]).tobytes()


def test_what_comes_back_may_be_changed(encoder: CountingEncoder, tmp_path: Path) -> None:
    """The caller owns the array; writing into it changes nothing that is kept."""
    cached = CachedTextEncoder(encoder, tmp_path)
    cached.encode(["a"])[0] = 9.0
    cached.encode(["a"])[0] = 9.0
    assert cached.encode(["a"]).max() == 1.0


@pytest.mark.parametrize("other", [CountingEncoder("counting@2"), CountingEncoder(dim=8)], ids=["name", "dim"])
def test_another_encoder_gets_vectors_of_its_own(
    encoder: CountingEncoder, other: CountingEncoder, tmp_path: Path
) -> None:
    """Two encoders share a folder without ever sharing a vector."""
    CachedTextEncoder(encoder, tmp_path).encode(["a"])
    assert CachedTextEncoder(other, tmp_path).encode(["a"]).shape == (1, other.dim)
    assert other.asked == ["a"]
    assert entries(tmp_path) == 2


def test_name_and_dim_are_the_encoders_own(encoder: CountingEncoder, tmp_path: Path) -> None:
    """A checkpoint's manifest does not care whether vectors were cached."""
    cached = CachedTextEncoder(encoder, tmp_path)
    assert (cached.name, cached.dim) == ("counting@1", DIM)


def test_the_oldest_go_first(encoder: CountingEncoder, tmp_path: Path) -> None:
    """The file never holds more than `entries_max`, also when one call brings more, and every vector is right."""
    cached = CachedTextEncoder(encoder, tmp_path, entries_max=3)
    cached.encode(["a", "b", "c"])
    cached.encode(["d"])
    assert entries(tmp_path) == 3
    encoder.asked.clear()
    cached.encode(["b", "c", "d"])
    assert encoder.asked == []
    many = [str(number) * (number % 5 + 1) for number in range(20)]
    assert cached.encode(many).tobytes() == CountingEncoder().encode(many).tobytes()
    assert entries(tmp_path) == 3
    with pytest.raises(ValueError, match="entries_max must be 1 or more, got 0"):
        CachedTextEncoder(encoder, tmp_path, entries_max=0)


def test_an_interruption_keeps_what_was_committed(
    encoder: CountingEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part is committed by itself: a failure later on does not cost the parts before."""
    monkeypatch.setattr(text_cache, "MISSES_PER_COMMIT", 2)
    cached = CachedTextEncoder(encoder, tmp_path)
    calls: list[tuple[int, int]] = []
    with pytest.raises(RuntimeError, match="the model broke"):
        cached.encode(["a", "b", "c", "d", "bad"], lambda done, total: calls.append((done, total)))
    assert calls == [(2, 5), (4, 5)]
    encoder.asked.clear()
    cached.encode(["a", "b", "c", "d", "e"])
    assert encoder.asked == ["e"]


def test_a_torn_commit_is_cut_off(encoder: CountingEncoder, tmp_path: Path) -> None:
    """A process that dies with half a transaction in the file leaves the commits before it, and nothing else."""
    cached = CachedTextEncoder(encoder, tmp_path)
    cached.encode(["a", "b"])
    program = """
import os, sqlite3, sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # so that pages reach the file before the commit
connection.execute("BEGIN")
for number in range(2000):
    connection.execute("INSERT INTO vectors (key, vector) VALUES (?, ?)", (b"%d" % number, b"x" * 16))
os._exit(9)
"""
    before = (tmp_path / CACHE_FILE).stat().st_size
    finished = subprocess.run([sys.executable, "-c", program, str(tmp_path / CACHE_FILE)], check=False, timeout=60)
    assert finished.returncode == 9
    assert (tmp_path / CACHE_FILE).stat().st_size > before
    encoder.asked.clear()
    assert cached.encode(["a", "b", "c"]).tobytes() == CountingEncoder().encode(["a", "b", "c"]).tobytes()
    assert encoder.asked == ["c"]
    assert entries(tmp_path) == 3


def test_one_of_several_creates_the_table(tmp_path: Path) -> None:
    """Openings of an empty folder at the same moment all succeed."""
    together = Barrier(6)

    def opened(number: int) -> None:
        together.wait(10)
        CachedTextEncoder(CountingEncoder(), tmp_path / str(number // 6))

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(opened, range(60)))
    assert [entries(tmp_path / str(folder)) for folder in range(10)] == [0] * 10


def test_processes_share_a_folder(tmp_path: Path) -> None:
    """Several processes that start on an empty folder at once fill one file, and each gets right vectors."""
    program = """
import sys
import numpy as np
from encoder.text_cache import CachedTextEncoder

class Lengths:
    name, dim = "lengths@1", 64

    def encode(self, texts):
        return np.array([np.full(64, len(text), np.float32) for text in texts])

texts = ["x" * number for number in range(1, 400)]
vectors = CachedTextEncoder(Lengths(), sys.argv[1]).encode(texts)
assert (vectors[:, 0] == range(1, 400)).all()
"""
    command = [sys.executable, "-c", program, str(tmp_path / "new" / "cache")]
    started = [subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ends = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 4, ends
    assert entries(tmp_path / "new" / "cache") == 399


def fill_with_noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(3).bytes(4096))


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shorten_a_vector(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE vectors SET vector = x'00000000' WHERE id = 7")
    connection.close()


@pytest.mark.parametrize("damage", [fill_with_noise, cut_in_half, shorten_a_vector])
def test_a_damaged_file_is_named(encoder: CountingEncoder, tmp_path: Path, damage: object) -> None:
    """A file that cannot be believed is refused by its name, with the advice to delete it."""
    assert callable(damage)
    texts = [f"title {number}" for number in range(300)]
    CachedTextEncoder(encoder, tmp_path).encode(texts)
    damage(tmp_path / CACHE_FILE)
    with pytest.raises(UnusableData, match=rf"{CACHE_FILE} .*delete"):
        CachedTextEncoder(encoder, tmp_path).encode(texts)


def test_a_file_of_another_version_is_refused(encoder: CountingEncoder, tmp_path: Path) -> None:
    """A later version's file, or somebody else's database, is neither read nor written."""
    connection = sqlite3.connect(tmp_path / CACHE_FILE)
    connection.execute("CREATE TABLE vectors (id INTEGER)")
    connection.close()
    with pytest.raises(UnusableData, match="has version 0 and this program reads 1"):
        CachedTextEncoder(encoder, tmp_path)
