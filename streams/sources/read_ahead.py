"""Reads a source in a thread of its own, a bounded way ahead of an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

Record = TypeVar("Record")

RECORDS_AHEAD_MAX = 8_192
JOIN_S = 1.0


class ReadAhead(Generic[Record]):
    """Async context manager around a blocking iterable.

    `take` never blocks and gives out records in their order, each as soon as the iterable has produced it, so
    that a slow standard input is passed on record by record. At most `ahead_max` records wait.
    """

    def __init__(self, records: Iterable[Record], ahead_max: int = RECORDS_AHEAD_MAX) -> None:
        self._records = records
        self._ahead_max = ahead_max
        self._waiting: deque[Record] = deque()
        self._room = threading.Event()
        self._arrived = asyncio.Event()
        self._hungry = False
        self._closed = False
        self._finished = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops reading. A thread that hangs in a read of standard input is left behind; it is a daemon."""
        self._closed = True
        self._room.set()
        await asyncio.to_thread(self._thread.join, JOIN_S)

    def take(self, most: int) -> list[Record]:
        """Up to `most` records that are there; raises what the iterable raised once all before it are taken."""
        count = min(most, len(self._waiting))
        taken = [self._waiting.popleft() for _ in range(count)]
        if not self._waiting and self._failure is not None and not taken:
            raise self._failure
        if len(self._waiting) <= self._ahead_max // 2:
            self._room.set()
        return taken

    @property
    def exhausted(self) -> bool:
        """Whether the iterable has ended and all of its records were taken."""
        return self._finished and not self._waiting and self._failure is None

    async def arrival(self) -> None:
        """Returns when a record waits, or the iterable has ended or failed."""
        while not self._waiting and not self._finished:
            self._arrived.clear()
            self._hungry = True
            if not self._waiting and not self._finished:  # a record may have come before the thread saw the flag
                await self._arrived.wait()
            self._hungry = False

    def _read(self) -> None:
        try:
            for record in self._records:
                self._waiting.append(record)
                if self._hungry:
                    self._wake()
                if len(self._waiting) >= self._ahead_max:
                    self._wait_for_room()
                if self._closed:
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the taker, who raises it
            self._failure = error
        finally:
            self._finished = True
            self._wake()

    def _wait_for_room(self) -> None:
        self._room.clear()
        if len(self._waiting) >= self._ahead_max and not self._closed:
            self._room.wait()

    def _wake(self) -> None:
        self._hungry = False
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.set)
