"""Lists that come late: shed ones are owed until they are there, reverse refreshes are numbered, both exactly once."""

from __future__ import annotations

from streams.core.events import Event, EventType
from streams.core.recommendations import Recommendation
from streams.core.shedding import Shedding
from streams.kafka.codec import decode_recommendation
from streams.kafka.commit_note import CommitNote
from streams.kafka.dead_letter import DeadLetterBound
from streams.kafka.late_lists import Plan
from streams.kafka.processor import Output, Processor
from streams.kafka.status import coalesced, lists_by_cause
from tests.fakes_core import START_MS, World, event, event_records, world

NOW_MS = START_MS + 5000
PARTITION = 0
VIEWS, CLICKS = Plan(Shedding.VIEWS), Plan(Shedding.CLICKS)
CAUGHT_UP = Plan(late_lists_max=10)
EVENTS = [
    event("viewer", "a"),
    event("clicker", "a"),
    event("clicker", "b", EventType.CLICK),
    event("buyer", "a"),
    event("buyer", "b", EventType.PURCHASE),
]


def processor(found: World, owed_max: int = 100, reverse_per_s: float = 0.0) -> Processor:
    """One partition, two neighbours in a list, taken up with nothing noted."""
    target = Processor(
        found.engine,
        "events",
        1,
        2,
        lambda: DeadLetterBound(1.0, 1000),
        reverse_per_s=reverse_per_s,
        owed_max=owed_max,
    )
    target.late.take_up(PARTITION, CommitNote(), 0)
    return target


def commit(target: Processor, events: list[Event], first_offset: int, plan: Plan = CAUGHT_UP) -> Output:
    """Prepares and applies a batch."""
    output = target.prepare(event_records(events, first_offset), PARTITION, NOW_MS, plan)
    target.apply(output)
    return output


def lists(output: Output) -> dict[str, Recommendation]:
    """The lists by the key they are sent with."""
    return {key.decode(): decode_recommendation(value) for key, value in output.lists}


def test_under_overload_profiles_move_and_lists_are_shed_in_order() -> None:
    """Views first, then clicks, a purchase never; every profile is in the changelog and in memory."""
    for plan, listed, shed in [
        (Plan(Shedding.REVERSE), {"viewer", "clicker", "buyer"}, {}),
        (VIEWS, {"clicker", "buyer"}, {"view": 1}),
        (CLICKS, {"buyer"}, {"view": 1, "click": 1}),
    ]:
        found = world()
        output = commit(processor(found), EVENTS, 0, plan)
        assert set(lists(output)) == listed
        assert output.late.shed_kinds == shed
        assert [key.decode() for key, _ in output.profiles] == ["viewer", "clicker", "buyer"]
        assert [found.profile(user)["events"] for user in ("viewer", "clicker", "buyer")] == [1, 2, 2]
        assert output.refresh is not None
        assert len(output.refresh.neighbour_slots) == len(listed), "no search for who gets no list"


def test_only_answered_events_are_fresh() -> None:
    """Positions of the events that a list of this batch answers, and of the last one of each list."""
    output = commit(processor(world()), EVENTS, 0, VIEWS)
    assert output.accepted.tolist() == [0, 1, 2, 3, 4]
    assert output.answered.tolist() == [1, 2, 3, 4]
    assert output.lists_newest.tolist() == [2, 4]
    assert coalesced(output) == 2


def test_an_owed_list_comes_without_an_event() -> None:
    """Once caught up, each debtor gets one list; it says the profile's count, its last event and a name of its own."""
    target = processor(world())
    output = commit(target, EVENTS, 0, CLICKS)
    assert output.late.note == CommitNote(0, 0)
    assert target.late.is_due(PARTITION, NOW_MS)
    paid = commit(target, [], 5)
    sent = lists(paid)
    assert list(sent) == ["viewer", "clicker"]
    assert [(list_.rec_id, list_.cause) for list_ in sent.values()] == [("0-0-1", "event"), ("0-2-2", "event")]
    assert (sent["clicker"].source.offset, sent["clicker"].profile.events) == (2, 2)
    assert sent["clicker"].source.event_time == START_MS
    assert (paid.profiles, paid.late.note) == ([], CommitNote(2, None))
    assert lists_by_cause(paid) == {"event": 0, "owed": 2, "neighbour": 0}
    assert [debt.sent_ms for debt in paid.late.paid] == [START_MS, START_MS]
    assert not target.late.is_due(PARTITION, NOW_MS)


