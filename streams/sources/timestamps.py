"""Times as logs write them, to epoch milliseconds UTC."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SECONDS_ABS_MAX = 253_402_300_799
"""The last second of the year 9999; what lies beyond is a wrong unit, not a time."""

DAY_MS = 86_400_000
FIRST_DAY_MS = 315_532_800_000
"""1980-01-01: early enough that no user's events reach the present before the 16,000th."""


def nth_day(place: int) -> int:
    """A time for a user's event number `place`, from 0, in a log that knows only the order: one event a day.

    The order inside a user is kept, and all users move on together; the gaps mean nothing.
    """
    return FIRST_DAY_MS + place * DAY_MS


def from_seconds(text: str) -> int:
    """Epoch seconds, whole or with a fraction. Raises ValueError."""
    seconds = float(text)
    if not math.isfinite(seconds) or abs(seconds) > SECONDS_ABS_MAX:
        raise ValueError(f"{text!r} is no time in epoch seconds")
    return round(seconds * 1000)


def from_milliseconds(text: str) -> int:
    """Epoch milliseconds. Raises ValueError."""
    milliseconds = int(text)
    if abs(milliseconds) > SECONDS_ABS_MAX * 1000:
        raise ValueError(f"{text!r} is no time in epoch milliseconds")
    return milliseconds


def from_rfc3339(text: str) -> int:
    """RFC 3339, also with a space for the `T`; a missing offset, and a trailing ` UTC`, mean UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text.removesuffix(" UTC"))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


TIMESTAMP_FORMATS: Final[Mapping[str, Callable[[str], int]]] = MappingProxyType(
    {"s": from_seconds, "ms": from_milliseconds, "rfc3339": from_rfc3339}
)
