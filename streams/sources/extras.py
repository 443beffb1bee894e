"""Libraries that only some logs need."""

from __future__ import annotations

import importlib
from typing import Any

from streams.core.errors import UsageError


def library(module: str, needed_by: str) -> Any:
    """The module of an optional library.

    Raises:
        UsageError: the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{needed_by} needs {module.partition('.')[0]}, which is not installed. Run: pip install 'nearstream[logs]'"
        ) from error
