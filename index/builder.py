"""Who builds, and when: one polite thread for all builds, and one in a hurry where that one gets no core."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from index.build import lower_priority
from index.graph import BuildCancelled
from index.table import WriteGuard

logger = logging.getLogger(__name__)

FAILED = "building a graph failed; the index goes on with what it has"
RETRY_S = 60.0
"""After a build that failed."""
URGENT = 4
"""Times a full delta: past it a segment is built at ordinary priority, for the polite builder gets no core."""


class Builder:
    """Runs builds in threads of its own as long as one is wanted. One that fails is counted, and the next waits."""

    def __init__(
        self,
        guard: WriteGuard,
        base_is_wanted: Callable[[], bool],
        segment_is_wanted: Callable[[int], bool],
        build: Callable[[bool], None],
    ) -> None:
        """`build(True)` builds a base, `build(False)` a segment; `segment_is_wanted(n)` tells of n full deltas.

        Both questions are asked inside the guard, of `wake` by whoever changed the index.
        """
        self._guard = guard
        self._base_is_wanted = base_is_wanted
        self._segment_is_wanted = segment_is_wanted
        self._build = build
        self._thread: threading.Thread | None = None
        self._urgent_thread: threading.Thread | None = None
        self._segment_running = False
        self._retry_at_s = 0.0
        self._closing = False
        self.failed = 0
        """Builds that failed so far."""

    def wake(self) -> None:
        """Starts a build when there is something to build, and one in a hurry when the delta outgrew it."""
        if self._closing or time.monotonic() < self._retry_at_s:
            return
        if self._thread is None and (self._base_is_wanted() or self._segment_is_due(1)):
            self._thread = threading.Thread(target=self._build_all, name="index-build")
            self._thread.start()
        if self._urgent_thread is None and self._segment_is_due(URGENT):
            # of the writer, not of the builder, whose low priority it would inherit
            self._urgent_thread = threading.Thread(target=self._build_urgently, name="index-build-urgent")
            self._urgent_thread.start()

    def retry(self) -> None:
        """Starts at once what is wanted, a failure of a moment ago or not. Inside the guard."""
        self._retry_at_s = 0.0
        self.wake()

    def keep_up(self) -> None:
        """Of a base's build, between two chunks: where changes outrun it, the delta must not wait for its end."""
        if self._segment_is_due(2):
            self._build_segment()

    def settle(self, timeout_s: float | None = None) -> bool:
        """Waits until no build runs or is wanted; False when that took longer than `timeout_s`."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while (thread := self._urgent_thread or self._thread) is not None:
            thread.join(None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))
            if thread.is_alive():
                return False
        return True

    def close(self) -> None:
        """Stops a running build at its next look, waits for that, and starts no other."""
        self._closing = True
        self.settle()

    def cancelled(self) -> bool:
        """Told to close, or the program has ended without closing."""
        return self._closing or not threading.main_thread().is_alive()

    def _segment_is_due(self, factor: int) -> bool:
        return not self._segment_running and self._segment_is_wanted(factor)

    def _build_all(self) -> None:
        lower_priority()
        while True:
            with self._guard.write():
                base = self._base_is_wanted()
                if self.cancelled() or not (base or self._segment_is_due(1)):
                    self._thread = None
                    return
            try:
                if base:
                    self._build(True)
                else:
                    self._build_segment()
            except BuildCancelled:
                continue
            except Exception:
                logger.exception(FAILED)
                with self._guard.write():
                    self._note_failure()
                    self._thread = None
                return

    def _build_urgently(self) -> None:
        """One segment, in a thread of its own; then whatever is wanted still."""
        try:
            self._build_segment()
        except BuildCancelled:
            logger.debug("the index closes: no segment is built any more")
        except Exception:
            logger.exception(FAILED)
            with self._guard.write():
                self._note_failure()
        with self._guard.write():
            self._urgent_thread = None
            if not self.cancelled():
                self.wake()

    def _note_failure(self) -> None:
        self.failed += 1
        self._retry_at_s = time.monotonic() + RETRY_S

    def _build_segment(self) -> None:
        """Unless one is being built."""
        with self._guard.write():
            if self._segment_running:
                return
            self._segment_running = True
        try:
            self._build(False)
        finally:
            with self._guard.write():
                self._segment_running = False
