"""Pretrained word vectors that ship in a wheel: no network, no model server, no torch.

The wheel `wordllama` holds a tokenizer and one 256-dimensional vector per token. Its prefixes are vectors too
(trained that way: Matryoshka representation learning, Kusupati et al. 2022), so a shorter `dim` is a cut.
Only the package's files are read: importing it would set up the root logger and look for a cache at home.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from tokenizers import Tokenizer

from encoder.config import DIM_MAX
from encoder.pretrained import fingerprint

Floats = NDArray[np.float32]

TEXT_CHARS_MAX = 2000
"""What follows is not read, so that one huge description cannot hold up a batch."""
BATCH_TEXTS_MAX = 1024
"""Texts whose token vectors are in memory at once (about 3 MB for titles)."""
NORM_MIN = 1e-6
RECIPE = 1
"""Counts changes of how this module makes a vector from the same files."""

_PACKAGE = "wordllama"
_TOKENIZER = Path("tokenizers", "l2_supercat_tokenizer_config.json")
_WEIGHTS = Path("weights", "l2_supercat_256.safetensors")
_TENSOR = "embedding.weight"


class StaticTextEncoder:
    """The mean of a text's token vectors, at unit length; upper and lower case are one.

    A text's vector depends on that text alone: neither on its batch nor on the number of threads.
    """

    def __init__(self, dim: int) -> None:
        """Reads the vectors from the installed wheel (about 0.1 s).

        Raises:
            ValueError: `dim` is outside 1..256.
            FileNotFoundError: the wheel is not installed, or not the version that holds these files.
        """
        if not 1 <= dim <= DIM_MAX:
            raise ValueError(f"dim must lie in 1..{DIM_MAX}, the width of the word vectors, got {dim}.")
        self._dim = dim
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(_wheel_file(_TOKENIZER)))
        with safe_open(_wheel_file(_WEIGHTS), "np") as weights:
            self._token_vectors: Floats = weights.get_slice(_TENSOR)[:, :dim].astype(np.float32)

    @cached_property
    def name(self) -> str:
        """`wordllama@` recipe `-` fingerprint of the wheel's two files: equal names give equal vectors."""
        return f"wordllama@{RECIPE}-{fingerprint([_wheel_file(_TOKENIZER), _wheel_file(_WEIGHTS)])}"

    @property
    def dim(self) -> int:
        """Length d of a vector."""
        return self._dim

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit vectors (n, d); exact zeros for an empty or blank text. Reads at most 2,000 characters of each."""
        vectors = np.zeros((len(texts), self._dim), np.float32)
        spoken = spoken_positions(texts)
        for start in range(0, len(spoken), BATCH_TEXTS_MAX):
            positions = spoken[start : start + BATCH_TEXTS_MAX]
            vectors[positions] = self._encode_spoken([texts[position] for position in positions])
        return vectors

    def _encode_spoken(self, texts: list[str]) -> Floats:
        encodings = self._tokenizer.encode_batch_fast(
            [beginning(text, TEXT_CHARS_MAX).lower() for text in texts], add_special_tokens=False
        )
        token_ids = [encoding.ids for encoding in encodings]
        lengths = np.fromiter(map(len, token_ids), np.int64, len(token_ids))
        starts = np.cumsum(lengths) - lengths
        tokens = np.fromiter((token for ids in token_ids for token in ids), np.int64, int(lengths.sum()))
        # (tokens, d) summed per text -> (n, d); reduceat adds in order, so a text's batch does not matter
        sums = np.add.reduceat(self._token_vectors[tokens], starts, axis=0)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        unit: Floats = np.divide(sums, norms, out=np.zeros_like(sums), where=norms >= NORM_MIN)
        return unit


def spoken_positions(texts: Sequence[str]) -> list[int]:
    """Where the texts are that say something: neither empty nor only white space."""
    return [position for position, text in enumerate(texts) if text and not text.isspace()]


def beginning(text: str, chars_max: int) -> str:
    """The first `chars_max` characters; half a surrogate pair, which no UTF-8 can hold, becomes a question mark."""
    return text[:chars_max].encode("utf-8", "replace").decode("utf-8")


def _wheel_file(name: Path) -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (found := Path(folder, name)).is_file():
            return found
    raise FileNotFoundError(
        f"The word vectors {name} of the package '{_PACKAGE}' were not found; install {_PACKAGE}>=0.4,<0.5."
    )
