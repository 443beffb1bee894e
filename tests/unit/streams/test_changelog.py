"""The changelog of profiles: what one worker writes, every other reads back without a bit of difference."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from streams.core.errors import CorruptState
from streams.core.events import EventType
from streams.core.profile import ProfileLayout
from streams.core.updater import ProfileUpdate, hash_event_id
from streams.kafka.changelog import SCHEMA, ProfileRecord, decode_profile, encode_profiles, load_profiles
from tests.fakes_core import DIM, START_MS, World, event, offsets, row_of, world

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "profiles" / "v1.msgpack"
LAYOUT = ProfileLayout(DIM, 8, 4)


def history() -> tuple[World, ProfileUpdate]:
    """A batch of three users: a long history, one without direction, one whose first event was a dislike."""
    found = world(ranking=False)
    batch = [
        *(event("änne", f"i{n}", at_s=n, event_id=f"e{n}") for n in range(10)),
        event("änne", "schöne 👟", EventType.PURCHASE, at_s=100.5, event_id="buy"),
        event("idle", "i1", EventType.IMPRESSION),
        event("cross", "i2", EventType.DISLIKE),
    ]
    return found, found.updater.prepare(batch, offsets(len(batch), 40), 3)


def records() -> list[bytes]:
    """The changelog of `history`."""
    found, update = history()
    return encode_profiles(update, found.catalogue, "fake@1")


def test_another_worker_reads_back_every_bit() -> None:
    """Items have other slots there; everything else, the state included, is equal."""
    found, update = history()
    other = world(ranking=False)
    other.catalogue.slots(["schöne 👟", "unrelated", "i2"])
    loaded = load_profiles([decode_profile(value) for value in records()], other.catalogue, LAYOUT, "fake@1")
    assert loaded.user_ids == update.users == ["änne", "idle", "cross"]
    assert not loaded.foreign_model.any()
    for row in range(3):
        sent, read = row_of(update.columns, row), row_of(loaded.columns, row)
        count = sent["recent_count"]
        names = [found.catalogue.item_ids[item] for item in sent.pop("recent_items")[:count]]
        assert [other.catalogue.item_ids[item] for item in read.pop("recent_items")[:count]] == names
        assert read == sent
    assert [[other.catalogue.item_ids[item] for item in items] for items in loaded.excluded] == [
        ["schöne 👟"],
        [],
        ["i2"],
    ]


def test_unused_places_are_empty_after_reading() -> None:
    """Nothing of one user's history spills into another's row."""
    loaded = load_profiles([decode_profile(v) for v in reversed(records())], world().catalogue, LAYOUT, "fake@1")
    assert loaded.columns.recent_count.tolist() == [0, 0, 8]
    assert (loaded.columns.recent_items[:2] == -1).all()
    assert not loaded.columns.recent_times_s[:2].any()
    assert not loaded.columns.event_ids[:2].any()


def test_a_narrower_worker_keeps_the_newest() -> None:
    """After windows were made smaller the latest items and event ids are the ones that stay, for every row."""
    found = world(ranking=False)
    narrow = ProfileLayout(DIM, 3, 2)
    loaded = load_profiles([decode_profile(value) for value in records()], found.catalogue, narrow, "fake@1")
    assert [found.catalogue.item_ids[item] for item in loaded.columns.recent_items[0]] == ["i8", "i9", "schöne 👟"]
    assert loaded.columns.recent_times_s[0].tolist() == [START_MS // 1000 + at_s for at_s in (8, 9, 100)]
    assert loaded.columns.recent_types[0].tolist() == [0, 0, 3]
    assert loaded.columns.event_ids[0].tolist() == [hash_event_id("e9"), hash_event_id("buy")]
    assert loaded.columns.recent_count.tolist() == [3, 0, 0]
    assert loaded.columns.event_id_count.tolist() == [2, 0, 0]


def test_a_wider_worker_has_room_to_grow() -> None:
    """After windows were made larger histories are left-aligned in them."""
    wide = ProfileLayout(DIM, 255, 255)
    found = world(ranking=False)
    loaded = load_profiles([decode_profile(value) for value in records()], found.catalogue, wide, "fake@1")
    assert loaded.columns.recent_count.tolist() == [8, 0, 0]
    assert loaded.columns.event_id_count.tolist() == [4, 0, 0]
    assert (loaded.columns.recent_items[0, 8:] == -1).all()


@pytest.mark.parametrize(("model", "width"), [("other@1", DIM), ("fake@1", DIM + 1)])
def test_states_of_another_model_or_width_are_marked(model: str, width: int) -> None:
    """They must not be taken for states of this model; the integer part is read all the same."""
    own, foreign = (decode_profile(value) for value in records()[:2])
    foreign = msgspec.structs.replace(foreign, model=model, state=bytes(4 * width))
    loaded = load_profiles([foreign, own], world().catalogue, LAYOUT, "fake@1")
    assert loaded.foreign_model.tolist() == [True, False]
    assert not loaded.columns.state[0].any()
    assert loaded.columns.state[1].any()
    assert loaded.columns.events.tolist() == [1, 11]


def test_the_small_vector_is_close_to_the_profile_vector() -> None:
    """Eight bits a component, within half a step; a user without direction has zeros and no scale."""
    _, update = history()
    for row, value in enumerate(records()):
        record = decode_profile(value)
        restored = np.frombuffer(record.vector, np.int8) * record.scale
        assert np.abs(restored - update.vectors[row]).max() <= record.scale / 2 + 1e-7
    assert [decode_profile(value).scale > 0 for value in records()] == [True, False, True]


def test_the_schema_number_comes_first() -> None:
    """A reader in any language can tell what it holds from the first element."""
    values = [msgspec.msgpack.decode(value) for value in records()]
    assert [value[0] for value in values] == [SCHEMA] * 3
    assert values[0][1] == "änne"


def test_nothing_to_write_is_nothing() -> None:
    """An update without users gives no records, and no records give no profiles."""
    found = world(ranking=False)
    assert encode_profiles(found.updater.prepare([], offsets(0), 0), found.catalogue, "fake@1") == []
    loaded = load_profiles([], found.catalogue, LAYOUT, "fake@1")
    assert (loaded.user_ids, loaded.excluded, len(loaded.columns.events)) == ([], [], 0)


def test_a_newer_schema_stops_the_worker() -> None:
    """Fields that were added at the end do not hide that the record is of another schema."""
    newer = [SCHEMA + 1, *msgspec.msgpack.decode(records()[0])[1:], "new field"]
    with pytest.raises(CorruptState, match=r"'änne' has schema 2, this version reads 1\. Upgrade"):
        decode_profile(msgspec.msgpack.encode(newer))


@pytest.mark.parametrize(
    "value",
    [b"", b"\xc1", b"[1]", msgspec.msgpack.encode([SCHEMA]), msgspec.msgpack.encode({"schema": SCHEMA}), b"\x81"],
)
def test_what_is_no_profile_stops_the_worker(value: bytes) -> None:
    """Bytes that nobody can read are never guessed at."""
    with pytest.raises(CorruptState, match="not a profile of schema 1"):
        decode_profile(value)


def test_a_truncated_record_stops_the_worker() -> None:
    """Every cut is noticed."""
    whole = records()[0]
    for length in range(0, len(whole), 7):
        with pytest.raises(CorruptState):
            decode_profile(whole[:length])


@pytest.mark.parametrize("field", ["recent_types", "recent_times_s", "event_ids"])
@pytest.mark.parametrize("change", [b"", b"x"])
def test_parts_that_do_not_fit_stop_the_worker(field: str, change: bytes) -> None:
    """One damaged record must not shift the history of all that are read with it."""
    record = decode_profile(records()[0])
    broken = getattr(record, field)[:-1] + change * 2
    damaged = msgspec.msgpack.encode(msgspec.structs.replace(record, **{field: broken}))
    with pytest.raises(CorruptState, match="'änne' has 8 recent items, but"):
        decode_profile(damaged)


def test_profiles_of_schema_1_stay_readable() -> None:
    """The golden file of the first version means today what it meant then."""
    values = msgspec.msgpack.decode(GOLDEN.read_bytes())
    assert [decode_profile(value) for value in values] == [
        ProfileRecord(
            schema=1,
            user_id="änne",
            events=3,
            version=3,
            partition=3,
            last_offset=44,
            last_time_ms=START_MS + 10_500,
            recent_total=2,
            recent_items=["i1", "schöne 👟"],
            recent_types=b"\x00\x03",
            recent_times_s=(START_MS // 1000).to_bytes(4, "little") + (START_MS // 1000 + 10).to_bytes(4, "little"),
            event_ids=bytes.fromhex("76288e360365c45f"),
            excluded_items=["schöne 👟", "i2"],
            model="fake@1",
            scale=0.5 / 127,
            vector=b"\x7f\x81\x7f\x81",
            state=np.array([1.5, -1.5, 1.5, -1.5], "<f4").tobytes(),
        ),
        ProfileRecord(
            schema=1,
            user_id="idle",
            events=1,
            version=1,
            partition=0,
            last_offset=0,
            last_time_ms=0,
            recent_total=0,
            recent_items=[],
            recent_types=b"",
            recent_times_s=b"",
            event_ids=b"",
            excluded_items=[],
            model="fake@1",
            scale=0.0,
            vector=bytes(4),
            state=bytes(16),
        ),
    ]
    found = world()
    loaded = load_profiles([decode_profile(value) for value in values], found.catalogue, LAYOUT, "fake@1")
    assert row_of(loaded.columns, 0) == {
        "events": 3,
        "version": 3,
        "last_offset": 44,
        "last_time_ms": START_MS + 10_500,
        "partition": 3,
        "recent_total": 2,
        "recent_count": 2,
        "recent_items": [0, 1, *[-1] * 6],
        "recent_types": [0, 3, *[0] * 6],
        "recent_times_s": [START_MS // 1000, START_MS // 1000 + 10, *[0] * 6],
        "event_id_count": 1,
        "event_ids": [hash_event_id("order-1"), 0, 0, 0],
        "state": np.array([1.5, -1.5, 1.5, -1.5], "<f4").tobytes(),
    }
    assert loaded.excluded == [(1, 2), ()]
    assert found.catalogue.item_ids == ["i1", "schöne 👟", "i2"]


def test_todays_records_have_the_bytes_of_the_golden_file() -> None:
    """Whoever changes what is written must give it a new schema number."""
    values = msgspec.msgpack.decode(GOLDEN.read_bytes())
    assert [msgspec.msgpack.encode(decode_profile(value)) for value in values] == values
    assert len(ProfileRecord.__struct_fields__) == len(msgspec.msgpack.decode(values[0])) == 17
