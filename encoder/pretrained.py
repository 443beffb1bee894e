"""Files of pretrained models: where an installed wheel keeps them, and which ones they are."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path

FINGERPRINT_BYTES = 6
"""Enough to tell releases of a model apart; nobody has to fear a forged one here."""


def installed_folder(package: str, requirement: str, extra: str) -> Path:
    """The folder of an installed package, found without importing it.

    Raises:
        ModuleNotFoundError: it is not installed; the message names the requirement and the extra that brings it.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        return Path(folder)
    raise ModuleNotFoundError(
        f"The package '{package}' is not installed; install nearstream[{extra}], or {requirement} alone.", name=package
    )


def fingerprint(files: Iterable[Path]) -> str:
    """12 hexadecimal digits of the files' names and bytes (BLAKE2b; 100 MB take about 0.15 s).

    Vectors of two models must never be mixed, and a folder's name or a package's version does not say what is in it.
    """
    whole = hashlib.blake2b(digest_size=FINGERPRINT_BYTES)
    for path in sorted(files, key=lambda file: file.name):
        with path.open("rb") as content:
            whole.update(path.name.encode() + b"\0" + hashlib.file_digest(content, "blake2b").digest())
    return whole.hexdigest()
