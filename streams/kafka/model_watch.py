"""Looks from time to time whether the model folder holds another model, and swaps it in while events go on.

A swap: the model is read and compiled in this file's own thread; items and users are encoded there too, from copies
that the compute thread hands out a slice at a time; the new index is filled there and builds its graph. Until the
switch, which is one job between two batches, everything is served by the model of before. So are lists: whatever was
prepared before the switch carries the old model's name, and is stored as the new model sees it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from streams.core.errors import ModelUnusable
from streams.core.status import ModelStatus
from streams.core.worker_details import ModelReport, TrainingReport
from streams.kafka.background import BackgroundThread, Stopped
from streams.recommend.list_overlap import ListComparison
from streams.recommend.next_model import ITEMS_PER_SLICE, USERS_PER_SLICE, NextModel

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from streams.core.ports import VectorIndex
    from streams.core.status import SwapOverlap
    from streams.metrics import Metrics
    from streams.recommend.engine import Engine, Model

logger = logging.getLogger(__name__)
T = TypeVar("T")

ROUNDS_MAX = 500
"""Of taking in what changed meanwhile. Then changes outrun the swap: the rest is taken in at once, in one long job."""
BUILD_LOOK_S = 0.1
BUILD_WAIT_S_MAX = 1800.0
"""For the new index's graph; then the model serves without it, by scanning, until it is there."""
PROGRESS_EVERY_S = 10.0


class ModelSource(Protocol):
    """A folder that holds a model, most of the time."""

    @property
    def place(self) -> str:
        """The folder, as the settings name it."""
        ...

    def mark(self) -> Hashable:
        """Another value whenever a file of the folder is another; costs next to nothing, and a missing folder has one
        too."""
        ...

    def is_served_by(self, name: str) -> bool:
        """Whether the encoder of this name is the folder's model.

        Raises:
            ModelUnusable: the folder does not say which model it holds.
        """
        ...

    def load(self) -> Model:
        """The model, compiled, with an empty index; seconds.

        Raises:
            ModelUnusable: the folder holds none that can be served.
        """
        ...

    def report(self, name: str) -> ModelReport | None:
        """What the folder tells of the encoder of this name; None where it holds another model by now.

        Raises:
            ModelUnusable: the folder says nothing readable of its model.
        """
        ...


