"""What the page shows, from observations: Burrow's verdicts, lag, trends, owners, and a person's reasons."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from streams.core.observation import Connection, DeadLetterTally, PartitionOffsets, SeenRecord, UserObservation
from streams.core.recommendations import SHORT_SENTENCES, BecauseOf, Reason, SimilarUsers, Trending
from streams.core.status import IndexTrigger, IndexWarning, Quantiles
from streams.dashboard.history import History, Poll, lag_trend, rates_per_s
from streams.dashboard.index_view import SENTENCES, index_sentence
from streams.dashboard.person import person, reason_sentence
from streams.dashboard.verdict import GroupVerdict, Sample, Verdict, group_verdict, partition_verdict
from streams.dashboard.view import Overview, overview
from tests.fakes import (
    START_MS,
    FakeObserver,
    dead_letter,
    event_record,
    list_record,
    observation,
    recommendation,
    worker_status,
)
from tests.fakes_status import index_status, scanned_status

SECOND = 1000


def window(*rows: tuple[int, int]) -> list[Sample]:
    """Samples a second apart from (committed, lag)."""
    return [Sample(i * SECOND, committed, lag) for i, (committed, lag) in enumerate(rows)]


def verdict(*rows: tuple[int, int], silent_s: float = 0.0, ends: list[int] | None = None) -> Verdict:
    """The verdict `silent_s` seconds after the last sample, with the lag of the last sample."""
    samples = window(*rows)
    recent = [committed + lag for committed, lag in rows] if ends is None else ends
    return partition_verdict(samples, recent, rows[-1][1], samples[-1].time_ms + int(silent_s * SECOND))


def test_zero_lag_now_is_ok_whatever_was_before() -> None:
    """Burrow judges nothing while the current lag is zero, not even silence."""
    assert verdict((10, 5), (10, 5), (15, 0), silent_s=3600) is Verdict.OK


def test_zero_lag_anywhere_in_the_window_is_ok() -> None:
    """Rule 1: a group that was at the end within the window is fine, though it stands still since."""
    assert verdict((10, 0), (10, 3), (10, 9)) is Verdict.OK


def test_a_falling_lag_is_ok() -> None:
    """A group that gains ground somewhere in the window is fine, however far behind."""
    assert verdict((10, 5000), (20, 4990), (30, 5010)) is Verdict.OK


def test_moving_while_the_lag_never_falls_is_warn() -> None:
    """Rule 5: offsets advance, the lag does not decrease once."""
    assert verdict((10, 50), (20, 50), (30, 60)) is Verdict.WARN


def test_committing_the_same_offset_with_lag_is_stall() -> None:
    """Rule 4: signs of life without progress."""
    assert verdict((10, 50), (10, 50), (10, 60)) is Verdict.STALL


def test_silence_longer_than_the_window_is_stop() -> None:
    """Rule 3: strictly longer since the last sample than the window is wide."""
    rows = ((10, 50), (20, 50), (30, 60))
    assert verdict(*rows, silent_s=2.0) is Verdict.WARN
    assert verdict(*rows, silent_s=2.001) is Verdict.STOP


def test_a_record_that_came_a_moment_ago_is_no_stop() -> None:
    """Burrow's ring of broker offsets: a quiet group was at the end lately, so it gets time to commit."""
    rows = ((10, 0), (20, 0), (30, 0))
    samples = window(*rows)
    much_later = samples[-1].time_ms + 60 * SECOND
    assert partition_verdict(samples, [30, 30, 31], 1, much_later) is Verdict.OK
    assert partition_verdict(samples, [31, 31, 31], 1, much_later) is Verdict.STOP


def test_going_back_is_rewind_even_after_zero_lag() -> None:
    """Pull request 716: the example of Burrow's issue 714."""
    assert verdict((10, 0), (20, 0), (30, 0), (20, 10)) is Verdict.REWIND


def test_a_rewind_ends_when_the_old_place_is_reached_again() -> None:
    """Pull request 716: recovered, the other rules decide."""
    assert verdict((20, 0), (30, 0), (20, 10), (30, 15)) is Verdict.OK


