"""Looks from time to time whether the rules file says something else, and takes that over between two batches."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from streams.core.errors import UsageError
from streams.core.worker_details import RulesReport, shortened
from streams.recommend.rule_words import rule_sentences
from streams.recommend.rules_file import RulesFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import Any

    from streams.core.worker_details import RuleSentence
    from streams.recommend.engine import Engine
    from streams.recommend.rules import Rules

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
WARNINGS_MAX = 20


class RulesWatch:
    """One worker's rules file. A file that cannot be used is reported once and changes nothing."""

    def __init__(
        self,
        path: Path,
        list_items: int,
        engine: Engine,
        compute: Callable[..., Awaitable[Any]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`compute` runs a function in the compute thread; `clock` gives epoch seconds."""
        self._path = path
        self._file = RulesFile(str(path), list_items)
        self._engine = engine
        self._compute = compute
        self._clock = clock
        self._loaded_at: int | None = None
        self._checked_at: int | None = None
        self._warnings: list[str] = []
        self._sentences: list[RuleSentence] = []
        self.problem: str | None = None
        """Why the file of now is not in service; None while it is."""

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """One look; raises nothing of the file's faults."""
        reload = self._file.look(await asyncio.to_thread(_content, self._path))
        if reload is None:
            return
        problem = reload.problem
        if problem is None:
            problem = await self._taken(reload.rules)
        self.problem, self._checked_at = problem, int(1000 * self._clock())
        if self.problem is not None:
            logger.warning("the rules of before serve on: %s", self.problem)

    def report(self) -> RulesReport:
        """The file as it is in service, and what is wrong with what it says now."""
        return RulesReport(
            path=str(self._path),
            loaded_at=self._loaded_at,
            checked_at=self._checked_at,
            problem=None if self.problem is None else shortened(self.problem),
            warnings=self._warnings,
            sentences=self._sentences,
        )

    async def _taken(self, rules: Rules) -> str | None:
        await asyncio.to_thread(self._engine.warm_up_rules)  # where nothing was compiled before: half a minute
        try:
            warnings: list[str] = await self._compute(self._engine.take_rules, rules)
        except UsageError as error:
            return str(error)
        for warning in warnings:
            logger.warning("%s: %s", self._path, warning)
        logger.info("the rules of %s are in service", self._path)
        self._loaded_at = int(1000 * self._clock())
        self._sentences = rule_sentences(rules)
        self._warnings = [shortened(warning) for warning in warnings[:WARNINGS_MAX]]
        return None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
