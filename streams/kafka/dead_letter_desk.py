"""Dead letters one by one, for the API: those that wait, and sending back those that are named."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from streams.core.errors import RejectedRecord
from streams.core.serving import Place, RefusedLetter, ReplayedLetters, WaitingLetter, WaitingLetters
from streams.kafka.dlq_read import dead_letter_reader
from streams.kafka.dlq_replay import letter_sender, mended_record
from streams.kafka.mend import Mend
from streams.kafka.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Collection

    from streams.config import Settings
    from streams.kafka.dlq_read import DeadLetter
    from streams.kafka.dlq_replay import LetterMend

VALUE_CHARS_MAX = 4000
KEY_CHARS_MAX = 300
"""An id has 256 at most; what is longer is none."""


async def waiting_letters(settings: Settings, reason: str | None, letters_max: int) -> WaitingLetters:
    """Counts the dead letters that wait, of one reason or of all, with the newest `letters_max` ≥ 1, oldest first.

    Raises:
        UsageError: the topic does not exist.
        BrokerUnavailable: Kafka does not answer.
    """
    reasons: Counter[str] = Counter()
    newest: list[tuple[int, int, int, WaitingLetter]] = []
    replayed_before = 0
    async with dead_letter_reader(settings) as reader:
        await reader.read_receipts()
        async for letter in reader.letters():
            if (letter.found_partition, letter.found_offset) in reader.receipts:
                replayed_before += 1
            elif reason in {None, letter.reason}:
                reasons[letter.reason] += 1
                _keep_newest(newest, letter, letters_max)
    letters = [kept[-1] for kept in sorted(newest)]
    return WaitingLetters(reasons.total(), dict(reasons.most_common()), replayed_before, letters)


async def replay_named(
    settings: Settings, places: Collection[Place], mend: LetterMend | None = None
) -> ReplayedLetters:
    """Sends the dead letters at these places back to `events`, mended, each at most once over all replays.

    Raises:
        UsageError: a topic does not exist.
        PartitionLost: another replay took over; what was committed until then counts.
        BrokerUnavailable: Kafka does not answer, or a transaction of somebody else stays open.
    """
    report = ReplayedLetters([], [], [], [])
    wanted = set(places)
    async with AsyncExitStack() as stack:
        sender = await stack.enter_async_context(letter_sender(settings, Topics(settings.prefix)))
        reader = await stack.enter_async_context(dead_letter_reader(settings, fenced=True))
        await reader.read_receipts()
        async for letter in reader.letters():
            place = Place(letter.found_partition, letter.found_offset)
            if place not in wanted:
                continue
            wanted.discard(place)
            if (place.partition, place.offset) in reader.receipts:
                report.already_replayed.append(place)
                continue
            try:
                mended = mended_record(letter, mend or Mend(), int(time.time() * 1000))
            except RejectedRecord as rejected:
                report.refused.append(
                    RefusedLetter(place.partition, place.offset, str(rejected.reason), rejected.message)
                )
                continue
            await sender.add(letter, mended)
            report.replayed.append(place)
        await sender.flush()
    report.unknown.extend(sorted(wanted, key=lambda place: (place.partition, place.offset)))
    return report


def _keep_newest(newest: list[tuple[int, int, int, WaitingLetter]], letter: DeadLetter, letters_max: int) -> None:
    """A heap, since partitions are read one beside the other and not in the order of time."""
    entry = (letter.record.timestamp, letter.found_partition, letter.found_offset, _waiting(letter))
    if len(newest) < letters_max:
        heapq.heappush(newest, entry)
    else:
        heapq.heappushpop(newest, entry)


def _waiting(letter: DeadLetter) -> WaitingLetter:
    record = letter.record
    text = None if record.value is None else record.value.decode(errors="backslashreplace")
    return WaitingLetter(
        letter.found_partition,
        letter.found_offset,
        letter.reason,
        letter.message,
        record.timestamp,
        {"topic": letter.topic, "partition": letter.partition, "offset": letter.offset},
        None if record.key is None else record.key[:KEY_CHARS_MAX].decode(errors="backslashreplace"),
        None if text is None else text[:VALUE_CHARS_MAX],
        text is not None and len(text) > VALUE_CHARS_MAX,
    )
