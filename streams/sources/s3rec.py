"""Sequence files of the published ranking tables: what each user chose, in order.

One reader for three writings: S3-Rec's `user item item ...`, SASRec's `user item` per line, and the first with a
second file that holds a time for each item.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streams.core.errors import RejectedRecord, RejectReason, UsageError
from streams.core.events import Event, EventType, Item
from streams.sources.files import COMPRESSIONS, STANDARD_INPUT, find_beside, open_bytes, open_text
from streams.sources.layout import checked_id, row_id
from streams.sources.movielens import MOVIES_1M, USERS_1M
from streams.sources.ordering import by_time
from streams.sources.port import Description, Skips
from streams.sources.table import read_table
from streams.sources.timestamps import from_seconds, nth_day

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streams.core.events import User

ENDING = ".txt"
ITEMS, TIMES = "_items", "_times"
"""Name of a file of sequences that has times, and of the times."""
SIDE_FILES = ("sas_to_original", "readme")
FILM_PREFIX = "ml-"
ITEM_IDS, USER_IDS = "sas_to_original_items.txt", "sas_to_original_users.txt"


class SequenceLog:
    """`Beauty.txt`, its folder, or folder and name without ending (`amazon_s3rec/Beauty`), compressed or not.

    Lines of one user may be many; their items count on. Without times a user's n-th event stands on day n
    (`nth_day`). With `<name>_items.txt` and `<name>_times.txt` times are epoch seconds of the second file, line by
    line. Events are `purchase`s, since somebody who reviews has bought; in files that start with `ml-` they are
    `rating`s. None has a value, for the files have no stars. Items come from `<name>_items.tsv` (text as title) and
    `<name>_item2attributes.json` (attribute numbers as tags, `attribute-<n>`), films and people of MovieLens 1M
    from `movies.dat` and `users.dat` through `sas_to_original_*.txt`, where these stand beside the log.
    """

    def __init__(self, path: str) -> None:
        self.name = "s3rec"
        self.skips = Skips()
        self._path = _find_sequences(path)
        stem = _stem(self._path)
        self._name = stem.removesuffix(ITEMS)
        self._times = find_beside(self._path, [f"{self._name}{TIMES}{ENDING}"]) if stem.endswith(ITEMS) else None
        self._type = EventType.RATING if self._name.startswith(FILM_PREFIX) else EventType.PURCHASE

    def describe(self) -> Description:
        """Whether the log has times; its events are not counted ahead."""
        return Description(order_only=self._times is None)

    def items(self) -> Iterator[Item]:
        """The texts and attributes beside the log; none with times, whose files count items by other numbers."""
        if self._times is not None:
            return iter(())
        return self._films() if self._type is EventType.RATING else self._products()

    def users(self) -> Iterator[User]:
        """People of MovieLens 1M; other logs know nothing about their users."""
        own_ids = self._own_ids(USER_IDS)
        for user in USERS_1M.read(self._path, self.skips) if own_ids else ():
            if user.user_id in own_ids:
                yield msgspec.structs.replace(user, user_id=own_ids[user.user_id])

    def events(self) -> Iterator[Event]:
        """What was chosen, by time; in order of the file inside a day."""
        return by_time(self._steps())

    def _steps(self) -> Iterator[Event]:
        steps_before: dict[str, int] = {}
        times = self._time_lines() if self._times is not None else None
        for number, (user, *items) in _lines(self._path):
            first = steps_before.get(user, 0)
            steps_before[user] = first + len(items)
            try:
                times_ms = _made_times(first, len(items)) if times is None else _times_of(user, items, next(times))
                chosen = self._chosen(user, items, first, times_ms)
            except RejectedRecord as rejected:
                self.skips.add(self._path, number, rejected)
                continue
            except StopIteration:
                raise UsageError(f"{self._times} ends before line {number} of {self._path}. Fetch it again.") from None
            yield from chosen

    def _chosen(self, user: str, items: Sequence[str], first: int, times_ms: Sequence[int]) -> list[Event]:
        if not items:
            raise RejectedRecord(RejectReason.INVALID_SCHEMA, "expected a user and at least one item")
        checked_id(user, "user")
        return [
            Event(user, checked_id(item, "item"), self._type, time_ms, row_id((user, str(place), item)))
            for place, (item, time_ms) in enumerate(zip(items, times_ms, strict=True), first)
        ]

    def _time_lines(self) -> Iterator[list[str]]:
        assert self._times is not None  # asked for only where there are times
        return (line for _, line in _lines(self._times))

    def _products(self) -> Iterator[Item]:
        tags = self._attributes()
        table = find_beside(self._path, [f"{self._name}{ITEMS}.tsv"])
        if table is None:
            return (Item(item_id=item_id, tags=of_item) for item_id, of_item in tags.items())

        def product(row: dict[str, str]) -> Item:
            return Item(row["item_id"], title=row["text"].strip() or None, tags=tags.get(row["item_id"], []))

        return read_table(table, product, self.skips, delimiter="\t")

    def _attributes(self) -> dict[str, list[str]]:
        path = find_beside(self._path, [f"{self._name}_item2attributes.json"])
        if path is None:
            return {}
        with open_bytes(path) as stream:
            content = stream.read()
        try:
            numbers = msgspec.json.decode(content, type=dict[str, list[int]])
        except msgspec.DecodeError as error:
            raise UsageError(f"{path} is not an object of item id -> attribute numbers: {error}.") from error
        return {item_id: [f"attribute-{number}" for number in of_item] for item_id, of_item in numbers.items()}

    def _films(self) -> Iterator[Item]:
        own_ids = self._own_ids(ITEM_IDS)
        for film in MOVIES_1M.read(self._path, self.skips) if own_ids else ():
            if film.item_id in own_ids:
                yield msgspec.structs.replace(film, item_id=own_ids[film.item_id])

    def _own_ids(self, file: str) -> dict[str, str]:
        """Original id -> id in the log; empty where the file is not there."""
        path = find_beside(self._path, [file]) if self._type is EventType.RATING else None
        if path is None:
            return {}
        return dict(read_table(path, _original_and_own, self.skips, columns=("own", "original"), delimiter=" "))


def _original_and_own(row: dict[str, str]) -> tuple[str, str]:
    return row["original"], row["own"]


def _lines(path: str) -> Iterator[tuple[int, list[str]]]:
    """Number and words of each line that has any."""
    with open_text(path) as text:
        for number, line in enumerate(text, 1):
            if words := line.split():
                yield number, words


def _made_times(first: int, count: int) -> list[int]:
    return [nth_day(place) for place in range(first, first + count)]


def _times_of(user: str, items: Sequence[str], line: Sequence[str]) -> list[int]:
    """Epoch ms of the items. Raises RejectedRecord when the lines do not belong together."""
    if line[0] != user or len(line) != len(items) + 1:
        raise RejectedRecord(
            RejectReason.INVALID_SCHEMA,
            f"{len(items)} items of user {user} stand beside {len(line) - 1} times of user {line[0]}",
        )
    try:
        return [from_seconds(time_s) for time_s in line[1:]]
    except ValueError as error:
        raise RejectedRecord(RejectReason.INVALID_SCHEMA, str(error)) from None


def _find_sequences(path: str) -> str:
    """The file of sequences that `path` means. Raises UsageError."""
    if path == STANDARD_INPUT or Path(path).is_file():
        return path
    if Path(path).is_dir():
        return _only_sequences(Path(path))
    name = Path(path).name
    found = find_beside(path, [f"{name}{ENDING}", f"{name}{ITEMS}{ENDING}"])
    if found is None:
        raise UsageError(f"There is no file {path}, nor {path}{ENDING}, nor {path}{ITEMS}{ENDING}. Check the path.")
    return found


def _only_sequences(folder: Path) -> str:
    logs = sorted(path for path in folder.iterdir() if path.is_file() and _may_hold_sequences(path.name))
    if len(logs) == 1:
        return str(logs[0])
    if not logs:
        raise UsageError(f"{folder} holds no sequences: no NAME{ENDING}, also as {', '.join(COMPRESSIONS)}.")
    names = ", ".join(_stem(str(log)).removesuffix(ITEMS) for log in logs)
    raise UsageError(f"{folder} holds {len(logs)} logs: {names}. Add a name to the path: {folder / 'NAME'}.")


def _may_hold_sequences(file: str) -> bool:
    stem = _stem(file)
    plain = file.removesuffix(_compression(file))
    return plain == stem + ENDING and not stem.endswith(TIMES) and not stem.lower().startswith(SIDE_FILES)


def _stem(path: str) -> str:
    """File name without compression and ending."""
    file = Path(path).name
    return file.removesuffix(_compression(file)).removesuffix(ENDING)


def _compression(file: str) -> str:
    return next((ending for ending in COMPRESSIONS if file.endswith(ending)), "")
