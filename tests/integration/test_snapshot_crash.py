"""Snapshots against kill -9 at every step and disks that are full at every point.

Run as a program, this file is the saver that dies: `kill first|next FOLDER` and `save FOLDER TEXT`.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hnswlib
import numpy as np
import pytest

from index import snapshot
from index.errors import SnapshotCorrupt, SnapshotMissing
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

ROOT = Path(__file__).resolve().parents[2]
STEPS_MAX = 2_000
VECTORS = np.random.default_rng(5).standard_normal((50, 8)).astype(np.float32)
ARRAY_FILE_BYTES = 128 + VECTORS.nbytes
FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir", "fcntl.flock"}


def save(path: Path, text: str, step: Callable[[], None] = lambda: None, vectors: Any = VECTORS) -> None:
    """Ids and manifest say `text`; `step` is called amid the writing of a part, too."""

    def torn(file: Path) -> int:
        with file.open("wb", buffering=0) as opened:
            opened.write(text[:2].encode())
            step()
            opened.write(text[2:].encode())
            return opened.tell()

    write_snapshot(
        path,
        Manifest(kind="index", dim=8, size=len(vectors), model=text),
        {"ids.json": ids_part([text]), "torn": torn, "vectors.npy": array_part(vectors)},
    )


def read(path: Path) -> str:
    """What the snapshot says, after all its parts were found to say the same."""
    manifest = read_manifest(path)
    (text,) = read_ids(open_part(path, manifest, "ids.json"))
    assert open_part(path, manifest, "torn").read_text() == text == manifest.model
    assert len(read_array(open_part(path, manifest, "vectors.npy"))) == manifest.size
    return str(text)


def read_if_any(path: Path) -> str:
    try:
        return read(path)
    except SnapshotMissing:
        return "missing"


def save_and_die(path: Path, text: str, fatal_step: int) -> None:
    """A save under SIGKILL before its `fatal_step`: each line of `snapshot.py`, each call to the file system."""
    steps = itertools.count(1)

    def step(*_: object) -> None:
        if next(steps) == fatal_step:
            os.kill(os.getpid(), signal.SIGKILL)

    def trace(frame: Any, event: str, argument: object) -> Any:
        if frame.f_code.co_filename == snapshot.__file__:
            step()
        return trace

    fsync = os.fsync
    os.fsync = lambda descriptor: (step(), fsync(descriptor), step())[1]
    sys.addaudithook(lambda event, _: step() if event in FILE_EVENTS else None)
    sys.settrace(trace)
    save(path, text, step)


def killed(path: Path, text: str, fatal_step: int) -> bool:
    """Whether a child that saves met its fatal step."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            save_and_die(path, text, fatal_step)
            code = 0
        finally:
            sys.settrace(None)
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert status == 0, f"the save failed at step {fatal_step}"
    return False


def assert_recovered(path: Path) -> None:
    """The next save works, and of all saves before it no file and no byte is left."""
    save(path, "recovered")
    assert read(path) == "recovered"
    files = [file for file in path.rglob("*") if file.is_file()]
    names = ["CURRENT", "LOCK", "ids.json", "manifest.json", "torn", "vectors.npy"]
    assert sorted(file.name for file in files) == names
    assert not any(word in file.read_bytes() for file in files for word in (b"first save", b"second save"))


def kill_at_every_step(folder: Path, *, first: bool) -> list[str]:
    """What a reader finds after a kill before step 1, 2, …, the last being that of a save that lived."""
    found = []
    for fatal_step in range(1, STEPS_MAX):
        path = folder / str(fatal_step)
        if not first:
            save(path, "first save")
        alive = not killed(path, "second save", fatal_step)
        found.append(read_if_any(path))
        assert_recovered(path)
        shutil.rmtree(path)
        if alive:
            return found
    raise AssertionError(f"the save did not end within {STEPS_MAX} steps")


