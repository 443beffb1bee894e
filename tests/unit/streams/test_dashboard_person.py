"""One person on the page: the list of before, weights, raw messages; and what the observer keeps for them."""

from __future__ import annotations

from typing import Any

import msgspec
from aiokafka import ConsumerRecord

from streams.core.observation import UserObservation
from streams.dashboard.person import person
from streams.kafka.observed import TAIL_CHARS_MAX, TAIL_MAX, LatestLists, Observed, seen_record
from streams.kafka.topics import Topics
from tests.fakes import START_MS, event_record, list_record, recommendation

TOPICS = Topics("")


def record(topic: str, offset: int, key: bytes | None = b"u1", value: bytes | None = b"{}", **more: Any) -> Any:
    """A record of partition 0."""
    headers = more.get("headers", ())
    return ConsumerRecord(topic, 0, offset, START_MS + offset, 0, key, value, None, 1, 1, headers)


def test_a_person_has_the_list_before_weights_and_raw_text() -> None:
    """What the page compares with, what an event's type counts, and the message as it was sent."""
    before, now = recommendation(events=41, rec_id="r-0"), recommendation(events=42, rec_id="r-1")
    seen = UserObservation(
        "u1", [event_record(7, "i2", "purchase")], list_record(now, 9), before=list_record(before, 8)
    )
    found = person(seen, {}.get, START_MS, {"purchase": 6.0})
    assert found.before is not None
    assert found.list is not None
    assert (found.before.rec_id, found.list.rec_id) == ("r-0", "r-1")
    assert found.events[0].weight == 6.0
    assert msgspec.json.decode(found.events[0].raw)["item_id"] == "i2"
    assert found.interests is None


def test_an_unreadable_event_keeps_its_raw_text() -> None:
    """That is where it can be looked at."""
    broken = msgspec.structs.replace(event_record(7), value=b"\xff{oops")
    found = person(UserObservation("u1", [broken]), {}.get, START_MS)
    assert (found.events[0].type, found.events[0].raw) == (None, "�{oops")


def test_the_list_that_was_replaced_stays_until_the_user_is_forgotten() -> None:
    """One list back; a tombstone takes both."""
    observed = Observed(TOPICS, "nearstream")
    lists = TOPICS.recommendations
    observed.add(lists, [record(lists, 1, value=b"one")])
    assert observed.lists_before.get(b"u1") is None
    observed.add(lists, [record(lists, 2, value=b"two"), record(lists, 3, value=b"three")])
    before = observed.lists_before.get(b"u1")
    assert before is not None
    assert before.value == b"two"
    observed.add(lists, [record(lists, 4, value=None)])
    assert observed.lists_before.get(b"u1") is None
    assert len(observed.lists_before) == 0


def test_dropping_a_list_gives_its_bytes_back() -> None:
    """Afterwards as many fit as before."""
    lists = LatestLists(lists_max=10, bytes_max=20)
    lists.put(b"a", seen_record(record("t", 1, value=b"x" * 15)))
    lists.drop(b"a")
    lists.drop(b"a")
    for key in (b"b", b"c"):
        lists.put(key, seen_record(record("t", 2, value=b"x" * 9)))
    assert len(lists) == 2


def test_a_tail_is_numbered_bounded_and_cut() -> None:
    """The newest records only, each with a greater number than the one before, long values cut."""
    observed = Observed(TOPICS, "nearstream")
    long = b"x" * (TAIL_CHARS_MAX + 1)
    observed.add(TOPICS.events, [record(TOPICS.events, n, value=long) for n in range(TAIL_MAX + 3)])
    tail = observed.tails["events"].after(0)
    assert [r.number for r in tail] == list(range(4, TAIL_MAX + 4))
    assert len(tail[0].value or "") == TAIL_CHARS_MAX
    assert [r.offset for r in observed.tails["events"].after(TAIL_MAX + 2)] == [TAIL_MAX + 2]
    assert observed.tails["dead-letters"].after(0) == []


def test_a_tail_tells_a_tombstone_and_headers() -> None:
    """No value is not an empty one; a dead letter's reason is in its headers."""
    observed = Observed(TOPICS, "nearstream")
    observed.add(TOPICS.recommendations, [record(TOPICS.recommendations, 1, value=None)])
    headers = [("errors.reason", b"not-json")]
    observed.add(TOPICS.dead_letters, [record(TOPICS.dead_letters, 1, None, b"", headers=headers)])
    assert observed.tails["recommendations"].after(0)[0].value is None
    (letter,) = observed.tails["dead-letters"].after(0)
    assert (letter.key, letter.value, letter.headers) == (None, "", {"errors.reason": "not-json"})


def test_the_newest_lists_come_newest_first() -> None:
    """A sample for figures over many lists."""
    lists = LatestLists()
    for n, key in enumerate((b"a", b"b", b"c", b"a")):
        lists.put(key, seen_record(record("t", n)))
    assert [r.offset for r in lists.sample(2)] == [3, 2]
