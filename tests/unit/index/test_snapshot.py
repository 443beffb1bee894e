"""Snapshot folders: what comes back, what is found damaged, what is left on the disk."""

from __future__ import annotations

import json
import os
import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from index import snapshot
from index.errors import SnapshotCorrupt, SnapshotError, SnapshotMismatch, SnapshotMissing
from index.snapshot import (
    Manifest,
    array_part,
    ids_part,
    open_part,
    read_array,
    read_ids,
    read_manifest,
    write_snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEED = 11
IDS: list[str | int] = ["u1", 7, "7", -(2**80), "", "naïve ☃", "\ud800", "a\nb"]
VECTORS = np.random.default_rng(SEED).standard_normal((len(IDS), 4)).astype(np.float32)
MANIFEST = Manifest(
    kind="index",
    dim=4,
    size=len(IDS),
    model="decayed-mean@1",
    offsets={"profiles-0": 12, "profiles-1": 2**60},
    saved_at_s=1_700_000_000.25,
    extra={"graph": {"ef": 40, "segments": [1, 2]}, "note": None},
)


def save(path: Path, ids: list[str | int] | None = None) -> Manifest:
    return write_snapshot(
        path, MANIFEST, {"ids.json": ids_part(IDS if ids is None else ids), "vectors.npy": array_part(VECTORS)}
    )


def text_part(text: str) -> Callable[[Path], int | None]:
    return lambda file: file.write_text(text, encoding="ascii")


def load(path: Path) -> tuple[list[str | int], bytes]:
    manifest = read_manifest(path)
    ids = read_ids(open_part(path, manifest, "ids.json"))
    return ids, read_array(open_part(path, manifest, "vectors.npy")).tobytes()


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def content_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in files_of(path)}


def test_a_snapshot_comes_back_whole(tmp_path: Path) -> None:
    """Manifest, ids with their types and vectors to the bit; the folder and its parents are made."""
    path = tmp_path / "a" / "b" / "snapshot"
    written = save(path)
    assert read_manifest(path) == written
    assert replace(written, parts={}, generation=0) == MANIFEST
    ids, vectors = load(path)
    assert [(type(i), i) for i in ids] == [(type(i), i) for i in IDS]
    assert vectors == VECTORS.tobytes()


def test_the_manifest_tells_size_and_checksum_of_each_file(tmp_path: Path) -> None:
    """Parts are described as they lie on the disk, in plain JSON that any tool reads."""
    written = save(tmp_path)
    (manifest_file,) = tmp_path.glob("generation-*/manifest.json")
    fields = json.loads(manifest_file.read_bytes())
    assert fields["schema"] == 1
    assert fields["offsets"] == MANIFEST.offsets
    assert set(fields["parts"]) == set(written.parts) == {"ids.json", "vectors.npy"}
    for name, part in written.parts.items():
        assert (manifest_file.parent / name).stat().st_size == part.bytes == fields["parts"][name]["bytes"]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 5), np.float32),
        np.arange(12, dtype=np.int64).reshape(3, 4).T,
        np.arange(20, dtype=np.float16)[::3],
        np.array([True, False]),
        np.array(3.5),
    ],
    ids=["empty", "transposed", "strided", "bool", "scalar"],
)
def test_arrays_keep_shape_type_and_values(tmp_path: Path, array: np.ndarray) -> None:
    """Whatever its memory layout, an array of numbers comes back equal."""
    manifest = write_snapshot(tmp_path, MANIFEST, {"a.npy": array_part(array)})
    back = read_array(open_part(tmp_path, manifest, "a.npy"))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert np.array_equal(back, array)


def test_ids_of_numpy_become_those_of_python(tmp_path: Path) -> None:
    """Ids taken from arrays are saved as the ints and strings that they equal."""
    manifest = write_snapshot(tmp_path, MANIFEST, {"ids": ids_part([*np.arange(3), *np.array(["x"])])})
    back = read_ids(open_part(tmp_path, manifest, "ids"))
    assert [(type(i), i) for i in back] == [(int, 0), (int, 1), (int, 2), (str, "x")]


def test_what_needs_pickle_is_refused_before_the_save() -> None:
    """Object arrays and ids that are neither strings nor ints raise a TypeError that says what came."""
    with pytest.raises(TypeError, match="dtype object"):
        array_part(np.array(["a", 1], object))
    with pytest.raises(TypeError, match=r"strings or ints, got 1\.5"):
        ids_part(["a", 1.5])  # type: ignore[list-item]


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"{}", b"[1.5]", b"[true]", b"[", b"\xff"])
def test_files_that_are_no_arrays_and_no_ids_are_corrupt(tmp_path: Path, content: bytes) -> None:
    """A reader that got the wrong file says which one, whatever it holds."""
    file = tmp_path / "part"
    file.write_bytes(content)
    with pytest.raises(SnapshotCorrupt, match="part"):
        read_array(file)
    with pytest.raises(SnapshotCorrupt, match="part"):
        read_ids(file)


