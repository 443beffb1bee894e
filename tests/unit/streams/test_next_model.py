"""Another model made ready beside the one that serves: what moves meanwhile, and the switch."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np
import pytest

from streams.core.events import EventType, Item
from streams.core.ports import Floats
from streams.core.profile import ROWS_MIN
from streams.recommend.next_model import NextModel
from tests.fakes_core import contents, event, offsets, row_of
from tests.fakes_model import assert_serves, integers, lived, trained


def finish(coming: NextModel, between: Callable[[], object] = lambda: None, slices: int = 4) -> None:
    """The whole swap in slices of a few users, with something else in between."""
    while changes := coming.changes(slices, slices):
        between()
        coming.take_in(changes)
    between()
    while (changes := coming.switch(slices)) is not None:
        coming.take_in(changes)


def test_a_swap_changes_states_vectors_and_name_and_nothing_else() -> None:
    """Events, versions, offsets, histories and exclusions of all users stay bit for bit."""
    found, model = lived(), trained()
    before = integers(found)
    finish(NextModel(found.engine, model))
    assert_serves(found, model)
    assert integers(found) == before


def test_until_the_switch_the_old_model_serves() -> None:
    """All of the new one is ready, and yet nothing that is served has changed."""
    found = lived()
    before = contents(found)
    coming = NextModel(found.engine, trained())
    while changes := coming.changes(4, 4):
        coming.take_in(changes)
    assert coming.progress == 1.0
    assert contents(found) == before
    assert found.engine.encoder.name == "fake@1"


def test_whatever_moves_between_the_slices_is_taken_in_again() -> None:
    """Users who moved, came, left, came back, and items that came or got other words."""
    found, model = lived(), trained()
    coming = NextModel(found.engine, model)
    offset = 1000

    def feed(*batch: tuple[str, str]) -> None:
        nonlocal offset
        found.feed([event(user, item, at_s=offset) for user, item in batch], first_offset=offset)
        offset += len(batch)

    steps = iter(
        [
            lambda: feed(("u0", "i4"), ("new", "i1"), ("u11", "unseen")),
            lambda: found.engine.forget(["u1"]),
            lambda: feed(("u1", "i2"), ("u2", "i3"), ("brief", "i1")),
            lambda: found.engine.describe([Item("unseen", title="green hat"), Item("fresh", title="tall lamp")]),
            lambda: found.engine.forget(["brief", "u10"]),
            lambda: feed(("new", "fresh"), ("u0", "i0")),
        ]
    )

    def something_else() -> None:
        next(steps, lambda: None)()

    finish(coming, something_else)
    assert next(steps, None) is None, "the swap was over before everything had happened"
    assert_serves(found, model)
    assert "brief" not in found.store.slot_of


def test_who_changes_all_the_time_keeps_nobody_waiting() -> None:
    """The next slice begins where the last one ended."""
    found = lived()
    coming = NextModel(found.engine, trained())
    coming.take_in(coming.changes(0, 100))
    seen: list[int] = []
    for turn in range(4):
        changes = coming.changes(3, 100)
        assert changes.is_full
        seen += changes.ids
        coming.take_in(changes)
        found.feed([event(f"u{n}", "i0") for n in range(3)], first_offset=2000 + 3 * turn)
    assert sorted(seen) == list(range(12))


def test_the_forgotten_leave_the_model_that_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its states nor its index keep a user who was forgotten after being taken in."""
    found, model = lived(), trained()
    coming = NextModel(found.engine, model)
    while changes := coming.changes():
        coming.take_in(changes)
    slot = found.store.slot_of["u3"]
    assert slot in model.index.ids()
    found.engine.forget(["u3"])
    forget, erased = model.index.forget, list[int]()
    monkeypatch.setattr(model.index, "forget", lambda ids: erased.extend(ids) or forget(ids))
    finish(coming)
    assert slot not in model.index.ids()
    assert erased == [slot], "to be taken out of the graph's bytes too"
    assert not found.store.columns.state[slot].any()


def test_more_users_and_items_than_there_was_room_for_find_it() -> None:
    """The columns grow between two slices."""
    found, model = lived(), trained()
    coming = NextModel(found.engine, model)
    coming.take_in(coming.changes())
    many = [event(f"more{n}", f"item{n}") for n in range(ROWS_MIN + 50)]
    found.feed(many, first_offset=5000)
    finish(coming, slices=400)
    assert_serves(found, model)
    found.feed([event(f"again{n}", f"thing{n}") for n in range(2 * ROWS_MIN)], first_offset=50_000)
    assert len(found.store) == 12 + 3 * ROWS_MIN + 50


