"""A worker's memory goes to files and comes back, also while batches move it."""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from index import SnapshotCorrupt, SnapshotError
from index.snapshot import Manifest, open_part, read_manifest
from streams.core.events import Event, EventType, Item
from streams.kafka import memory_file as module
from streams.kafka.changelog import decode_profile, encode_profiles, load_profiles
from streams.kafka.memory_file import PART, Facts, load_memory, save_memory
from streams.kafka.weights_topic import decode_weights
from streams.recommend.engine import Currents, Refresh
from streams.recommend.next_model import NextModel
from streams.recommend.request import Source
from streams.recommend.rules_file import parse_rules
from tests.fakes_core import World, contents, event, learned, offsets, world
from tests.fakes_model import trained

GOLDEN = Path(__file__).parents[2] / "data" / "memory" / "v3"
SAVED_AT_S = 1_700_000_100.0


def ask(function: Callable[..., Any], *arguments: object) -> Any:
    """The compute thread of tests: this one."""
    return function(*arguments)


def facts_of(built: World) -> Facts:
    """Of the fake cluster."""
    return Facts.of(built.engine, "cluster", "profiles")


def save(built: World, folder: Path, asking: Callable[..., Any] = ask) -> module.Saved:
    """At offset 7 of partition 0."""
    return save_memory(folder, built.engine, facts_of(built), {0: 7}, SAVED_AT_S, asking)


def load(folder: Path, **layout: int) -> World:
    """A new world with the saved memory."""
    found = world(**layout)
    load_memory(folder, read_manifest(folder / "memory"), found.engine)
    return replace(found, index=found.engine.index)  # type: ignore[arg-type]


