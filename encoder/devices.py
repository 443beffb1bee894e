"""Where torch computes. Importing this module imports torch."""

from __future__ import annotations

import torch

AUTO = "auto"


def torch_device(name: str) -> torch.device:
    """The device of this name; for `auto` the first GPU that torch sees, else the CPU.

    Raises:
        ValueError: torch knows no such device, or this machine has none.
    """
    if name == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:  # torch has no error of its own for it
        raise ValueError(f"There is no device '{name}'; choose 'cpu', 'cuda' or '{AUTO}'.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"torch sees no GPU, so the device '{name}' cannot be used; choose 'cpu'.")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ValueError(f"There is no device '{name}': torch sees {count} GPU(s), counted from 0.")
    return device
