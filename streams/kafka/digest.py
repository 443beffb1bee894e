"""The witness of exactly-once effect over a whole prefix: every profile, counted and hashed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from streams.kafka.changelog import ProfileRecord, decode_profile
from streams.kafka.records import read_all
from streams.kafka.topics import Topics

if TYPE_CHECKING:
    from streams.config import Settings


@dataclass(frozen=True, slots=True)
class Digest:
    """Two runs over the same events have equal digests, however often they were interrupted."""

    users: int
    events: int
    sha256: str


async def read_profiles(settings: Settings) -> dict[str, ProfileRecord]:
    """Every current profile by user."""
    profiles: dict[str, ProfileRecord] = {}
    async for record in read_all(settings, Topics(settings.prefix).profiles):
        if record.value is None:
            profiles.pop(record.key.decode(), None)
        else:
            profiles[record.key.decode()] = decode_profile(record.value)
    return profiles


def digest_of(profiles: dict[str, ProfileRecord]) -> Digest:
    """Counts, and a hash over the integer part of every profile: what no rounding and no restart may change.

    Offsets stay out, so that the same events give the same digest on another topic.
    """
    total = hashlib.sha256()
    for user in sorted(profiles):
        p = profiles[user]
        integers = (
            p.user_id,
            p.events,
            p.version,
            p.last_time_ms,
            p.recent_items,
            p.recent_types,
            p.recent_times_s,
            p.event_ids,
            p.excluded_items,
        )
        total.update(msgspec.msgpack.encode(integers))
    return Digest(len(profiles), sum(p.events for p in profiles.values()), total.hexdigest())