def test_where_nothing_was_saved_the_snapshot_is_missing(tmp_path: Path) -> None:
    """No folder, an empty folder and a file in its place are all no snapshot, which is a FileNotFoundError too."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "file"):
        with pytest.raises(SnapshotMissing, match="no snapshot at") as caught:
            read_manifest(path)
        assert isinstance(caught.value, FileNotFoundError)


def test_a_save_leaves_no_older_generation(tmp_path: Path) -> None:
    """The bytes of a forgotten id are in no file of the folder after the next save."""
    save(tmp_path, ["forget-me"])
    assert any(b"forget-me" in content for content in content_of(tmp_path).values())
    for _ in range(3):
        save(tmp_path, ["kept"])
    assert not any(b"forget-me" in content for content in content_of(tmp_path).values())
    assert sorted(content_of(tmp_path)) == [
        "CURRENT",
        "LOCK",
        "generation-00000004/ids.json",
        "generation-00000004/manifest.json",
        "generation-00000004/vectors.npy",
    ]


def test_strangers_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    """Only what this layer makes is ever deleted."""
    strangers = [tmp_path / "20240101" / "log", tmp_path / "notes", tmp_path / "generation-x" / "f"]
    for stranger in strangers:
        stranger.parent.mkdir(exist_ok=True)
        stranger.write_text("mine")
    save(tmp_path)
    save(tmp_path)
    assert all(stranger.read_text() == "mine" for stranger in strangers)


def test_leftovers_of_killed_saves_go_with_the_next(tmp_path: Path) -> None:
    """A half-written folder, an unnamed generation and an unfinished CURRENT are removed."""
    save(tmp_path)
    for leftover in ("saving/ids.json", "generation-00000002/ids.json", "generation-00000009/ids.json"):
        (tmp_path / leftover).parent.mkdir()
        (tmp_path / leftover).write_text("leftover")
    (tmp_path / "CURRENT.next").write_text("leftover")
    save(tmp_path)
    assert not any(b"leftover" in content for content in content_of(tmp_path).values())
    assert len(list(tmp_path.glob("generation-*"))) == 1
    assert load(tmp_path)[0] == IDS


def flipped(content: bytes, offset: int, rng: random.Random) -> bytes:
    return content[:offset] + bytes([content[offset] ^ 1 << rng.randrange(8)]) + content[offset + 1 :]


def damages(content: bytes, rng: random.Random) -> Iterator[bytes]:
    """Every byte flipped in one bit, cuts at the ends and anywhere, and bytes too many."""
    for offset in range(len(content)):
        yield flipped(content, offset, rng)
    for stop in (0, 1, rng.randrange(len(content)), len(content) - 1):
        yield content[:stop]
    yield content + b"\0"
    yield content + content[-1:]


def test_one_flipped_bit_or_a_cut_in_any_file_is_found(tmp_path: Path) -> None:
    """CURRENT, manifest and parts: whatever byte changes, a full read says corrupt, never less."""
    rng = random.Random(SEED)
    save(tmp_path)
    files = [file for file in files_of(tmp_path) if file.name != "LOCK"]
    assert len(files) == 4
    for file in files:
        sound = file.read_bytes()
        for damaged in damages(sound, rng):
            file.write_bytes(damaged)
            with pytest.raises(SnapshotCorrupt):
                load(tmp_path)
        file.write_bytes(sound)
        assert load(tmp_path)[0] == IDS


def test_the_error_names_the_damaged_part_and_both_checksums(tmp_path: Path) -> None:
    """What was expected and what came, so that an operator sees a cut from a flip."""
    written = save(tmp_path)
    file = open_part(tmp_path, written, "ids.json")
    file.write_bytes(file.read_bytes()[:-3])
    expected = written.parts["ids.json"]
    with pytest.raises(SnapshotCorrupt, match=rf"'ids\.json'.*{expected.bytes} bytes.*{expected.bytes - 3} bytes"):
        open_part(tmp_path, read_manifest(tmp_path), "ids.json")


def test_one_damaged_part_leaves_the_others_usable(tmp_path: Path) -> None:
    """A caller that can do without the damaged part loads the rest."""
    written = save(tmp_path)
    open_part(tmp_path, written, "ids.json").unlink()
    with pytest.raises(SnapshotCorrupt, match=r"'ids\.json'.*is missing"):
        open_part(tmp_path, written, "ids.json")
    assert np.array_equal(read_array(open_part(tmp_path, written, "vectors.npy")), VECTORS)


def test_a_manifest_that_is_gone_is_corrupt_and_a_current_that_is_gone_is_no_snapshot(tmp_path: Path) -> None:
    """CURRENT alone decides whether there is a snapshot."""
    save(tmp_path)
    (manifest_file,) = tmp_path.glob("generation-*/manifest.json")
    manifest_file.unlink()
    with pytest.raises(SnapshotCorrupt, match=r"manifest\.json, which is missing"):
        read_manifest(tmp_path)
    (tmp_path / "CURRENT").unlink()
    with pytest.raises(SnapshotMissing):
        read_manifest(tmp_path)


def test_a_part_that_was_never_saved_is_a_mismatch(tmp_path: Path) -> None:
    """The snapshot is sound; the error says which parts it has."""
    written = save(tmp_path)
    with pytest.raises(SnapshotMismatch, match=r"no part 'graph'; it has: ids\.json, vectors\.npy"):
        open_part(tmp_path, written, "graph")


def test_a_link_in_place_of_a_part_is_corrupt(tmp_path: Path) -> None:
    """A device behind a link would be read for ever; only regular files count."""
    written = save(tmp_path)
    file = open_part(tmp_path, written, "ids.json")
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(SnapshotCorrupt, match="regular file"):
        open_part(tmp_path, written, "ids.json")


def test_a_newer_schema_asks_for_an_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old program refuses what a newer one saved, and says what to do."""
    with monkeypatch.context() as newer:
        newer.setattr(snapshot, "SCHEMA", 2)
        save(tmp_path)
    with pytest.raises(SnapshotMismatch, match=r"schema 2, this version reads up to 1: upgrade"):
        read_manifest(tmp_path)


