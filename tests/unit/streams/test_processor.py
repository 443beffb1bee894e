"""One micro-batch of bytes: every record is counted once, and memory waits for the commit."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from streams.core.errors import CorruptState, DeadLetterLimit
from streams.core.events import Event, EventType, Item
from streams.core.recommendations import Recommendation
from streams.kafka.changelog import decode_profile
from streams.kafka.codec import decode_recommendation
from streams.kafka.dead_letter import DeadLetterBound
from streams.kafka.partitioner import murmur2_partition
from streams.kafka.processor import Output, Processor
from tests.fakes_core import START_MS, Record, World, contents, event, event_records, world

NOW_MS = START_MS + 5000
ONE_PARTITION = 1


def processor(found: World, partitions: int = ONE_PARTITION, run_max: int = 1000) -> Processor:
    """Over the world's engine, for the topic `events`, with two neighbours in a list."""
    return Processor(found.engine, "events", partitions, 2, lambda: DeadLetterBound(1.0, run_max))


def commit(target: Processor, events: list[Event], first_offset: int, partition: int = 0) -> Output:
    """Prepares and applies a batch."""
    output = target.prepare(event_records(events, first_offset), partition, NOW_MS)
    target.apply(output)
    return output


def lists(output: Output) -> dict[str, Recommendation]:
    """The lists by the key they are sent with."""
    return {key.decode(): decode_recommendation(value) for key, value in output.lists}


def changelog(output: Output, first_offset: int = 0) -> list[Record]:
    """The profiles of an output as another worker reads them."""
    return [Record(first_offset + place, key, value) for place, (key, value) in enumerate(output.profiles)]


def test_each_touched_user_gets_one_list_with_its_witnesses() -> None:
    """Source is the last event that counted, `profile.events` counts the accepted ones, neighbours are others."""
    found = world()
    target = processor(found)
    commit(target, [event("u1", "a"), event("u2", "a"), event("u3", "a")], 100)
    batch = [event("u1", "b", at_s=1.0, event_id="x"), event("ü4", "a"), event("u1", "b", at_s=2.0, event_id="x")]
    output = target.prepare(event_records(batch, 103), 0, NOW_MS)
    sent = lists(output)
    assert list(sent) == ["u1", "ü4"]
    first = sent["u1"]
    assert (first.rec_id, first.user_id, first.cause, first.generated_at) == ("0-103", "u1", "event", NOW_MS)
    assert (first.source.topic, first.source.partition, first.source.offset) == ("events", 0, 103)
    assert first.source.event_time == START_MS + 1000
    assert (first.profile.events, first.profile.version, first.profile.model) == (2, 2, "fake@1")
    assert (first.index.epoch, first.index.users) == (1, 3)
    assert [n.user_id for n in first.neighbours] == ["u2", "u3"]
    assert [n.user_id for n in sent["ü4"].neighbours] == ["u1", "u2"]
    assert [n.similarity for n in sent["ü4"].neighbours] == [1.0, 1.0]
    assert (sent["ü4"].profile.events, sent["ü4"].source.offset) == (1, 104)


def test_a_short_list_says_why() -> None:
    """Until the catalogue can fill it; a full one says nothing, not even null."""
    found = world()
    target = processor(found)
    short = lists(commit(target, [event("u1", "a"), event("u2", "b")], 0))
    assert {list_.short_because for list_ in short.values()} == {"catalogue-exhausted"}
    found.engine.describe([Item(f"i{n}") for n in range(30)])
    output = commit(target, [event("u1", "c", at_s=1.0)], 2)
    assert lists(output)["u1"].short_because is msgspec.UNSET
    assert b"short_because" not in output.lists[0][1]


def test_every_record_is_counted_once() -> None:
    """Accepted, duplicate, applied before and dead letter add up to the batch, by their positions in it."""
    found = world()
    target = processor(found)
    commit(target, [event("u1", "a"), event("u1", "b")], 8)
    records = [
        *event_records([event("u1", "a"), event("u1", "b")], 8),
        Record(10, b"u1", b"{oops"),
        *event_records([event("u1", "c", event_id="x"), event("u2", "c"), event("u1", "d", event_id="x")], 11),
        Record(14, b"u9", event_records([event("u1")])[0].value),
        *event_records([event("u2", "d", EventType.PURCHASE)], 15),
    ]
    output = target.prepare(records, 0, NOW_MS)
    assert output.accepted.tolist() == [3, 4, 7]
    assert output.duplicates == 1
    assert output.lists_newest.tolist() == [3, 7]
    assert output.reject_reasons == {"not-json": 1, "key-mismatch": 1}
    assert output.types == {"view": 2, "purchase": 1}
    assert [dict(letter.headers)["errors.offset"] for letter in output.dead_letters] == [b"10", b"14"]
    assert [letter.value for letter in output.dead_letters] == [records[2].value, records[6].value]
    assert [key for key, _ in output.profiles] == [b"u1", b"u2"]
    assert set(output.stage_s) == {"decode", "encode", "search", "rank", "serialise"}


