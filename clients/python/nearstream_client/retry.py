"""When a refused call is sent again, and how long to wait before. Pure: waiting is the client's business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nearstream_client.errors import NearstreamError, Refused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Retry:
    """A call is sent at most `attempts_max` times. Waits double from `backoff_s` up to `backoff_s_max`, each cut by
    chance to between a half and the whole; where the server says how long, that long, unless it is more than
    `retry_after_s_max`: then the error is raised at once."""

    attempts_max: int = 4
    backoff_s: float = 0.25
    backoff_s_max: float = 8.0
    retry_after_s_max: float = 60.0

    def wait_s(self, error: NearstreamError, attempt: int, chance: Callable[[], float]) -> float | None:
        """Seconds to wait after attempt number `attempt` (from 1) failed; None when it was the last.

        `chance` gives numbers from 0 to 1. Only 429 and 503 are sent again.
        """
        if not isinstance(error, Refused) or attempt >= self.attempts_max:
            return None
        if error.retry_after_s is None:
            return self._backoff_s(attempt, chance)
        return error.retry_after_s if error.retry_after_s <= self.retry_after_s_max else None

    def reconnect_s(self, error: NearstreamError, attempt: int, chance: Callable[[], float]) -> float | None:
        """The same for a stream, which is also opened again when its connection broke."""
        if isinstance(error, Unreachable) and attempt < self.attempts_max:
            return self._backoff_s(attempt, chance)
        return self.wait_s(error, attempt, chance)

    def _backoff_s(self, attempt: int, chance: Callable[[], float]) -> float:
        whole = min(self.backoff_s_max, self.backoff_s * 2.0 ** (attempt - 1))
        return whole * (0.5 + 0.5 * chance())
