"""Where a running worker takes questions of what a list would be: one at a time, few waiting, in bounded time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from streams.core.errors import WorkerUnavailable
from streams.recommend.counterfactual import what_if

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from streams.core.what_if import WhatIf, WhatIfQuestion, WhatIfRefusal
    from streams.metrics import Metrics
    from streams.recommend.engine import Engine

QUESTIONS_MAX = 4
"""The one that is answered and those that wait: between two of them the batches get their turn."""
ANSWER_S_MAX = 3.0
"""With the wait for the batches before it."""


class WhatIfDesk:
    """Answers from the engine's memory, in the compute thread."""

    def __init__(
        self,
        engine: Engine,
        neighbours: int,
        compute_thread: Executor,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._neighbours = neighbours
        self._compute_thread = compute_thread
        self._metrics = metrics
        self._clock = clock
        self._turn = asyncio.Lock()
        self._open = 0

    async def ask(self, user_id: str, question: WhatIfQuestion) -> WhatIf | WhatIfRefusal:
        """The answer; nothing stored changes.

        Raises:
            WorkerUnavailable: too many questions wait, or there was no answer in time.
        """
        if self._open >= QUESTIONS_MAX:
            raise WorkerUnavailable(f"{QUESTIONS_MAX} questions wait at this worker already. Ask again in a moment.")
        self._open += 1
        try:
            async with asyncio.timeout(ANSWER_S_MAX), self._turn:
                # A job that has begun goes on when nobody waits for it any more; it takes milliseconds.
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._compute_thread, self._answered, user_id, question)
        except TimeoutError as error:
            raise WorkerUnavailable(
                f"The worker was too busy to answer within {ANSWER_S_MAX:g} s. Ask again in a moment."
            ) from error
        finally:
            self._open -= 1

    def _answered(self, user_id: str, question: WhatIfQuestion) -> WhatIf | WhatIfRefusal:
        began_s = time.perf_counter()
        found = what_if(self._engine, user_id, question, int(self._clock() * 1000), self._neighbours)
        self._metrics.histogram("nearstream_what_if_seconds").observe(time.perf_counter() - began_s)
        return found