class ModelWatch:
    """One worker's model folder: what it holds, whether that serves, and how far a swap is.

    A folder that was refused is tried again when one of its files changes, and so is one that changes during a swap:
    after it. `status` may be called from any thread.
    """

    def __init__(
        self,
        source: ModelSource,
        engine: Engine,
        compute: Executor,
        *,
        interval_s: float,
        on_switch: Callable[[VectorIndex], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Nothing runs before `start`.

        Args:
            source: the folder.
            engine: gets the model; touched in the compute thread only.
            compute: that thread.
            interval_s: between two looks; 0 = none.
            on_switch: hears of the new index right after a switch, in this file's thread.
            clock: seconds that never go back.
        """
        self._source = source
        self._engine = engine
        self._compute = compute
        self._interval_s = interval_s
        self._on_switch = on_switch
        self._clock = clock
        self._seen: Hashable = None
        self._problem = engine.fallback
        self._next: NextModel | None = None
        self._switches = self._failures = 0
        self._switch_s: float | None = None
        self._pause_s: float | None = None
        self._longest_s = 0.0
        self._overlap: SwapOverlap | None = None
        self._reports = [self._report_of(self._serving)]
        """Of the model in service and, after a switch, of the one before it."""
        self._thread = BackgroundThread("model-watch", self._step, interval_s)

    def start(self) -> None:
        """Begins to look, unless that is switched off; once."""
        if self._interval_s:
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread, waiting a second at most; a swap that is under way is given up, and so is its graph."""
        self._thread.stop()
        if (coming := self._next) is not None:
            coming.model.index.close()

    def check(self) -> None:
        """One look and, where the folder holds another model, the swap, in the caller's thread. Raises nothing."""
        try:
            mark = self._source.mark()
            if mark != self._seen:
                self._follow(mark)
        except Stopped:
            logger.info("the model of %s is not taken in: the worker stops", self._source.place)
        except Exception as error:
            logger.exception("the swap to the model of %s failed; %s serves", self._source.place, self._serving)
            self._refused(f"the swap failed: {error!r}")

    def status(self) -> ModelStatus:
        """As of now."""
        coming = self._next
        return ModelStatus(
            wanted=self._source.place,
            fallback=self._engine.fallback is not None,
            problem=self._problem,
            coming=None if coming is None else coming.model.profiles.name,
            progress=0.0 if coming is None else round(coming.progress, 3),
            switches=self._switches,
            failures=self._failures,
            switch_s=self._switch_s,
            pause_ms=None if self._pause_s is None else round(1000 * self._pause_s, 3),
            overlap=self._overlap,
        )

    def reports(self) -> list[ModelReport]:
        """The model in service, then the one that served before it, if this worker saw it; any thread may ask."""
        return list(self._reports)

    @property
    def _serving(self) -> str:
        return self._engine.encoder.name

    def _step(self) -> float:
        self.check()
        return self._interval_s

    def _follow(self, mark: Hashable) -> None:
        started_s = self._clock()
        try:
            if self._source.is_served_by(self._serving):
                self._seen, self._problem = mark, None
                return
            model = self._source.load()
        except ModelUnusable as error:
            if self._source.mark() != mark:
                logger.info("the model of %s changed while it was read; it is read again", self._source.place)
                return
            self._seen = mark
            self._refused(str(error))
            return
        self._seen = mark
        comparison = self._swap(model)
        self._switch_s = round(self._clock() - started_s, 3)
        self._reports = [self._report_of(self._serving), self._reports[0]]
        self._overlap = self._overlap_of(comparison)
        self._pause_s = self._longest_s
        logger.info(
            "%s serves %d users after %.1f s; the longest pause of the compute thread was %.1f ms",
            self._serving,
            len(self._engine.store),
            self._switch_s,
            1000 * self._longest_s,
        )

    def _refused(self, problem: str) -> None:
        self._failures += 1
        if problem != self._problem:
            logger.warning(
                "the model of %s is not used, %s serves: %s It is tried again when a file of the folder changes.",
                self._source.place,
                self._serving,
                problem,
            )
        self._problem = problem

    def _report_of(self, name: str) -> ModelReport:
        """With what the folder tells of it, where it is the folder's and still there."""
        plain = plain_report(name, self._engine.encoder.dim)
        if self._engine.fallback is not None:
            return plain
        try:
            report = self._source.report(name)
        except ModelUnusable:  # the folder's problem, which `_follow` reports
            report = None
        return report or msgspec.structs.replace(plain, training=TrainingReport())

    def _swap(self, model: Model) -> ListComparison | None:
        """Returns the lists of before, to be compared."""
        logger.info("%s is made ready; %s serves until then", model.profiles.name, self._serving)
        former = self._engine.index
        self._longest_s = 0.0
        self._next = coming = NextModel(self._engine, model)
        try:
            self._fill(coming)
            self._wait_for_graph(model.index)
            comparison = self._lists_of_before()
            self._switch_to(coming)
        except BaseException:
            model.index.close()
            raise
        finally:
            self._next = None
        self._switches, self._problem, self._pause_s = self._switches + 1, None, self._longest_s
        self._overlap = None
        self._on_switch(model.index)
        former.close()
        return comparison

    def _lists_of_before(self) -> ListComparison | None:
        """A model that cannot be compared serves all the same."""
        try:
            comparison = self._ask(lambda: ListComparison(self._engine))
            while self._ask(comparison.before):
                pass
        except Stopped:
            raise
        except Exception:
            logger.exception("the lists of before the switch cannot be made; how much stays the same is not measured")
            return None
        return comparison

    def _overlap_of(self, comparison: ListComparison | None) -> SwapOverlap | None:
        if comparison is None:
            return None
        try:
            while self._ask(comparison.after):
                pass
        except Stopped:
            return None
        except Exception:
            logger.exception("the lists of after the switch cannot be made; how much stays the same is not measured")
            return None
        return comparison.overlap()

    def _fill(self, coming: NextModel) -> None:
        """Takes in everything there is, but not for ever: changes may come as fast."""
        engine, told_s = self._engine, self._clock()
        slices = len(engine.store) // USERS_PER_SLICE + len(engine.catalogue) // ITEMS_PER_SLICE
        for _ in range(ROUNDS_MAX + slices):
            changes = self._ask(coming.changes)
            coming.take_in(changes)
            if not changes.is_full:
                return
            if self._clock() - told_s > PROGRESS_EVERY_S:
                told_s = self._clock()
                logger.info("%s is %.0f %% ready", coming.model.profiles.name, 100 * coming.progress)

    def _switch_to(self, coming: NextModel) -> None:
        for _ in range(ROUNDS_MAX):
            changes = self._ask(coming.switch)
            if changes is None:
                return
            coming.take_in(changes)
        logger.warning("changes outrun the swap: what is left is taken in at once, and batches wait for it")
        self._ask(coming.switch_at_once)

    def _wait_for_graph(self, index: VectorIndex) -> None:
        deadline_s = self._clock() + BUILD_WAIT_S_MAX
        while index.stats().building and self._clock() < deadline_s:
            self._thread.pause(BUILD_LOOK_S)

    def _ask(self, function: Callable[[], T]) -> T:
        """Runs a short job in the compute thread, between batches, and notes how long it took there."""

        def timed() -> tuple[T, float]:
            began_s = self._clock()
            return function(), self._clock() - began_s

        answer, took_s = self._thread.ask(self._compute, timed)
        self._longest_s = max(self._longest_s, took_s)
        return answer


def plain_report(name: str, dim: int) -> ModelReport:
    """What is known of a model without a folder: it was not trained."""
    return ModelReport(name, name.partition("@")[0], dim)


def export_model(metrics: Metrics, status: ModelStatus) -> None:
    """Sets the metrics `nearstream_model_*`."""
    metrics.gauge("nearstream_model_fallback").set(status.fallback)
    metrics.gauge("nearstream_model_ready_share").set(status.progress)
    metrics.gauge("nearstream_model_switches").set(status.switches)
    metrics.gauge("nearstream_model_failures").set(status.failures)
    if status.switch_s is not None and status.pause_ms is not None:
        metrics.gauge("nearstream_model_switch_seconds").set(status.switch_s)
        metrics.gauge("nearstream_model_pause_seconds").set(status.pause_ms / 1000)
    if (overlap := status.overlap) is not None:
        for lists, share in (("neighbours", overlap.neighbours), ("items", overlap.items)):
            if share is not None:
                metrics.gauge("nearstream_model_overlap_share", lists=lists).set(share)
