from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from streams.core.errors import UsageError
from streams.sources import open_source
from streams.sources.parquet import count_rows, read_rows

if TYPE_CHECKING:
    from pathlib import Path

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is missing; install nearstream[logs]")
parquet = pytest.importorskip("pyarrow.parquet")

MOMENT = datetime(1970, 1, 2)  # noqa: DTZ001 - Parquet files of public logs have no zone
DAY_MS = 86_400_000


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Five rows in three row groups."""
    table = pyarrow.table({"n": [1, 2, None, 4, 5], "t": [MOMENT] * 5, "ts": [[MOMENT], [], None, [None], [MOMENT]]})
    parquet.write_table(table, tmp_path / "five.parquet", row_group_size=2)
    return str(tmp_path / "five.parquet")


@pytest.mark.parametrize("batch_rows_max", [1, 2, 3, 100])
def test_rows_are_numbered_over_batches(path: str, batch_rows_max: int) -> None:
    """Columns come in the order asked for, times as milliseconds also inside lists, whatever the batches."""
    assert list(read_rows(path, ("ts", "n", "t"), batch_rows_max)) == [
        (1, ([DAY_MS], 1, DAY_MS)),
        (2, ([], 2, DAY_MS)),
        (3, (None, None, DAY_MS)),
        (4, ([None], 4, DAY_MS)),
        (5, ([DAY_MS], 5, DAY_MS)),
    ]
    assert count_rows(path) == 5


def test_a_missing_column_is_told_with_those_there_are(path: str) -> None:
    """The error lists what was looked for and what the file has."""
    with pytest.raises(UsageError, match=r"no column 'm'; its columns are n, t, ts"):
        next(read_rows(path, ("n", "m")))


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "hole"])
def test_a_damaged_file_is_told(path: str, damage: str) -> None:
    """A cut, foreign, empty or overwritten file ends in an error that says so, not in fewer rows."""
    with open(path, "rb") as file:  # noqa: PTH123
        content = file.read()
    damaged = {
        "cut": content[: len(content) // 2],
        "garbage": b"user,item\n" * 10,
        "empty": b"",
        "hole": content[:4] + b"\xff" * 40 + content[44:],
    }[damage]
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(damaged)
    with pytest.raises(UsageError, match=r"damaged|Cannot read"):
        list(read_rows(path, ("n", "t")))


def test_a_missing_file_and_standard_input_are_told(tmp_path: Path) -> None:
    """Parquet needs a file, for its index is at the end."""
    with pytest.raises(UsageError, match="Cannot read"):
        count_rows(str(tmp_path / "none.parquet"))
    with pytest.raises(UsageError, match="standard input"):
        count_rows("-")


@pytest.mark.parametrize(("module", "format_name"), [("pyarrow.parquet", "online-retail"), ("scipy.io", "ciao")])
def test_a_missing_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, format_name: str
) -> None:
    """Without the extra the error names it, instead of an import that fails."""
    monkeypatch.setitem(sys.modules, module, None)
    file = {"online-retail": "online_retail.parquet", "ciao": "rating.mat"}[format_name]
    (tmp_path / file).write_bytes(b"x")
    with pytest.raises(UsageError, match=r"pip install 'nearstream\[logs\]'"):
        open_source(format_name, str(tmp_path)).describe()