def test_nothing_moves_before_the_commit() -> None:
    """A prepared batch that is thrown away leaves no trace, and comes out the same when it is read again."""
    found = world()
    target = processor(found)
    commit(target, [event("u1", "a"), event("u2", "b")], 0)
    before = contents(found)
    batch = event_records([event("u1", "c", EventType.PURCHASE, event_id="e"), event("new")], 2)
    outputs = [target.prepare(batch, 0, NOW_MS) for _ in range(2)]
    assert contents(found) == before
    assert outputs[0].lists == outputs[1].lists
    assert outputs[0].profiles == outputs[1].profiles


def test_a_batch_of_bad_records_moves_nothing_but_the_offset() -> None:
    """Every record becomes a dead letter; there is no refresh to apply."""
    found = world()
    target = processor(found)
    output = target.prepare([Record(n, b"u", b"[]") for n in range(3)], 0, NOW_MS)
    target.apply(output)
    assert output.refresh is None
    assert (output.lists, output.profiles, output.types) == ([], [], {})
    assert (len(output.accepted), len(output.lists_newest), output.duplicates) == (0, 0, 0)
    assert len(output.dead_letters) == 3
    assert len(found.store) == 0


def test_too_many_bad_records_stop_the_worker() -> None:
    """The bound counts over batches of one partition, apart from the others, and anew after a restart."""
    target = processor(world(), run_max=4)
    bad = [Record(n, b"u", b"{") for n in range(3)]
    target.prepare(bad, 0, NOW_MS)
    target.prepare(bad, 1, NOW_MS)
    with pytest.raises(DeadLetterLimit):
        target.prepare(bad, 0, NOW_MS)
    target.forget_bound(0)
    target.prepare(bad, 0, NOW_MS)
    with pytest.raises(DeadLetterLimit):
        target.prepare(bad, 1, NOW_MS)


def test_partitions_are_those_of_kafkas_java_clients() -> None:
    """The murmur2 values that Kafka's own test suite expects, made positive and folded as its clients do."""
    expected = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "abc": 479470107}
    for key, hashed in expected.items():
        for partitions in (1, 7, 8):
            assert murmur2_partition(key, partitions) == (hashed & 0x7FFFFFFF) % partitions
    assert {murmur2_partition(f"ü{n}", 3) for n in range(100)} == {0, 1, 2}


def test_a_key_on_the_wrong_partition_is_a_dead_letter() -> None:
    """All events of that user, in their places among the other rejects; the rest of the batch counts."""
    right = next(f"u{n}" for n in range(100) if murmur2_partition(f"u{n}", 8) == 3)
    wrong = next(f"u{n}" for n in range(100) if murmur2_partition(f"u{n}", 8) == 5)
    good = event_records([event(wrong), event(right), event(right)], 0)
    records = [good[0], Record(1, b"x", b"{"), good[1], event_records([event(wrong)], 3)[0], good[2]._replace(offset=4)]
    output = processor(world(), partitions=8).prepare(records, 3, NOW_MS)
    assert output.accepted.tolist() == [2, 4]
    reasons = [dict(letter.headers)["errors.reason"] for letter in output.dead_letters]
    assert reasons == [b"wrong-partition", b"not-json", b"wrong-partition"]
    message = dict(output.dead_letters[0].headers)["errors.message"].decode()
    assert "on partition 5 (murmur2), it came on 3" in message
    assert "murmur2_random" in message
    assert list(lists(output)) == [right]


def test_a_new_user_is_checked_on_every_partition() -> None:
    """On partition 0 too, whatever the rows hold that nobody uses yet."""
    users = [f"u{n}" for n in range(40)]
    for partition in range(8):
        output = processor(world(), partitions=8).prepare(event_records(list(map(event, users))), partition, NOW_MS)
        assert list(lists(output)) == [user for user in users if murmur2_partition(user, 8) == partition]


def test_a_known_user_on_a_wrong_partition_is_a_dead_letter_too() -> None:
    """A second, misconfigured producer must not give one user two orders and two offsets."""
    user = next(f"u{n}" for n in range(100) if murmur2_partition(f"u{n}", 8) == 3)
    found = world()
    target = processor(found, partitions=8)
    commit(target, [event(user)], 0, partition=3)
    before = contents(found)
    output = commit(target, [event(user)], 70, partition=4)
    assert output.reject_reasons == {"wrong-partition": 1}
    assert contents(found) == before
    assert commit(target, [event(user)], 1, partition=3).reject_reasons == {}