def lived() -> World:
    """Users with long and short histories, exclusions, event ids, a forgotten one, one without direction."""
    found = world()
    batch = [event(f"u{n % 9}", f"i{n % 5}", at_s=n, event_id=f"e{n}") for n in range(60)]
    batch += [event("u3", "i1", EventType.PURCHASE), event("u8", "i9", EventType.DISLIKE), event("gone", "i2")]
    batch += [event("still", kind=EventType.IMPRESSION)]
    found.feed(batch)
    found.engine.forget(["gone"])
    found.feed([event("late", "i77")], len(batch))
    return found


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three users a piece, so that a few users make several."""
    monkeypatch.setattr(module, "PIECE_USERS", 3)


@pytest.mark.usefixtures("small_pieces")
def test_memory_comes_back_bit_for_bit(tmp_path: Path) -> None:
    """Every column, exclusions, slots of users and items, views, weights, index and epoch."""
    source = lived()
    saved = save(source, tmp_path)
    target = load(tmp_path)
    assert contents(target) == contents(source)
    assert learned(target) == learned(source)
    assert any("fusion" in name for name in learned(target))
    assert target.store.user_ids == source.store.user_ids
    assert target.store.slot_of == source.store.slot_of
    assert target.catalogue.item_ids == source.catalogue.item_ids
    assert (saved.users, saved.epoch, saved.forgotten) == (12, source.engine.epoch, 1)
    manifest = read_manifest(tmp_path / "memory")
    assert (manifest.offsets, manifest.saved_at_s, manifest.model) == ({"0": 7}, SAVED_AT_S, "fake@1")
    assert facts_of(target).differing(manifest) == []


def test_the_restored_engine_goes_on_like_the_saved_one(tmp_path: Path) -> None:
    """The next batch gives the same profiles, neighbours, lists and lessons, and new users and items find room."""
    source = lived()
    save(source, tmp_path)
    target = load(tmp_path)
    batch = [event(f"u{n}", f"new{n}", at_s=100.0) for n in range(12)]
    refreshes = [found.engine.prepare(batch, offsets(12, 500), 0) for found in (source, target)]
    assert np.array_equal(refreshes[0].neighbour_slots, refreshes[1].neighbour_slots)
    assert_same_lists(refreshes[0], refreshes[1])
    for found, refresh in zip((source, target), refreshes, strict=True):
        found.engine.apply(refresh)
    assert contents(target) == contents(source)
    assert learned(target) == learned(source)


def assert_same_lists(first: Refresh, second: Refresh) -> None:
    """Items, scores, shares and what backs them, bit for bit."""
    assert first.ranking is not None
    assert second.ranking is not None
    for name, column in first.ranking._asdict().items():
        assert np.array_equal(column, getattr(second.ranking, name)), name


@pytest.mark.parametrize("described_first", [False, True])
def test_categories_come_back_with_the_items_topic(tmp_path: Path, described_first: bool) -> None:
    """Codes are of one process: a worker that reads the items in another order makes the same lists all the same."""
    items = [Item(f"i{n}", title=f"item {n}", categories=[f"c{n % 3}"]) for n in range(6)]
    source = lived()
    source.engine.describe(items)
    save(source, tmp_path)
    target = world()
    if described_first:
        found = _read_again(tmp_path, target)
        target.catalogue.restore(found.item_ids)
        target.store.restore(found.user_ids, found.columns, found.excluded)
        target.engine.describe(items[::-1])
        target.engine.restore(Currents(found.beginning.epoch, found.beginning.stream_time_ms, found.views))
        target.engine.align_index()
    else:
        target = load(tmp_path)
        target.engine.describe(items[::-1])
    assert target.catalogue.facts.category_names != source.catalogue.facts.category_names
    batch = [event("u1", "i5", at_s=100.0), event("u9", "i4", at_s=100.0)]
    first, second = (found.engine.prepare(batch, offsets(2, 500), 0) for found in (source, target))
    assert first.ranking is not None
    assert second.ranking is not None
    assert first.ranking.shares[:, :, Source.CATEGORY].any()
    assert np.array_equal(first.ranking.items, second.ranking.items)
    assert_allclose(second.ranking.shares, first.ranking.shares, rtol=1e-6)
    for built, refresh in ((source, first), (target, second)):
        names = built.catalogue.facts.category_names
        assert refresh.ranking is not None
        named = [names[code] for code in refresh.ranking.categories.ravel().tolist() if code >= 0]
        assert named == [f"c{item % 3}" for item in _numbers_with_category(built, refresh)]


def _read_again(folder: Path, target: World) -> Any:
    return module._read(open_part(folder / "memory", read_manifest(folder / "memory"), PART), target.layout)


def _numbers_with_category(built: World, refresh: Refresh) -> list[int]:
    """The numbers in the ids of listed items that have a category as a reason."""
    assert refresh.ranking is not None
    listed = refresh.ranking.items[refresh.ranking.categories >= 0].tolist()
    return [int(built.catalogue.item_ids[slot][1:]) for slot in listed]


RULES = "[[floor]]\ncategory = 'hats'\nshare = 0.2\n[fatigue]\nshown = 1\nrest_hours = 1000"


def ruled() -> World:
    """Two categories of items, rules that count lists, and users who were shown some."""
    found = world()
    found.engine.describe([Item(f"i{n}", categories=["hats" if n % 2 else "shoes"]) for n in range(5)])
    found.engine.take_rules(parse_rules(RULES.encode(), "rules.toml", 20))
    found.feed([event(f"u{n % 4}", f"i{n % 3}", at_s=n) for n in range(12)])
    return found


def shown_to(built: World) -> dict[str, list[int]]:
    """The remembered slots of each user."""
    assert built.engine.reranker is not None
    rows = built.engine.reranker.saved_users(0, len(built.store))
    assert rows is not None
    return {user: rows.items[slot].tolist() for user, slot in built.store.slot_of.items()}


@pytest.mark.usefixtures("small_pieces")
def test_what_rules_counted_of_lists_survives_a_restart(tmp_path: Path) -> None:
    """The rules come after the memory, as in a worker: what was shown pauses on, and exposure is counted on."""
    source = ruled()
    save(source, tmp_path)
    target = load(tmp_path)
    before = {name: array for name, array in learned(source).items() if name.startswith("rules/")}
    assert before["rules/floors"]
    shown = shown_to(source)
    assert len({*shown["u1"]}) > 1
    target.engine.describe([Item(f"i{n}", categories=["hats" if n % 2 else "shoes"]) for n in range(5)])
    target.engine.take_rules(parse_rules(RULES.encode(), "rules.toml", 20))
    after = {name: array for name, array in learned(target).items() if name.startswith("rules/")}
    assert (after, shown_to(target)) == (before, shown)
    again = [event("u1", "i4", at_s=99)]
    lists = [built.engine.prepare(again, offsets(1, 99), 0).ranking for built in (source, target)]
    assert lists[0] is not None
    assert lists[1] is not None
    assert lists[0].items.tolist() == lists[1].items.tolist()
    assert not {*shown["u1"]} - {-1} & {*lists[1].items[0].tolist()}


def test_counts_of_lists_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """Before the engine is touched."""
    column = module.Column.of("rules/shown_items", np.zeros((1, 3), np.int32))
    with pytest.raises(SnapshotCorrupt, match="What the rules counted cannot be read: expected shown_items"):
        load_written(tmp_path, frames(BEGIN, *COLUMNS, column, PIECE, END))


def test_an_empty_memory_is_saved_too(tmp_path: Path) -> None:
    """A worker without events restarts from nothing, and then learns."""
    save(world(), tmp_path)
    target = load(tmp_path)
    target.feed([event()])
    assert target.profile("u1")["events"] == 1


@pytest.mark.usefixtures("small_pieces")
def test_what_changes_between_two_pieces_comes_back_with_the_replay(tmp_path: Path) -> None:
    """Users move, come, go and come back while the copy runs; reading on from its offsets gives the same memory."""
    source = lived()
    log: list[tuple[str, bytes | None]] = []
    steps = iter(
        [
            lambda: write(source, log, [event("u0", "i3"), event("u8", "i4", EventType.PURCHASE), event("first", "x")]),
            lambda: forget(source, log, "u1"),
            lambda: write(source, log, [event("u1", "i6"), event("u7", "y"), event("u7", "z", EventType.DISLIKE)]),
            lambda: forget(source, log, "u7"),
            lambda: write(source, log, [event("first", "i1"), event("u8", "w")]),
        ]
    )

    def ask_then_move(function: Callable[..., Any], *arguments: object) -> Any:
        answer = function(*arguments)
        next(steps, lambda: None)()
        return answer

    save(source, tmp_path, ask_then_move)
    assert next(steps, None) is None, "the copy was over before everything had happened"
    target = load(tmp_path)
    for user, value in log:
        follow(target, user, value)
    found, expected = contents(target), contents(source)
    assert found["profiles"] == expected["profiles"]
    assert found["index"] == expected["index"]
    for item, popularity in found["trend"].items():  # some of it is lost, nothing counts twice
        assert popularity <= expected["trend"][item] * (1 + 1e-6)


def write(source: World, log: list[tuple[str, bytes | None]], batch: list[Event]) -> None:
    """A committed batch, and what it leaves on the changelog."""
    refresh = source.engine.prepare(batch, offsets(len(batch), 1000 + 100 * len(log)), 0)
    values = encode_profiles(refresh.update, source.catalogue, source.encoder.name)
    source.engine.apply(refresh)
    log += zip(refresh.update.users, values, strict=True)


def forget(source: World, log: list[tuple[str, bytes | None]], user: str) -> None:
    """A tombstone."""
    source.engine.forget([user])
    log.append((user, None))


def follow(target: World, user: str, value: bytes | None) -> None:
    """Reads one record of the changelog."""
    if value is None:
        target.engine.forget([user])
        return
    loaded = load_profiles([decode_profile(value)], target.catalogue, target.layout, target.encoder.name)
    target.engine.load(loaded.user_ids, loaded.columns, loaded.excluded)


def test_a_copy_of_two_models_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that comes into service during a save ends it: the save of before counts."""
    monkeypatch.setattr(module, "PIECE_USERS", 3)
    source = lived()
    save(source, tmp_path)
    source.feed([event("u0", "i3", at_s=500)], 500)

    def switch_after(function: Callable[..., Any], *arguments: object) -> Any:
        answer = function(*arguments)
        if function is module._piece:
            NextModel(source.engine, trained()).switch_at_once()
        return answer

    with pytest.raises(SnapshotError, match="fake@1 was replaced by gated-recurrence@random0 during the copy"):
        save(source, tmp_path, switch_after)
    manifest = read_manifest(tmp_path / "memory")
    assert (manifest.model, manifest.size) == ("fake@1", 12)


