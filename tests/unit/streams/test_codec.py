from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from streams.core.errors import RejectedRecord, RejectReason
from streams.core.events import EVENT_BYTES_MAX, EVENT_TYPES, FUTURE_MS_MAX, NESTING_MAX, Event, EventType, Item
from streams.core.recommendations import (
    BecauseOf,
    IndexSummary,
    Neighbour,
    ProfileSummary,
    Recommendation,
    RecommendedItem,
    SimilarUsers,
    Source,
    Trending,
)
from streams.kafka.codec import (
    Rejected,
    decode_events,
    decode_items,
    decode_recommendation,
    decode_users,
    encode_description,
    encode_event,
    encode_recommendation,
)
from streams.kafka.schema import json_schemas
from tests.benchmarks.fuzz_events import FuzzRecord

NOW_MS = 1_700_000_000_000
ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests/data/events/v1"
SOUND: dict[str, Any] = {"user_id": "u1", "item_id": "i1", "type": "view", "timestamp": NOW_MS}


def record(value: bytes | None, key: bytes | None = b"u1") -> FuzzRecord:
    return FuzzRecord(key, value)


def sent(**fields: Any) -> FuzzRecord:
    return record(json.dumps(SOUND | fields).encode())


def verdict(came: FuzzRecord) -> Rejected:
    decoded = decode_events([came], NOW_MS)
    assert decoded.events == []
    return decoded.rejects[0]


def accepted(came: FuzzRecord) -> Event:
    decoded = decode_events([came], NOW_MS)
    assert decoded.rejects == []
    return decoded.events[0]


def with_token(name: str, token: str) -> FuzzRecord:
    return record(json.dumps(SOUND | {name: "@@"}).replace('"@@"', token).encode())


