"""Tombstones of the topic `users`: whose turn it is, what a transaction carries, and what is done only once."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import pytest

from streams.core.events import Event, User
from streams.kafka.commit_note import CommitNote
from streams.kafka.dead_letter import DeadLetterBound
from streams.kafka.forgetting import FORGET_AT_ONCE, GONE_MAX, Forgetting, Tombstone, Unread
from streams.kafka.processor import Output, Processor
from tests.fakes_core import START_MS, Record, World, contents, event, event_records, world

NOW_MS = START_MS + 60_000
AGES_AGO_MS = START_MS - 1_000_000


class UserRecord(NamedTuple):
    """A record of the users topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = START_MS + 500
    headers: tuple[tuple[str, bytes], ...] = ()


def gone(user_id: str, offset: int, partition: int = 0, sent_ms: int = AGES_AGO_MS) -> UserRecord:
    return UserRecord(partition, offset, user_id.encode(), None, sent_ms)


def told(user: User, offset: int, partition: int = 0) -> UserRecord:
    return UserRecord(partition, offset, user.user_id.encode(), msgspec.json.encode(user))


def names(tombstones: list[Tombstone]) -> list[str]:
    return [tombstone.user_id for tombstone in tombstones]


def processor(found: World) -> Processor:
    return Processor(found.engine, "events", 1, 2, lambda: DeadLetterBound(1.0, 1000))


def commit(target: Processor, events: list[Event], first_offset: int = 0) -> Output:
    output = target.prepare(event_records(events, first_offset), 0, NOW_MS)
    target.apply(output)
    return output


def test_what_is_heard_of_an_owned_partition_waits_in_order() -> None:
    """Other partitions' tombstones are for their owners, descriptions are not for forgetting."""
    forgetting = Forgetting()
    assert forgetting.take_up(0, None) is None
    forgetting.heard([gone("u1", 0), told(User("u2"), 1), gone("v1", 0, partition=1), gone("u3", 2)])
    assert forgetting.is_due(0)
    assert not forgetting.is_due(1)
    assert names(forgetting.next(0)) == ["u1", "u3"]


def test_what_was_heard_before_is_to_be_read_from_where_the_log_is_done() -> None:
    """Read ones come before those heard meanwhile; nothing is to be read where all is done."""
    forgetting = Forgetting()
    forgetting.heard([gone("u1", 3), told(User("u2"), 9)])
    assert forgetting.take_up(0, 4) == Unread(4, 10)
    forgetting.heard([gone("u4", 10)])
    forgetting.add(0, [Tombstone(5, "u2", 0), Tombstone(7, "u3", 0)])
    assert names(forgetting.next(0)) == ["u2", "u3", "u4"]
    assert forgetting.take_up(0, 11) is None
    assert forgetting.next(0) == []
    assert forgetting.take_up(0, None) == Unread(0, 11)


def test_a_tombstone_that_the_former_owner_has_done_is_not_done_again() -> None:
    """The log says that everything before offset 12 is done; this worker reads the topic a little later."""
    forgetting = Forgetting()
    forgetting.heard([told(User("u0"), 9)])
    assert forgetting.take_up(0, 12) is None
    forgetting.heard([gone("u1", 10), gone("u2", 11), gone("u3", 12)])
    assert names(forgetting.next(0)) == ["u3"]


def test_how_far_the_log_is_done_waits_for_the_first_that_is_left() -> None:
    """Before, with some done, and with all done; a partition given up remembers nobody."""
    forgetting = Forgetting()
    assert forgetting.done_before(0) is None
    forgetting.take_up(0, None)
    forgetting.heard([gone("u1", 2), gone("u2", 5), told(User("u3"), 8)])
    turn = forgetting.next(0)
    assert [forgetting.done_before(0, turn[:n]) for n in range(3)] == [2, 5, 9]
    forgetting.done(0, turn[:1])
    assert names(forgetting.next(0)) == ["u2"]
    forgetting.give_up(0)
    assert not forgetting.is_due(0)


def test_a_turn_is_bounded() -> None:
    """Five hundred at once, then the others."""
    forgetting = Forgetting()
    forgetting.take_up(0, None)
    forgetting.heard([gone(f"u{n}", n) for n in range(FORGET_AT_ONCE + 7)])
    turn = forgetting.next(0)
    assert len(turn) == FORGET_AT_ONCE
    forgetting.done(0, turn)
    assert names(forgetting.next(0)) == [f"u{n}" for n in range(FORGET_AT_ONCE, FORGET_AT_ONCE + 7)]


def test_a_tombstone_without_a_readable_key_is_passed_over() -> None:
    """Nobody is named; the one behind it counts."""
    forgetting = Forgetting()
    forgetting.take_up(0, None)
    forgetting.heard([UserRecord(0, 0, None, None), UserRecord(0, 1, b"\xff", None), gone("u1", 2)])
    assert names(forgetting.next(0)) == ["u1"]