def test_a_save_after_a_switch_is_of_the_new_model(tmp_path: Path) -> None:
    """Whatever was served when saving began; a worker with the old model refuses it, one with the new takes it."""
    source, model = lived(), trained()
    before = facts_of(source)
    NextModel(source.engine, model).switch_at_once()
    save_memory(tmp_path, source.engine, before, {0: 7}, SAVED_AT_S, ask)
    manifest = read_manifest(tmp_path / "memory")
    assert manifest.model == model.profiles.name
    assert facts_of(source).differing(manifest) == []
    assert f"its model is '{model.profiles.name}', this worker's 'fake@1'" in before.differing(manifest)
    target = world()
    NextModel(target.engine, trained()).switch_at_once()
    load_memory(tmp_path, manifest, target.engine)
    assert np.array_equal(target.store.columns.state[:12], source.store.columns.state[:12])
    slot = target.store.slot_of["u3"]
    assert np.array_equal(target.engine.index.vector(slot), model.index.vector(slot))  # type: ignore[attr-defined]


def test_the_forgotten_are_in_no_file_after_the_next_save(tmp_path: Path) -> None:
    """Neither the id nor the bytes of the vector; the save before, which held both, is gone."""
    source = world()
    source.feed([event("u1", "a"), event("somebody-unforgettable", "b"), event("u2", "c")])
    state = source.profile("somebody-unforgettable")["state"]
    save(source, tmp_path)
    assert held(tmp_path, b"somebody-unforgettable")
    assert held(tmp_path, state)
    source.engine.forget(["somebody-unforgettable"])
    assert save(source, tmp_path).forgotten == 1
    assert not held(tmp_path, b"somebody-unforgettable")
    assert not held(tmp_path, state)
    assert set(contents(load(tmp_path))["profiles"]) == {"u1", "u2"}


