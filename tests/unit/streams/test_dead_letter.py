from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.cli.dlq import dlq
from streams.core.errors import DeadLetterLimit, RejectedRecord, RejectReason, UsageError
from streams.kafka.codec import Rejected
from streams.kafka.dead_letter import LETTER_BYTES_MAX, DeadLetterBound, dead_letter, is_receipt, without_verdict
from streams.kafka.dlq_read import DeadLetter, DeadLetterReport, Receipts, receipt
from streams.kafka.dlq_replay import mended_record
from streams.kafka.mend import Mend
from tests.benchmarks.fuzz_events import FuzzRecord

NOW_MS = 1_700_000_000_000
SOUND: dict[str, Any] = {"user_id": "u1", "item_id": "i1", "type": "view", "timestamp": NOW_MS}
BROKEN = Rejected(0, RejectReason.NOT_JSON, "Expected JSON, came a café.")


def test_a_dead_letter_keeps_the_record_and_says_why() -> None:
    """Bytes, key and headers are the producer's own; five headers with reason and origin come after them."""
    record = FuzzRecord(None, b"\xff\x00", offset=1881, headers=(("trace", b"\xfe"), ("empty", None)))
    letter = dead_letter(record, "shop.events", 3, BROKEN)
    assert (letter.key, letter.value) == (None, b"\xff\x00")
    assert letter.headers == [
        ("trace", b"\xfe"),
        ("empty", None),
        ("errors.reason", b"not-json"),
        ("errors.message", "Expected JSON, came a café.".encode()),
        ("errors.topic", b"shop.events"),
        ("errors.partition", b"3"),
        ("errors.offset", b"1881"),
    ]


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"u1", b"x" * 5_000_000, ()),
        (b"k" * 2_000_000, None, ()),
        (None, b"x", tuple((f"h{number}", b"x" * 1000) for number in range(2000))),
    ],
)
def test_a_letter_always_fits_its_topic(key: bytes | None, value: bytes | None, headers: Any) -> None:
    """A record larger than a topic takes is cut, says so, and is never sent back as if it were whole."""
    cut = dead_letter(FuzzRecord(key, value, 7, headers=headers), "events", 3, BROKEN)
    size = len(cut.key or b"") + len(cut.value or b"") + sum(len(n) + len(v or b"") for n, v in cut.headers)
    assert size < 100_000
    assert (cut.value is None) == (value is None)
    whole = len(key or b"") + len(value or b"") + sum(len(name) + len(sent) for name, sent in headers)
    assert dict(cut.headers)["errors.truncated"] == str(whole).encode()
    found = DeadLetter("oversized", "", "events", 3, 7, 0, 0, OnTopic("events.dlq", 0, 0, *cut))
    with pytest.raises(RejectedRecord, match="events/3/7"):
        mended_record(found, Mend({**SOUND}, rekey=True), NOW_MS)


def test_a_letter_up_to_the_limit_is_whole() -> None:
    """A record that fits keeps every byte."""
    record = FuzzRecord(b"u1", b"x" * (LETTER_BYTES_MAX - 2))
    assert dead_letter(record, "events", 0, BROKEN).value == record.value


def test_without_verdict_gives_the_producers_headers() -> None:
    """What a dead letter added is taken away again."""
    letter = dead_letter(FuzzRecord(b"k", b"v", headers=(("trace", b"1"),)), "events", 0, BROKEN)
    assert without_verdict(letter.headers) == [("trace", b"1")]


def test_a_receipt_is_no_dead_letter() -> None:
    """A record counts as a receipt by its header, unless it also carries a reason: that header was its producer's."""
    record = FuzzRecord(b"u1", b"x", headers=(("errors.receipt", b"1"),))
    assert is_receipt(receipt(Receipts(), 0).headers)
    assert not is_receipt(dead_letter(record, "events", 0, BROKEN).headers)
    assert not is_receipt([])


def batch(pattern: str, first_offset: int = 0) -> tuple[int, list[Rejected], list[FuzzRecord]]:
    """Arguments of `check`: one record a character, `x` is rejected."""
    records = [FuzzRecord(b"u1", b"", offset=first_offset + place) for place in range(len(pattern))]
    rejects = [BROKEN._replace(position=place) for place, mark in enumerate(pattern) if mark == "x"]
    return len(pattern), rejects, records


