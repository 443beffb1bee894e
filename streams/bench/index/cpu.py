"""CPU of an index whose threads work beside the measuring thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from streams.bench.index.data import Floats

MICRO_BATCH = 64
"""Queries that the worker asks at once."""
K = 10


class CpuAccount:
    """CPU seconds of all threads of this process, builders included; what this thread does `aside` is not counted.

    Whatever works aside must do so in the calling thread alone.
    """

    def __init__(self) -> None:
        self.spent_s = 0.0
        self._aside_cpu_s = 0.0
        self._aside_wall_s = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts until the block ends."""
        started_s, aside_s = time.process_time(), self._aside_cpu_s
        try:
            yield
        finally:
            self.spent_s += time.process_time() - started_s - (self._aside_cpu_s - aside_s)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Work of this thread that is not the index's: drawing changes, judging answers, a rival's turn."""
        cpu_s, wall_s = time.thread_time(), time.perf_counter()
        try:
            yield
        finally:
            self._aside_cpu_s += time.thread_time() - cpu_s
            self._aside_wall_s += time.perf_counter() - wall_s

    def clock_s(self) -> float:
        """A wall clock that stands still during work aside."""
        return time.perf_counter() - self._aside_wall_s


def search_cpu_us(search: Callable[[Floats, int], object], queries: Floats, at_once: int) -> float:
    """CPU microseconds per query of all threads, asked `at_once` queries at a time. Nothing else may be running."""
    started_s = time.process_time()
    for start in range(0, len(queries), at_once):
        search(queries[start : start + at_once], K)
    return 1e6 * (time.process_time() - started_s) / len(queries)


def ratio(values: Sequence[float], base: Sequence[float]) -> float:
    """Median of the rounds' ratios."""
    return float(np.median(np.divide(values, base)))
