"""The observer's memory: found by user, bounded, and calm about records that it cannot read."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest

from streams.core.observation import SeenRecord
from streams.kafka.lookback import partition_of
from streams.kafka.observed import EVENTS_SHOWN, LatestLists, Observed, RecentEvents
from streams.kafka.topics import Topics
from tests.fakes import START_MS, worker_status

TOPICS = Topics()


@dataclass
class Record:
    """As much of aiokafka's record as memory reads."""

    topic: str
    key: bytes | None
    value: bytes | None
    offset: int = 0
    partition: int = 0
    timestamp: int = START_MS
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)


def seen(offset: int, size: int = 1) -> SeenRecord:
    """A record of `size` bytes."""
    return SeenRecord("t", 0, offset, START_MS, b"x" * size)


def test_recent_events_keep_the_newest_by_count() -> None:
    """The oldest record goes, whoever's it is, and users without records take no room."""
    ring = RecentEvents(events_max=3)
    for offset, key in enumerate((b"a", b"b", b"a", b"a")):
        ring.add(key, seen(offset))
    assert [r.offset for r in ring.of(b"a")] == [2, 3]
    assert [r.offset for r in ring.of(b"b")] == [1]
    ring.add(b"a", seen(4))
    assert (ring.of(b"b"), len(ring)) == ([], 3)


def test_recent_events_keep_the_newest_by_bytes() -> None:
    """A few large records do not outgrow the bound either."""
    ring = RecentEvents(bytes_max=100)
    for offset in range(10):
        ring.add(b"k", seen(offset, size=40))
    assert [r.offset for r in ring.of(b"k")] == [8, 9]


def test_a_busy_user_gets_only_the_events_that_are_shown() -> None:
    """Oldest first, the newest of them."""
    ring = RecentEvents()
    for offset in range(EVENTS_SHOWN + 5):
        ring.add(b"k", seen(offset))
    assert [r.offset for r in ring.of(b"k")] == list(range(5, EVENTS_SHOWN + 5))


def test_latest_lists_forget_the_user_whose_list_is_oldest() -> None:
    """A replaced list counts as new and frees the bytes of the old."""
    lists = LatestLists(lists_max=2, bytes_max=100)
    lists.put(b"a", seen(1, 40))
    lists.put(b"b", seen(2, 40))
    lists.put(b"a", seen(3, 40))
    lists.put(b"c", seen(4, 10))
    assert (lists.get(b"b"), len(lists)) == (None, 2)
    assert lists.newest(5) == ["c", "a"]
    lists.put(b"d", seen(5, 90))
    assert lists.newest(5) == ["d"]


def test_status_records_of_other_groups_and_unreadable_ones_are_left_out() -> None:
    """The last report of each worker of the group stays; a tombstone removes it."""
    observed = Observed(TOPICS, "nearstream")
    mine, newer = worker_status("w1"), worker_status("w1", now_ms=START_MS + 1)
    other = worker_status("w2", group="else")
    records = [Record(TOPICS.status, b"k", msgspec.json.encode(s)) for s in (mine, other, newer)]
    observed.add(
        TOPICS.status, [*records, Record(TOPICS.status, b"w3", b"{oops"), Record(TOPICS.status, b"w3", b"\xff")]
    )
    assert observed.workers == {"w1": newer}
    observed.add(TOPICS.status, [Record(TOPICS.status, b"w1", None)])
    assert observed.workers == {}


@pytest.mark.parametrize("value", [None, b"", b"{oops", b'{"title": 5}', b'{"item_id": "i1"}'])
def test_an_item_without_a_readable_title_has_none(value: bytes | None) -> None:
    """Also when it had one before."""
    observed = Observed(TOPICS, "g")
    observed.add(TOPICS.items, [Record(TOPICS.items, b"i1", b'{"title": "Scarf"}'), Record(TOPICS.items, b"i1", value)])
    assert "i1" not in observed.titles


def test_dead_letters_without_headers_or_key_are_counted_too() -> None:
    """Missing facts get a word, odd bytes a readable form."""
    observed = Observed(TOPICS, "g")
    headers: list[tuple[str, bytes | None]] = [("errors.reason", b"not-json"), ("errors.offset", b"x9")]
    observed.add(
        TOPICS.dead_letters,
        [Record(TOPICS.dead_letters, None, b"\xff{", 4, headers=headers), Record(TOPICS.dead_letters, b"k", None, 5)],
    )
    tally = observed.dead_letters(complete=True)
    assert tally.by_reason == {"not-json": 1, "no reason given": 1}
    assert [(d.key, d.offset, d.excerpt) for d in tally.last] == [(None, 4, "\ufffd{"), ("k", 5, "")]


def test_events_and_lists_without_a_key_belong_to_nobody() -> None:
    """A record that no user can be asked for is not kept."""
    observed = Observed(TOPICS, "g")
    observed.add(TOPICS.events, [Record(TOPICS.events, None, b"{}")])
    observed.add(TOPICS.recommendations, [Record(TOPICS.recommendations, None, b"{}")])
    assert (len(observed.events), len(observed.lists)) == (0, 0)


@pytest.mark.parametrize(
    ("key", "hashed"), [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)]
)
def test_keys_go_where_the_java_client_sends_them(key: bytes, hashed: int) -> None:
    """Known values of Kafka's own test of murmur2."""
    assert partition_of(key, 1024) == (hashed & 0x7FFFFFFF) % 1024
