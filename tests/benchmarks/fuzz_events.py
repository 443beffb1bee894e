"""Mutated events by the thousand: none may crash the decoder, each counts or becomes a dead letter with a reason.

    python tests/benchmarks/fuzz_events.py --messages 100000 --seed 7

prints totals as JSON and exits 1 unless they add up. The same seed gives the same messages; `fuzz_messages` is the
part to import when they should go through a whole worker.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from streams.core.events import EVENT_BYTES_MAX, EVENT_TYPES, NESTING_MAX
from streams.kafka.codec import decode_events

NOW_MS = 1_700_000_000_000
BATCH_RECORDS = 2000
USERS, ITEMS = 500, 2000


class FuzzRecord(NamedTuple):
    """A record as the codec reads it; `mutation` says what was done to it."""

    key: bytes | None
    value: bytes | None
    offset: int = 0
    timestamp: int = NOW_MS
    headers: tuple[tuple[str, bytes | None], ...] = ()
    mutation: str = "none"


Message = dict[str, Any]
Sent = tuple[bytes | None, bytes | None]
Mutation = Callable[[random.Random, Message], Sent]


def valid_message(rng: random.Random) -> Message:
    """An event that counts, with a random choice of the optional fields."""
    message: Message = {
        "user_id": rng.choice(("user-%d", "użytkownik-%d", "😀-%d")) % rng.randrange(USERS),
        "item_id": f"item-{rng.randrange(ITEMS)}",
        "type": str(rng.choice(EVENT_TYPES)),
        "timestamp": rng.choice(
            (NOW_MS - rng.randrange(10**10), "2023-01-02T03:04:05.678Z", "2020-02-29t23:59:60+01:00")
        ),
    }
    optional = {
        "event_id": f"e{rng.getrandbits(64):x}",
        "value": rng.choice((0, -1.5, 4, 19.99, 1e300)),
        "rec_id": "0-1881",
        "session_id": "café",
        "properties": {"query": 'a "quoted" {word}', "nested": [{"deep": [1, 2, {"er": None}]}]},
        "unknown_field": [1, {"a": "b"}],
    }
    return message | {name: value for name, value in optional.items() if rng.random() < 0.4}


def encoded(message: Message) -> Sent:
    """Key and value as a sound producer sends them."""
    return message["user_id"].encode(), json.dumps(message, ensure_ascii=False).encode()


def _keep(rng: random.Random, message: Message) -> Sent:
    return encoded(message)


def _flip_bytes(rng: random.Random, message: Message) -> Sent:
    key, value = encoded(message)
    flipped = bytearray(value or b"")
    for _ in range(rng.randint(1, 4)):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return key, bytes(flipped)


def _truncate(rng: random.Random, message: Message) -> Sent:
    key, value = encoded(message)
    return key, (value or b"")[: rng.randrange(len(value or b""))]


def _insert_bytes(rng: random.Random, message: Message) -> Sent:
    key, value = encoded(message)
    at = rng.randrange(len(value or b"") + 1)
    return key, (value or b"")[:at] + rng.randbytes(rng.randint(1, 16)) + (value or b"")[at:]


def _swap_type(rng: random.Random, message: Message) -> Sent:
    odd: tuple[Any, ...] = (None, True, [], {}, "", 3, -3, 1.5, "x", [[1]], {"a": 1}, "x" * 300)
    name = rng.choice(list(message))
    key, _ = encoded(message)
    return key, json.dumps(message | {name: rng.choice(odd)}).encode()


def _not_finite(rng: random.Random, message: Message) -> Sent:
    token = rng.choice(("NaN", "Infinity", "-Infinity", "1e999", "-1e400", "nan", "inf"))
    return _with_token(message, rng.choice(("value", "timestamp", "properties", "unknown")), token)


def _huge_number(rng: random.Random, message: Message) -> Sent:
    token = rng.choice(("9" * 19, "9" * 25, "9" * 400, "9" * 5000, "1e308", "-0", "007", "1.", ".5", "0x10", "1e-999"))
    return _with_token(message, rng.choice(("value", "timestamp", "properties", "unknown")), token)


def _with_token(message: Message, name: str, token: str) -> Sent:
    key, _ = encoded(message)
    placed: Any = {"a": ["@@"]} if name == "properties" else "@@"
    return key, json.dumps(message | {name: placed}).replace('"@@"', token).encode()


def _nest(rng: random.Random, message: Message) -> Sent:
    depth = rng.choice((NESTING_MAX - 2, NESTING_MAX, NESTING_MAX + 1, 1000, 10_000))
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    token = opening * depth + "1" + closing * rng.choice((depth, depth, 0))
    return _with_token(message, rng.choice(("value", "properties", "unknown", "user_id")), token)


def _break_utf8(rng: random.Random, message: Message) -> Sent:
    broken = rng.choice(
        (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\\ud800", b"\\udc00\\ud800")
    )
    key, value = encoded(message | {rng.choice(("user_id", "unknown", "session_id")): "@@"})
    return rng.choice((key, broken)), (value or b"").replace(b"@@", broken)


def _break_key(rng: random.Random, message: Message) -> Sent:
    key, value = encoded(message)
    return rng.choice((None, b"", b"\xff\xfe", b"somebody else", (key or b"") + b" ", (key or b"").upper())), value


def _empty(rng: random.Random, message: Message) -> Sent:
    return encoded(message)[0], rng.choice((None, b"", b" ", b"\n", b"null", b"{}", b"[]", b'""', b"0"))


def _oversize(rng: random.Random, message: Message) -> Sent:
    name = rng.choice(("user_id", "item_id", "session_id", "unknown", "properties"))
    long = "x" * rng.choice((257, 5000, EVENT_BYTES_MAX, 1_000_000))
    return encoded(message | {name: {"a": long} if name == "properties" else long})


def _break_time(rng: random.Random, message: Message) -> Sent:
    odd = (
        *(-1, NOW_MS + 3_600_000, NOW_MS + 3_600_001, NOW_MS * 1000, NOW_MS * 10**6, 2**63, 2**64, 0),
        *("", "now", "2023-01-02", "2023-01-02T03:04:05", "2023-02-30T00:00:00Z", "9999-12-31T23:59:59Z"),
        *("1960-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "2023-01-02T24:00:00Z", "２０２３-01-02T03:04:05Z"),
    )
    return encoded(message | {"timestamp": rng.choice(odd)})


def _drop_field(rng: random.Random, message: Message) -> Sent:
    key, _ = encoded(message)
    gone = rng.choice(list(message))
    return key, json.dumps({name: value for name, value in message.items() if name != gone}).encode()


def _unknown_type(rng: random.Random, message: Message) -> Sent:
    return encoded(message | {"type": rng.choice(("VIEW", "buy", "", "view ", "\n" * 500, "<script>"))})


def _repeat_field(rng: random.Random, message: Message) -> Sent:
    key, value = encoded(message)
    again = rng.choice((b'"user_id":"other"', b'"value":"x"', b'"timestamp":-1', b'"type":"view"'))
    return key, (value or b"")[:-1] + b"," + again + b"}"


def _recode(rng: random.Random, message: Message) -> Sent:
    key, value = encoded(message)
    return key, (value or b"").decode().encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")))


def _wrap(rng: random.Random, message: Message) -> Sent:
    key, value = encoded(message)
    before, after = rng.choice(
        ((b"[", b"]"), (b" \n", b"\t "), (b"", b"{}"), (b"", b"\x00"), (b"//\n", b""), (b'"', b'"'))
    )
    return key, before + (value or b"") + after


MUTATIONS: dict[str, Mutation] = {
    mutation.__name__.lstrip("_").replace("_", "-"): mutation
    for mutation in (
        *(_keep, _flip_bytes, _truncate, _insert_bytes, _swap_type, _not_finite, _huge_number, _nest, _break_utf8),
        *(_break_key, _empty, _oversize, _break_time, _drop_field, _unknown_type, _repeat_field, _recode, _wrap),
    )
}


def fuzz_messages(messages: int, seed: int) -> Iterator[FuzzRecord]:
    """So many records, each mutated in one of the ways or, one in twenty, a copy of the record before it."""
    rng = random.Random(seed)
    names = list(MUTATIONS)
    record = FuzzRecord(None, None)
    for offset in range(messages):
        if offset and rng.random() < 0.05:
            record = record._replace(offset=offset)
        else:
            name = rng.choice(names)
            key, value = MUTATIONS[name](rng, valid_message(rng))
            record = FuzzRecord(key, value, offset, mutation=name)
        yield record


def totals(messages: int, seed: int) -> dict[str, Any]:
    """Decodes the messages in batches and counts what became of them."""
    accepted: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    stream = fuzz_messages(messages, seed)
    decode_s = 0.0
    while batch := list(islice(stream, BATCH_RECORDS)):
        started = time.perf_counter()
        decoded = decode_events(batch, NOW_MS)
        decode_s += time.perf_counter() - started
        accepted.update(batch[position].mutation for position in decoded.positions.tolist())
        reasons.update(str(rejected.reason) for rejected in decoded.rejects)
    return {
        "messages": messages,
        "seed": seed,
        "accepted": accepted.total(),
        "dead_letters": dict(reasons.most_common()),
        "adds_up": accepted.total() + reasons.total() == messages,
        "accepted_by_mutation": dict(sorted(accepted.items())),
        "decode_s": round(decode_s, 3),
    }


def main() -> int:
    """Prints the totals as JSON; 0 when they add up."""
    parser = argparse.ArgumentParser(description="Decode mutated events and count what becomes of them.")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    report = totals(arguments.messages, arguments.seed)
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0 if report["adds_up"] else 1


if __name__ == "__main__":
    sys.exit(main())
