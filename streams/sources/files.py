"""Opening a log: plain, `.gz`, `.xz` or `.zst`, or `-` for standard input."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import zstandard

from streams.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

STANDARD_INPUT = "-"
COMPRESSIONS = (".gz", ".xz", ".zst")
COUNTED_BYTES_MAX = 32 * 1024 * 1024
"""Larger files are not counted ahead: decompressing them twice costs more than an ETA is worth."""
_READ_BYTES = 1 << 16
_ZSTD_INPUT_BYTES = 1 << 12
"""Small, since all that it expands to is held at once."""
_STANDARD_INPUT_FD = 0
"""Read past `sys.stdin`, whose lock, held by a reading thread, would abort the interpreter at its exit."""


@contextmanager
def open_bytes(path: str) -> Iterator[IO[bytes]]:
    """The decompressed bytes of `path`; standard input stays open afterwards.

    Raises:
        UsageError: the file is missing or unreadable, or turns out damaged while it is read.
    """
    if path == STANDARD_INPUT:
        yield io.BufferedReader(io.FileIO(_STANDARD_INPUT_FD, closefd=False))
        return
    try:
        with _decompressed(Path(path)) as stream:
            yield stream
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
        raise UsageError(f"{path} is damaged or not what its ending says: {error}. Fetch it again.") from error
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}. Check the path.") from error


@contextmanager
def open_text(path: str, encoding: str = "utf-8") -> Iterator[IO[str]]:
    """The decompressed text of `path`, newlines untouched; bytes that do not decode become surrogates."""
    with open_bytes(path) as stream:
        text = io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape", newline="")
        try:
            yield text
        finally:
            text.detach()


def count_lines(path: str) -> int | None:
    """Lines in a file small enough to be read twice; None for a larger one and for standard input."""
    if path == STANDARD_INPUT or Path(path).stat().st_size > COUNTED_BYTES_MAX:
        return None
    lines, last = 0, b"\n"
    with open_bytes(path) as stream:
        while block := stream.read(_READ_BYTES):
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + (last != b"\n")


def find_file(path: str, names: Sequence[str]) -> str:
    """`path` itself when it is a file or `-`; in a folder, the first of `names` there, compressed or not.

    Raises:
        UsageError: there is no such path, or the folder holds none of them.
    """
    if path == STANDARD_INPUT or Path(path).is_file():
        return path
    if not Path(path).is_dir():
        raise UsageError(f"There is no file or folder {path}. Check the path.")
    found = find_beside(path, names)
    if found is None:
        raise UsageError(f"{path} holds none of {', '.join(names)} (also as {', '.join(COMPRESSIONS)}).")
    return found


def find_beside(path: str, names: Sequence[str]) -> str | None:
    """The first of `names`, compressed or not, in the folder `path` or in the folder of the file `path`."""
    if path == STANDARD_INPUT:
        return None
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    for name in names:
        for ending in ("", *COMPRESSIONS):
            candidate = folder / f"{name}{ending}"
            if candidate.is_file():
                return str(candidate)
    return None


@contextmanager
def _decompressed(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw, _decompressor(raw, path.suffix) as stream:
        yield stream


def _decompressor(raw: IO[bytes], ending: str) -> IO[bytes]:
    if ending == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), _READ_BYTES)
    if ending == ".xz":
        return io.BufferedReader(lzma.LZMAFile(raw), _READ_BYTES)
    if ending == ".zst":
        return io.BufferedReader(_ZstdFile(raw), _READ_BYTES)
    return raw


class _ZstdFile(io.RawIOBase):
    """Frames of zstd one after the other; unlike zstandard's own reader it notices a missing end."""

    def __init__(self, compressed: IO[bytes]) -> None:
        self._compressed = compressed
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._input = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Buffer, /) -> int:
        """Raises EOFError when the file ends inside a frame."""
        view = memoryview(target).cast("B")
        while not self._ready and self._more_input():
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._begun = True
            self._ready = memoryview(self._frame.decompress(self._input))
            self._input = self._frame.unused_data
        count = min(len(view), len(self._ready))
        view[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def _more_input(self) -> bool:
        self._input = self._input or self._compressed.read(_ZSTD_INPUT_BYTES)
        if not self._input and self._begun and not self._frame.eof:
            raise EOFError("compressed file ended before the end-of-stream marker was reached")
        return bool(self._input)
