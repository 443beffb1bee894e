"""The newest record of each key, as far as memory allows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from streams.kafka.newest import ENTRY_BYTES, Entry, NewestRecords


def record(key: str | None, offset: int, value: bytes | None = b"v", partition: int = 0) -> Any:
    """A record of the topic."""
    return SimpleNamespace(key=None if key is None else key.encode(), offset=offset, value=value, partition=partition)


def room_for(entries: int) -> NewestRecords:
    """With one-letter keys and values."""
    return NewestRecords(entries * (ENTRY_BYTES + 2))


def test_the_newest_value_of_each_key_counts() -> None:
    """A later record replaces; a record without a key is nobody's."""
    newest = room_for(9)
    newest.read([record("a", 0, b"1"), record("b", 1, b"2"), record("a", 2, b"3"), record(None, 3)])
    assert (newest.get(b"a"), newest.get(b"b"), newest.get(b"c")) == (Entry(2, b"3"), Entry(1, b"2"), None)
    assert newest.is_complete


def test_of_who_is_gone_not_even_the_name_stays() -> None:
    """Where nothing has to be looked up, a tombstone takes the key out."""
    newest = room_for(9)
    newest.read([record("a", 0), record("a", 1, None)])
    assert (newest.get(b"a"), len(newest), newest.is_complete) == (None, 0, True)


def test_what_was_not_asked_for_goes_first() -> None:
    """And from then on a key that is not here may be in the topic."""
    newest = room_for(2)
    newest.read([record("a", 0), record("b", 1)])
    assert newest.get(b"a") is not None
    newest.read([record("c", 2)])
    assert (newest.get(b"b"), newest.get(b"a") is None, newest.is_complete) == (None, False, False)
    assert len(newest) == 2


def test_a_look_up_never_takes_back_what_came_meanwhile() -> None:
    """Neither a newer value nor a tombstone."""
    newest = room_for(2)
    newest.read([record("a", 0), record("b", 1), record("c", 2)])
    assert newest.found(b"a", Entry(0, b"v")) == Entry(0, b"v")
    newest.read([record("a", 3, b"w")])
    assert newest.found(b"a", Entry(0, b"v")) == Entry(3, b"w")
    newest.read([record("a", 4, None)])
    assert newest.found(b"a", Entry(3, b"w")) == Entry(4, None)


def test_who_watches_a_key_hears_of_its_records_only_and_can_stop() -> None:
    """A tombstone is a record too."""
    newest, heard = room_for(9), []
    end = newest.watch(b"a", lambda: heard.append("one"))
    end_other = newest.watch(b"a", lambda: heard.append("two"))
    newest.read([record("b", 0)])
    assert heard == []
    newest.read([record("a", 1)])
    assert sorted(heard) == ["one", "two"]
    end()
    newest.read([record("a", 2, None)])
    assert sorted(heard) == ["one", "two", "two"]
    end_other()
    newest.read([record("a", 3)])
    assert len(heard) == 3


def test_a_topic_that_begins_anew_forgets_the_one_before() -> None:
    """Somebody deleted it and made it again."""
    newest = room_for(9)
    newest.read([record("a", 5), record("b", 5, partition=1)])
    newest.read([record("c", 0)])
    assert (newest.get(b"a"), newest.get(b"b"), newest.get(b"c")) == (None, None, Entry(0, b"v"))
