"""Where a key belongs."""

from __future__ import annotations

from aiokafka.partitioner import murmur2


def murmur2_partition(user_id: str, partitions: int) -> int:
    """The partition that Kafka's Java clients, and ours, give this key."""
    return int((murmur2(user_id.encode()) & 0x7FFFFFFF) % partitions)
