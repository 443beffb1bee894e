"""The last minutes of every partition: what verdicts, trends, rates and sparklines are made of."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from streams.dashboard.verdict import WINDOW_SAMPLES, Sample, Verdict, partition_verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from streams.core.observation import Observation, PartitionOffsets

Trend = Literal["growing", "shrinking", "steady"]

POLLS_MAX = 60
TREND_POLLS = 20
TREND_CHANGE_MIN = 10
"""Events; a smaller change over the stretch is noise."""
TREND_SHARE_MIN = 0.1
"""Of the mean lag; a smaller change over the stretch is noise."""
RATE_POLLS = 10
QUIET_S_MIN = 2.0
QUIET_RECORDS = 5
"""So many records should have come, by the mean rate, before their absence is worth a word."""


class Poll(NamedTuple):
    """Offsets of one partition, or sums over all of them, at one moment."""

    time_ms: int
    end: int
    done: int
    lag: int


class LagTrend(NamedTuple):
    """Where the lag is going; `catch_up_s` is the time to zero at this pace, None unless it shrinks."""

    direction: Trend
    catch_up_s: float | None


@dataclass(slots=True)
class PartitionHistory:
    """Polls of one partition, oldest first, and the samples that its verdict is made of."""

    polls: deque[Poll] = field(default_factory=lambda: deque(maxlen=POLLS_MAX))
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=WINDOW_SAMPLES))

    def add(self, offsets: PartitionOffsets, time_ms: int, *, owner_alive: bool) -> None:
        """Adds a poll. It counts as a sign of life when the group moved or a living worker reports the partition.

        Burrow sees the commits themselves; a poll cannot see a commit that changes nothing, so the owner's report
        stands for it. That is what tells STALL (alive, stuck) from STOP (nobody there).
        """
        done = max(offsets.begin, offsets.committed or 0)
        moved = not self.samples or self.samples[-1].committed != done
        if moved or owner_alive:
            self.samples.append(Sample(time_ms, done, offsets.lag))
        self.polls.append(Poll(time_ms, offsets.end, done, offsets.lag))

    def verdict(self, now_ms: int) -> Verdict:
        """Burrow's verdict; OK until a whole window has been watched, as with its `minimum-complete` of 1."""
        if not self.complete:
            return Verdict.OK
        ends = [poll.end for poll in self.polls][-WINDOW_SAMPLES:]
        return partition_verdict(list(self.samples), ends, self.polls[-1].lag, now_ms)

    @property
    def complete(self) -> bool:
        """A whole window has been watched."""
        return len(self.polls) >= WINDOW_SAMPLES

    @property
    def stuck_ms(self) -> int:
        """How long the committed offset has stood still, as far as the polls reach back."""
        last = self.polls[-1]
        return last.time_ms - min(poll.time_ms for poll in self.polls if poll.done == last.done)


class History:
    """Remembers polls, each once. Time comes with the observation; nothing here reads a clock."""

    def __init__(self) -> None:
        self.partitions: dict[int, PartitionHistory] = {}
        self.group: deque[Poll] = deque(maxlen=POLLS_MAX)
        self._polled_at: int | None = None

    def observe(self, observation: Observation, alive: Collection[int]) -> None:
        """Adds the poll unless it is the one seen last. `alive`: partitions that a living worker reports."""
        if observation.polled_at is None or observation.polled_at == self._polled_at:
            return
        self._polled_at = observation.polled_at
        if {p.partition for p in observation.partitions} != set(self.partitions):
            self.partitions = {p.partition: PartitionHistory() for p in observation.partitions}
            self.group.clear()
        for offsets in observation.partitions:
            self.partitions[offsets.partition].add(
                offsets, observation.polled_at, owner_alive=offsets.partition in alive
            )
        last = [p.polls[-1] for p in self.partitions.values()]
        self.group.append(
            Poll(observation.polled_at, sum(p.end for p in last), sum(p.done for p in last), sum(p.lag for p in last))
        )


def lag_trend(polls: Sequence[Poll]) -> LagTrend:
    """The direction of the lag: least squares over the last TREND_POLLS polls."""
    recent = list(polls)[-TREND_POLLS:]
    if len(recent) < 3:
        return LagTrend("steady", None)
    slope = _slope_per_s(recent)
    change = slope * (recent[-1].time_ms - recent[0].time_ms) / 1000
    noise = max(TREND_CHANGE_MIN, TREND_SHARE_MIN * sum(p.lag for p in recent) / len(recent))
    if abs(change) < noise or slope == 0:
        return LagTrend("steady", None)
    return LagTrend("growing", None) if slope > 0 else LagTrend("shrinking", recent[-1].lag / -slope)


def rates_per_s(polls: Sequence[Poll]) -> tuple[float, float]:
    """Records that came in and records that the group committed, a second, over the last RATE_POLLS polls."""
    recent = list(polls)[-RATE_POLLS:]
    span_s = (recent[-1].time_ms - recent[0].time_ms) / 1000 if recent else 0
    if span_s <= 0:
        return 0.0, 0.0
    first, last = recent[0], recent[-1]
    return max(0, last.end - first.end) / span_s, max(0, last.done - first.done) / span_s


def quiet_s(polls: Sequence[Poll]) -> float | None:
    """Seconds since the last poll that saw new records, as far as the polls reach back.

    None while that is nothing special: a gap that the mean rate explains, or topics that never held a record.
    """
    if len(polls) < 2 or polls[-1].end == 0:
        return None
    first, last = polls[0], polls[-1]
    gap_s = (last.time_ms - min(poll.time_ms for poll in polls if poll.end == last.end)) / 1000
    per_s = 1000 * (last.end - first.end) / max(1, last.time_ms - first.time_ms)
    usual_s = QUIET_RECORDS / per_s if per_s > 0 else 0.0
    return gap_s if gap_s >= max(QUIET_S_MIN, usual_s) else None


def _slope_per_s(polls: Sequence[Poll]) -> float:
    mean_s = sum(p.time_ms for p in polls) / len(polls) / 1000
    mean_lag = sum(p.lag for p in polls) / len(polls)
    spread = sum((p.time_ms / 1000 - mean_s) ** 2 for p in polls)
    if spread == 0:
        return 0.0
    return sum((p.time_ms / 1000 - mean_s) * (p.lag - mean_lag) for p in polls) / spread