def held(folder: Path, needle: bytes) -> bool:
    """Whether any file has the bytes."""
    return any(needle in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_an_index_that_is_missing_or_wrong_is_put_right(tmp_path: Path) -> None:
    """The profiles say who is in it and where; a stray is forgotten, and that counts as one."""
    source = lived()
    save(source, tmp_path)
    (tmp_path / "index" / "vectors").unlink()
    assert contents(load(tmp_path))["index"] == contents(source)["index"]
    source.index.stored[0] = -source.index.stored[0]
    source.index.stored[999] = source.index.stored[1]
    del source.index.stored[3]
    source.index.save(tmp_path / "index")
    target = load(tmp_path)
    assert set(target.index.stored) == {slot for slot in target.store.slot_of.values() if slot != 10}
    assert contents(target)["index"] == contents(lived())["index"]
    assert target.engine.forgotten == 1


@pytest.mark.parametrize("cut", ["flipped", "short", "missing"])
def test_a_damaged_file_changes_nothing(tmp_path: Path, cut: str) -> None:
    """It is refused before the engine is touched."""
    save(lived(), tmp_path)
    manifest = read_manifest(tmp_path / "memory")
    file = open_part(tmp_path / "memory", manifest, PART)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    if cut != "missing":
        file.write_bytes(content if cut == "flipped" else content[:-1])
    target = world()
    with pytest.raises(SnapshotCorrupt):
        load_memory(tmp_path, manifest, target.engine)
    assert contents(target) == contents(world())


def frames(*parts: object) -> bytes:
    """A file of these frames."""
    encoded = [module.msgspec.msgpack.encode(part) for part in parts]
    return b"".join(module._LENGTH.pack(len(each)) + each for each in encoded)


BEGIN = module.Beginning(1, 1, 1)
PIECE = module.Piece(["u"], {}, bytes(module.row_type(world().layout).itemsize))
END = module.Ending(["i"])
VIEWS = {name: module.Column.of(name, array) for name, array in world().engine.currents().views.items()}
COLUMNS = list(VIEWS.values())
SOUND = frames(BEGIN, *COLUMNS, PIECE, END)


def load_written(folder: Path, content: bytes) -> World:
    """Of a file with a sound checksum."""
    manifest = Manifest(kind="worker", dim=4, size=1)
    module.write_snapshot(folder / "memory", manifest, {PART: lambda file: file.write_bytes(content or b" ")})
    return load(folder)


def test_frames_in_their_order_are_taken(tmp_path: Path) -> None:
    """What the refused ones below lack is in these."""
    assert load_written(tmp_path, SOUND).store.user_ids == ["u"]


@pytest.mark.parametrize(
    "content",
    [
        frames(BEGIN, *COLUMNS, PIECE),
        frames(BEGIN, *COLUMNS, END),
        frames(*COLUMNS, PIECE, END),
        frames(*COLUMNS, BEGIN, PIECE, END),
        frames(BEGIN, *COLUMNS, PIECE, PIECE, END),
        frames(BEGIN, BEGIN, *COLUMNS, PIECE, END),
        frames(BEGIN, *COLUMNS, PIECE, END, END),
        frames(BEGIN, *COLUMNS, PIECE, ["other"], END),
        frames(BEGIN, *COLUMNS, COLUMNS[0], PIECE, END),
        SOUND + b"abc",
        SOUND[:-1],
        b"",
    ],
)
def test_frames_in_another_order_are_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever wrote them with a sound checksum."""
    with pytest.raises(SnapshotCorrupt):
        load_written(tmp_path, content)


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("trend/3600", {"name": "trend/60"}, r"Expected the columns .*trend/3600.* got .*trend/60"),
        ("trend/3600", {"dtype": "<f4", "content": bytes(4)}, "Expected float64"),
        ("trend/3600", {"shape": (2,), "content": bytes(16)}, "at most 1 items"),
        ("trend/3600", {"shape": (), "content": bytes(8)}, "Expected float64"),
        ("trend/3600", {"content": bytes(7)}, "to be of <f8"),
        ("trend/3600", {"dtype": "what"}, "to be of what"),
        ("together/others", {"shape": (1, 32), "content": bytes(128)}, r"rows of \(64,\)"),
        ("fusion/shared", {"shape": (7, 2), "content": bytes(112)}, r"got float64 and \(7, 2\)"),
    ],
)
def test_columns_of_another_shape_are_refused(
    tmp_path: Path, name: str, change: dict[str, Any], complaint: str
) -> None:
    """Before the engine is touched, and with what was expected and what came."""
    changed = module.msgspec.structs.replace(VIEWS[name], **{"shape": (1,), "content": bytes(8)} | change)
    columns = [*(each for each in COLUMNS if each.name != name), changed]
    with pytest.raises(SnapshotCorrupt, match=complaint):
        load_written(tmp_path, frames(BEGIN, *columns, PIECE, END))


def test_facts_that_differ_are_named(tmp_path: Path) -> None:
    """Both values, for each."""
    source = lived()
    save(source, tmp_path)
    other = replace(facts_of(source), model="fake@2", trend_half_lives_s=[9.5, 86_400.0], cluster="another")
    assert other.differing(read_manifest(tmp_path / "memory")) == [
        "its cluster is 'cluster', this worker's 'another'",
        "its model is 'fake@1', this worker's 'fake@2'",
        "its trend_half_lives_s is [3600.0, 86400.0], this worker's [9.5, 86400.0]",
    ]


def test_half_lives_and_sources_are_facts() -> None:
    """Views of another configuration are not comparable; weights are, by the names of their sources."""
    assert facts_of(world()).trend_half_lives_s == [3600.0, 86_400.0]
    assert facts_of(world()).sources[-3:] == ["interests", "trend-1h", "trend-24h"]
    assert facts_of(world(ranking=False)).sources == []


@pytest.mark.parametrize(
    ("saved", "own", "refused"),
    [
        (["a", "b"], ["b", "c"], False),
        (["a"], ["b"], True),
        ([], ["b"], True),
        (["a"], [], True),
        ([], [], False),
        ("a", ["a"], True),
    ],
)
def test_a_memory_without_a_source_in_common_is_refused(saved: object, own: list[str], refused: bool) -> None:
    """There is nothing to take over of its weights; without a ranking there are no weights on either side."""
    facts = replace(facts_of(world()), sources=own)
    manifest = Manifest(kind="worker", dim=4, size=0, extra=facts.as_extra() | {"sources": saved})
    expected = [f"its sources is {saved!r}, this worker's {own!r}"] if refused else []
    assert facts.differing(manifest) == expected


def golden(folder: Path) -> Path:
    """The memory that a worker of schema 3 saved, its large part unpacked."""
    shutil.copytree(GOLDEN, folder)
    for packed in folder.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    return folder


def test_a_memory_of_before_a_source_was_added_is_taken_over(tmp_path: Path) -> None:
    """Saved by a worker that did not know `interests`: its users, views and weights stay, the new source begins with 0,
    the next batch is learned from, and what is saved then has all sources.
    """
    old = golden(tmp_path / "old")
    manifest = read_manifest(old / "memory")
    target = world()
    assert set(target.engine.sources) - set(manifest.extra["sources"]) == {"interests"}
    assert facts_of(target).differing(manifest) == []
    load_memory(old, manifest, target.engine)
    assert sorted(target.store.user_ids) == [f"u{n}" for n in range(5)]
    weights = target.engine.weights
    assert weights is not None
    by_name = dict(zip(target.engine.sources, weights.shared.tolist(), strict=True))
    assert by_name.pop("interests") == [0.0, 0.0]
    before = decode_weights((GOLDEN.parents[1] / "weights" / "weights-v1.msgpack").read_bytes())
    assert by_name == dict(zip(before.sources, before.weights.shared.tolist(), strict=True))
    assert target.engine.lessons == before.lessons
    target.feed([event(f"u{n}", f"i{n}", at_s=6000.0) for n in range(5)], 82)
    assert target.engine.lessons > before.lessons
    save(target, tmp_path / "new")
    assert learned(load(tmp_path / "new")) == learned(target)


def test_weights_that_do_not_fit_their_names_are_refused(tmp_path: Path) -> None:
    """A manifest that names more sources than the file has weights of; the engine is as it was."""
    save(lived(), tmp_path)
    manifest = read_manifest(tmp_path / "memory")
    manifest = replace(manifest, extra=manifest.extra | {"sources": [*manifest.extra["sources"], "one more"]})
    target = world()
    with pytest.raises(SnapshotCorrupt, match="The weights of the sources cannot be taken over: expected weights of"):
        load_memory(tmp_path, manifest, target.engine)
    assert contents(target) == contents(world())