def test_stop_outranks_rewind_and_rewind_outranks_stall() -> None:
    """The order of Burrow's checks."""
    assert verdict((30, 10), (20, 20), silent_s=2, ends=[40, 40]) is Verdict.STOP
    assert verdict((30, 10), (20, 20), (20, 20)) is Verdict.REWIND


def test_without_samples_nothing_is_judged() -> None:
    """No sign of life was ever sought, so there is no verdict but OK."""
    assert partition_verdict([], [], 10, START_MS) is Verdict.OK


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], GroupVerdict.OK),
        ([Verdict.OK, Verdict.WARN], GroupVerdict.WARN),
        ([Verdict.WARN, Verdict.STALL], GroupVerdict.ERR),
        ([Verdict.STOP], GroupVerdict.ERR),
        ([Verdict.REWIND], GroupVerdict.ERR),
    ],
)
def test_the_group_is_as_bad_as_its_worst_partition(words: list[Verdict], expected: GroupVerdict) -> None:
    """Burrow's group status: the worst, with everything beyond WARN as ERR."""
    assert group_verdict(words) is expected


def play(
    history: History,
    seconds: int,
    committed: int = 100,
    *,
    step: int = 0,
    end_step: int = 10,
    alive: bool = True,
    start_s: int = 0,
) -> Overview:
    """Polls partition 0 once a second; a worker that is not alive reported last at the start."""
    frame = None
    for second in range(start_s, start_s + seconds):
        now = START_MS + second * SECOND
        offsets = PartitionOffsets(0, 0, 200 + end_step * second, committed + step * second, START_MS)
        worker = worker_status(partitions={0: (committed, 200)}, now_ms=now if alive else START_MS)
        frame = overview(observation([offsets], [worker], now), history, "g", now)
    assert frame is not None
    return frame


def test_a_stuck_but_reporting_owner_is_stall_and_a_silent_one_stop() -> None:
    """The owner's report stands for the commit that a poll cannot see."""
    assert play(History(), 15, alive=True).partitions[0].verdict is Verdict.STALL
    assert play(History(), 15, alive=False).partitions[0].verdict is Verdict.STOP


def test_no_verdict_before_a_whole_window_was_watched() -> None:
    """With nine polls nothing is claimed; the sentence says so."""
    row = play(History(), 9, alive=False).partitions[0]
    assert row.verdict is Verdict.OK
    assert row.sentence.startswith("Still watching")
    assert play(History(), 10, alive=False).partitions[0].verdict is Verdict.STOP


def test_the_same_poll_seen_twice_counts_once() -> None:
    """Frames may come faster than polls without shrinking the window."""
    history = History()
    offsets = [PartitionOffsets(0, 0, 10, 5, START_MS)]
    for later in range(5):
        frame = overview(observation(offsets, []), history, "g", START_MS + later)
    assert frame.partitions[0].spark == [5]


def test_lag_and_its_age_are_those_of_the_topic() -> None:
    """Lag in events is end minus the next record or, not known yet, the committed offset; without a commit all counts.
    In seconds it is the age of the next record."""
    rows = [
        PartitionOffsets(0, 0, 100, 90, START_MS - 2500),
        PartitionOffsets(1, 40, 100, None, None),
        PartitionOffsets(2, 0, 7, 7),
        PartitionOffsets(3, 0, 100, 90, START_MS - 1500, 95),
    ]
    frame = overview(observation(rows, []), History(), "g", START_MS)
    assert [(p.lag, p.lag_s) for p in frame.partitions] == [(10, 2.5), (60, None), (0, 0.0), (5, 1.5)]
    assert (frame.group.lag, frame.group.lag_s) == (75, None)


def test_where_only_markers_are_left_nothing_waits() -> None:
    """Whether its owner lives or not: a dead worker that read every record of a transaction left none behind."""
    history = History()
    gone = worker_status(partitions={0: (7, 8)}, now_ms=START_MS)
    for second in range(12):
        now = START_MS + second * SECOND
        frame = overview(observation([PartitionOffsets(0, 0, 8, 7, None, 8)], [gone], now), history, "g", now)
    (row,) = frame.partitions
    assert (row.lag, row.lag_s, row.verdict, row.sentence) == (0, 0.0, Verdict.OK, "Nothing is waiting.")


