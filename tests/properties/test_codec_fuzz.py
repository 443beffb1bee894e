from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.errors import RejectedRecord, RejectReason
from streams.core.events import FUTURE_MS_MAX, Event, Item, User
from streams.kafka.codec import Rejected, decode_events, decode_items, decode_users, encode_description, encode_event
from streams.kafka.examine import examine_event, nesting
from tests.benchmarks.fuzz_events import FuzzRecord, fuzz_messages, totals
from tests.strategies import NOW_MS, event_records, events, items, mutated_records, raw_records, users

records = mutated_records() | raw_records() | event_records()


@given(st.lists(records, max_size=8))
def test_every_record_counts_or_is_rejected_once(batch: list[FuzzRecord]) -> None:
    """Positions and rejects together are each record exactly once, in order, with a reason and a message."""
    decoded = decode_events(batch, NOW_MS)
    rejected = [reject.position for reject in decoded.rejects]
    assert sorted([*decoded.positions.tolist(), *rejected]) == list(range(len(batch)))
    assert decoded.positions.tolist() == sorted(decoded.positions.tolist())
    assert rejected == sorted(rejected)
    assert len(decoded.events) == len(decoded.positions)
    for reject in decoded.rejects:
        assert reject.reason in RejectReason
        assert 10 < len(reject.message) < 1000
        reject.message.encode()


@given(records)
def test_fast_path_and_examination_agree(record: FuzzRecord) -> None:
    """The short way accepts exactly what the rules, checked one by one, accept, and gives the same event."""
    decoded = decode_events([record], NOW_MS)
    if decoded.events:
        assert decoded.events == [examine_event(record, NOW_MS + FUTURE_MS_MAX)]
        return
    with pytest.raises(RejectedRecord) as rejection:
        examine_event(record, NOW_MS + FUTURE_MS_MAX)
    assert decoded.rejects == [Rejected(0, rejection.value.reason, rejection.value.message)]


@given(records)
def test_accepted_events_keep_the_contract(record: FuzzRecord) -> None:
    """Whatever is accepted has ids of 1 to 256 characters, a finite value and a time that can be."""
    for event in decode_events([record], NOW_MS).events:
        assert 1 <= len(event.user_id) <= 256
        assert 1 <= len(event.item_id) <= 256
        assert record.key == event.user_id.encode()
        assert 0 <= event.timestamp <= NOW_MS + FUTURE_MS_MAX
        assert event.value is None or abs(event.value) < float("inf")


@given(events())
def test_events_survive_a_round_trip(event: Event) -> None:
    """An encoded event decodes to itself."""
    decoded = decode_events([FuzzRecord(event.user_id.encode(), encode_event(event))], NOW_MS)
    assert decoded.rejects == []
    assert decoded.events == [event]


@given(records)
def test_accepted_events_can_be_encoded_again(record: FuzzRecord) -> None:
    """No accepted event holds what JSON or UTF-8 cannot carry."""
    for event in decode_events([record], NOW_MS).events:
        again = decode_events([record._replace(value=encode_event(event))], NOW_MS)
        assert again.events == [event]


@given(items(), users())
def test_descriptions_survive_a_round_trip(item: Item, user: User) -> None:
    """Encoded items and users decode to themselves."""
    assert decode_items([FuzzRecord(item.item_id.encode(), encode_description(item))]).upserts == [item]
    assert decode_users([FuzzRecord(user.user_id.encode(), encode_description(user))]).upserts == [user]


@given(st.lists(raw_records() | mutated_records(), max_size=5))
def test_descriptions_never_crash(batch: list[FuzzRecord]) -> None:
    """Bad items and users are rejected, whatever they are."""
    for decoded in (decode_items(batch), decode_users(batch)):
        assert len(decoded.upserts) + len(decoded.tombstones) + len(decoded.rejects) <= len(batch)


@given(st.recursive(st.text('a"\\{[]}', max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=12))
def test_nesting_is_the_depth_of_the_parsed_value(value: object) -> None:
    """Brackets inside strings, quoted quotes and backslashes do not count."""

    def depth(came: object) -> int:
        return 1 + max(map(depth, came), default=0) if isinstance(came, list) else 0

    assert nesting(json.dumps(value).encode()) == depth(value)


def test_fuzz_totals_add_up() -> None:
    """Of some thousand mutated messages each is accepted or has a reason, and every reason of the codec occurs."""
    report = totals(messages=5000, seed=7)
    assert report["adds_up"]
    assert 0 < report["accepted"] < 5000
    assert set(report["dead_letters"]) == set(RejectReason) - {RejectReason.WRONG_PARTITION}


def test_untouched_messages_all_count() -> None:
    """The fuzz script's own starting point is sound, so its rejects come from the mutations."""
    kept = [record for record in fuzz_messages(2000, seed=3) if record.mutation == "keep"]
    assert len(kept) > 50
    assert decode_events(kept, NOW_MS).rejects == []


@pytest.mark.parametrize("seed", [1, 2])
def test_fuzz_messages_follow_the_seed(seed: int) -> None:
    """The same seed gives the same messages."""
    assert list(fuzz_messages(200, seed)) == list(fuzz_messages(200, seed))