def trips(bound: DeadLetterBound, *patterns: str) -> bool:
    try:
        for pattern in patterns:
            bound.check(*batch(pattern))
    except DeadLetterLimit:
        return True
    return False


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["xx", ".", "xx"], False),
        (["xxx"], True),
        (["..xxx.."], True),
        (["..xx", "x."], True),
        (["xx", "xx"], True),
        (["x.xx.x.xx"], False),
        (["xx.", "xx.", ".xx", ".xx"], False),
        (["", "xx", "", "x"], True),
    ],
)
def test_a_run_of_dead_letters_trips_across_batches(patterns: list[str], expected: bool) -> None:
    """Three in a row trip a bound of three, wherever batches begin and end."""
    assert trips(DeadLetterBound(share_max=1.0, run_max=3), *patterns) is expected


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["x.x.x.x.x."], False),
        (["x.x.x.x.xx"], True),
        (["xxxxxxxxx"], False),
        (["xxxxxxxxx", "x"], True),
        (["..........", "xxxxx", "....."], False),
        (["..........", "xxx", ".", "xxx"], True),
        (["xxxxxx..........xxx"], True),
        (["....xxxxxx" + "." * 50], True),
        (["xxxxxx", "...."], True),
    ],
)
def test_a_share_of_dead_letters_trips_once_a_window_was_seen(patterns: list[str], expected: bool) -> None:
    """More than half of ten records in any row trip, and nothing trips before ten were seen."""
    assert trips(DeadLetterBound(share_max=0.5, run_max=1000, window=10), *patterns) is expected