def test_the_owner_is_who_reported_last_and_stays_visible_when_silent() -> None:
    """A dead worker keeps its partitions until somebody else reports them, with the length of its silence."""
    now = START_MS + 7 * SECOND
    rows = [PartitionOffsets(p, 0, 10, 10) for p in (0, 1)]
    dead = worker_status("w1", {0: (10, 10), 1: (10, 10)}, START_MS)
    heir = worker_status("w2", {1: (10, 10)}, now)
    frame = overview(observation(rows, [dead, heir], now), History(), "g", now)
    assert [(p.owner, p.owner_silent_s) for p in frame.partitions] == [("w1", 7.0), ("w2", None)]
    assert [(w.worker, w.silent_s) for w in frame.workers] == [("w1", 7.0), ("w2", None)]


def test_a_worker_that_said_farewell_owns_nothing_and_is_not_silent() -> None:
    """`stopped` is a state, not a silence."""
    gone = worker_status("w1", {0: (10, 10)}, START_MS - 60 * SECOND, state="stopped")
    frame = overview(observation([PartitionOffsets(0, 0, 10, 10)], [gone]), History(), "g", START_MS)
    assert frame.partitions[0].owner is None
    assert (frame.workers[0].state, frame.workers[0].silent_s) == ("stopped", None)


def test_workers_leave_the_page_after_a_quarter_hour() -> None:
    """Old names do not pile up."""
    old = worker_status("old", {}, START_MS - 15 * 60 * SECOND)
    assert overview(observation([], [old]), History(), "g", START_MS).workers == []


def test_silence_while_kafka_is_away_is_not_held_against_workers() -> None:
    """All is judged at the last poll: the page cannot hear anybody then."""
    seen = msgspec.structs.replace(
        observation([PartitionOffsets(0, 0, 10, 10)], [worker_status("w1", {0: (10, 10)})]),
        connection=Connection("unreachable", "kafka:9092", START_MS),
    )
    frame = overview(seen, History(), "g", START_MS + 3600 * SECOND)
    assert frame.workers[0].silent_s is None
    assert frame.partitions[0].owner_silent_s is None


def test_the_strip_sums_rates_and_takes_the_worst_freshness_of_reporting_workers() -> None:
    """Silent workers publish nothing; quantiles are not averaged."""
    now = START_MS + 20 * SECOND
    workers = [
        worker_status("a", {}, now, lists_per_s=10.0, freshness_ms=Quantiles(40.0, 90.0)),
        worker_status("b", {}, now, lists_per_s=5.0, freshness_ms=Quantiles(30.0, 300.0)),
        worker_status("dead", {}, START_MS, lists_per_s=1000.0, freshness_ms=Quantiles(9000.0, 9000.0)),
    ]
    group = overview(observation([], workers, now), History(), "g", now).group
    assert group.lists_per_s == 15.0
    assert (group.freshness_ms.p50, group.freshness_ms.p99) == (40.0, 300.0)


def test_rates_come_from_offsets_alone() -> None:
    """Ten in and four committed a second."""
    polls = [Poll(START_MS + i * SECOND, 10 * i, 4 * i, 6 * i) for i in range(30)]
    assert rates_per_s(polls) == (10.0, 4.0)
    assert rates_per_s(polls[:1]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("lags", "direction"),
    [
        ([100 * i for i in range(20)], "growing"),
        ([2000 - 100 * i for i in range(20)], "shrinking"),
        ([1000 + (-1) ** i * 30 for i in range(20)], "steady"),
        ([i % 2 for i in range(20)], "steady"),
        ([5], "steady"),
    ],
)
def test_the_trend_ignores_noise(lags: list[int], direction: str) -> None:
    """A change counts from ten events and a tenth of the mean on."""
    polls = [Poll(START_MS + i * SECOND, 0, 0, lag) for i, lag in enumerate(lags)]
    assert lag_trend(polls).direction == direction


