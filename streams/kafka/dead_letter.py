"""Dead letters: records that could not count, untouched, with the reason in headers, and how many of them are too many.

A dead letter is written in the transaction that moves past its record (DESIGN §3 rule 4), so each rejected record is
on the topic exactly once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from streams.core.errors import DeadLetterLimit
from streams.kafka.codec import Headers, RawRecord, Rejected

HEADER_PREFIX = "errors."
REASON = "errors.reason"
MESSAGE = "errors.message"
TOPIC = "errors.topic"
PARTITION = "errors.partition"
OFFSET = "errors.offset"
REPLAYED_FROM = "errors.replayed-from"
TRUNCATED = "errors.truncated"
RECEIPT = "errors.receipt"

LETTER_BYTES_MAX = 1_000_000
"""Of key, value and headers together: with the verdict it stays below what a Kafka topic takes by default."""
CUT_VALUE_BYTES = 65_536
CUT_KEY_BYTES = 1024

WINDOW_RECORDS = 1000


class OutRecord(NamedTuple):
    """A record to send, in the form that aiokafka's producer and batch builder take."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def dead_letter(record: RawRecord, topic: str, partition: int, rejected: Rejected) -> OutRecord:
    """The dead letter of a record: its own bytes, key and headers, and where it came from and why after them.

    A record that came compressed may be larger than a topic takes. It would stop its partition for ever, so of such
    a one only the beginnings of value and key become the letter, with its full size in `errors.truncated`; the record
    itself stays on the input, at the offset named, as long as that is kept.
    """
    verdict = {
        REASON: str(rejected.reason),
        MESSAGE: rejected.message,
        TOPIC: topic,
        PARTITION: str(partition),
        OFFSET: str(record.offset),
    }
    size = _record_bytes(record)
    if size <= LETTER_BYTES_MAX:
        return OutRecord(record.key, record.value, [*record.headers, *_encoded(verdict)])
    key, value = record.key, record.value
    return OutRecord(
        key and key[:CUT_KEY_BYTES], value and value[:CUT_VALUE_BYTES], _encoded({**verdict, TRUNCATED: str(size)})
    )


def _record_bytes(record: RawRecord) -> int:
    headers = sum(len(name.encode()) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


def _encoded(verdict: dict[str, str]) -> list[tuple[str, bytes | None]]:
    return [(name, text.encode()) for name, text in verdict.items()]


def without_verdict(headers: Headers) -> list[tuple[str, bytes | None]]:
    """The headers that the producer sent, without any that a dead letter added."""
    return [(name, value) for name, value in headers if not name.startswith(HEADER_PREFIX)]


def is_receipt(headers: Headers) -> bool:
    """Whether a record among the dead letters is none of them, but says which of them were sent back.

    A dead letter whose producer happened to send the receipt's header still has its reason.
    """
    names = {name for name, _ in headers}
    return RECEIPT in names and REASON not in names


class DeadLetterBound:
    """Counts the dead letters of one partition, in order, and stops the worker when they pass a bound.

    One bad record is a bad record; a thousand in a row are a bad deploy of a producer, and going on would empty
    the topic into the dead letters. The share is taken over the last `window` records, once so many were seen.

    Check each batch before its transaction. The batch that trips the bound must not be committed: its records stay
    on the input, unread, until a person has decided. Make a new bound when the partition restarts from the log,
    because uncommitted records come again. A worker that something restarts again and again thus still moves
    ahead by fewer records than the larger of `window` and `run_max` with each start, all of them dead letters.
    """

    def __init__(self, share_max: float, run_max: int, window: int = WINDOW_RECORDS) -> None:
        self._share_max = share_max
        self._run_max = run_max
        self._window = window
        self._flags = np.zeros(0, np.int32)
        """Of the last records, at most window - 1: 1 where rejected."""
        self._run = 0
        self._rejects: deque[tuple[int, Rejected]] = deque(maxlen=window)
        """Offset and verdict of the latest rejects."""

    def check(self, count: int, rejects: Sequence[Rejected], records: Sequence[RawRecord]) -> None:
        """Counts a batch of `count` records, of which `rejects` were rejected, in the order of the records.

        Raises:
            DeadLetterLimit: the share or the run passed its bound within this batch.
        """
        flags = np.zeros(count, np.int32)
        flags[[r.position for r in rejects]] = 1
        latest = np.concatenate([self._flags, flags])
        self._flags = latest[max(0, len(latest) - self._window + 1) :]
        self._rejects.extend((records[r.position].offset, r) for r in rejects)
        run_longest = self._count_run(flags)
        if run_longest >= self._run_max:
            raise self._limit(
                f"{run_longest} records in a row could not be read (bound: dead_letter_run_max = {self._run_max})"
            )
        if len(latest) >= self._window:
            sums = np.concatenate([[0], np.cumsum(latest)])
            most = int((sums[self._window :] - sums[: -self._window]).max())
            if most > self._share_max * self._window:
                raise self._limit(
                    f"{most} of {self._window} records could not be read "
                    f"(bound: dead_letter_share_max = {self._share_max:g})"
                )

    def _count_run(self, flags: np.ndarray[tuple[int], np.dtype[np.int32]]) -> int:
        """Length of the longest run that touches this batch; keeps the run that reaches its end."""
        accepted = np.flatnonzero(flags == 0)
        if len(accepted) == 0:
            self._run += len(flags)
            return self._run
        gaps = np.diff(accepted) - 1
        longest = max(self._run + int(accepted[0]), int(gaps.max(initial=0)), len(flags) - 1 - int(accepted[-1]))
        self._run = len(flags) - 1 - int(accepted[-1])
        return longest

    def _limit(self, what: str) -> DeadLetterLimit:
        reasons = Counter(str(rejected.reason) for _, rejected in self._rejects)
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        first_offset, first = self._rejects[0]
        return DeadLetterLimit(
            f"{what}. Latest rejects: {listed}, the first of them at offset {first_offset}: {first.message} "
            "The batch was not committed, so nothing moved. Look at earlier ones with `nearstream dlq list`, mend the "
            "producer and restart the worker; to let these records become dead letters, raise dead_letter_share_max "
            "and dead_letter_run_max first, and send them back later with `nearstream dlq replay`."
        )
