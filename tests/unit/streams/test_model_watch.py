"""When a model folder is read, what is done with a bad one, and the swap beside batches."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pytest

from index import AutoIndex
from streams.core.errors import ModelUnusable
from streams.core.events import Item
from streams.core.ports import VectorIndex
from streams.core.worker_details import ModelReport, TrainingReport
from streams.kafka import background
from streams.kafka import model_watch as module
from streams.kafka.model_watch import ModelWatch, export_model
from streams.metrics import Metrics
from streams.recommend.asked import with_stored
from streams.recommend.engine import Model
from tests.fakes_core import World, event, offsets, world
from tests.fakes_model import assert_serves, integers, lived, trained


@dataclass
class FakeFolder:
    """Holds a model, or an error; its mark changes with what is put into it."""

    place: str = "some/folder"
    held: Model | ModelUnusable | None = None
    marks: int = 0
    loads: int = 0
    while_loading: Callable[[], object] = field(default=lambda: None)

    def put(self, held: Model | ModelUnusable) -> None:
        """As a training does."""
        self.held = held
        self.marks += 1

    def mark(self) -> int:
        """How often something was put."""
        return self.marks

    def is_served_by(self, name: str) -> bool:
        """By the encoder's name."""
        return isinstance(self.held, Model) and name == self.held.profiles.name

    def report(self, name: str) -> ModelReport | None:
        """Of what is held."""
        if not self.is_served_by(name):
            return None
        return ModelReport(name, "gated-recurrence", 8, TrainingReport(events=self.marks))

    def load(self) -> Model:
        """What is held."""
        self.loads += 1
        held = self.held
        self.while_loading()
        if not isinstance(held, Model):
            raise held or ModelUnusable("There is no model.")
        return held


@dataclass
class Setting:
    """A watch with everything around it at hand."""

    found: World
    folder: FakeFolder
    compute: ThreadPoolExecutor
    followed: list[VectorIndex]
    watch: ModelWatch

    def feed(self, *users: str, first: int) -> None:
        """A batch in the compute thread, as the pipelines feed theirs."""
        batch = [event(user, f"i{n}", at_s=first) for n, user in enumerate(users)]
        self.compute.submit(self.found.feed, batch, first).result()


@pytest.fixture
def setting() -> Iterator[Setting]:
    """Nothing in the folder yet."""
    found, folder, followed = lived(), FakeFolder(), list[VectorIndex]()
    found.index.close = lambda: None  # type: ignore[attr-defined]
    with ThreadPoolExecutor(1) as compute:
        watch = ModelWatch(folder, found.engine, compute, interval_s=0.01, on_switch=followed.append)
        yield Setting(found, folder, compute, followed, watch)
        watch.stop()


