"""Settings of one side of `nearstream replay --compare`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from streams.core.errors import UsageError

AS_IS = "as-is"
BETWEEN = re.compile(r",(?=\s*[a-z_]+\s*=)")
"""Commas within a value, such as a list, part nothing."""


def overrides(given: str) -> dict[str, Any]:
    """Settings that one side of a comparison changes.

    `given` is `as-is` for no change, a model folder, a TOML file of settings, or `key=value[,key=value]`.

    Raises:
        UsageError: it is none of these, or the file is no TOML.
    """
    if given == AS_IS:
        return {}
    path = Path(given)
    if path.is_dir():
        return {"model": given}
    if path.is_file():
        return _from_file(path)
    pairs = [pair.partition("=") for pair in BETWEEN.split(given)]
    if not all(key.strip() and equals and value.strip() for key, equals, value in pairs):
        raise UsageError(
            f"--compare takes two of: {AS_IS}, a model folder, a TOML file of settings, or key=value[,key=value]. "
            f"Got {given!r}, and there is no such file or folder."
        )
    return {key.strip(): _value(value.strip()) for key, _, value in pairs}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path}: expected a TOML file of settings, as nearstream.toml is, got {error}.") from error


def _value(text: str) -> Any:
    """As TOML reads it, else the words themselves."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