def run_this_file(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, __file__, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.mark.parametrize(("mode", "before"), [("first", "missing"), ("next", "first save")])
def test_kill_minus_nine_at_any_step_leaves_the_old_or_the_new_whole(tmp_path: Path, mode: str, before: str) -> None:
    """Before one single step the reader finds the old one, from there on the new; the next save always cleans up."""
    done = run_this_file("kill", mode, str(tmp_path))
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    old = found.count(before)
    assert found == [before] * old + ["second save"] * (len(found) - old)
    assert old > 100, "the steps before the switch were not tried"
    assert len(found) - old > 10, "the steps after the switch were not tried"


def test_another_process_is_refused_while_one_saves(tmp_path: Path) -> None:
    """The lock holds between processes; the refused one fails with a sentence and changes nothing."""
    refused: list[subprocess.CompletedProcess[str]] = []
    save(tmp_path, "mine", lambda: refused.append(run_this_file("save", str(tmp_path), "theirs")))
    assert refused[0].returncode == 1
    assert "Somebody else is saving" in refused[0].stderr
    assert read(tmp_path) == "mine"


@contextmanager
def files_no_longer_than(bytes_max: int) -> Iterator[None]:
    """Writes beyond it fail with EFBIG, as on a disk that is full: Python ignores SIGXFSZ."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_graph_that_hnswlib_cuts_short_in_silence_is_found(tmp_path: Path) -> None:
    """save_index does not raise on a full disk; its size does not fit what the graph must have."""
    graph = hnswlib.Index("cosine", 64)
    graph.init_index(2_000)
    graph.add_items(np.random.default_rng(3).standard_normal((2_000, 64)).astype(np.float32), num_threads=1)

    def write_graph(file: Path) -> int:
        graph.save_index(str(file))
        return int(graph.index_file_size())

    manifest = Manifest(kind="index", dim=64, size=2_000)
    good = write_snapshot(tmp_path, manifest, {"graph": write_graph})
    with (
        files_no_longer_than(100_000),
        pytest.raises(SnapshotCorrupt, match=rf"expected {good.parts['graph'].bytes} bytes, found \d+; is the disk"),
    ):
        write_snapshot(tmp_path, manifest, {"graph": write_graph})
    assert read_manifest(tmp_path) == good
    open_part(tmp_path, good, "graph")


@pytest.mark.parametrize("bytes_max", [0, 10, 100, 1_000, ARRAY_FILE_BYTES - 1])
def test_a_write_that_fails_keeps_the_old_snapshot(tmp_path: Path, bytes_max: int) -> None:
    """The error is the system's own, or ours where numpy lost it; the half is gone, and the next save works."""
    save(tmp_path, "first save")
    with (
        files_no_longer_than(bytes_max),
        pytest.raises((OSError, SnapshotCorrupt), match=r"File too large|requested and .* written|disk full"),
    ):
        save(tmp_path, "second save")
    assert read(tmp_path) == "first save"
    assert not (tmp_path / "saving").exists()
    assert_recovered(tmp_path)


def test_a_part_that_goes_to_a_full_device_keeps_the_old_snapshot(tmp_path: Path) -> None:
    """ENOSPC comes through from the writer."""
    if not Path("/dev/full").is_char_device():
        pytest.skip("this system has no /dev/full")
    save(tmp_path, "first save")

    def to_full_device(file: Path) -> int:
        file.symlink_to("/dev/full")
        return file.write_bytes(b"x" * 100_000)

    with pytest.raises(OSError, match="No space left") as caught:
        write_snapshot(tmp_path, Manifest(kind="index", dim=8, size=0), {"vectors.npy": to_full_device})
    assert caught.value.errno == errno.ENOSPC
    assert read(tmp_path) == "first save"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_at_any_point_keeps_a_whole_snapshot(tiny_disk: Path) -> None:
    """With every number of free pages the save works, or says that the disk is full and leaves the space free."""
    path, filler = tiny_disk / "snapshot", tiny_disk / "filler"
    vectors = np.tile(VECTORS, (5, 1))
    save(path, "first save", vectors=vectors)
    outcomes = []
    free_bytes = shutil.disk_usage(tiny_disk).free
    for free_pages in range(free_bytes // resource.getpagesize() + 1):
        filler.write_bytes(b"\0" * (free_bytes - free_pages * resource.getpagesize()))
        before = shutil.disk_usage(tiny_disk).free
        try:
            save(path, "second save", vectors=vectors)
        except (OSError, SnapshotCorrupt) as error:
            outcomes.append("full")
            assert re.search("No space left|requested and .* written|disk full", str(error)), error  # noqa: PT017
            assert read(path) == "first save"
            assert shutil.disk_usage(tiny_disk).free == before
        else:
            outcomes.append("saved")
            assert read(path) == "second save"
            filler.unlink()
            save(path, "first save", vectors=vectors)
    full = outcomes.count("full")
    assert outcomes == ["full"] * full + ["saved"] * (len(outcomes) - full)
    assert 5 <= full < len(outcomes)


def main() -> None:
    """The program that the tests run."""
    match sys.argv[1:]:
        case ["kill", mode, folder]:
            print(json.dumps(kill_at_every_step(Path(folder), first=mode == "first")))
        case ["save", folder, text]:
            save(Path(folder), text)


if __name__ == "__main__":
    main()