@given(st.text("x.", max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_batch_borders_do_not_matter(pattern: str, borders: list[int]) -> None:
    """The same records trip the bound or do not, however they are cut into batches."""
    cuts = [0, *sorted(border for border in borders if border < len(pattern)), len(pattern)]
    pieces = [pattern[start:end] for start, end in pairwise(cuts)]
    whole = DeadLetterBound(share_max=0.4, run_max=6, window=10)
    split = DeadLetterBound(share_max=0.4, run_max=6, window=10)
    assert trips(whole, pattern) == trips(split, *pieces)


@given(st.text("x.", max_size=60))
def test_the_bound_is_what_the_settings_say(pattern: str) -> None:
    """It trips exactly when a run reaches its bound or a full window holds more than its share."""
    windows = [pattern[start : start + 10].count("x") for start in range(len(pattern) - 9)]
    expected = "x" * 6 in pattern or any(count > 4 for count in windows)
    assert trips(DeadLetterBound(share_max=0.4, run_max=6, window=10), pattern) is expected


def test_the_limit_says_what_happened_and_what_to_do() -> None:
    """The message carries counts by reason, the first offset, a sample and the next steps."""
    bound = DeadLetterBound(share_max=1.0, run_max=3)
    with pytest.raises(DeadLetterLimit) as stop:
        bound.check(*batch(".xxx", first_offset=100))
    message = str(stop.value)
    for part in ("3 records in a row", "3 not-json", "offset 101", BROKEN.message, "nearstream dlq list"):
        assert part in message
    assert "dead_letter_run_max" in message
    assert "not committed" in message


def letter(value: bytes | None, key: bytes | None = b"u1", reason: str = "not-json") -> DeadLetter:
    origin = dead_letter(
        FuzzRecord(key, value, headers=(("trace", b"1"),)), "events", 3, BROKEN._replace(reason=RejectReason(reason))
    )
    record = OnTopic("events.dlq", 2, 17, origin.key, origin.value, tuple(origin.headers))
    return DeadLetter(reason, "m", "events", 3, 1881, 2, 17, record)


class OnTopic:
    def __init__(self, topic: str, partition: int, offset: int, key: Any, value: Any, headers: Any) -> None:
        self.topic, self.partition, self.offset = topic, partition, offset
        self.key, self.value, self.headers = key, value, headers


def test_a_mended_letter_carries_its_headers_and_origin() -> None:
    """The producer's headers go back with the event, and where it waited; the verdict does not."""
    mended = mended_record(letter(json.dumps(SOUND | {"type": "buy"}).encode()), Mend({"type": "purchase"}), NOW_MS)
    assert json.loads(mended.value or b"") == SOUND | {"type": "purchase"}
    assert mended.headers == [("trace", b"1"), ("errors.replayed-from", b"events.dlq/2/17")]


def test_a_letter_that_needs_no_mend_keeps_its_bytes() -> None:
    """A future time passes as the clock does; the value then goes back byte for byte."""
    value = b'{ "user_id":"u1", "item_id":"i1","type":"view","timestamp":1700000000000 }'
    assert mended_record(letter(value, reason="future-timestamp"), Mend(), NOW_MS).value == value


@pytest.mark.parametrize(
    ("value", "key", "mend"),
    [
        (
            json.dumps(SOUND | {"value": "@"}).replace('"@"', "NaN").encode(),
            b"u1",
            Mend(drop_fields=frozenset({"value"})),
        ),
        (json.dumps(SOUND).encode(), None, Mend(rekey=True)),
        (json.dumps(SOUND).encode(), b"\xff", Mend(rekey=True)),
        (
            json.dumps({"item_id": "i1", "type": "view", "timestamp": 0}).encode(),
            None,
            Mend({"user_id": "ü"}, rekey=True),
        ),
        (
            json.dumps(SOUND | {"properties": {"a": "x" * 99_999}}).encode(),
            b"u1",
            Mend(drop_fields=frozenset({"properties"})),
        ),
    ],
)
def test_fields_and_keys_can_be_mended(value: bytes, key: bytes | None, mend: Mend) -> None:
    """Setting, dropping and rekeying turn a dead letter into an event that counts."""
    with pytest.raises(RejectedRecord):
        mended_record(letter(value, key), Mend(), NOW_MS)
    mended = mended_record(letter(value, key), mend, NOW_MS)
    assert mended.key == json.loads(mended.value or b"")["user_id"].encode()


@pytest.mark.parametrize(
    "value",
    [None, b"", b"{", b"[1]", b"\xff", b"[" * 5000, b'{"a":' + b"9" * 5000 + b"}", b'{"user_id":"\\ud800"}', b"NaN"],
)
def test_what_cannot_be_mended_stays(value: bytes | None) -> None:
    """A letter whose fields cannot be reached or that still is no event is refused with a reason, never a crash."""
    with pytest.raises(RejectedRecord):
        mended_record(letter(value), Mend({"type": "view"}, frozenset({"value"}), rekey=True), NOW_MS)


@given(st.lists(st.lists(st.integers(0, 30), max_size=10), max_size=6))
def test_receipts_hold_exactly_what_was_sent(runs: list[list[int]]) -> None:
    """Ranges joined over any number of receipts contain the offsets sent and no others."""
    receipts = Receipts()
    for run in runs:
        receipts.add(2, [(offset, offset) for offset in run])
    sent = {offset for run in runs for offset in run}
    assert {offset for offset in range(40) if (2, offset) in receipts} == sent
    assert not any((1, offset) in receipts for offset in range(40))
    ranges = receipts.ranges(2)
    assert all(left[1] + 1 < right[0] for left, right in pairwise(ranges))


def test_a_report_keeps_few_examples() -> None:
    """All letters are counted, only the first of each reason are kept."""
    report = DeadLetterReport("events.dlq")
    for _ in range(5):
        report.add(letter(b"", key=b"\xff"), examples_max=2)
    assert report.waiting == {"not-json": 5}
    assert [example.key for example in report.examples] == ["\\xff", "\\xff"]


@pytest.mark.parametrize("assignment", ["type", "=1", "type=view", 'type="view', "value=NaN", "x=" + "[" * 5000])
def test_a_malformed_assignment_is_misuse(assignment: str) -> None:
    """`--set` wants FIELD=JSON and says so before anything is read from Kafka."""
    with pytest.raises(UsageError, match="Expected --set FIELD=JSON"):
        dlq.main(["replay", "--set", assignment], standalone_mode=False)