@pytest.mark.parametrize(
    ("came", "reason"),
    [
        (record(None), RejectReason.EMPTY_VALUE),
        (record(b""), RejectReason.EMPTY_VALUE),
        (sent(unknown="x" * EVENT_BYTES_MAX), RejectReason.OVERSIZED),
        (sent(properties={"a": "x" * 4096}), RejectReason.OVERSIZED),
        (record(b'{"user_id":"u1","x":"\xff"}'), RejectReason.INVALID_UTF8),
        (record(json.dumps(SOUND).encode()[:-1] + b',"unknown":"\xff"}'), RejectReason.INVALID_UTF8),
        (with_token("item_id", '"\\ud800"'), RejectReason.INVALID_UTF8),
        (record(b"\xef\xbb\xbf" + json.dumps(SOUND).encode()), RejectReason.NOT_JSON),
        (record(json.dumps(SOUND).encode("utf-16")), RejectReason.INVALID_UTF8),
        (record(b"not json"), RejectReason.NOT_JSON),
        (record(json.dumps(SOUND).encode() + b"x"), RejectReason.NOT_JSON),
        (record(json.dumps(SOUND).encode()[:-1]), RejectReason.NOT_JSON),
        (with_token("value", "01"), RejectReason.NOT_JSON),
        (sent(properties={"a": [[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}), RejectReason.TOO_DEEP),
        (record(b"[" * 10_000), RejectReason.TOO_DEEP),
        (record(b'{"a":' * 5000 + b"1" + b"}" * 5000), RejectReason.TOO_DEEP),
        (record(b"[]"), RejectReason.INVALID_SCHEMA),
        (record(b"null"), RejectReason.INVALID_SCHEMA),
        (sent(user_id=5), RejectReason.INVALID_SCHEMA),
        (sent(user_id=""), RejectReason.INVALID_SCHEMA),
        (sent(item_id="x" * 257), RejectReason.INVALID_SCHEMA),
        (sent(event_id="x" * 129), RejectReason.INVALID_SCHEMA),
        (sent(type="buy"), RejectReason.INVALID_SCHEMA),
        (sent(value=True), RejectReason.INVALID_SCHEMA),
        (sent(value="3"), RejectReason.INVALID_SCHEMA),
        (sent(properties=[]), RejectReason.INVALID_SCHEMA),
        (sent(timestamp=1.5), RejectReason.INVALID_SCHEMA),
        (sent(timestamp=None), RejectReason.INVALID_SCHEMA),
        (sent(timestamp=-1), RejectReason.INVALID_SCHEMA),
        (sent(timestamp="1969-12-31T23:59:59Z"), RejectReason.INVALID_SCHEMA),
        (sent(timestamp="yesterday"), RejectReason.INVALID_SCHEMA),
        (with_token("value", "NaN"), RejectReason.NOT_FINITE),
        (with_token("value", "-Infinity"), RejectReason.NOT_FINITE),
        (with_token("unknown", "Infinity"), RejectReason.NOT_FINITE),
        (with_token("value", "1e999"), RejectReason.NOT_FINITE),
        (with_token("properties", '{"a":[-1e400]}'), RejectReason.NOT_FINITE),
        (with_token("value", "9" * 5000), RejectReason.NOT_FINITE),
        (with_token("timestamp", "9" * 5000), RejectReason.NOT_FINITE),
        (FuzzRecord(None, json.dumps(SOUND).encode()), RejectReason.KEY_MISMATCH),
        (FuzzRecord(b"", json.dumps(SOUND).encode()), RejectReason.KEY_MISMATCH),
        (FuzzRecord(b"u2", json.dumps(SOUND).encode()), RejectReason.KEY_MISMATCH),
        (FuzzRecord(b"\xff", json.dumps(SOUND).encode()), RejectReason.KEY_MISMATCH),
        (sent(timestamp=NOW_MS + FUTURE_MS_MAX + 1), RejectReason.FUTURE_TIMESTAMP),
        (sent(timestamp=2**63), RejectReason.FUTURE_TIMESTAMP),
        (sent(timestamp="2099-01-01T00:00:00Z"), RejectReason.FUTURE_TIMESTAMP),
    ],
)
def test_bad_input_has_its_reason(came: FuzzRecord, reason: RejectReason) -> None:
    """Each kind of bad input is rejected for what is wrong with it, in a sentence that says what was expected."""
    rejected = verdict(came)
    assert rejected.reason is reason
    assert rejected.message.startswith("Expected ")
    assert len(rejected.message) < 600


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("2023-11-14t22:13:20z", 1_700_000_000_000),
        ("2023-11-14 22:13:20Z", 1_700_000_000_000),
        ("2023-11-14T22:13:20.1Z", 1_700_000_000_100),
        ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123),
        ("2023-11-14T23:13:20.000999+01:00", 1_700_000_000_000),
        ("2023-11-14T16:43:20-05:30", 1_700_000_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("2017-01-01T05:29:60.500+05:30", 1_483_228_800_500),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_rfc_3339_becomes_epoch_milliseconds(text: str, expected_ms: int) -> None:
    """Offsets, lower case, fractions of any length and leap seconds are read; fractions are cut."""
    assert accepted(sent(timestamp=text)).timestamp == expected_ms


@pytest.mark.parametrize(
    "text",
    [
        *("2023-11-14", "2023-11-14T22:13:20", "20231114T221320Z", "2023-11-14T22:13Z", "2023-02-30T00:00:00Z"),
        *("2023-11-14T24:00:00Z", "2023-11-14T22:13:61Z", "2023-11-14T22:13:20,5Z", "2023-11-14T22:13:20+0100"),
        *("２０２３-11-14T22:13:20Z", " 2023-11-14T22:13:20Z", "2023-11-14T22:13:20.Z", "0001-01-01T00:00:00+01:00"),
        *("0000-01-01T00:00:00Z", "2023-11-14T22:13:20+25:00", "1700000000000", "2023-W46-2T22:13:20Z"),
    ],
)
def test_other_time_formats_are_rejected(text: str) -> None:
    """What is not RFC 3339 with an offset is refused, with an example of what to send."""
    rejected = verdict(sent(timestamp=text))
    assert rejected.reason is RejectReason.INVALID_SCHEMA
    assert "1700000000123" in rejected.message


def test_late_and_slightly_early_events_count() -> None:
    """An event of 1970 and one exactly an hour ahead are both accepted."""
    assert accepted(sent(timestamp=0)).timestamp == 0
    assert accepted(sent(timestamp=NOW_MS + FUTURE_MS_MAX)).timestamp == NOW_MS + FUTURE_MS_MAX


def test_microseconds_are_named() -> None:
    """A timestamp in a finer unit is told so."""
    assert "microseconds" in verdict(sent(timestamp=NOW_MS * 1000)).message
    assert "nanoseconds" in verdict(sent(timestamp=NOW_MS * 1_000_000)).message


def test_unknown_type_names_the_allowed_ones() -> None:
    """A type outside the contract is answered with all types that are in it."""
    message = verdict(sent(type="buy")).message
    assert "'buy'" in message
    assert all(str(kind) in message for kind in EVENT_TYPES)


def test_long_values_are_clipped() -> None:
    """A message never repeats more than 200 characters of what came."""
    assert len(verdict(sent(type="b" * 10_000)).message) < 450
    assert len(verdict(FuzzRecord(b"k" * 10_000, json.dumps(SOUND).encode())).message) < 450


def test_unknown_fields_are_ignored() -> None:
    """A producer may send more than the contract knows."""
    assert accepted(sent(campaign={"id": [1, 2]})) == accepted(sent())


def test_a_repeated_field_counts_as_last_sent() -> None:
    """As with most JSON parsers, the last of two equal names wins."""
    value = json.dumps(SOUND).encode()[:-1] + b',"type":"click"}'
    assert accepted(record(value)).type is EventType.CLICK


def test_any_character_of_utf_8_is_an_id() -> None:
    """Ids are opaque: control characters and characters beyond the first plane pass, counted as characters."""
    user_id = "\x00\n😀" * 85
    decoded = decode_events([FuzzRecord(user_id.encode(), json.dumps(SOUND | {"user_id": user_id}).encode())], NOW_MS)
    assert decoded.events[0].user_id == user_id


def test_the_longest_event_of_the_contract_fits() -> None:
    """All fields at their limit, every character escaped, stay below the size limit."""
    properties = {"a": "x" * (4096 - len('{"a": ""}'))}
    longest = {"user_id": "😀" * 256, "item_id": "😀" * 256, "event_id": "😀" * 128, "rec_id": "😀" * 256}
    value = json.dumps(SOUND | longest | {"session_id": "😀" * 256, "properties": properties}).encode()
    assert len(value) > 16_384
    assert accepted(FuzzRecord(("😀" * 256).encode(), value)).properties == properties


def test_properties_are_measured_as_sent() -> None:
    """The limit counts the bytes of the object on the wire: one more blank is one too many."""
    exact = "x" * (4096 - len('{"a": ""}'))
    assert accepted(sent(properties={"a": exact})).properties == {"a": exact}
    assert verdict(sent(properties={"a": exact + "x"})).reason is RejectReason.OVERSIZED


def test_nesting_up_to_the_limit_counts() -> None:
    """Depth counts the message itself, and brackets inside strings do not."""
    inner: Any = "[[[[[[[[[[[[[[[[[[[["
    for _ in range(NESTING_MAX - 2):
        inner = [inner]
    assert accepted(sent(properties={"a": inner})).properties == {"a": inner}
    assert verdict(sent(properties={"a": [inner]})).reason is RejectReason.TOO_DEEP


def test_positions_skip_the_rejected() -> None:
    """Positions point at the accepted records, rejects at the others."""
    decoded = decode_events([sent(), record(b"x"), sent(item_id="i2"), record(None)], NOW_MS)
    assert decoded.positions.tolist() == [0, 2]
    assert [event.item_id for event in decoded.events] == ["i1", "i2"]
    assert [reject.position for reject in decoded.rejects] == [1, 3]


def test_an_empty_batch_is_an_empty_batch() -> None:
    """No records give no events and no rejects."""
    decoded = decode_events([], NOW_MS)
    assert (decoded.events, decoded.positions.tolist(), decoded.rejects) == ([], [], [])


def test_the_last_word_on_an_item_wins() -> None:
    """Upserts and tombstones of one id in one batch collapse to the last, as compaction would do."""
    described = [FuzzRecord(b"i1", json.dumps({"item_id": "i1", "title": title}).encode()) for title in ("old", "new")]
    gone = FuzzRecord(b"i1", None)
    assert decode_items([*described, gone]).upserts == []
    assert decode_items([*described, gone]).tombstones == ["i1"]
    assert decode_items([gone, *described]).upserts == [Item("i1", title="new")]
    assert decode_items([gone, *described]).tombstones == []


def test_bad_descriptions_are_rejected_and_change_nothing() -> None:
    """A malformed item leaves the one before it in place and is reported with its reason."""
    good = FuzzRecord(b"i1", b'{"item_id":"i1"}')
    decoded = decode_items(
        [
            good,
            FuzzRecord(b"i1", b'{"item_id":"i1","price":NaN}'),
            FuzzRecord(b"i2", b'{"item_id":"i1"}'),
            FuzzRecord(None, None),
        ]
    )
    assert decoded.upserts == [Item("i1")]
    assert [(r.position, r.reason) for r in decoded.rejects] == [
        (1, RejectReason.NOT_FINITE),
        (2, RejectReason.KEY_MISMATCH),
        (3, RejectReason.KEY_MISMATCH),
    ]


def test_a_user_tombstone_names_the_user() -> None:
    """A record without value on the users topic asks to forget its key."""
    assert decode_users([FuzzRecord("ü".encode(), None)]).tombstones == ["ü"]


def recommendation(similarity: float = 0.93, score: float = 0.81, share: float = 0.4) -> Recommendation:
    return Recommendation(
        rec_id="3-1881",
        user_id="u1",
        generated_at=1_700_000_000_123,
        cause="event",
        source=Source("events", 3, 1881, 1_700_000_000_000),
        profile=ProfileSummary(42, 42, "decayed-mean@1"),
        index=IndexSummary(7, 1895),
        neighbours=[Neighbour("u9", similarity)],
        items=[
            RecommendedItem("i5", score, [SimilarUsers(["u9"], 0.5), BecauseOf("i2", share), Trending(0.1)]),
        ],
    )


def test_recommendations_survive_a_round_trip() -> None:
    """A list decodes to what was encoded."""
    assert decode_recommendation(encode_recommendation(recommendation())) == recommendation()


def test_an_id_may_hold_the_word_null() -> None:
    """Only a number that is not finite is refused, not an id that looks like its encoding."""
    named = msgspec.structs.replace(recommendation(), user_id='":null,', rec_id="null")
    assert decode_recommendation(encode_recommendation(named)) == named


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["similarity", "score", "share"])
def test_a_list_that_is_not_finite_is_refused(place: str, bad: float) -> None:
    """msgspec would write null: nobody may read that as a score."""
    with pytest.raises(ValueError, match="finite"):
        encode_recommendation(recommendation(**{place: bad}))


@pytest.mark.parametrize("value", [None, b"", b"{}", b"[", b'{"rec_id":1}'])
def test_bytes_that_are_no_list_are_rejected(value: bytes | None) -> None:
    """Reading a list from foreign bytes fails with a reason."""
    with pytest.raises(RejectedRecord, match="Expected"):
        decode_recommendation(value)


def golden(kind: str) -> list[Any]:
    paths = sorted(GOLDEN.glob(f"{kind}-*.json"))
    assert paths, f"no golden files of {kind} in {GOLDEN}"
    return [pytest.param(path, id=path.stem) for path in paths]


@pytest.mark.parametrize("path", golden("event"))
def test_golden_events_read_and_write_the_same(path: Path) -> None:
    """Every event file of schema v1 is accepted and encodes to the bytes of its `.canonical` or of itself."""
    value = path.read_bytes().strip()
    user_id = json.loads(value)["user_id"]
    (event,) = decode_events([FuzzRecord(user_id.encode(), value)], NOW_MS).events
    canonical = path.with_suffix(".canonical")
    assert encode_event(event) == (canonical if canonical.exists() else path).read_bytes().strip()


@pytest.mark.parametrize("path", golden("item"))
def test_golden_items_read_and_write_the_same(path: Path) -> None:
    """Every item file of schema v1 is accepted and encodes to itself."""
    value = path.read_bytes().strip()
    (item,) = decode_items([FuzzRecord(json.loads(value)["item_id"].encode(), value)]).upserts
    assert encode_description(item) == value


@pytest.mark.parametrize("path", golden("user"))
def test_golden_users_read_and_write_the_same(path: Path) -> None:
    """Every user file of schema v1 is accepted and encodes to itself."""
    value = path.read_bytes().strip()
    (user,) = decode_users([FuzzRecord(json.loads(value)["user_id"].encode(), value)]).upserts
    assert encode_description(user) == value


@pytest.mark.parametrize("path", golden("recommendation"))
def test_golden_lists_read_and_write_the_same(path: Path) -> None:
    """Every list file of schema v1 is read and encodes to itself."""
    value = path.read_bytes().strip()
    assert encode_recommendation(decode_recommendation(value)) == value


@pytest.mark.parametrize("name", ["event", "item", "user", "recommendation"])
def test_schemas_in_docs_are_current(name: str) -> None:
    """`docs/schema` holds what `python -m streams.kafka.schema` writes."""
    assert (ROOT / f"docs/schema/{name}.json").read_text(encoding="utf-8") == json_schemas()[name]


@pytest.mark.parametrize("name", ["event", "item", "user", "recommendation"])
def test_golden_files_pass_their_schema(name: str) -> None:
    """A subscriber who validates with JSON Schema accepts what we accept, and the schema itself is valid."""
    schema = json.loads(json_schemas()[name])
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in GOLDEN.glob(f"{name}-*.json"):
        validator.validate(json.loads(path.read_bytes()))


@pytest.mark.parametrize(
    "fields", [{"type": "buy"}, {"user_id": ""}, {"timestamp": -1}, {"value": "3"}, {"item_id": None}]
)
def test_schema_refuses_what_the_codec_refuses(fields: dict[str, Any]) -> None:
    """The published schema has the codec's types and limits."""
    schema = json.loads(json_schemas()["event"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(SOUND | fields)
    assert verdict(sent(**fields)).reason is RejectReason.INVALID_SCHEMA


def test_msgspec_says_out_of_range_as_we_expect() -> None:
    """The codec tells numbers too large by msgspec's words; a new msgspec that words it otherwise must show here."""
    with pytest.raises(msgspec.ValidationError, match="out of range"):
        msgspec.json.decode(b"1e999", type=float)
