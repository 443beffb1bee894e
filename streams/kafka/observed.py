"""What the observer remembers of the topics, each part bounded. No Kafka client in here: records go in, values out."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING

import msgspec

from streams.core.observation import DeadLetter, DeadLetterTally, SeenRecord, TailRecord, TailTopic
from streams.core.status import WorkerStatus
from streams.kafka.dead_letter import MESSAGE, OFFSET, PARTITION, REASON, TOPIC, is_receipt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiokafka import ConsumerRecord

    from streams.kafka.topics import Topics

logger = logging.getLogger(__name__)

EVENTS_MAX = 50_000
EVENTS_BYTES_MAX = 32 << 20
LISTS_MAX = 20_000
LISTS_BYTES_MAX = 64 << 20
TITLES_MAX = 200_000
TITLE_CHARS_MAX = 200
WORKERS_MAX = 100
LISTS_BEFORE_MAX = 4000
LISTS_BEFORE_BYTES_MAX = 16 << 20
DEAD_LETTERS_MAX = 50
TAIL_MAX = 200
TAIL_CHARS_MAX = 4000
REASONS_MAX = 100
EXCERPT_CHARS_MAX = 200
EVENTS_SHOWN = 20
RECENT_USERS = 6
OTHER_REASONS = "other"


class _TitledItem(msgspec.Struct):
    title: str | None = None


class RecentEvents:
    """A ring of the newest input records, found by user. The oldest go first, by count and by bytes."""

    def __init__(self, events_max: int = EVENTS_MAX, bytes_max: int = EVENTS_BYTES_MAX) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._order: deque[tuple[bytes, SeenRecord]] = deque()
        self._of_user: dict[bytes, deque[SeenRecord]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._order)

    def add(self, key: bytes, record: SeenRecord) -> None:
        """Adds the newest record of a user."""
        self._order.append((key, record))
        self._of_user.setdefault(key, deque()).append(record)
        self._bytes += _size(key, record)
        while len(self._order) > self._events_max or self._bytes > self._bytes_max:
            self._drop_oldest()

    def of(self, key: bytes) -> list[SeenRecord]:
        """The user's newest records, oldest first, at most EVENTS_SHOWN."""
        return list(self._of_user.get(key, ()))[-EVENTS_SHOWN:]

    def _drop_oldest(self) -> None:
        key, record = self._order.popleft()
        self._bytes -= _size(key, record)
        theirs = self._of_user[key]
        theirs.popleft()
        if not theirs:
            del self._of_user[key]


class LatestLists:
    """The newest list of each of the users whose lists changed last, bounded by count and by bytes."""

    def __init__(self, lists_max: int = LISTS_MAX, bytes_max: int = LISTS_BYTES_MAX) -> None:
        self._lists_max = lists_max
        self._bytes_max = bytes_max
        self._lists: OrderedDict[bytes, SeenRecord] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._lists)

    def put(self, key: bytes, record: SeenRecord) -> SeenRecord | None:
        """Replaces the user's list; returns the one of before."""
        before = self._lists.pop(key, None)
        self._bytes += _size(key, record) - (_size(key, before) if before is not None else 0)
        self._lists[key] = record
        while len(self._lists) > self._lists_max or self._bytes > self._bytes_max:
            self._bytes -= _size(*self._lists.popitem(last=False))
        return before

    def drop(self, key: bytes) -> None:
        """Forgets the user's list, if there is one."""
        record = self._lists.pop(key, None)
        if record is not None:
            self._bytes -= _size(key, record)

    def get(self, key: bytes) -> SeenRecord | None:
        """The user's list, if it is among the newest."""
        return self._lists.get(key)

    def newest(self, count: int) -> list[str]:
        """Users whose lists changed last, newest first."""
        keys = zip(reversed(self._lists), range(count), strict=False)
        return [key.decode(errors="replace") for key, _ in keys]

    def sample(self, count: int) -> list[SeenRecord]:
        """The lists that changed last, newest first."""
        return [record for record, _ in zip(reversed(self._lists.values()), range(count), strict=False)]


class Tail:
    """The newest records of one topic, numbered, in the order of arrival."""

    def __init__(self) -> None:
        self._records: deque[tuple[int, ConsumerRecord]] = deque(maxlen=TAIL_MAX)
        self._number = 0

    def add(self, record: ConsumerRecord) -> None:
        """Adds the newest one."""
        self._number += 1
        self._records.append((self._number, record))

    def after(self, number: int) -> list[TailRecord]:
        """Those kept with a greater number, oldest first, shortened for reading."""
        return [_tail_record(at, record) for at, record in self._records if at > number]