def test_nothing_is_paid_before_the_commit() -> None:
    """A late list whose transaction failed is owed still, and gets the same name at the next attempt."""
    target = processor(world())
    commit(target, EVENTS, 0, VIEWS)
    outputs = [target.prepare([], PARTITION, NOW_MS, CAUGHT_UP) for _ in range(2)]
    assert outputs[0].lists == outputs[1].lists != []
    assert target.late.is_due(PARTITION, NOW_MS)


def test_a_list_of_an_event_pays_the_debt() -> None:
    """Who gets a list anyway is owed none; who is shed again keeps the place in the row."""
    target = processor(world())
    commit(target, [event("u1", "a"), event("u2", "a")], 0, VIEWS)
    commit(target, [event("u2", "b"), event("u3", "a"), event("u1", "b")], 2, VIEWS)
    output = commit(target, [event("u1", "c", EventType.CART)], 5, VIEWS)
    assert (set(lists(output)), output.late.note) == ({"u1"}, CommitNote(0, 1))
    assert coalesced(output) == 1
    assert list(lists(commit(target, [], 6))) == ["u2", "u3"]


def test_late_lists_ride_with_a_batch_as_far_as_there_is_room() -> None:
    """Whoever the batch touches gets the list of the event; the longest waiting come first, the others stay."""
    target = processor(world())
    commit(target, [event(f"u{n}", "a") for n in range(5)], 0, VIEWS)
    output = commit(target, [event("u0", "b")], 5, Plan(late_lists_max=2))
    assert [(user, list_.rec_id) for user, list_ in lists(output).items()] == [
        ("u0", "0-5"), ("u1", "0-1-1"), ("u2", "0-2-2")
    ]  # fmt: skip
    assert output.late.note == CommitNote(2, 3)
    assert list(lists(commit(target, [], 6))) == ["u3", "u4"]


def test_after_a_restart_debts_are_found_by_the_note() -> None:
    """Who is owed a list gets one from the next owner, under a name that was never used."""
    found = world()
    output = commit(processor(found), [event("u0", "a", EventType.CART)], 0)
    target = processor(found)
    output = commit(target, [event("u1", "a"), event("u2", "a", EventType.CART), event("u3", "a")], 1, VIEWS)
    assert output.late.note == CommitNote(0, 1)
    successor = processor(found)
    assert successor.late.take_up(PARTITION, CommitNote(7, 1), 4) == 3
    sent = lists(commit(successor, [], 4))
    assert {user: list_.rec_id for user, list_ in sent.items()} == {"u1": "0-1-8", "u2": "0-2-9", "u3": "0-3-10"}
    assert successor.late.take_up(PARTITION, CommitNote(10, None), 4) == 0


def test_past_the_bound_debtors_are_looked_up() -> None:
    """Two names fit; the other three come all the same, and the overflow is counted."""
    target = processor(world(), owed_max=2)
    commit(target, [event(f"u{n}", "a") for n in range(5)], 0, VIEWS)
    assert target.late.overflows == 3
    served, output = [], None
    while target.late.is_due(PARTITION, NOW_MS):
        output = commit(target, [], 5)
        served += list(lists(output))
        assert len(served) <= 5
    assert served == ["u0", "u1", "u2", "u3", "u4"]
    assert output is not None
    assert output.late.note == CommitNote(5, None)


def test_the_forgotten_are_owed_nothing() -> None:
    """A tombstone between the event and the list: no list, no debt."""
    found = world()
    target = processor(found)
    commit(target, [event("u1", "a"), event("u2", "a")], 0, VIEWS)
    found.engine.forget(["u1"])
    assert list(lists(commit(target, [], 2))) == ["u2"]
    assert not target.late.is_due(PARTITION, NOW_MS)


