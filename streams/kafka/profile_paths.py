"""How the profiles of the users who are looked at moved: read back from the changelog on demand, bounded."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
from aiokafka.errors import KafkaError

from streams.core.errors import CorruptState
from streams.core.observation import ProfileMoment, SeenRecord
from streams.kafka.changelog import decode_profile
from streams.kafka.lookback import look_back

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.config import Settings

logger = logging.getLogger(__name__)

MOMENTS_MAX = 40
NEWEST_MOMENTS = 4
"""Read when a path is known already and only its end is missing."""
USERS_MAX = 200
READS_MAX = 2
READ_S_MAX = 2.0
READ_AGAIN_MS = 2000


class _Path:
    def __init__(self) -> None:
        self.moments: list[ProfileMoment] = []
        self.asked_for: int | None = None
        self.read_at_ms = 0


class ProfilePaths:
    """The last moments of each profile that somebody looks at, at most MOMENTS_MAX each, of USERS_MAX users."""

    def __init__(self, settings: Settings, topic: str, clock_ms: Callable[[], int]) -> None:
        self._settings = settings
        self._topic = topic
        self._clock_ms = clock_ms
        self._paths: OrderedDict[str, _Path] = OrderedDict()
        self._reads: dict[str, asyncio.Task[None]] = {}

    @property
    def reads(self) -> list[asyncio.Task[None]]:
        """What runs now; whoever closes the observer cancels them."""
        return list(self._reads.values())

    def clear(self) -> None:
        """Forgets all paths: the topic may be another one now."""
        self._paths.clear()

    def of(self, user_id: str, list_offset: int | None, partitions: int) -> list[ProfileMoment]:
        """What is known, oldest first, without waiting; reads on when the user's list is another than last time."""
        path = self._paths.setdefault(user_id, _Path())
        self._paths.move_to_end(user_id)
        if len(self._paths) > USERS_MAX:
            self._paths.popitem(last=False)
        due = self._clock_ms() - path.read_at_ms >= READ_AGAIN_MS
        if list_offset != path.asked_for and due and user_id not in self._reads and len(self._reads) < READS_MAX:
            path.asked_for, path.read_at_ms = list_offset, self._clock_ms()
            self._reads[user_id] = asyncio.create_task(self._read(user_id, path, partitions), name="profile-path")
        return path.moments

    async def _read(self, user_id: str, path: _Path, partitions: int) -> None:
        try:
            found = await look_back(
                self._settings,
                self._topic,
                partitions,
                user_id.encode(),
                records_max=NEWEST_MOMENTS if path.moments else MOMENTS_MAX,
                limit_s=READ_S_MAX,
            )
            path.moments = _merged(path.moments, found.records)
        except (KafkaError, OSError, CorruptState) as error:
            logger.warning("reading how a profile moved failed: %r", error)
            path.asked_for = None
        finally:
            del self._reads[user_id]


def _merged(known: list[ProfileMoment], records: list[SeenRecord]) -> list[ProfileMoment]:
    """Both, each offset once, the newest MOMENTS_MAX. A tombstone forgets what was before it."""
    moments = {moment.offset: moment for moment in known}
    for record in records:
        if record.value is None:
            moments.clear()
        else:
            moments[record.offset] = _moment(record, record.value)
    return [moments[offset] for offset in sorted(moments)][-MOMENTS_MAX:]


def _moment(record: SeenRecord, value: bytes) -> ProfileMoment:
    profile = decode_profile(value)
    vector = np.frombuffer(profile.vector, np.int8) * np.float32(profile.scale)
    return ProfileMoment(
        offset=record.offset,
        timestamp=record.timestamp,
        events=profile.events,
        model=profile.model,
        vector=[round(float(x), 5) for x in vector],
        last_item=profile.recent_items[-1] if profile.recent_items else None,
    )
