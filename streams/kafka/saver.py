"""When a worker's memory is saved: every so often, soon after a forget, and at a clean stop where it fits."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import IO, TYPE_CHECKING, TypeVar

from streams.kafka.memory_file import Facts, Saved, save_memory

if TYPE_CHECKING:
    from pathlib import Path

    from streams.config import Settings
    from streams.kafka.recall import Recalled
    from streams.kafka.tail import TopicTail
    from streams.recommend.engine import Engine

logger = logging.getLogger(__name__)
T = TypeVar("T")

CHECK_S = 1.0
RETRY_S = 30.0
FORGET_SHARE, FORGET_SHARE_MAX = 0.5, 0.9
"""Of the deadline: from the one on a save is due when the index has finished erasing, for only then it saves its
graphs as well; from the other on it is due as things are."""
STOP_ROOM = 2.0
"""At a stop memory is saved when there is room for that many times what the last save took."""


class MemorySaver:
    """Saves one worker's memory to a folder, one save at a time, beside the batches.

    The first worker that saves to a folder keeps it locked while it lives; for the others on the machine it saves
    as well, since every worker's memory holds the same.
    """

    def __init__(
        self, settings: Settings, folder: Path, facts: Facts, engine: Engine, changelog: TopicTail, compute: Executor
    ) -> None:
        self.saved_at_s: float | None = None
        """When the copy of the newest save began, epoch seconds; None where nothing usable lies in the folder."""
        self.saved_bytes = 0
        """Size of the newest save of this worker."""
        self.save_s = 0.0
        """What the newest save took."""
        self.failures = 0
        """Saves that ended in an error."""
        self._settings = settings
        self._folder = folder
        self._facts = facts
        self._engine = engine
        self._changelog = changelog
        self._compute = compute
        self._saved: tuple[int, int] | None = None
        """Epoch and graph generation of what lies in the folder."""
        self._forgotten = 0
        self._forgot_s = float("inf")
        """When the first forget was seen that files do not know of yet."""
        self._due_s = self._not_before_s = 0.0
        self._owner: IO[bytes] | None = None
        self._saving: asyncio.Task[bool] | None = None
        self._watching: asyncio.Task[None] | None = None

    def start(self, recalled: Recalled | None) -> None:
        """Begins to watch. `recalled` is what memory began with, None where nothing usable lies in the folder.

        What is not usable may hold users who were forgotten long ago: it is replaced within the deadline as well.
        """
        now_s = time.monotonic()
        if recalled is None:
            self._forgot_s = now_s
        else:
            self.saved_at_s = recalled.saved_at_s
            self._saved = (recalled.epoch, self._engine.index.stats().generation)
        self._due_s = now_s + self._settings.snapshot_interval_s
        self._watching = asyncio.create_task(self._watch(), name="saver")

    async def stop(self, budget_s: float) -> None:
        """Ends within the budget: with a last save when it has room for one, else as things are."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
            idle = self._saving is None or self._saving.done()
            if idle and self._changed and 0.0 < STOP_ROOM * self.save_s < budget_s:
                self._saving = asyncio.create_task(self._save())
        if self._saving is not None:
            await asyncio.wait({self._saving}, timeout=max(0.0, budget_s))
            if self._saving.cancel():
                logger.info("a save of the memory is given up for the stop; the one of before counts")
                await asyncio.wait({self._saving})
        if self._owner is not None:
            self._owner.close()

    async def save(self) -> bool:
        """Saves now, or waits for the save under way; False when there was none to be had, as the log says."""
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._save())
        return await asyncio.shield(self._saving)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            if self._is_due(time.monotonic()):
                await self.save()

    @property
    def _changed(self) -> bool:
        """A graph that was built since the save counts too: a restart would have to build it again."""
        return (self._engine.epoch, self._engine.index.stats().generation) != self._saved

    def _is_due(self, now_s: float) -> bool:
        engine = self._engine
        deadline_s = self._settings.forget_deadline_s
        if engine.forgotten != self._forgotten:
            self._forgot_s = min(self._forgot_s, now_s)
        if now_s < self._not_before_s:
            return False
        erased = not engine.index.stats().erasures_pending
        if now_s >= self._forgot_s + (FORGET_SHARE if erased else FORGET_SHARE_MAX) * deadline_s:
            return True
        return now_s >= self._due_s and self._changed

    async def _save(self) -> bool:
        started_s = time.monotonic()
        self._due_s = started_s + self._settings.snapshot_interval_s
        self._not_before_s = started_s + min(RETRY_S, self._settings.snapshot_interval_s)
        saved_at_s = time.time()
        offsets = self._changelog.offsets()  # first: what is copied after them is at least as new
        try:
            if not self._is_owner():
                logger.info("another worker saves to %s", self._folder)
                self._forgotten, self._forgot_s = self._engine.forgotten, float("inf")
                return False
            saved = await _in_own_thread(
                lambda: save_memory(self._folder, self._engine, self._facts, offsets, saved_at_s, self._ask)
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, events go on; the next save may do better
            self.failures += 1
            logger.warning("memory was not saved to %s, the save of before counts: %r", self._folder, error)
            return False
        self._note(saved, saved_at_s, time.monotonic() - started_s)
        return True

    def _note(self, saved: Saved, saved_at_s: float, save_s: float) -> None:
        self.saved_at_s, self.saved_bytes, self.save_s = saved_at_s, saved.bytes, save_s
        self._saved, self._not_before_s = (saved.epoch, saved.generation), 0.0
        self._forgotten, self._forgot_s = saved.forgotten, float("inf")
        logger.info("saved %d users, %.1f MB in %.2f s", saved.users, saved.bytes / 1e6, save_s)

    def _is_owner(self) -> bool:
        """Raises OSError where the folder cannot be made or written."""
        if self._owner is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            owner = (self._folder / "OWNER").open("ab")
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner.close()
                return False
            self._owner = owner
        return True

    def _ask(self, function: Callable[..., T], *arguments: object) -> T:
        """Runs a short job in the compute thread, between batches."""
        return self._compute.submit(function, *arguments).result()


async def _in_own_thread(work: Callable[[], T]) -> T:
    """Runs `work` in a thread that a process may end without: a snapshot counts only when it is whole."""
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            done.set_exception(error)

    threading.Thread(target=run, name="save-memory", daemon=True).start()
    return await asyncio.wrap_future(done)