def test_a_damaged_current_keeps_the_files_until_a_save_succeeds(tmp_path: Path) -> None:
    """A failing save deletes nothing that a person might rescue; a good one starts afresh."""
    save(tmp_path, ["old"])
    (tmp_path / "CURRENT").write_text("rubbish")
    with pytest.raises(RuntimeError, match="no luck"):
        write_snapshot(tmp_path, MANIFEST, {"a": raising(RuntimeError("no luck"))})
    assert any(b"old" in content for content in content_of(tmp_path).values())
    save(tmp_path, ["new"])
    assert load(tmp_path)[0] == ["new"]
    assert not any(b"old" in content for content in content_of(tmp_path).values())


def raising(error: BaseException) -> Callable[[Path], None]:
    def fail(file: Path) -> None:
        if file.parent.name == "saving":
            file.write_bytes(b"half")
        raise error

    return fail


@pytest.mark.parametrize("error", [RuntimeError("no luck"), KeyboardInterrupt("no luck")])
@pytest.mark.parametrize("first", [True, False])
def test_a_writer_that_raises_changes_nothing(tmp_path: Path, error: BaseException, first: bool) -> None:
    """Its own error comes through, the old snapshot stays to the byte, and the half-written one is gone."""
    if not first:
        save(tmp_path)
    before = content_of(tmp_path) or {"LOCK": b""}
    with pytest.raises(type(error), match="no luck"):
        write_snapshot(tmp_path, MANIFEST, {"ids.json": ids_part(["new"]), "graph": raising(error)})
    assert content_of(tmp_path) == before


def test_a_test_load_that_fails_keeps_the_old_snapshot(tmp_path: Path) -> None:
    """`check` sees all files of the new one, the manifest included, before it counts."""
    save(tmp_path)
    before = content_of(tmp_path)
    seen: list[str] = []

    def check(folder: Path) -> None:
        seen.extend(sorted(entry.name for entry in folder.iterdir()))
        assert read_ids(folder / "ids.json") == ["new"]
        assert load(tmp_path)[0] == IDS
        raise SnapshotCorrupt("The graph does not load.")

    with pytest.raises(SnapshotCorrupt, match="does not load"):
        write_snapshot(tmp_path, MANIFEST, {"ids.json": ids_part(["new"])}, check)
    assert seen == ["ids.json", "manifest.json"]
    assert content_of(tmp_path) == before


def claims_more(file: Path) -> int:
    return file.write_bytes(b"12345") + 1


def makes_nothing(file: Path) -> None:
    pass


def makes_an_empty_file(file: Path) -> None:
    file.touch()


def makes_a_link(file: Path) -> None:
    file.symlink_to("/dev/full")