def test_a_switch_with_too_much_left_gives_it_back() -> None:
    """So that it is encoded elsewhere, and the compute thread is held up for a moment only."""
    found = lived()
    coming = NextModel(found.engine, trained())
    left = coming.switch(3)
    assert left is not None
    assert len(left) > 3
    assert found.engine.encoder.name == "fake@1"


def test_at_once_takes_in_all_that_is_left() -> None:
    """When changes outrun the swap."""
    found, model = lived(), trained()
    NextModel(found.engine, model).switch_at_once()
    assert_serves(found, model)


def test_a_batch_that_was_prepared_before_the_switch_is_stored_as_the_new_model_sees_it() -> None:
    """Its transaction runs meanwhile: nothing of it is lost, and no state of the old model enters the store."""
    found, calm, model = lived(), lived(), trained()
    batch = [event("u0", "i3", at_s=900), event("newcomer", "i1", at_s=901), event("u2", "i2", EventType.PURCHASE, 902)]
    refresh = found.engine.prepare(batch, offsets(3, 500), 0)
    finish(NextModel(found.engine, model))
    found.engine.apply(refresh)
    calm.feed(batch, first_offset=500)
    assert integers(found) == integers(calm)
    assert_serves(found, model)
    assert found.popularity() == pytest.approx(calm.popularity())


def test_an_error_at_the_switch_leaves_the_old_model_in_service() -> None:
    """Whole: the next batch gives what it gives without the attempt."""
    found, calm = lived(), lived()
    model = trained()
    coming = NextModel(found.engine, model)
    while changes := coming.changes():
        coming.take_in(changes)

    def broken(states: Floats) -> Floats:
        raise ValueError("no vectors today")

    for world_ in (found, calm):
        world_.feed([event("u0", "i1", at_s=700)], first_offset=700)
    model.profiles.vectors = broken  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="no vectors today"):
        coming.switch()
    batch = [event("u0", "i2", at_s=800), event("u5", "i0", at_s=801)]
    refreshes = [w.engine.prepare(batch, offsets(2, 800), 0) for w in (found, calm)]
    assert np.array_equal(refreshes[0].update.vectors, refreshes[1].update.vectors)
    assert np.array_equal(refreshes[0].neighbour_slots, refreshes[1].neighbour_slots)


def test_states_of_another_shape_are_refused_before_anything_moves() -> None:
    """The engine checks what it is handed."""
    found, model = lived(), trained()
    before, vectors = contents(found), found.catalogue.vectors.copy()
    with pytest.raises(ValueError, match="expected states of the shape"):
        found.engine.serve(model, np.zeros((3, 24), np.float32), np.zeros((found.catalogue.capacity, 8), np.float32))
    states = np.zeros((len(found.store.columns.version), model.profiles.state_width), np.float32)
    with pytest.raises(ValueError, match="expected vectors of the shape"):
        found.engine.serve(model, states, np.zeros((2, 8), np.float32))
    assert contents(found) == before
    assert np.array_equal(found.catalogue.vectors, vectors)


def test_the_model_of_before_is_let_go_of_outside_the_compute_thread() -> None:
    """Word tables take milliseconds to free: they live until the swap's own object goes, and no longer."""
    found = lived()
    encoder, states = weakref.ref(found.items), weakref.ref(found.store.columns.state)
    coming = NextModel(found.engine, trained())
    found.items = None  # type: ignore[assignment]
    coming.switch_at_once()
    assert encoder() is not None
    assert states() is not None
    del coming
    assert encoder() is None
    assert states() is None


def test_one_model_after_the_other() -> None:
    """A narrower one, then a wider one; each time as if it had served from the start."""
    found = lived()
    for seed, dim in ((1, 16), (2, 4), (3, 8)):
        model = trained(seed, dim)
        finish(NextModel(found.engine, model))
        assert_serves(found, model)
        found.feed([event(f"u{seed}", "i1", at_s=1000 + seed)], first_offset=1000 + seed)
        row = row_of(found.store.take(found.store.slots([f"u{seed}"])), 0)
        assert len(row["state"]) == 4 * model.profiles.state_width


def test_the_ranking_after_a_switch_reads_the_new_vectors() -> None:
    """Lists come without a stumble over another dimension."""
    found, model = lived(), trained(dim=16)
    finish(NextModel(found.engine, model))
    refresh = found.engine.prepare([event("u0", "i4", at_s=950)], offsets(1, 950), 0)
    assert refresh.ranking is not None
    assert refresh.update.vectors.shape == (1, 16)
    assert (refresh.neighbour_slots >= 0).any()
