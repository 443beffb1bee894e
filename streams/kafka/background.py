"""A thread for what no batch may wait for: at low priority, and ended in bounded time."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

T = TypeVar("T")

STOP_S = 1.0
NICENESS = 10


class Stopped(Exception):
    """The thread is to end."""


class BackgroundThread:
    """Calls a function again and again, with the pauses that it asks for, until it is stopped.

    It must not raise: nobody would hear of it. What takes long asks the compute thread by `ask` and waits by `pause`,
    which end it early.
    """

    def __init__(self, name: str, step: Callable[[], float], pause_s: float = 0.0) -> None:
        """Nothing runs before `start`. `step` returns the seconds until its next call; the first waits `pause_s`."""
        self._step = step
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begins; once."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, waiting a second at most: a step that takes longer goes on, unseen, and is the last."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def join(self, limit_s: float) -> None:
        """Waits so long at most for a thread that is stopping."""
        self._thread.join(limit_s)

    def pause(self, seconds: float) -> None:
        """Waits so long; raises Stopped as soon as the thread is to end."""
        if self._stop.wait(seconds):
            raise Stopped

    def ask(self, compute: Executor, function: Callable[[], T]) -> T:
        """Runs a short job in the compute thread, between batches.

        Raises:
            Stopped: this thread is to end, before the job or under it.
        """
        self.pause(0)
        try:
            return compute.submit(function).result()
        except Exception:
            self.pause(0)  # the compute thread was closed under the job
            raise

    def _run(self) -> None:
        if sys.platform == "linux":  # elsewhere a thread has no niceness of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        pause_s = self._pause_s
        while not self._stop.wait(pause_s):
            pause_s = self._step()
