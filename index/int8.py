"""Exact search over rows of one byte a number: a quarter of the memory, for a thousandth of a cosine.

A row is its codes, -127 to 127, and one factor that gives them unit length: `factor = 1 / |codes|`, so the length of a
row is never off, only its direction. Shapes: n rows, q queries, d dimensions, k neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.config import IndexConfig
from index.exact import ExactIndex
from index.kernels import ANYBODY, SCANNED, admits, compiled, merge_top, place
from index.results import Floats, Mask, Slots
from index.scan import BLOCK_QUERIES_MAX, EVERY_SLOT, GATHERED_SHARE_MAX, NO_MASK, empty_best
from index.table import TableView

CODE_MAX = 127
CODES_AT = 4
"""The codes begin here in a row's bytes, behind the factor."""
DECODED_NUMBERS_MAX = 131_072
"""Of one block of decoded rows: 512 KB of float32, so that the GEMM reads them from the L2 cache."""
Codes = NDArray[np.int8]
"""(n, bytes of a row): the factor's bytes, the codes, and what aligns the next factor."""
Factors = NDArray[np.float32]
"""(n, bytes of a row / 4): the same memory as float32; the first column is the factors."""


class Int8Index(ExactIndex):
    """`ExactIndex` over rows of int8 codes and one float32 factor.

    Every call means what it means there, of the rows as the codes hold them: `search` is exact among those, scored in
    float32, and `vector` gives unit rows decoded from them, as does a snapshot, which any index class can load.
    `check_recall` therefore judges the search, not the loss by coding.

    What coding costs, of 100,000 rows of 64 numbers (`tests/benchmarks/int8.py`: evenly spread, clustered, and long
    along a few axes; the last is the worst of each range): a cosine is off by .0006 to .0009 in the mean, .0019 to
    .0030 at the 99th percentile and .009 at most; recall@10 against float32 is .99 to .97. The rows take .27 of
    float32's memory, the index with ids and their dict .41. CPU of a query by float32's: .91 to .97 in batches of 64,
    .92 to 1.18 alone; of an upsert 1.0 to 1.3. Saving takes 4·d bytes a row for as long as it lasts.
    """

    def __init__(self, config: IndexConfig) -> None:
        """An empty index; its code is compiled on return."""
        super().__init__(config)
        _warm_up(self._table.row, config.dim)

    def _row(self) -> np.dtype[Any]:
        return coded_row(self.config.dim)

    def _put(self, slots: Slots, rows: Floats) -> None:
        encode(rows, slots, *_columns(self._table.view.vectors))

    def _taken(self, view: TableView, slots: Slots) -> Floats:
        taken = np.empty((len(slots), self.config.dim), np.float32)
        _decode(view.vectors[slots], taken)
        return taken

    def _scanned(
        self, view: TableView, queries: Floats, k: int, allowed: Mask, excluded: Slots
    ) -> tuple[Floats, Slots]:
        slots = EVERY_SLOT
        if len(allowed):
            admitted = np.flatnonzero(allowed[: view.high]).astype(np.int32)
            if not len(admitted):
                return empty_best(len(queries), k)
            if len(admitted) < GATHERED_SHARE_MAX * view.high:
                slots, allowed = admitted, NO_MASK
        return _scan(view, slots, queries, k, allowed, excluded)

    def _rescored(
        self, view: TableView, queries: Floats, candidates: Slots, k: int, allowed: Mask, excluded: Slots
    ) -> tuple[Floats, Slots]:
        best = empty_best(len(queries), k)
        rescore_codes(queries, *_columns(view.vectors), view.owner, candidates, allowed, excluded, *best)
        return best


def coded_row(dim: int) -> np.dtype[Any]:
    """A vector as codes: d + 4 bytes, rounded up to a multiple of four so that no factor is ever read half written."""
    return np.dtype([("factor", np.float32), ("codes", np.int8, (dim,))], align=True)