def test_a_shrinking_lag_tells_when_it_will_be_gone() -> None:
    """1,000 behind, 100 less each second: ten seconds."""
    polls = [Poll(START_MS + i * SECOND, 0, 0, 2000 - 100 * i) for i in range(11)]
    assert lag_trend(polls).catch_up_s == pytest.approx(10.0)


def test_dead_letters_come_most_frequent_reason_and_newest_letter_first() -> None:
    """Counts add up to the total."""
    tally = DeadLetterTally({"a": 1, "b": 5}, [dead_letter(1), dead_letter(2)], complete=True)
    dead = overview(observation([], [], dead_letters=tally), History(), "g", START_MS).dead_letters
    assert dead.total == 6
    assert [(r.reason, r.count) for r in dead.by_reason] == [("b", 5), ("a", 1)]
    assert [d.offset for d in dead.last] == [2, 1]


def test_the_index_of_each_reporting_worker_is_shown() -> None:
    """By name, as reported; not of a worker that is silent, said farewell or is too old to report one."""
    now = START_MS + 20 * SECOND
    workers = [
        worker_status("w2", {}, now, index=scanned_status()),
        worker_status("w1", {}, now, index=index_status()),
        worker_status("silent", {}, START_MS, index=index_status()),
        worker_status("gone", {}, now, state="stopped", index=index_status()),
        worker_status("old", {}, now),
    ]
    indexes = overview(observation([], workers, now), History(), "g", now).indexes
    assert [(i.worker, i.figures.tier, i.figures.recall) for i in indexes] == [
        ("w1", "hnsw", 0.978),
        ("w2", "exact", None),
    ]


def test_a_warning_of_the_index_comes_with_its_sentence() -> None:
    """The word of the worker, and what it means with the figure and its limit."""
    worker = worker_status(index=index_status(warnings=[IndexWarning("low-recall", 0.9132, 0.95)]))
    (index,) = overview(observation([], [worker]), History(), "g", START_MS).indexes
    (warning,) = index.warnings
    assert warning.trigger == "low-recall"
    assert "find 91.3% of the exact neighbours, the bar is 95.0%" in warning.sentence


@pytest.mark.parametrize(
    ("warning", "value", "limit"),
    [
        (IndexWarning("self-miss", 0.0234, 0.01), "2.3%", "1.0%"),
        (IndexWarning("erasure-late", 1260.0, 600.0), "21 min", "10 min"),
        (IndexWarning("build-failed", 3, 0), "3", ""),
        (IndexWarning("check-failed", 2, 0), "2", ""),
        (IndexWarning("delta-full", 20_480, 16_384), "20,480", "16,384"),
        (IndexWarning("dead-rows", 0.314, 0.2), "31.4%", "20.0%"),
        (IndexWarning("old-graph", 97_200.0, 86_400.0), "27 h", "24 h"),
        (IndexWarning("slow-build", 2700.0, 1800.0), "45 min", "30 min"),
        (IndexWarning("memory", 9.26e9, 8e9), "9.3 GB", "8.0 GB"),
    ],
    ids=lambda given: given.trigger if isinstance(given, IndexWarning) else None,
)
def test_sentences_name_figure_and_limit_in_their_unit(warning: IndexWarning, value: str, limit: str) -> None:
    """A reader sees how far off it is, and a second sentence says what follows."""
    sentence = index_sentence(warning)
    assert value in sentence
    assert limit in sentence
    assert sentence.count(". ") >= 1
    assert sentence.endswith((".", "?"))


