"""The image vectors of a catalogue: of files, in training those that are named by item id, kept by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from encoder.errors import UnusableData
from encoder.text_cache import CachedTextEncoder

Floats = NDArray[np.float32]

KEPT_MAX = 200_000
"""Vectors in the cache: 5 KB each, 1 GB in all."""
BAD_NAMED_MAX = 10


class ImageEncoder(Protocol):
    """Image files -> vectors; `encoder.image.ImageEncoder` is one."""

    @property
    def name(self) -> str:
        """Equal names give equal vectors."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    def encode(self, paths: Sequence[Path], *, on_bad: Callable[[UnusableData], None]) -> Floats:
        """(n, dim) unit vectors; zeros for a file that is no image, of which `on_bad` hears."""
        ...


@dataclass(frozen=True, slots=True)
class ImageVectors:
    """The frozen image vectors of a table's items, and where they came from."""

    version: str
    """The encoder's own name."""
    vectors: NDArray[np.float16]
    """(i, m) zeros for an item without an image."""


def image_vectors(
    encoder: ImageEncoder,
    folder: Path,
    item_ids: Sequence[str],
    cache: Path,
    *,
    on_progress: Callable[[int, int], None],
    on_bad: Callable[[str], None],
) -> ImageVectors:
    """The vectors of those items that have an image in the folder; an image that was seen before is not read again.

    Args:
        encoder: makes vectors of images that the cache does not hold.
        folder: an item's image is the file whose name without its last suffix is the item's id; of several the first
            by name. Other files are passed over.
        item_ids: (i,)
        cache: folder of the vectors by content, made when missing.
        on_progress: told how many of the images that had to be encoded are done.
        on_bad: told of each file that is no image, by name and reason, up to ten; then how many more there are. Their
            items have none.

    Raises:
        UnusableData: the folder is missing or has no file that is named as an item, or no image can be read.
    """
    path_of = _files_of(folder, set(item_ids))
    by_content: dict[str, Path] = {}
    content_of = {item_id: _digest(path) for item_id, path in path_of.items()}
    for item_id, content in content_of.items():
        by_content.setdefault(content, path_of[item_id])
    found = _vectors_by_content(encoder, by_content, cache, on_progress)
    bad = [by_content[content] for content, vector in found.items() if not vector.any()]
    encoder.encode(bad[:BAD_NAMED_MAX], on_bad=lambda error: on_bad(str(error)))  # again: the cache knows no reason
    if len(bad) > BAD_NAMED_MAX:
        on_bad(f"{len(bad) - BAD_NAMED_MAX} more files cannot be read as images either.")
    if len(bad) == len(found):
        raise UnusableData(
            f"None of the {len(bad)} images in {folder} can be read; expected JPEG, PNG, WebP or the like."
        )
    vectors = np.zeros((len(item_ids), encoder.dim), np.float16)
    for row, item_id in enumerate(item_ids):
        if item_id in content_of:
            vectors[row] = found[content_of[item_id]]
    return ImageVectors(encoder.name, vectors)


def file_vectors(
    encoder: ImageEncoder, paths: Sequence[Path], cache: Path, *, on_bad: Callable[[int, str], None]
) -> Floats:
    """(n, m) vectors of these files, in their order; one whose content was seen before is not encoded again.

    Args:
        encoder: makes vectors of images that the cache does not hold.
        paths: (n,)
        cache: folder of the vectors by content, made when missing.
        on_bad: told of each file that is missing or no image, by its place and the reason. Its vector is zeros.
    """
    content_of: dict[int, str] = {}
    for row, path in enumerate(paths):
        try:
            content_of[row] = _digest(path)
        except OSError as error:
            on_bad(row, f"{path} cannot be read: {error.strerror or error}. Put the image there.")
    by_content = {content: paths[row] for row, content in content_of.items()}
    found = _vectors_by_content(encoder, by_content, cache, lambda _done, _total: None)
    vectors = np.zeros((len(paths), encoder.dim), np.float32)
    for row, content in content_of.items():
        vectors[row] = found[content]
        if not vectors[row].any():  # the cache knows no reason
            encoder.encode([paths[row]], on_bad=lambda error, row=row: on_bad(row, str(error)))  # type: ignore[misc]
    return vectors


def _vectors_by_content(
    encoder: ImageEncoder, by_content: dict[str, Path], cache: Path, on_progress: Callable[[int, int], None]
) -> dict[str, Floats]:
    contents = list(by_content)
    cached = CachedTextEncoder(_ByContent(encoder, by_content), cache, entries_max=KEPT_MAX)
    return dict(zip(contents, cached.encode(contents, on_progress), strict=True))


class _ByContent:
    """The encoder as the cache of texts asks it: what stands for an image is the hash of its bytes."""

    def __init__(self, encoder: ImageEncoder, path_of: dict[str, Path]) -> None:
        self._encoder, self._path_of = encoder, path_of

    @property
    def name(self) -> str:
        return self._encoder.name

    @property
    def dim(self) -> int:
        return self._encoder.dim

    def encode(self, texts: Sequence[str]) -> Floats:
        return self._encoder.encode([self._path_of[text] for text in texts], on_bad=lambda _: None)


def _files_of(folder: Path, item_ids: set[str]) -> dict[str, Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise UnusableData(
            f"The images cannot be listed ({error}): give a folder of files named by item id."
        ) from error
    found: dict[str, Path] = {}
    for path in files:
        if path.stem in item_ids:
            found.setdefault(path.stem, path)
    if not found:
        raise UnusableData(
            f"None of the {len(files)} files in {folder} is named as an item of the log: expected an item's id and a "
            f"suffix, such as {min(item_ids)}.jpg."
        )
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