def test_a_neighbours_move_refreshes_a_list() -> None:
    """The list says so, points to the user's own last event, is numbered, and moves no profile."""
    found = world()
    target = processor(found, reverse_per_s=100.0)
    commit(target, [event("u1", "a", at_s=1.0), event("u2", "b")], 0, Plan())
    moved = commit(target, [event("u3", "a")], 2, Plan())
    assert set(lists(moved)) == {"u3"}
    assert target.late.is_due(PARTITION, NOW_MS)
    output = commit(target, [], 3)
    sent = lists(output)
    assert set(sent) == {"u1", "u2"}
    assert [list_.rec_id for list_ in sent.values()] == ["0-0-1", "0-1-2"]
    assert {list_.cause for list_ in sent.values()} == {"neighbour"}
    assert (sent["u1"].source.offset, sent["u1"].source.event_time) == (0, START_MS + 1000)
    assert sent["u1"].profile.events == 1
    assert sent["u1"].neighbours[0].user_id == "u3"
    assert output.profiles == []
    assert lists_by_cause(output) == {"event": 0, "owed": 0, "neighbour": 2}
    assert (found.profile("u1")["version"], output.late.note) == (1, CommitNote(2, None))
    assert not target.late.is_due(PARTITION, NOW_MS)


def test_the_first_users_of_all_find_each_other() -> None:
    """When they came, in one batch, nobody was there; each gets one more list, with the others in it."""
    target = processor(world(), reverse_per_s=100.0)
    first = lists(commit(target, [event(f"u{n}", f"i{n}") for n in range(3)], 0, Plan()))
    assert {user: list_.neighbours for user, list_ in first.items()} == {"u0": [], "u1": [], "u2": []}
    refreshed = lists(commit(target, [], 3))
    for user, list_ in refreshed.items():
        assert {neighbour.user_id for neighbour in list_.neighbours} == {"u0", "u1", "u2"} - {user}
        assert {item.item_id for item in list_.items} == {"i0", "i1", "i2"} - {f"i{user[1]}"}
    assert set(refreshed) == {"u0", "u1", "u2"}
    assert not target.late.is_due(PARTITION, NOW_MS)


def test_a_lone_user_is_not_refreshed_for_nobody() -> None:
    """The list says why it is empty, and the next user's event fills it."""
    target = processor(world(), reverse_per_s=100.0)
    (alone,) = lists(commit(target, [event("ada", "red-shoes")], 0, Plan())).values()
    assert (alone.items, alone.short_because) == ([], "catalogue-exhausted")
    assert not target.late.is_due(PARTITION, NOW_MS)
    commit(target, [event("ben", "blue-shoes")], 1, Plan())
    (list_,) = lists(commit(target, [], 2)).values()
    assert (list_.user_id, [item.item_id for item in list_.items]) == ("ada", ["blue-shoes"])


def test_reverse_refreshes_are_the_first_to_be_shed() -> None:
    """From the first level on none comes; with the partition given up nobody waits any more."""
    target = processor(world(), reverse_per_s=100.0)
    commit(target, [event("u1", "a"), event("u2", "b")], 0, Plan())
    commit(target, [event("u3", "a")], 2, Plan())
    assert set(lists(commit(target, [event("u4", "b")], 3, Plan(Shedding.REVERSE)))) == {"u4"}
    target.late.give_up(PARTITION)
    assert not target.late.is_due(PARTITION, NOW_MS)


def test_a_note_survives_and_foreign_metadata_says_nothing() -> None:
    """What is written is read; nothing to say is the empty string; other programs' words are no error."""
    for note in (CommitNote(), CommitNote(3, None), CommitNote(1 << 60, 1 << 60)):
        assert CommitNote.decode(note.encode()) == note
        assert len(note.encode()) < 100
    assert CommitNote().encode() == ""
    for foreign in (None, "", "reset by hand", "[1]", '{"late_lists": "many"}', "\x00"):
        assert CommitNote.decode(foreign) == CommitNote()
