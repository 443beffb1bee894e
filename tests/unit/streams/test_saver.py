"""When memory is saved, and what happens when it cannot be."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from index.snapshot import read_manifest
from streams.config import load_settings
from streams.kafka import saver as module
from streams.kafka.memory_file import Facts
from streams.kafka.recall import Recalled
from streams.kafka.saver import MemorySaver
from tests.fakes_core import World, event, world

INTERVAL_S, DEADLINE_S = 600.0, 3600.0


class Clock:
    """Stands in for the module's clock."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def time(self) -> float:
        """Epoch seconds."""
        return 1_700_000_000.0 + self.now_s

    def monotonic(self) -> float:
        """Seconds."""
        return self.now_s


class FakeTail:
    """Knows where it is."""

    def offsets(self) -> dict[int, int]:
        """Two partitions."""
        return {0: 5, 1: 8}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time that the saver sees."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def found() -> World:
    """Somebody's memory."""
    found = world()
    found.feed([event("u1"), event("u2")])
    return found


@pytest.fixture
async def compute() -> AsyncIterator[ThreadPoolExecutor]:
    """The compute thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
async def saver(found: World, compute: ThreadPoolExecutor, tmp_path: Path, clock: Clock) -> AsyncIterator[MemorySaver]:
    """Of that memory; started by the test."""
    settings = load_settings(snapshot_interval_s=INTERVAL_S, forget_deadline_s=DEADLINE_S)
    facts = Facts.of(found.engine, "cluster", "profiles")
    made = MemorySaver(settings, tmp_path / "a" / "b", facts, found.engine, FakeTail(), compute)  # type: ignore[arg-type]
    yield made
    await made.stop(0.0)


def recalled(found: World) -> Recalled:
    """A start from what this engine remembers now."""
    return Recalled({0: 1}, found.engine.epoch, saved_at_s=1_600_000_000.0)


async def test_a_save_leaves_a_snapshot_and_figures(saver: MemorySaver, tmp_path: Path, clock: Clock) -> None:
    """With the offsets of the changelog and the time at which the copy began."""
    assert await saver.save()
    manifest = read_manifest(tmp_path / "a" / "b" / "memory")
    assert manifest.offsets == {"0": 5, "1": 8}
    assert saver.saved_at_s == manifest.saved_at_s == clock.time()
    assert saver.saved_bytes > manifest.parts["memory"].bytes > 0
    assert saver.failures == 0


async def test_saves_come_with_the_interval_and_only_when_something_changed(
    saver: MemorySaver, found: World, clock: Clock
) -> None:
    """Counted from the start, then from the last save."""
    saver.start(recalled(found))
    assert saver.saved_at_s == 1_600_000_000.0
    clock.now_s += INTERVAL_S
    assert not saver._is_due(clock.now_s), "nothing changed since the restored snapshot"
    found.feed([event("u3")], 2)
    assert saver._is_due(clock.now_s)
    assert not saver._is_due(clock.now_s - 1)
    await saver.save()
    found.feed([event("u4")], 3)
    clock.now_s += INTERVAL_S - 1
    assert not saver._is_due(clock.now_s)
    assert saver._is_due(clock.now_s + 1)


async def test_a_new_graph_is_worth_a_save(saver: MemorySaver, found: World, clock: Clock) -> None:
    """Though no event came: the next start need not build it again."""
    saver.start(recalled(found))
    found.index.generation += 1
    assert saver._is_due(clock.now_s + INTERVAL_S)
    await saver.save()
    assert not saver._is_due(clock.now_s + INTERVAL_S)


async def test_without_a_usable_snapshot_what_the_log_gave_is_saved(
    saver: MemorySaver, found: World, clock: Clock
) -> None:
    """Even when no event comes after it."""
    saver.start(None)
    assert not saver._is_due(clock.now_s)
    assert saver._is_due(clock.now_s + INTERVAL_S)


async def test_what_cannot_be_used_is_replaced_within_the_deadline(
    saver: MemorySaver, found: World, clock: Clock
) -> None:
    """Whatever the interval: it may hold users who were forgotten since."""
    saver._settings = saver._settings.model_copy(update={"snapshot_interval_s": 100 * INTERVAL_S})
    saver.start(None)
    assert not saver._is_due(clock.now_s + DEADLINE_S / 2 - 1)
    assert saver._is_due(clock.now_s + DEADLINE_S / 2)


@pytest.mark.parametrize(("pending", "share"), [(0, 0.5), (1, 0.9)])
async def test_a_forget_brings_the_save_forward(
    saver: MemorySaver, found: World, clock: Clock, pending: int, share: float
) -> None:
    """To half of the deadline; while the index erases to nine tenths, for its graphs would be missing."""
    saver._settings = saver._settings.model_copy(update={"snapshot_interval_s": 100 * INTERVAL_S})
    saver.start(recalled(found))
    found.engine.forget(["u1"])
    found.index.pending = pending
    assert not saver._is_due(clock.now_s)
    assert not saver._is_due(clock.now_s + share * DEADLINE_S - 1)
    found.engine.forget(["u2"])
    assert saver._is_due(clock.now_s + share * DEADLINE_S), "the second forget puts the first off"
    await saver.save()
    found.feed([event("u3")], 3)
    assert not saver._is_due(clock.now_s + DEADLINE_S)


async def test_a_failed_save_is_said_counted_and_tried_again(
    saver: MemorySaver, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not at once, for a disk that is full stays so for a while; events go on meanwhile."""
    (tmp_path / "a").write_text("a file where the folder should be")
    saver.start(None)
    clock.now_s += INTERVAL_S
    assert not await saver.save()
    assert saver.failures == 1
    assert "the save of before counts" in caplog.text
    assert not saver._is_due(clock.now_s + module.RETRY_S)
    assert saver._is_due(clock.now_s + INTERVAL_S)


