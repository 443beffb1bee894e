"""Parquet files, read a bounded batch of rows at a time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from streams.core.errors import UsageError
from streams.sources.extras import library
from streams.sources.files import STANDARD_INPUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BATCH_ROWS_MAX = 16_384

Cells = tuple[Any, ...]


def read_rows(path: str, columns: Sequence[str], batch_rows_max: int = BATCH_ROWS_MAX) -> Iterator[tuple[int, Cells]]:
    """Number, from 1, and cells of each row, in the order of `columns`; times as epoch ms UTC, absent cells None.

    Holds at most `batch_rows_max` rows in memory, as columns.

    Raises:
        UsageError: pyarrow is not installed, the file is missing, damaged or no Parquet, or it lacks a column.
    """
    with _opened(path) as file:
        present = file.schema_arrow.names
        missing = [name for name in columns if name not in present]
        if missing:
            raise UsageError(
                f"{path} has no column {', '.join(map(repr, missing))}; its columns are {', '.join(present)}. "
                "Check that FORMAT and file belong together."
            )
        number = 1
        for batch in file.iter_batches(batch_rows_max, columns=list(columns)):
            cells = [_cells(batch.column(name)) for name in columns]
            yield from enumerate(zip(*cells, strict=True), number)
            number += batch.num_rows


def count_rows(path: str) -> int:
    """Rows of the file, from its footer. Raises UsageError like `read_rows`."""
    with _opened(path) as file:
        return int(file.metadata.num_rows)


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    if path == STANDARD_INPUT:
        raise UsageError("A Parquet file cannot be read from standard input, for its index stands at its end.")
    parquet, arrow = library("pyarrow.parquet", "Reading Parquet"), library("pyarrow", "Reading Parquet")
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except arrow.ArrowException as error:
        raise UsageError(
            f"{path} is damaged or no plain Parquet file ({str(error).rstrip('.')}). Fetch or unpack it again."
        ) from error
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}. Check it, or fetch it again.") from error


def _cells(column: Any) -> list[Any]:
    arrow = library("pyarrow", "Reading Parquet")
    whole_ms = arrow.timestamp("ms")
    if arrow.types.is_timestamp(column.type):
        column = column.cast(whole_ms, safe=False).cast(arrow.int64())
    elif _is_list_of_times(arrow, column.type):
        lists = arrow.large_list if arrow.types.is_large_list(column.type) else arrow.list_
        column = column.cast(lists(whole_ms), safe=False).cast(lists(arrow.int64()))
    return list(column.to_pylist())


def _is_list_of_times(arrow: Any, kind: Any) -> bool:
    lists = arrow.types.is_list(kind) or arrow.types.is_large_list(kind)
    return bool(lists and arrow.types.is_timestamp(kind.value_type))