def test_another_model_in_the_folder_comes_into_service(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    """The engine has it, whoever watches the index hears of the new one, and log and status say so."""
    model = trained()
    setting.folder.put(model)
    caplog.set_level(logging.INFO)
    setting.watch.check()
    assert_serves(setting.found, model)
    assert setting.followed == [model.index]
    status = setting.watch.status()
    assert (status.switches, status.failures, status.problem, status.coming) == (1, 0, None, None)
    assert status.switch_s is not None
    assert f"{model.profiles.name} serves 12 users" in caplog.text


def test_a_folder_that_has_not_changed_is_not_read_again(setting: Setting) -> None:
    """Neither a good one nor a bad one; and not one whose model serves already."""
    setting.folder.put(trained())
    for _ in range(3):
        setting.watch.check()
    assert setting.folder.loads == 1
    setting.folder.marks += 1
    setting.watch.check()
    assert setting.folder.loads == 1, "another file, the same model"
    setting.folder.put(ModelUnusable("It is damaged."))
    for _ in range(3):
        setting.watch.check()
    assert setting.folder.loads == 2


def test_a_bad_folder_leaves_the_old_model_and_says_why(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    """One warning; the next good one clears it."""
    setting.folder.put(ModelUnusable("weights are damaged: train again."))
    setting.watch.check()
    setting.folder.marks += 1
    setting.watch.check()
    status = setting.watch.status()
    assert (status.problem, status.failures, status.fallback) == ("weights are damaged: train again.", 2, False)
    assert caplog.text.count("weights are damaged: train again.") == 1
    assert setting.found.engine.encoder.name == "fake@1"
    setting.folder.put(trained())
    setting.watch.check()
    assert setting.watch.status().problem is None


def test_a_folder_that_is_replaced_while_it_is_read_is_read_again(setting: Setting) -> None:
    """That its files went missing is no failure."""
    model = trained()
    setting.folder.put(ModelUnusable("a file is missing"))
    setting.folder.while_loading = lambda: setting.folder.put(model)
    setting.watch.check()
    assert (setting.watch.status().failures, setting.watch.status().problem) == (0, None)
    setting.folder.while_loading = lambda: None
    setting.watch.check()
    assert_serves(setting.found, model)


def test_a_fallback_ends_with_the_first_good_model(setting: Setting) -> None:
    """The engine began with a built-in model in its place: status and metric say so until then."""
    setting.found.engine.fallback = "There is no model."
    watch = ModelWatch(
        setting.folder, setting.found.engine, setting.compute, interval_s=1, on_switch=setting.followed.append
    )
    metrics = Metrics()
    export_model(metrics, watch.status())
    assert (watch.status().fallback, watch.status().problem) == (True, "There is no model.")
    assert b"nearstream_model_fallback 1.0" in metrics.exposition()
    setting.folder.put(trained())
    watch.check()
    export_model(metrics, watch.status())
    assert (watch.status().fallback, watch.status().problem) == (False, None)
    assert b"nearstream_model_fallback 0.0" in metrics.exposition()
    assert b"nearstream_model_switches 1.0" in metrics.exposition()


def test_batches_go_on_during_a_swap(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users move, come and go, another model comes into the folder: nothing is lost, and both come into service."""
    first, second, calm = trained(1), trained(2), lived()
    setting.folder.put(first)
    steps = iter(
        [
            lambda: setting.feed("u0", "new", first=700),
            lambda: setting.compute.submit(setting.found.engine.forget, ["u1"]).result(),
            lambda: setting.folder.put(second),
            lambda: setting.feed("u1", "u2", "late", first=710),
            lambda: setting.compute.submit(setting.found.engine.describe, [Item("i3", title="a word")]).result(),
            lambda: setting.feed("u0", first=720),
        ]
    )
    take_in = module.NextModel.take_in

    def taken_in_slowly(coming: module.NextModel, changes: object) -> None:
        if threading.current_thread() is threading.main_thread():  # not the last ones, in the compute thread
            next(steps, lambda: None)()
        take_in(coming, changes)  # type: ignore[arg-type]

    monkeypatch.setattr(module.NextModel, "take_in", taken_in_slowly)
    changes = module.NextModel.changes
    monkeypatch.setattr(module.NextModel, "changes", lambda coming: changes(coming, 3, 3))
    setting.watch.check()
    assert next(steps, None) is None, "the swap was over before everything had happened"
    assert_serves(setting.found, first)
    setting.watch.check()
    assert_serves(setting.found, second)
    assert setting.watch.status().switches == 2
    calm.feed([event("u0", "i0", at_s=700), event("new", "i1", at_s=700)], 700)
    calm.engine.forget(["u1"])
    calm.feed([event("u1", "i0", at_s=710), event("u2", "i1", at_s=710), event("late", "i2", at_s=710)], 710)
    calm.feed([event("u0", "i0", at_s=720)], 720)
    assert integers(setting.found) == integers(calm)


def test_an_error_in_the_middle_leaves_the_old_model_and_the_next_one_has_its_chance(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    """Its index is closed, the log has the traceback, the status the reason."""
    model, next_one = trained(1), trained(2)

    def broken(*_: object) -> np.ndarray:
        raise MemoryError("no room")

    model.profiles.step = broken  # type: ignore[method-assign, assignment]
    setting.folder.put(model)
    setting.watch.check()
    assert setting.found.engine.encoder.name == "fake@1"
    assert setting.watch.status().problem == "the swap failed: MemoryError('no room')"
    assert "Traceback" in caplog.text
    assert model.index._builder.cancelled()  # type: ignore[attr-defined]
    assert setting.watch.status().coming is None
    setting.folder.put(next_one)
    setting.watch.check()
    assert_serves(setting.found, next_one)


def test_when_changes_outrun_the_swap_the_rest_is_taken_in_at_once(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pause is better than never."""
    monkeypatch.setattr(module, "ROUNDS_MAX", 3)
    take_in, switch, moments = module.NextModel.take_in, module.NextModel.switch, count(1000, 20)

    def outrun(coming: module.NextModel, changes: object) -> None:
        take_in(coming, changes)  # type: ignore[arg-type]
        if threading.current_thread() is threading.main_thread():
            setting.feed(*(f"u{n}" for n in range(12)), first=next(moments))

    monkeypatch.setattr(module.NextModel, "take_in", outrun)
    monkeypatch.setattr(module.NextModel, "switch", lambda coming: switch(coming, 2))
    model = trained()
    setting.folder.put(model)
    setting.watch.check()
    assert "changes outrun the swap" in caplog.text
    assert_serves(setting.found, model)


def test_the_switch_waits_for_the_graph(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the first batches after it would be answered by scanning."""
    model = trained()
    stats = model.index.stats
    looks = iter([True, True, False])
    served: list[str] = []

    def building() -> object:
        served.append(setting.found.engine.encoder.name)
        return stats()._replace(building=next(looks))

    monkeypatch.setattr(module, "BUILD_LOOK_S", 0.0)
    monkeypatch.setattr(model.index, "stats", building)
    setting.folder.put(model)
    setting.watch.check()
    assert served == ["fake@1"] * 3
    assert setting.found.engine.encoder is model.profiles


def test_a_stop_ends_a_swap_without_a_trace(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    """The worker leaves in bounded time; no failure is counted."""
    model = trained()
    setting.folder.put(model)
    setting.folder.while_loading = setting.watch.stop
    caplog.set_level(logging.INFO)
    setting.watch.check()
    assert setting.found.engine.encoder.name == "fake@1"
    assert setting.watch.status().failures == 0
    assert "is not taken in: the worker stops" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_stop_ends_the_graph_of_a_model_that_comes(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even when the swap's thread is deep in a text encoder: a build would hold the process up."""
    model = trained()
    reached, go_on = threading.Event(), threading.Event()
    take_in = module.NextModel.take_in

    def stuck(coming: module.NextModel, changes: object) -> None:
        reached.set()
        assert go_on.wait(20)
        take_in(coming, changes)  # type: ignore[arg-type]

    monkeypatch.setattr(background, "STOP_S", 0.01)
    monkeypatch.setattr(module.NextModel, "take_in", stuck)
    setting.folder.put(model)
    setting.watch.start()
    assert reached.wait(20)
    setting.watch.stop()
    assert model.index._builder.cancelled()  # type: ignore[attr-defined]
    go_on.set()
    setting.watch._thread.join(20)
    assert setting.found.engine.encoder.name == "fake@1"


def test_a_swap_that_takes_long_says_how_far_it_is(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log and, while it runs, in the status."""
    caplog.set_level(logging.INFO)
    changes, shown = module.NextModel.changes, list[tuple[str | None, float]]()

    def by_three(coming: module.NextModel) -> object:
        status = setting.watch.status()
        shown.append((status.coming, status.progress))
        return changes(coming, 3, 3)

    monkeypatch.setattr(module, "PROGRESS_EVERY_S", -1.0)
    monkeypatch.setattr(module.NextModel, "changes", by_three)
    monkeypatch.setattr(module.NextModel, "switch", lambda coming: None)
    setting.folder.put(trained())
    setting.watch.check()
    assert shown[0] == ("gated-recurrence@random0", 0.0)
    progress = [share for _, share in shown]
    assert progress == sorted(progress)
    assert len(set(progress)) > 3
    assert "gated-recurrence@random0 is 44 % ready" in caplog.text


def test_a_thread_looks_until_it_is_stopped(setting: Setting) -> None:
    """And none is started where looking is switched off."""
    switched = threading.Event()
    watch = ModelWatch(
        setting.folder,
        setting.found.engine,
        setting.compute,
        interval_s=0.01,
        on_switch=lambda _: switched.set(),
    )
    setting.folder.put(trained())
    watch.start()
    assert switched.wait(20)
    watch.stop()
    assert not watch._thread.is_alive
    never = ModelWatch(setting.folder, setting.found.engine, setting.compute, interval_s=0, on_switch=lambda _: None)
    never.start()
    assert not never._thread.is_alive
    never.stop()


def test_a_batch_in_flight_at_the_switch_counts(setting: Setting) -> None:
    """Prepared before, committed after: the profile has it, and the new model's state of it."""
    model = trained()
    batch = [event("u4", "i2", at_s=600)]
    refresh = setting.compute.submit(setting.found.engine.prepare, batch, offsets(1, 600), 0).result()
    before = setting.found.profile("u4")["events"]
    setting.folder.put(model)
    setting.watch.check()
    setting.compute.submit(setting.found.engine.apply, refresh).result()
    assert setting.found.profile("u4")["events"] == before + 1
    assert_serves(setting.found, model)
    assert isinstance(setting.found.engine.index, AutoIndex)


def test_how_much_of_the_lists_stays_the_same_is_told(setting: Setting) -> None:
    """Of neighbours and items, as the lists of all users say that are made before and after; also as a metric."""
    found, nobody = setting.found, np.empty(0, np.int64)
    slots = np.arange(12, dtype=np.int32)

    def lists() -> tuple[list[set[int]], list[set[int]]]:
        made = found.engine.prepare(
            [], nobody, 0, lessons=False, choose=lambda u: with_stored(u, slots, found.store, found.engine.encoder)
        )
        assert made.ranking is not None
        return [set(row[:10]) - {-1} for row in made.neighbour_slots.tolist()], [
            set(row[:10]) - {-1} for row in made.ranking.items.tolist()
        ]

    before = lists()
    setting.folder.put(trained())
    setting.watch.check()
    after = lists()
    expected = [
        np.mean([len(a & b) / max(len(a), len(b)) for a, b in zip(one, other, strict=True) if a or b])
        for one, other in zip(before, after, strict=True)
    ]
    overlap = setting.watch.status().overlap
    assert overlap is not None
    assert (overlap.before, overlap.users, overlap.k) == ("fake@1", 12, 10)
    assert overlap.neighbours == pytest.approx(expected[0], abs=1e-4)
    assert overlap.items == pytest.approx(expected[1], abs=1e-4)
    metrics = Metrics()
    export_model(metrics, setting.watch.status())
    assert f'nearstream_model_overlap_share{{lists="neighbours"}} {overlap.neighbours}' in metrics.exposition().decode()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_model_whose_lists_cannot_be_compared_serves_all_the_same(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, moment: str
) -> None:
    """The log says what went wrong, and no failed swap is counted."""

    def broken(_: object) -> bool:
        raise ValueError("no lists today")

    monkeypatch.setattr(module.ListComparison, moment, broken)
    model = trained()
    setting.folder.put(model)
    setting.watch.check()
    assert_serves(setting.found, model)
    status = setting.watch.status()
    assert (status.overlap, status.failures, status.switches) == (None, 0, 1)
    assert "no lists today" in caplog.text


def test_the_model_of_before_is_told_beside_the_one_in_service(setting: Setting) -> None:
    """With what its folder said of it while it was there; of more than one before nothing is kept."""
    assert [report.name for report in setting.watch.reports()] == ["fake@1"]
    names = []
    for seed in (1, 2):
        model = trained(seed)
        setting.folder.put(model)
        setting.watch.check()
        names.append(model.profiles.name)
    reports = setting.watch.reports()
    assert [report.name for report in reports] == names[::-1]
    assert [report.training.events for report in reports if report.training] == [2, 1]


def test_a_built_in_model_was_not_trained_and_a_folder_that_is_gone_says_nothing(setting: Setting) -> None:
    """Trained, but nobody knows on what; in place of a folder's model the built-in one stays what it is."""
    (report,) = setting.watch.reports()
    assert report.training == TrainingReport()
    setting.found.engine.fallback = "There is no model."
    watch = ModelWatch(setting.folder, setting.found.engine, setting.compute, interval_s=1, on_switch=print)
    assert watch.reports() == [ModelReport("fake@1", "fake", 4)]


def test_the_world_of_these_tests_is_not_the_trained_one() -> None:
    """Else a swap would change nothing that can be seen."""
    assert world().encoder.state_width != trained().profiles.state_width
