from __future__ import annotations

import gzip
import lzma
from typing import TYPE_CHECKING

import pytest
import zstandard

from streams.core.errors import UsageError
from streams.sources.files import count_lines, find_beside, find_file, open_bytes, open_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXT = b"".join(b"line %d\n" % number for number in range(20_000))
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("ending", COMPRESS)
def test_every_compression_reads_as_the_plain_file(tmp_path: Path, ending: str) -> None:
    """A plain, gzip, xz or zstd file gives the same bytes."""
    path = tmp_path / f"log{ending}"
    path.write_bytes(COMPRESS[ending](TEXT))
    with open_bytes(str(path)) as stream:
        assert stream.read() == TEXT


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
def test_concatenated_files_read_to_the_end(tmp_path: Path, ending: str) -> None:
    """Two compressed files glued together, as log shippers do, give both halves."""
    path = tmp_path / f"log{ending}"
    path.write_bytes(COMPRESS[ending](b"one\n") + COMPRESS[ending](b"two\n"))
    with open_bytes(str(path)) as stream:
        assert list(stream) == [b"one\n", b"two\n"]


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
def test_a_file_that_is_not_what_its_ending_says_is_a_clear_error(tmp_path: Path, ending: str) -> None:
    """Plain text under a compressed name is named as damaged, with its path."""
    path = tmp_path / f"log{ending}"
    path.write_bytes(TEXT)
    with pytest.raises(UsageError, match="damaged or not what its ending says"), open_bytes(str(path)) as stream:
        stream.read()


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
def test_a_truncated_file_is_an_error_not_a_short_log(tmp_path: Path, ending: str) -> None:
    """Half of a compressed file does not pass as a smaller log."""
    path = tmp_path / f"log{ending}"
    whole = COMPRESS[ending](TEXT)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="damaged"), open_bytes(str(path)) as stream:
        stream.read()


def test_a_missing_file_names_the_path(tmp_path: Path) -> None:
    """Opening what is not there says which path."""
    with pytest.raises(UsageError, match=r"Cannot read .*absent\.csv"), open_bytes(str(tmp_path / "absent.csv")):
        pass


def test_bytes_that_are_no_utf8_do_not_stop_the_reading(tmp_path: Path) -> None:
    """A bad byte reaches the row's checks instead of ending the file."""
    path = tmp_path / "log.csv"
    path.write_bytes(b"a\n\xff\nb\n")
    with open_text(str(path)) as text:
        assert [line.rstrip("\n") for line in text] == ["a", "\udcff", "b"]


def test_lines_are_counted_through_compression_and_without_a_last_newline(tmp_path: Path) -> None:
    """The count ahead is the number of lines, whether or not the last one ends."""
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(b"a\nb\nc"))
    assert count_lines(str(path)) == 3
    path.write_bytes(gzip.compress(b"a\nb\n"))
    assert count_lines(str(path)) == 2


def test_standard_input_is_not_counted() -> None:
    """What can be read once only is not read for an ETA."""
    assert count_lines("-") is None


def test_a_folder_stands_for_the_log_in_it(tmp_path: Path) -> None:
    """A folder is searched for the known names, compressed or not; a file and `-` stand for themselves."""
    log = tmp_path / "events.csv.xz"
    log.write_bytes(b"")
    assert find_file(str(tmp_path), ["other.csv", "events.csv"]) == str(log)
    assert find_file(str(log), ["other.csv"]) == str(log)
    assert find_file("-", ["other.csv"]) == "-"
    assert find_beside(str(log), ["events.csv"]) == str(log)
    assert find_beside(str(log), ["titles.csv"]) is None


def test_a_folder_without_the_log_names_what_was_looked_for(tmp_path: Path) -> None:
    """The error lists the expected file names."""
    with pytest.raises(UsageError, match=r"holds none of events\.csv"):
        find_file(str(tmp_path), ["events.csv"])


def test_a_path_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    """A wrong path is told before anything is read."""
    with pytest.raises(UsageError, match="no file or folder"):
        find_file(str(tmp_path / "nowhere"), ["events.csv"])
