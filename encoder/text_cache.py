"""Text vectors kept on disk by content, so that a catalogue is encoded once. One SQLite file, nothing to run."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoder.errors import UnusableData
from encoder.text_encoders import TextEncoder

Floats = NDArray[np.float32]

CACHE_FILE = "text-vectors.sqlite3"
SCHEMA = 1
"""Stands in the file as `user_version`; a file of another number is refused, not read."""
KEY_BYTES = 16
MISSES_PER_COMMIT = 1024
"""Texts encoded between two commits: what an interruption can cost."""
KEYS_PER_QUERY = 500
"""SQLite takes at least 999 parameters in a statement."""
WAIT_S = 30.0
"""How long a process waits for another one's commit."""


class CachedTextEncoder:
    """Any text encoder, with the vectors it once gave read from disk instead of computed again.

    A vector's key is the BLAKE2b hash of the encoder's name, its `dim` and the text: another encoder or another version
    of it, never gets a wrong vector, and several may share a folder. Several processes may read and write at a time. A
    commit is whole or absent, also after a crash in the middle of one. The file holds at most `entries_max` vectors
    (about 2.1 KB each at 384 dimensions); the oldest go first.
    """

    def __init__(self, encoder: TextEncoder, folder: str | Path, *, entries_max: int = 1_000_000) -> None:
        """Creates folder and file where they are missing.

        Raises:
            ValueError: `entries_max` is below 1.
            UnusableData: the folder holds a cache file that is damaged or of another version.
        """
        if entries_max < 1:
            raise ValueError(f"entries_max must be 1 or more, got {entries_max}.")
        self._encoder = encoder
        self._path = Path(folder) / CACHE_FILE
        self._entries_max = entries_max
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._connection() as connection:
            _prepare(connection, self._path)

    @property
    def name(self) -> str:
        """The encoder's own name: where a vector was kept does not change it."""
        return self._encoder.name

    @property
    def dim(self) -> int:
        """Length d of a vector."""
        return self._encoder.dim

    def encode(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Floats:
        """The encoder's vectors (n, d) in the order of `texts`; a text that occurs twice is encoded once.

        Every 1,024 texts that had to be encoded are committed, and `progress(done, total)` counts them.

        Raises:
            UnusableData: the cache file is damaged; the message names it. Deleting it costs only time.
            sqlite3.OperationalError: the disk is full, or another process kept the file locked for 30 s.
        """
        keys = [self._key(text) for text in texts]
        with self._connection() as connection:
            found = self._read(connection, set(keys))
            missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
            for done, vectors in self._encoded(missing):
                self._write(connection, vectors)
                found |= vectors
                if progress is not None:
                    progress(done, len(missing))
        return np.array([found[key] for key in keys], np.float32).reshape(len(keys), self.dim)

    def _encoded(self, missing: dict[bytes, str]) -> Iterator[tuple[int, dict[bytes, Floats]]]:
        keys = list(missing)
        for start in range(0, len(keys), MISSES_PER_COMMIT):
            part = keys[start : start + MISSES_PER_COMMIT]
            vectors = self._encoder.encode([missing[key] for key in part])
            yield start + len(part), dict(zip(part, vectors, strict=True))

    def _read(self, connection: sqlite3.Connection, keys: set[bytes]) -> dict[bytes, Floats]:
        found: dict[bytes, Floats] = {}
        for part in _parts(sorted(keys), KEYS_PER_QUERY):
            marks = ",".join("?" * len(part))
            for key, stored in connection.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part):
                if len(stored) != 4 * self.dim:
                    raise UnusableData(
                        f"{self._path} holds a vector of {len(stored)} bytes where {4 * self.dim} belong; "
                        "delete the file, it will be filled again."
                    )
                found[key] = np.frombuffer(stored, "<f4")
        return found

    def _write(self, connection: sqlite3.Connection, vectors: dict[bytes, Floats]) -> None:
        rows = [(key, vector.astype("<f4").tobytes()) for key, vector in vectors.items()]
        with connection:  # one transaction
            connection.executemany("INSERT OR IGNORE INTO vectors (key, vector) VALUES (?, ?)", rows)
            # ids are given in ascending order and only the lowest are ever deleted: they count the entries
            connection.execute(
                "DELETE FROM vectors WHERE id <= (SELECT max(id) FROM vectors) - ?", (self._entries_max,)
            )

    def _key(self, text: str) -> bytes:
        content = f"{self._encoder.name}\0{self._encoder.dim}\0{text}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        # a connection per call (0.2 ms): it may not be shared by threads, nor carried over a fork
        with closing(sqlite3.connect(self._path, timeout=WAIT_S)) as connection:
            try:
                yield connection
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                raise UnusableData(
                    f"{self._path} is damaged or no cache of text vectors ({error}); delete it, it fills again."
                ) from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")  # of several processes that start at once, one creates the table
    with connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if version != SCHEMA and (version or tables):
            raise UnusableData(
                f"{path} has version {version} and this program reads {SCHEMA}; delete it or move it away."
            )
        if not tables:
            connection.execute(
                "CREATE TABLE vectors (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, vector BLOB NOT NULL)"
            )
            connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _parts(keys: Sequence[bytes], size: int) -> Iterable[Sequence[bytes]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))