def test_forgetting_takes_profile_and_list_out_of_the_log_and_then_of_memory() -> None:
    """Tombstones for both, the offset in the note; memory moves only when that is committed."""
    found = world()
    target = processor(found)
    commit(target, [event("u1", "a"), event("u2", "b")])
    target.load_users([told(User("u1", age=34), 0)])
    target.forgetting.take_up(0, 1)
    assert target.load_users([gone("u1", 1), gone("nobody", 2), told(User("u2", age=50), 3)]) == 0
    before = contents(found)
    output = target.prepare_forget(0)
    assert output.profiles == output.lists == [(b"u1", None)]
    assert (output.dead_letters, output.refresh) == ([], None)
    assert output.late.note == CommitNote(users_offset=4)
    assert contents(found) == before
    target.apply(output)
    assert "u1" not in contents(found)["profiles"]
    assert found.engine.forgotten == 1
    assert not target.forgetting.is_due(0)
    assert found.store.facts.tokens(["u1", "u2"]) == [(), ("age:50",)]


def test_who_comes_back_begins_anew() -> None:
    """One event is one event, and their next batch says up to where tombstones are done."""
    found = world()
    target = processor(found)
    commit(target, [event("u1", "a"), event("u1", "b"), event("u2", "b")])
    target.forgetting.take_up(0, None)
    target.load_users([gone("u1", 0)])
    target.apply(target.prepare_forget(0))
    output = commit(target, [event("u1", "c", at_s=3.0)], 3)
    assert found.profile("u1")["events"] == 1
    assert found.recents("u1") == ["c"]
    assert output.late.note.users_offset == 1
    assert [key for key, value in output.profiles if value] == [b"u1"]


def test_who_has_no_profile_needs_no_transaction() -> None:
    """Nothing to send; the tombstone is done all the same."""
    target = processor(world())
    target.forgetting.take_up(0, None)
    target.load_users([gone("nobody", 0)])
    output = target.prepare_forget(0)
    assert (output.profiles, output.lists) == ([], [])
    target.apply(output)
    assert not target.forgetting.is_due(0)


def test_only_the_owner_of_a_user_forgets_the_user(caplog: pytest.LogCaptureFixture) -> None:
    """A tombstone that came on another partition than the events do is named in a warning that says what to do."""
    found = world()
    target = processor(found)
    commit(target, [event("u1", "a")])
    target.forgetting.take_up(5, None)
    target.load_users([gone("u1", 0, partition=5)])
    assert target.prepare_forget(5).profiles == []
    assert "'u1'" in caplog.text
    assert "murmur2" in caplog.text


def test_events_from_before_the_tombstone_do_not_bring_the_profile_back() -> None:
    """Those that Kafka had before it are passed over, whoever else's and later ones count."""
    found = world()
    target = processor(found)
    target.load_users([gone("u1", 0, sent_ms=START_MS + 1000)])
    batch = [event("u1", "a", at_s=0.5), event("u2", "a", at_s=0.5), event("u1", "b", at_s=1.0)]
    commit(target, batch)
    assert set(contents(found)["profiles"]) == {"u2"}
    assert target.forgetting.late_events == 2
    commit(target, [event("u1", "c", at_s=2.0)], 3)
    assert found.recents("u1") == ["c"]


def test_bad_records_beside_a_late_event_are_still_dead_letters() -> None:
    """Each at its own place in the batch."""
    target = processor(world())
    target.load_users([gone("u1", 0, sent_ms=START_MS + 1000)])
    records = [Record(0, b"u1", b"{oops"), *event_records([event("u1", "a")], 1), *event_records([event("u2", "a")], 2)]
    output = target.prepare(records, 0, NOW_MS)
    assert output.accepted.tolist() == [2]
    assert [dict(letter.headers)["errors.offset"] for letter in output.dead_letters] == [b"0"]


def test_no_more_names_are_remembered_than_the_bound_says() -> None:
    """The newest: the oldest tombstone bars nothing any more."""
    found = world()
    target = processor(found)
    later_ms = START_MS + 5000
    target.load_users([gone(f"u{n}", n, sent_ms=later_ms) for n in range(GONE_MAX + 1)])
    commit(target, [event("u0", "a"), event("u1", "a"), event(f"u{GONE_MAX}", "a")])
    assert set(contents(found)["profiles"]) == {"u0"}


def test_unreadable_users_are_counted() -> None:
    """And the others are taken in."""
    found = world()
    target = processor(found)
    records = [UserRecord(0, 0, b"u1", b"{"), UserRecord(0, 1, None, None), told(User("u2", gender="f"), 2)]
    assert target.load_users(records) == 2
    assert found.store.facts.tokens(["u2"]) == [("gender:f",)]
