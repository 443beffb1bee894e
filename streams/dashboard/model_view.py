"""What the page says of a worker's model folder. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streams.core.status import ModelStatus


def model_sentence(folder: ModelStatus | None, serving: str) -> str | None:
    """What is wrong with the folder, or which model comes; None where there is nothing to say."""
    if folder is None:
        return None
    if folder.coming is not None:
        return f"{folder.coming} is made ready, {folder.progress:.0%}; {serving} serves."
    if folder.problem is not None:
        return f"The model of {folder.wanted} is not used, {serving} serves: {folder.problem}"
    return None