async def test_one_worker_of_a_machine_saves(
    saver: MemorySaver, found: World, clock: Clock, compute: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """The second leaves it to the first, until that one is gone."""
    caplog.set_level(logging.INFO)
    other = MemorySaver(saver._settings, saver._folder, saver._facts, found.engine, FakeTail(), compute)  # type: ignore[arg-type]
    assert await saver.save()
    assert not await other.save()
    assert other.failures == 0
    assert "another worker saves" in caplog.text
    other._settings = other._settings.model_copy(update={"forget_deadline_s": 1.0})
    found.engine.forget(["u1"])
    assert not other._is_due(clock.now_s)
    assert not await other.save()
    assert not other._is_due(clock.now_s + 2 * module.RETRY_S), "the other's save will be without that user too"
    await saver.stop(0.0)
    assert await other.save()
    await other.stop(0.0)


async def test_batches_go_on_while_a_save_writes(
    saver: MemorySaver, compute: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the compute thread for its short jobs only; a second wish to save waits for the same one."""
    written, going_on = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        ask = arguments[-1]
        ask(lambda: None)
        written.set()
        assert going_on.wait(10)
        return module.Saved(2, 1, 1, 0, 0)

    monkeypatch.setattr(module, "save_memory", slow)
    saves = [asyncio.create_task(saver.save()) for _ in range(2)]
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, written.wait, 10)
    assert await loop.run_in_executor(compute, lambda: "a batch") == "a batch"
    going_on.set()
    assert await asyncio.gather(*saves) == [True, True]


@pytest.mark.parametrize(
    ("save_s", "changed", "saves"), [(0.4, True, 1), (1.1, True, 0), (0.4, False, 0), (0.0, True, 0)]
)
async def test_a_stop_saves_when_that_fits(
    saver: MemorySaver, found: World, save_s: float, changed: bool, saves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice what the last one took must fit; nothing to save and nothing known of its cost are reasons not to."""
    calls: list[object] = []
    monkeypatch.setattr(module, "save_memory", saved_by(calls.append))
    saver.start(None if changed else recalled(found))
    saver.save_s = save_s
    await saver.stop(2.0)
    assert len(calls) == saves


def saved_by(note: Callable[[object], None]) -> Callable[..., module.Saved]:
    """A save that takes no time."""

    def save(*arguments: object) -> module.Saved:
        note(arguments)
        return module.Saved(2, 1, 1, 0, 0)

    return save


async def test_a_stop_does_not_wait_for_a_save_that_hangs(
    saver: MemorySaver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is given up; the thread ends with the process, or when it can."""
    caplog.set_level(logging.INFO)
    going_on = threading.Event()
    monkeypatch.setattr(module, "save_memory", lambda *_: going_on.wait(10))
    saver.start(None)
    saving = asyncio.create_task(saver.save())
    await asyncio.sleep(0)
    await saver.stop(0.01)
    assert "given up" in caplog.text
    going_on.set()
    with pytest.raises(asyncio.CancelledError):
        await saving
