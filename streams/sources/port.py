"""What a behaviour log, whatever its format, gives to the rest of the program."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.core.errors import RejectedRecord
    from streams.core.events import Event, Item, User

SKIP_EXAMPLES_MAX = 10


class Description(NamedTuple):
    """How much is to come, for progress and ETA only; None where only reading all of it would tell."""

    events: int | None = None
    items: int | None = None
    users: int | None = None
    order_only: bool = False
    """The log knows only the order of each user's events; their times are made (`timestamps.nth_day`)."""


class Skips:
    """Records that a source could not use: counted by reason, a few kept with their line number."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: list[str] = []
        """The first few of all, and the first of each reason."""
        self.unsorted = 0
        """Events older than the one before them in the log; these were put in order, not skipped."""

    def add(self, path: str, line: int, rejected: RejectedRecord) -> None:
        """Counts one record; `line` is the line of `path` it ends on, from 1."""
        self.leave_out(path, line, rejected.reason.value, rejected.message)

    def leave_out(self, path: str, line: int, reason: str, message: str) -> None:
        """Counts one record that a log leaves out for a `reason` of its own, such as a purchase by nobody."""
        self.counts[reason] += 1
        if len(self.examples) < SKIP_EXAMPLES_MAX or self.counts[reason] == 1:
            self.examples.append(f"{path} line {line}: {reason}: {message}")


class Source(Protocol):
    """A log as events in time order.

    `events`, `items` and `users` start from the beginning at each call, except on standard input, which can be
    read once. They stream: memory does not grow with the number of events. A record that cannot be used is
    skipped and counted in `skips`.

    Raises:
        UsageError: while iterating, when the file is missing, damaged or not of this format.
    """

    @property
    def name(self) -> str:
        """The FORMAT word that the commands take."""
        ...

    @property
    def skips(self) -> Skips:
        """What could not be used, since the source was opened."""
        ...

    def describe(self) -> Description:
        """Counts that are known, or cheap to learn, before reading."""
        ...

    def items(self) -> Iterator[Item]:
        """The catalogue, as far as the log has one; each item once."""
        ...

    def users(self) -> Iterator[User]:
        """Personal attributes, as far as the log has them; each user once."""
        ...

    def events(self) -> Iterator[Event]:
        """What people did, oldest first; events of the same millisecond keep the order of the log."""
        ...