def makes_a_folder(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize(
    ("writer", "message"),
    [
        (claims_more, "expected 6 bytes, found 5; is the disk full"),
        (makes_nothing, "made no file"),
        (makes_an_empty_file, "expected some bytes, found 0"),
        (makes_a_link, "regular file"),
        (makes_a_folder, "regular file"),
    ],
)
def test_writers_are_not_trusted(tmp_path: Path, writer: Callable[[Path], int | None], message: str) -> None:
    """A writer that is silent about its failure is found out, and the old snapshot stays."""
    save(tmp_path)
    before = content_of(tmp_path)
    with pytest.raises(SnapshotCorrupt, match=message):
        write_snapshot(tmp_path, MANIFEST, {"graph": writer})
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../x", "manifest.json", "a" * 101, "a\n"])
def test_unusable_names_of_parts_are_refused(tmp_path: Path, name: str) -> None:
    """Nothing is made, not even the folder."""
    with pytest.raises(ValueError, match="plain file name"):
        write_snapshot(tmp_path / "new", MANIFEST, {name: text_part("x")})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("extra", [{"a": float("nan")}, {"a": {1, 2}}])
def test_a_manifest_that_is_no_json_is_refused(tmp_path: Path, extra: dict) -> None:
    """It fails before the parts are written, not after."""
    with pytest.raises((TypeError, ValueError), match="JSON"):
        write_snapshot(tmp_path / "new", replace(MANIFEST, extra=extra), {"a": text_part("x")})
    assert not (tmp_path / "new").exists()


def test_a_second_saver_gets_an_error_and_mixes_nothing(tmp_path: Path) -> None:
    """While one save runs another to the same path is refused; afterwards, and after a failure, it works."""

    def nested(file: Path) -> int:
        with pytest.raises(SnapshotError, match="else is saving"):
            save(tmp_path, ["second"])
        return file.write_bytes(b"first")

    manifest = write_snapshot(tmp_path, MANIFEST, {"a": nested})
    assert open_part(tmp_path, manifest, "a").read_bytes() == b"first"
    with pytest.raises(RuntimeError):
        write_snapshot(tmp_path, MANIFEST, {"a": raising(RuntimeError())})
    save(tmp_path, ["third"])
    assert load(tmp_path)[0] == ["third"]


def test_parts_of_two_saves_never_mix(tmp_path: Path) -> None:
    """A reader whose snapshot was replaced is told to read again, not that it is damaged."""
    old = save(tmp_path, ["old"])
    save(tmp_path, ["new"])
    with pytest.raises(SnapshotMissing, match="replaced while it was read"):
        open_part(tmp_path, old, "ids.json")


def test_a_manifest_read_across_a_save_is_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CURRENT is read, then a saver replaces what it named: the reader follows."""
    save(tmp_path, ["old"])
    stale = snapshot._read_current(tmp_path)
    new = save(tmp_path, ["new"])
    answers = iter([stale])
    read_current = snapshot._read_current
    monkeypatch.setattr(snapshot, "_read_current", lambda path: next(answers, None) or read_current(path))
    assert read_manifest(tmp_path) == new


def test_readers_beside_a_saver_find_a_whole_snapshot(tmp_path: Path) -> None:
    """Whatever the timing, a read gives one save's parts or says that they were replaced."""
    save(tmp_path, [0, 0])

    def saver() -> None:
        for number in range(1, 21):
            save(tmp_path, [number, number])

    thread = threading.Thread(target=saver)
    thread.start()
    while thread.is_alive():
        try:
            ids, _ = load(tmp_path)
        except SnapshotMissing as error:
            ids = ["replaced"] * 2 if "replaced" in str(error) else [str(error), "expected: replaced"]
        assert ids[0] == ids[1]
    thread.join()
    assert load(tmp_path)[0] == [20, 20]


def test_everything_is_on_the_disk_before_the_switch_and_the_switch_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, their folder and the name of their folder are fsynced before CURRENT moves, and its own name after."""
    save(tmp_path)
    steps: list[object] = []
    fsync, replace_file, rename = os.fsync, Path.replace, Path.rename

    def recording_fsync(descriptor: int) -> None:
        fsync(descriptor)
        steps.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(Path, "rename", lambda source, target: (steps.append("rename"), rename(source, target))[1])
    monkeypatch.setattr(Path, "replace", lambda s, target: (steps.append("switch"), replace_file(s, target))[1])
    save(tmp_path)
    (generation,) = tmp_path.glob("generation-*")
    inode = {entry.name: entry.stat().st_ino for entry in [*generation.iterdir(), *tmp_path.iterdir(), tmp_path]}
    rename_at, switch_at = steps.index("rename"), steps.index("switch")
    for name in ("ids.json", "vectors.npy", "manifest.json", generation.name):
        assert inode[name] in steps[:rename_at], name
    assert steps[rename_at + 1 : switch_at] == [inode[tmp_path.name], inode["CURRENT"]]
    assert steps[switch_at + 1 :] == [inode[tmp_path.name], inode[tmp_path.name]]
