"""What every measurement prints: conditions, and bars with value, bound and whether it holds."""

from __future__ import annotations

import os
import platform
from typing import Literal

import msgspec


class Bar(msgspec.Struct, frozen=True):
    """One figure. `must` is its bound, None when it is only reported; `holds` compares as `sense` says."""

    name: str
    value: float
    unit: str
    must: float | None = None
    sense: Literal["at least", "at most"] = "at least"
    holds: bool | None = None


class Report(msgspec.Struct, frozen=True):
    """What `bench … --json` prints."""

    conditions: dict[str, object]
    bars: list[Bar]
    details: dict[str, object] = {}


def bar(
    name: str, value: float, unit: str, must: float | None = None, sense: Literal["at least", "at most"] = "at least"
) -> Bar:
    """A bar with its verdict."""
    holds = None if must is None else (value >= must if sense == "at least" else value <= must)
    return Bar(name, round(value, 4), unit, must, sense, holds)


def machine() -> dict[str, object]:
    """The conditions that every figure depends on."""
    return {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 2),
        "kafka": "embedded 4.3.1, one broker, same machine",
    }
