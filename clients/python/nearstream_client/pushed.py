"""What a stream of pushed lists does with bytes and with broken connections. Pure: both clients drive it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nearstream_client.errors import NearstreamError, UnreadableAnswer
from nearstream_client.messages import RecommendationList, read_list
from nearstream_client.sse import EventDecoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nearstream_client.retry import Retry


@dataclass(slots=True)
class PushedLists:
    """One user's stream over as many connections as it takes. A list that came already does not come again."""

    retry: Retry
    chance: Callable[[], float]
    _attempt: int = 0
    _last_rec_id: str | None = None
    _decoder: EventDecoder = field(default_factory=EventDecoder)

    def connected(self) -> None:
        """A new connection: what the one before left unfinished is dropped."""
        self._decoder = EventDecoder()

    def lists(self, chunk: bytes) -> Iterator[RecommendationList]:
        """The new lists that this chunk completes."""
        for event in self._decoder.feed(chunk):
            self._attempt = 0
            if event.event != "list":  # such as `gone`: there is none
                continue
            list_ = _pushed_list(event.data)
            if list_.rec_id != self._last_rec_id:
                self._last_rec_id = list_.rec_id
                yield list_

    def wait_s(self, error: NearstreamError) -> float:
        """Seconds until the next connection; raises `error` when it is final or came too often in a row."""
        self._attempt += 1
        wait_s = self.retry.reconnect_s(error, self._attempt, self.chance)
        if wait_s is None:
            raise error
        return wait_s


def _pushed_list(data: str) -> RecommendationList:
    try:
        return read_list(json.loads(data))
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableAnswer(f"Expected a list in the stream, got something else ({error!r}).") from error
