from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.events import Event, EventType
from streams.sources.ordering import by_time


def event(number: int, timestamp: int) -> Event:
    return Event(f"u{number}", "i", EventType.RATING, timestamp, f"e{number}", 4.5, "r", "s", {"position": number})


@given(
    timestamps=st.lists(st.integers(-5, 5), max_size=40),
    run_events_max=st.sampled_from([1, 2, 3, 7, 39, 40, 41]),
)
def test_sorting_in_runs_is_the_stable_sort(timestamps: list[int], run_events_max: int) -> None:
    """However short the runs, the result is what a stable sort of everything gives, field for field."""
    events = [event(number, timestamp) for number, timestamp in enumerate(timestamps)]
    assert list(by_time(events, run_events_max)) == sorted(events, key=lambda each: each.timestamp)


def test_no_more_than_a_run_is_read_before_it_is_spilled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by the run: the second run is read only after the first went to its file."""
    reads: list[int] = []
    spilled_after: list[int] = []
    monkeypatch.setattr("streams.sources.ordering._spill", lambda run, file: spilled_after.append(len(reads)) or file)

    def log() -> object:
        for number in range(10):
            reads.append(number)
            yield event(number, -number)

    list(by_time(log(), 4))  # type: ignore[arg-type]
    assert spilled_after == [4, 8, 10]
