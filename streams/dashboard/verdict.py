"""Burrow's consumer lag evaluation: one word per partition, without any threshold on the lag.

Rules and their order follow LinkedIn's Burrow, `core/internal/evaluator/caching.go`
(https://github.com/linkedin/Burrow/wiki/Consumer-Lag-Evaluation-Rules), with the change of its pull request 716:
a rewind counts even when the lag was zero before, until the group is back where it was.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WINDOW_SAMPLES = 10
"""Burrow's default `intervals`."""


class Verdict(StrEnum):
    """Of one partition, mildest first."""

    OK = "OK"
    WARN = "WARN"
    STALL = "STALL"
    STOP = "STOP"
    REWIND = "REWIND"


class GroupVerdict(StrEnum):
    """Of the whole group: ERR as soon as one partition stalls, stops or rewinds."""

    OK = "OK"
    WARN = "WARN"
    ERR = "ERR"


class Sample(NamedTuple):
    """The group was seen alive on the partition: at `time_ms` it stood at `committed`, `lag` records behind."""

    time_ms: int
    committed: int
    lag: int


def partition_verdict(samples: Sequence[Sample], recent_ends: Sequence[int], lag: int, now_ms: int) -> Verdict:
    """The verdict over the window.

    Args:
        samples: the last WINDOW_SAMPLES signs of life, oldest first.
        recent_ends: end offsets of the partition over the same stretch of time, one per poll.
        lag: records behind right now.
        now_ms: the time of asking, on the samples' clock.
    """
    if lag <= 0 or not samples:
        return Verdict.OK
    if _stopped(samples, now_ms) and not _caught_up_lately(samples, recent_ends):
        return Verdict.STOP
    if _rewound(samples):
        return Verdict.REWIND
    return Verdict.OK if any(sample.lag == 0 for sample in samples) else _progress(samples)


def group_verdict(verdicts: Iterable[Verdict]) -> GroupVerdict:
    """The worst of the partitions, in Burrow's three words."""
    words = set(verdicts)
    if words & {Verdict.STALL, Verdict.STOP, Verdict.REWIND}:
        return GroupVerdict.ERR
    return GroupVerdict.WARN if Verdict.WARN in words else GroupVerdict.OK


def _stopped(samples: Sequence[Sample], now_ms: int) -> bool:
    """Silent for longer than the window is wide."""
    return now_ms - samples[-1].time_ms > samples[-1].time_ms - samples[0].time_ms


def _caught_up_lately(samples: Sequence[Sample], recent_ends: Sequence[int]) -> bool:
    """A record that came a moment ago is not yet a sign of a dead group."""
    return any(end <= samples[-1].committed for end in recent_ends)


def _rewound(samples: Sequence[Sample]) -> bool:
    """The group went back and has not reached its old place again."""
    return samples[-1].committed < max(sample.committed for sample in samples)


def _progress(samples: Sequence[Sample]) -> Verdict:
    """Of a living group that has been behind all the time."""
    if all(sample.committed == samples[0].committed for sample in samples):
        return Verdict.STALL
    slow = all(later.lag >= earlier.lag for earlier, later in pairwise(samples))
    return Verdict.WARN if slow else Verdict.OK