def test_a_forgotten_user_is_checked_again() -> None:
    """An empty profile proves no partition."""
    user = next(f"u{n}" for n in range(100) if murmur2_partition(f"u{n}", 8) == 3)
    found = world()
    target = processor(found, partitions=8)
    commit(target, [event(user)], 0, partition=3)
    found.engine.forget([user])
    assert commit(target, [event(user)], 0, partition=4).reject_reasons == {"wrong-partition": 1}
    assert commit(target, [event(user)], 5, partition=3).accepted.tolist() == [0]


def test_another_worker_follows_the_changelog() -> None:
    """Profiles and neighbours are the same there; of several records of a user the last one wins."""
    source, replica = world(), world()
    writer, reader = processor(source), processor(replica)
    outputs = [
        commit(writer, [event("u1", "a"), event("u2", "b", EventType.PURCHASE)], 0),
        commit(writer, [event("u1", "c")], 2),
    ]
    reader.load_profiles([*changelog(outputs[0]), *changelog(outputs[1], 2)])
    assert contents(replica)["profiles"] == contents(source)["profiles"]
    assert contents(replica)["index"] == contents(source)["index"]


def test_a_tombstone_forgets() -> None:
    """And only the users it names, known or not."""
    found = world()
    target = processor(found)
    output = commit(target, [event("u1"), event("u2")], 0)
    target.load_profiles([Record(0, b"u1", None), Record(1, b"stranger", None), Record(2, None, None)])
    assert set(found.index.stored) == {1}
    target.load_profiles([*changelog(output)[:1], Record(1, b"u1", None)])
    assert set(found.index.stored) == {1}
    assert found.profile("u1")["events"] == 0


def test_who_comes_back_after_a_tombstone_starts_anew() -> None:
    """The fresh profile has a smaller version than the forgotten one, and counts all the same."""
    source, replica = world(), world()
    writer, reader = processor(source), processor(replica)
    old = commit(writer, [event("u1", "a", EventType.PURCHASE), event("u1", "b"), event("u1", "c")], 0)
    reader.load_profiles(changelog(old))
    source.engine.forget(["u1"])
    fresh = commit(writer, [event("u1", "d")], 3)
    reader.load_profiles([*changelog(old), Record(1, b"u1", None), *changelog(fresh, 2)])
    assert contents(replica)["profiles"] == contents(source)["profiles"]
    assert replica.recents("u1") == ["d"]
    assert replica.excluded("u1") == []


@pytest.mark.parametrize("model", ["fake@2", "fake@1"])
def test_states_of_another_model_are_rebuilt_from_the_history(model: str) -> None:
    """Everything but the state is taken over; a state of this model is taken as it is."""
    source, replica = world(model="fake@1"), world(model=model)
    output = commit(processor(source), [event("u1", "a"), event("u1", "b", at_s=60.0), event("u2", "a")], 0)
    records = [
        record._replace(
            value=msgspec.msgpack.encode(msgspec.structs.replace(decode_profile(record.value), state=state))
        )
        for record, state in zip(
            changelog(output), [np.full(4, 9, "<f4").tobytes(), np.full(4, 8, "<f4").tobytes()], strict=True
        )
    ]
    processor(replica).load_profiles(records)
    ours, theirs = contents(replica)["profiles"], contents(source)["profiles"]
    states = {user: np.frombuffer(row.pop("state"), np.float32) for user, row in ours.items()}
    expected = {user: np.frombuffer(row.pop("state"), np.float32) for user, row in theirs.items()}
    assert ours == theirs
    if model == "fake@1":
        expected = {"u1": np.full(4, 9), "u2": np.full(4, 8)}
    assert states["u1"] == pytest.approx(expected["u1"], rel=1e-4)
    assert states["u2"] == pytest.approx(expected["u2"], rel=1e-4)


def test_an_unreadable_changelog_stops_the_worker() -> None:
    """Nothing of the batch is loaded."""
    found = world()
    output = commit(processor(world()), [event("u1")], 0)
    with pytest.raises(CorruptState):
        processor(found).load_profiles([*changelog(output), Record(1, b"u2", b"garbage")])
    assert len(found.store) == 0


def test_items_describe_and_withdraw() -> None:
    """The last word on an item counts, a tombstone takes it off the lists, and bad records are counted."""
    found = world()
    unreadable = processor(found).load_items(
        [
            Record(0, b"a", b'{"item_id": "a", "title": "red shoes"}'),
            Record(1, b"b", b'{"item_id": "b", "title": "blue shoes"}'),
            Record(2, b"b", None),
            Record(3, b"c", b"{oops"),
            Record(4, b"d", b'{"item_id": "e"}'),
            Record(5, b"never-seen", None),
        ]
    )
    found.catalogue.slots(["never-seen"])
    assert unreadable == 2
    known = dict(zip(found.catalogue.item_ids, found.catalogue.available.tolist(), strict=True))
    assert known == {"a": True, "b": False, "never-seen": False}
    assert found.catalogue.described[found.catalogue.slot_of["a"]]