class Observed:
    """Everything that was read since the observer connected."""

    def __init__(self, topics: Topics, group: str) -> None:
        self.events = RecentEvents()
        self.lists = LatestLists()
        self.lists_before = LatestLists(LISTS_BEFORE_MAX, LISTS_BEFORE_BYTES_MAX)
        self.tails: dict[TailTopic, Tail] = {"events": Tail(), "recommendations": Tail(), "dead-letters": Tail()}
        self.titles: dict[str, str] = {}
        self.workers: dict[str, WorkerStatus] = {}
        self._group = group
        self._reasons: Counter[str] = Counter()
        self._dead_letters: deque[DeadLetter] = deque(maxlen=DEAD_LETTERS_MAX)
        self._add_to = {
            topics.events: self._add_event,
            topics.recommendations: self._add_list,
            topics.items: self._add_item,
            topics.status: self._add_status,
            topics.dead_letters: self._add_dead_letter,
        }

    def add(self, topic: str, records: Iterable[ConsumerRecord]) -> None:
        """Takes in records of one topic, in order."""
        add = self._add_to[topic]
        for record in records:
            add(record)

    def dead_letters(self, *, complete: bool) -> DeadLetterTally:
        """The dead letters so far; `complete` says whether the topic was read to its end once."""
        return DeadLetterTally(dict(self._reasons), list(self._dead_letters), complete)

    def _add_event(self, record: ConsumerRecord) -> None:
        self.tails["events"].add(record)
        if record.key is not None:
            self.events.add(record.key, seen_record(record))

    def _add_list(self, record: ConsumerRecord) -> None:
        self.tails["recommendations"].add(record)
        if record.key is None:
            return
        before = self.lists.put(record.key, seen_record(record))
        if before is not None and before.value is not None and record.value is not None:
            self.lists_before.put(record.key, before)
        elif record.value is None:
            self.lists_before.drop(record.key)

    def _add_item(self, record: ConsumerRecord) -> None:
        if record.key is None:
            return
        item_id = record.key.decode(errors="replace")
        title = _title(record.value)
        if title is None:
            self.titles.pop(item_id, None)
        elif item_id in self.titles or len(self.titles) < TITLES_MAX:
            self.titles[item_id] = title[:TITLE_CHARS_MAX]

    def _add_status(self, record: ConsumerRecord) -> None:
        if record.value is None:
            self.workers.pop((record.key or b"").decode(errors="replace"), None)
            return
        try:
            status = msgspec.json.decode(record.value, type=WorkerStatus)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            logger.warning("skipped a status record at offset %d: %s", record.offset, error)
            return
        if status.group == self._group:
            known = self.workers.pop(status.worker, None)
            if status.details is None and known is not None and known.started_at == status.started_at:
                status = msgspec.structs.replace(status, details=known.details)
            self.workers[status.worker] = status
            if len(self.workers) > WORKERS_MAX:
                del self.workers[next(iter(self.workers))]

    def _add_dead_letter(self, record: ConsumerRecord) -> None:
        if is_receipt(record.headers):
            return
        self.tails["dead-letters"].add(record)
        headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        reason = headers.get(REASON, "no reason given")
        known = reason in self._reasons or len(self._reasons) < REASONS_MAX
        self._reasons[reason if known else OTHER_REASONS] += 1
        self._dead_letters.append(
            DeadLetter(
                reason=reason,
                message=headers.get(MESSAGE, "")[: 2 * EXCERPT_CHARS_MAX],
                topic=headers.get(TOPIC, record.topic),
                partition=_number(headers.get(PARTITION), record.partition),
                offset=_number(headers.get(OFFSET), record.offset),
                timestamp=record.timestamp,
                key=_excerpt(record.key),
                excerpt=_excerpt(record.value) or "",
            )
        )


def seen_record(record: ConsumerRecord) -> SeenRecord:
    """The record as the page's side knows it."""
    return SeenRecord(record.topic, record.partition, record.offset, record.timestamp, record.value)


def _tail_record(number: int, record: ConsumerRecord) -> TailRecord:
    return TailRecord(
        number,
        record.partition,
        record.offset,
        record.timestamp,
        _excerpt(record.key),
        None if record.value is None else record.value[:TAIL_CHARS_MAX].decode(errors="replace"),
        {name: (value or b"")[:EXCERPT_CHARS_MAX].decode(errors="replace") for name, value in record.headers},
    )


def _size(key: bytes, record: SeenRecord) -> int:
    return len(key) + len(record.value or b"")


def _title(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return msgspec.json.decode(value, type=_TitledItem).title
    except (msgspec.MsgspecError, UnicodeDecodeError):  # the worker reports it; here it is only a missing title
        return None


def _excerpt(raw: bytes | None) -> str | None:
    return None if raw is None else raw[:EXCERPT_CHARS_MAX].decode(errors="replace")


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else otherwise