@compiled
def encode(rows: Floats, slots: Slots, codes: Codes, factors: Factors) -> None:
    """Writes unit rows (n, d) at distinct slots; each row's largest number becomes a code of 127 or -127.

    Rows that were decoded get the codes they had, so that saving and loading changes nothing.
    """
    for row in range(rows.shape[0]):
        largest = np.float32(0.0)
        for number in range(rows.shape[1]):
            largest = max(largest, abs(rows[row, number]))
        steps = np.float32(CODE_MAX) / largest
        squares = np.float32(0.0)
        for number in range(rows.shape[1]):
            code = np.rint(rows[row, number] * steps)
            squares += code * code
            codes[slots[row], CODES_AT + number] = np.int8(code)
        factors[slots[row], 0] = np.float32(1.0) / np.sqrt(squares)


@compiled
def decode(codes: Codes, factors: Factors, out: Floats) -> None:
    """Fills `out` (n, d) with the unit rows."""
    for row in range(out.shape[0]):
        factor = factors[row, 0]
        for number in range(out.shape[1]):
            out[row, number] = np.float32(codes[row, CODES_AT + number]) * factor


@compiled
def rescore_codes(
    queries: Floats,
    codes: Codes,
    factors: Factors,
    owner: Slots,
    candidates: Slots,
    allowed: Mask,
    excluded: Slots,
    best_scores: Floats,
    best_slots: Slots,
) -> None:
    """As `rescore_top`, by codes."""
    for query in range(queries.shape[0]):
        for column in range(candidates.shape[1]):
            slot = candidates[query, column]
            if slot < 0 or not admits(slot, owner, ANYBODY, allowed, excluded[query]):
                continue
            score = np.float32(0.0)
            for number in range(queries.shape[1]):
                score += queries[query, number] * np.float32(codes[slot, CODES_AT + number])
            place(best_scores[query], best_slots[query], score * factors[slot, 0], slot)


def _columns(rows: NDArray[Any]) -> tuple[Codes, Factors]:
    """Coded rows as the kernels take them, in place.

    Both are contiguous: loops over codes run in vector registers, and one compiled form of a kernel fits any rows
    (numpy calls a field of a single row contiguous and a field of two strided).
    """
    size = rows.itemsize
    return rows.view(np.int8).reshape(len(rows), size), rows.view(np.float32).reshape(len(rows), size // 4)


def _decode(rows: NDArray[Any], out: Floats) -> None:
    decode(*_columns(rows), out)


def _scan(
    view: TableView, slots: Slots, queries: Floats, k: int, allowed: Mask, excluded: Slots
) -> tuple[Floats, Slots]:
    """As `scan` over these slots, or over all: each block is decoded once and meets all queries."""
    rows, dim = len(slots) or view.high, queries.shape[1]
    height = min(max(DECODED_NUMBERS_MAX // dim, 1), max(rows, 1))
    decoded = np.empty((height, dim), np.float32)
    scores = np.empty(min(len(queries), BLOCK_QUERIES_MAX) * height, np.float32)
    best_scores, best_slots = empty_best(len(queries), k)
    for first in range(0, rows, height):
        last = min(first + height, rows)
        block = decoded[: last - first]
        _decode(view.vectors[slots[first:last] if len(slots) else slice(first, last)], block)
        for start in range(0, len(queries), BLOCK_QUERIES_MAX):
            part = slice(start, start + BLOCK_QUERIES_MAX)
            some = queries[part]
            products = scores[: len(some) * len(block)].reshape(len(some), len(block))
            np.matmul(some, block.T, out=products)
            merge_top(
                products,
                first,
                slots,
                view.owner,
                ANYBODY,
                allowed,
                excluded[part],
                best_scores[part],
                best_slots[part],
            )
    return best_scores, best_slots


def _warm_up(row: np.dtype[Any], dim: int) -> None:
    """Compiles the kernels, so that the first search is as fast as the next."""
    table, vectors, slots = np.zeros(1, row), np.ones((1, dim), np.float32), np.zeros(1, np.int32)
    encode(vectors, slots, *_columns(table))
    _decode(table, vectors)
    owner, nobody = np.full(1, SCANNED, np.int32), np.full(1, -1, np.int32)
    rescore_codes(vectors, *_columns(table), owner, slots[:, None], NO_MASK, nobody, *empty_best(1, 1))
