"""Every reason not to go on with a log from a saved memory, and none without reason."""

from __future__ import annotations

import pytest

from streams.kafka.memory_check import LogFigures, refusal

SAVED_AT_S = 1_700_000_000.0
HOUR_S = 3600.0
OFFSETS = {0: 40, 1: 0}
LOG = LogFigures({0: 3, 1: 0}, {0: 50, 1: 0}, {0: 45, 1: None}, 24 * HOUR_S)


def verdict(age_s: float = HOUR_S, offsets: dict[int, int] = OFFSETS, **changes: object) -> str | None:
    """Of a sound log with these changes."""
    return refusal(offsets, SAVED_AT_S, LOG._replace(**changes), SAVED_AT_S + age_s)


@pytest.mark.parametrize("age_s", [-9.0, 0.0, 19.9 * HOUR_S])
def test_a_log_that_goes_on_is_taken_up(age_s: float) -> None:
    """Records after the save lie at or after the offsets; clocks may differ a little."""
    assert verdict(age_s) is None
    assert verdict(age_s, after_save={0: 40, 1: None}) is None
    assert verdict(age_s, offsets={0: 50, 1: 0}, after_save={0: None, 1: None}) is None
    assert verdict(age_s, offsets={0: 3, 1: 0}) is None


@pytest.mark.parametrize(
    ("age_s", "changes", "complaint"),
    [
        (20.1 * HOUR_S, {}, "saved 20.1 h ago; at most 20.0 h are safe"),
        (1.1 * HOUR_S, {"delete_retention_s": HOUR_S}, "at most 0.8 h are safe"),
        (-11.0, {}, "saved -0.0 h ago"),
        (HOUR_S, {"ends": {0: 39, 1: 0}}, "offset 40 of partition 0, which holds 3 to 39"),
        (HOUR_S, {"begins": {0: 41, 1: 0}}, "offset 40 of partition 0, which holds 41 to 50"),
        (HOUR_S, {"begins": {0: 3}, "ends": {0: 50}}, "has 2 partitions, the topic has 1"),
        (HOUR_S, {"after_save": {0: 39, 1: None}}, "made anew"),
        (HOUR_S, {"after_save": {0: 0, 1: None}}, "Offset 0 of partition 0 was written after the save"),
    ],
)
def test_each_doubt_is_said(age_s: float, changes: dict[str, object], complaint: str) -> None:
    """Too old for tombstones, from the future, beyond the log, before it, of other partitions, of another topic."""
    assert complaint in str(verdict(age_s, **changes))  # type: ignore[arg-type]
