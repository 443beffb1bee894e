"""Puts a log into time order without holding it in memory."""

from __future__ import annotations

import heapq
import math
import tempfile
from contextlib import ExitStack
from itertools import islice
from operator import attrgetter
from typing import IO, TYPE_CHECKING

import msgspec

from streams.core.events import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from streams.sources.port import Skips

RUN_EVENTS_MAX = 200_000
"""Events sorted in memory at once; about 400 bytes each, so 80 MB."""

_LENGTH_BYTES = 4
_by_timestamp = attrgetter("timestamp")


def by_time(events: Iterable[Event], run_events_max: int = RUN_EVENTS_MAX) -> Iterator[Event]:
    """The same events, oldest first; equal timestamps keep their order.

    Holds at most `run_events_max` events in memory. A longer log is sorted in runs of that length, spilled to
    temporary files (about 100 bytes an event, one open file a run) and merged; nothing is given out before
    the log has been read to its end.
    """
    remaining = iter(events)
    run = sorted(islice(remaining, run_events_max), key=_by_timestamp)
    if len(run) < run_events_max:
        yield from run
        return
    with ExitStack() as spills:
        files = []
        while run:
            files.append(_spill(run, spills.enter_context(tempfile.TemporaryFile(prefix="nearstream-sort-"))))
            run = sorted(islice(remaining, run_events_max), key=_by_timestamp)
        yield from heapq.merge(*map(_unspill, files), key=_by_timestamp)


def noting_disorder(events: Iterable[Event], skips: Skips) -> Iterator[Event]:
    """The same events in the same order; those older than the one before them are counted in `skips.unsorted`."""
    before_ms = -math.inf
    for event in events:
        if event.timestamp < before_ms:
            skips.unsorted += 1
        before_ms = event.timestamp
        yield event


def _spill(run: list[Event], file: IO[bytes]) -> IO[bytes]:
    encode = msgspec.msgpack.Encoder().encode
    for event in run:
        packed = encode(event)
        file.write(len(packed).to_bytes(_LENGTH_BYTES, "big"))
        file.write(packed)
    file.seek(0)
    return file


def _unspill(file: IO[bytes]) -> Iterator[Event]:
    decode = msgspec.msgpack.Decoder(Event).decode
    while length := file.read(_LENGTH_BYTES):
        yield decode(file.read(int.from_bytes(length, "big")))
