"""A worker's start from its saved memory, when there is one and the changelog goes on from it."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from index import SnapshotError, SnapshotMissing, read_manifest
from streams.kafka.memory_check import read_cluster_id, read_log, refusal
from streams.kafka.memory_file import KIND, Facts, load_memory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from index import Manifest
    from streams.config import Settings
    from streams.recommend.engine import Engine

logger = logging.getLogger(__name__)


class MemoryPlace(NamedTuple):
    """Where the memory of an engine that follows one topic is saved, and what it must be to be taken over."""

    folder: Path
    facts: Facts


class Recalled(NamedTuple):
    """What memory began with."""

    offsets: dict[int, int]
    """By partition of the changelog: where reading goes on."""
    epoch: int
    """The engine's, of that memory."""
    saved_at_s: float
    """Epoch seconds."""


async def memory_place(settings: Settings, topic: str, engine: Engine) -> MemoryPlace:
    """A folder of this cluster and topic; equal for all workers of a machine.

    Raises:
        BrokerUnavailable: Kafka does not answer.
    """
    cluster = await read_cluster_id(settings)
    names = (re.sub(r"^\.|[^A-Za-z0-9._-]", lambda found: f"%{ord(found[0]):x}", name) for name in (cluster, topic))
    return MemoryPlace(settings.data_dir.joinpath("snapshots", *names), Facts.of(engine, cluster, topic))


async def recall(
    settings: Settings, place: MemoryPlace, partitions: int, engine: Engine, compute: Callable[..., Awaitable[Any]]
) -> Recalled | None:
    """Fills an engine without history from the saved memory. None when there is none to be trusted, as the log says.

    Raises:
        BrokerUnavailable: Kafka does not answer; the engine is as it was.
    """
    started_s = time.monotonic()
    try:
        manifest = await asyncio.to_thread(read_manifest, place.folder / "memory")
        reason = await _refusal(settings, place, manifest, partitions)
        if reason is None:
            await compute(load_memory, place.folder, manifest, engine)
    except SnapshotMissing as error:
        logger.info("%s The changelog is read from its beginning.", error)
        return None
    except (SnapshotError, OSError) as error:
        reason = str(error)
    if reason is not None:
        logger.warning(
            "the memory in %s is not used: %s The changelog is read from its beginning.", place.folder, reason
        )
        return None
    logger.info("restored %d users from %s in %.2f s", manifest.size, place.folder, time.monotonic() - started_s)
    offsets = {int(number): offset for number, offset in manifest.offsets.items()}
    return Recalled(offsets, engine.epoch, manifest.saved_at_s)


async def _refusal(settings: Settings, place: MemoryPlace, manifest: Manifest, partitions: int) -> str | None:
    if manifest.kind != KIND:
        return f"It holds a snapshot of kind {manifest.kind!r}, not {KIND!r}."
    if differing := place.facts.differing(manifest):
        return f"{'; '.join(differing)}."
    log = await read_log(settings, place.facts.topic, partitions, manifest.saved_at_s)
    offsets = {int(number): offset for number, offset in manifest.offsets.items()}
    return refusal(offsets, manifest.saved_at_s, log, time.time())
