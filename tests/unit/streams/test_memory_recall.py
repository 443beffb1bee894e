"""A start from saved memory: taken when everything fits, else refused with the reason in the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index.snapshot import Manifest, read_manifest, write_snapshot
from streams.config import Settings, load_settings
from streams.kafka import recall as module
from streams.kafka.memory_check import LogFigures
from streams.kafka.memory_file import Facts, save_memory
from streams.kafka.recall import MemoryPlace, Recalled, memory_place, recall
from tests.fakes_core import World, contents, event, world

HOUR_S = 3600.0


async def compute(function: Callable[..., Any], *arguments: object) -> Any:
    """The compute thread of tests: this one."""
    return function(*arguments)


@pytest.fixture
def source() -> World:
    """A memory worth saving."""
    found = world()
    found.feed([event("u1", "a"), event("u2", "b")])
    return found


@pytest.fixture
def place(tmp_path: Path, source: World) -> MemoryPlace:
    """Where it was saved a minute ago, at offset 7 of the only partition."""
    facts = Facts.of(source.engine, "cluster", "profiles")
    save_memory(tmp_path, source.engine, facts, {0: 7}, time.time() - 60, compute_now)
    return MemoryPlace(tmp_path, facts)


def compute_now(function: Callable[..., Any], *arguments: object) -> Any:
    """For saving."""
    return function(*arguments)


@pytest.fixture
def settings() -> Settings:
    """The defaults; the log is a fake."""
    return load_settings()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What Kafka says of the topic; change it before the call."""
    figures: dict[str, object] = {
        "begins": {0: 0},
        "ends": {0: 9},
        "after_save": {0: None},
        "delete_retention_s": 24 * HOUR_S,
    }

    async def read_log(settings: Settings, topic: str, partitions: int, saved_at_s: float) -> LogFigures:
        return LogFigures(**figures)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "read_log", read_log)
    return figures


@pytest.mark.usefixtures("log")
async def test_a_memory_that_fits_is_taken_over(place: MemoryPlace, source: World, settings: Settings) -> None:
    """With the offsets at which reading goes on."""
    target = world()
    saved_at_s = read_manifest(place.folder / "memory").saved_at_s
    assert await recall(settings, place, 1, target.engine, compute) == Recalled({0: 7}, source.engine.epoch, saved_at_s)
    assert contents(target)["profiles"] == contents(source)["profiles"]


@pytest.mark.usefixtures("log")
async def test_no_snapshot_is_no_reason_to_warn(
    place: MemoryPlace, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first start of all is like that."""
    nowhere = place._replace(folder=tmp_path / "nowhere")
    caplog.set_level("INFO")
    assert await recall(settings, nowhere, 1, world().engine, compute) is None
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "There is no snapshot" in caplog.text


@pytest.mark.parametrize(
    ("facts", "figures", "reason"),
    [
        ({"model": "fake@2"}, {}, "its model is 'fake@1', this worker's 'fake@2'"),
        ({"dim": 8}, {}, "its dim is 4, this worker's 8"),
        ({"recent_items": 9}, {}, "its recent_items is 8"),
        ({"event_id_window": 9}, {}, "its event_id_window is 4"),
        ({"state_width": 9}, {}, "its state_width is 4"),
        ({"trend_half_lives_s": [9.0]}, {}, "its trend_half_lives_s is [3600.0, 86400.0], this worker's [9.0]"),
        ({"sources": ["strangers"]}, {}, "its sources is ['neighbours', 'profile',"),
        ({"cluster": "other"}, {}, "its cluster is 'cluster'"),
        ({"topic": "other"}, {}, "its topic is 'profiles'"),
        ({"schema": 4}, {}, "is not used: its schema is 3, this worker's 4. The"),
        ({}, {"ends": {0: 6}}, "goes on at offset 7"),
        ({}, {"delete_retention_s": 30.0}, "tombstones"),
        ({}, {"after_save": {0: 2}}, "made anew"),
    ],
)
async def test_each_doubt_leaves_the_engine_empty(
    place: MemoryPlace,
    settings: Settings,
    log: dict[str, object],
    caplog: pytest.LogCaptureFixture,
    facts: dict[str, Any],
    figures: dict[str, object],
    reason: str,
) -> None:
    """And is said, with what happens instead."""
    log.update(figures)
    target = world()
    other = place._replace(facts=replace(place.facts, **facts))
    assert await recall(settings, other, 1, target.engine, compute) is None
    assert contents(target) == contents(world())
    assert reason in caplog.text
    assert "The changelog is read from its beginning." in caplog.text


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("schema", [1, 2])
async def test_a_memory_of_an_older_schema_is_passed_over(
    place: MemoryPlace, settings: Settings, caplog: pytest.LogCaptureFixture, schema: int
) -> None:
    """One had one trend and no weights, two did not count newcomers and lists; the log says so and the changelog is
    read. The file is not opened."""
    former = ("cluster", "topic", "model", "dim", "state_width", "recent_items", "event_id_window")
    extra = {name: place.facts.as_extra()[name] for name in former} | {"trend_half_life_s": 3600.0, "schema": schema}
    manifest = Manifest(kind="worker", dim=4, size=2, offsets={"0": 7}, saved_at_s=time.time() - 60, extra=extra)
    write_snapshot(place.folder / "memory", manifest, {"memory": lambda file: file.write_bytes(b"of another schema")})
    target = world()
    assert await recall(settings, place, 1, target.engine, compute) is None
    assert contents(target) == contents(world())
    says = f"is not used: its schema is {schema}, this worker's 3. The changelog is read from its beginning."
    assert says in caplog.text


@pytest.mark.usefixtures("log")
async def test_damage_and_strange_kinds_are_doubts_too(
    place: MemoryPlace, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether in the memory's file or in the manifest itself."""
    (part,) = (place.folder / "memory").glob("generation-*/memory")
    part.write_bytes(part.read_bytes()[:-1])
    target = world()
    assert await recall(settings, place, 1, target.engine, compute) is None
    assert "is damaged" in caplog.text
    manifest = read_manifest(place.folder / "memory")
    module_manifest = replace(manifest, kind="index")
    assert "kind 'index'" in str(await module._refusal(settings, place, module_manifest, 1))
    current = place.folder / "memory" / "CURRENT"
    current.write_text("generation")
    assert await recall(settings, place, 1, target.engine, compute) is None
    current.unlink()
    current.mkdir()
    assert await recall(settings, place, 1, target.engine, compute) is None
    assert "Is a directory" in caplog.text
    assert contents(target) == contents(world())


@pytest.mark.parametrize(
    ("cluster", "topic", "parts"),
    [
        ("fHFD0qy8QBO238vDODR1sQ", "profiles", ("fHFD0qy8QBO238vDODR1sQ", "profiles")),
        ("../x", "a.b-profiles", ("%2e.%2fx", "a.b-profiles")),
    ],
)
async def test_a_place_is_of_one_cluster_and_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: str, topic: str, parts: tuple[str, str]
) -> None:
    """Whatever they are called, the folder lies in the data folder, and different names never meet."""

    async def read_cluster_id(settings: Settings) -> str:
        return cluster

    monkeypatch.setattr(module, "read_cluster_id", read_cluster_id)
    found = await memory_place(load_settings(data_dir=tmp_path), topic, world().engine)
    assert found.folder == tmp_path.joinpath("snapshots", *parts)
    assert (found.facts.cluster, found.facts.topic) == (cluster, topic)