def test_every_trigger_has_a_sentence() -> None:
    """A new word of the worker needs one."""
    assert set(SENTENCES) == set(get_args(IndexTrigger))


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (SimilarUsers(["u9"], 1.0), "u9, a similar user, had it."),
        (SimilarUsers(["u9", "u12"], 1.0), "u9 and u12, similar users, had it."),
        (SimilarUsers(["u9", "u12", "u3", "u4"], 1.0), "u9, u12 and 2 more similar users had it."),
        (SimilarUsers([], 1.0), "Similar users had it."),
        (BecauseOf("i2", 1.0), "Resembles “Wool scarf”, which this user had."),
        (BecauseOf("i3", 1.0), "Resembles “i3”, which this user had."),
        (Trending(1.0), "Many people have it right now."),
    ],
)
def test_every_reason_is_a_sentence(reason: Reason, sentence: str) -> None:
    """With the title where it is known, else the id."""
    assert reason_sentence(reason, {"i2": "Wool scarf"}.get) == sentence


def test_a_person_is_their_events_beside_their_list() -> None:
    """Newest event first; the list with titles, reasons, neighbours and its witnesses."""
    observer = FakeObserver(titles={"i2": "Wool scarf", "i5": "Gloves"})
    seen = UserObservation(
        "u1", [event_record(7), event_record(9, kind="rating", value=4.5)], list_record(recommendation())
    )
    shown = person(seen, observer.title, START_MS)
    assert [(e.offset, e.type, e.title, e.value) for e in shown.events] == [
        (9, "rating", "Wool scarf", 4.5),
        (7, "view", "Wool scarf", None),
    ]
    assert shown.list is not None
    assert (shown.list.profile_events, shown.list.source_offset) == (42, 1881)
    assert [(i.item_id, i.title) for i in shown.list.items] == [("i5", "Gloves"), ("i6", None)]
    first = shown.list.items[0].reasons[0]
    assert (first.kind, first.share) == ("similar-users", 0.6)
    assert [(n.user_id, n.similarity) for n in shown.list.neighbours] == [("u9", 0.93), ("u12", 0.871)]
    assert (shown.state, shown.message) == ("found", "")


@pytest.mark.parametrize("word", [msgspec.UNSET, *SHORT_SENTENCES])
def test_a_short_list_says_why(word: Any) -> None:
    """As a sentence; nothing where the list is full."""
    found = msgspec.structs.replace(recommendation(), short_because=word)
    shown = person(UserObservation("u1", [], list_record(found)), lambda _: None, START_MS)
    assert shown.list is not None
    assert shown.list.short_because == SHORT_SENTENCES.get(word)


@pytest.mark.parametrize("value", [b"{oops", b"[]", b"\xff\xfe", b"", None, b'{"item_id": 5}'])
def test_a_record_that_is_no_event_keeps_its_place(value: bytes | None) -> None:
    """The page shows that something came, not that nothing did."""
    seen = UserObservation("u1", [SeenRecord("events", 3, 12, START_MS, value)])
    shown = person(seen, lambda _: None, START_MS)
    assert (shown.events[0].offset, shown.events[0].type) == (12, None)


def test_a_list_of_an_unknown_schema_is_said_to_be_unreadable() -> None:
    """Never a crash, never a silent gap."""
    seen = UserObservation("u1", [], SeenRecord("recommendations", 0, 1, START_MS, b'{"rec_id": 5}'))
    shown = person(seen, lambda _: None, START_MS)
    assert shown.state == "unreadable"
    assert "cannot be read" in shown.message


@pytest.mark.parametrize(
    ("search", "state", "words"),
    [
        ("searching", "searching", "Looking back"),
        ("busy", "searching", "Other look-ups"),
        ("finished", "unknown", "no events and no list"),
        ("timed-out", "unknown", "older records"),
        ("failed", "unknown", "did not answer"),
    ],
)
def test_an_unknown_user_is_told_how_far_the_search_is(search: str, state: str, words: str) -> None:
    """Each state of the search has its sentence."""
    shown = person(UserObservation("u1", search=search), lambda _: None, START_MS)  # type: ignore[arg-type]
    assert shown.state == state
    assert words in shown.message


def test_a_tombstone_says_that_the_list_is_gone() -> None:
    """A forgotten user is not an unknown one."""
    shown = person(UserObservation("u1", [], SeenRecord("r", 0, 1, START_MS, None)), lambda _: None, START_MS)
    assert (shown.state, shown.list) == ("gone", None)
