"""What a worker reports about its index, for tests of the page and of its reader."""

from __future__ import annotations

import msgspec

from streams.core.status import IndexStatus


def index_status(**changes: object) -> IndexStatus:
    """A graph of 100,000 users in good order, checked twelve seconds ago."""
    status = IndexStatus(
        tier="hnsw",
        users=98_500,
        memory_bytes=84_000_000,
        recall=0.978,
        recall_min=0.95,
        self_miss_share=0.002,
        canary_queries=256,
        checked_s_ago=12.0,
        graph_rows=100_000,
        segments=2,
        delta=3210,
        moved=4000,
        dead=1500,
        dead_share=0.015,
        ef=64,
        generation=4,
        generation_age_s=754.0,
        build_s=8.4,
        building=False,
        build_progress=0.0,
        erasures_pending=0,
        failed_builds=0,
        warnings=[],
    )
    return msgspec.structs.replace(status, **changes)


def scanned_status(**changes: object) -> IndexStatus:
    """A small index that is scanned and not checked yet."""
    nothing = dict.fromkeys(
        ("graph_rows", "segments", "delta", "moved", "dead", "ef", "generation", "canary_queries"), 0
    )
    unknown = dict.fromkeys(("recall", "self_miss_share", "checked_s_ago"))
    floats = dict.fromkeys(("dead_share", "generation_age_s", "build_s"), 0.0)
    small = {"tier": "exact", "users": 1313, "memory_bytes": 410_000}
    return index_status(**small, **nothing, **unknown, **floats, **changes)
