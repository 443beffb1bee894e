"""Looks from time to time whether the rules file says something else, and takes that over between two batches."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from streams.core.errors import UsageError
from streams.recommend.rules_file import RulesFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import Any

    from streams.recommend.engine import Engine
    from streams.recommend.rules import Rules

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0


class RulesWatch:
    """One worker's rules file. A file that cannot be used is reported once and changes nothing."""

    def __init__(self, path: Path, list_items: int, engine: Engine, compute: Callable[..., Awaitable[Any]]) -> None:
        """`compute` runs a function in the compute thread."""
        self._path = path
        self._file = RulesFile(str(path), list_items)
        self._engine = engine
        self._compute = compute
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
        self.problem = reload.problem
        if reload.problem is None:
            self.problem = await self._taken(reload.rules)
        if self.problem is not None:
            logger.warning("the rules of before serve on: %s", self.problem)

    async def _taken(self, rules: Rules) -> str | None:
        await asyncio.to_thread(self._engine.warm_up_rules)  # where nothing was compiled before: half a minute
        try:
            for warning in await self._compute(self._engine.take_rules, rules):
                logger.warning("%s: %s", self._path, warning)
        except UsageError as error:
            return str(error)
        logger.info("the rules of %s are in service", self._path)
        return None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
