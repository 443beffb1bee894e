"""Snapshots that survive a crash: named files in a folder, whole or not there at all.

```
path/
  CURRENT                  one line: the generation that counts, and the SHA-256 of its manifest
  generation-00000007/     manifest.json (which holds size and SHA-256 of each part) and the parts
  saving/                  a save at work, or what a killed one left
  LOCK                     empty; locked by the one saver
```

The only switch is the atomic replacement of `CURRENT`. Before it the new generation is written, fsynced, read back,
test-loaded by the caller and renamed into its place, and the folders' entries are fsynced; after it the older ones are
deleted, so that no file holds what was forgotten since. Killed at any instant, a saver leaves a `CURRENT` that names a
whole generation, the old or the new; the next save removes whatever else it left. Without `CURRENT` there is no
snapshot. A changed byte in any file is found: `CURRENT` vouches for the manifest, the manifest for the parts.

This file knows folders, not what is in them: who saves brings a writer per part, who loads says which parts it can do
without. The form of `CURRENT` is for ever; `SCHEMA` counts the forms of the manifest.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.errors import SnapshotCorrupt, SnapshotError, SnapshotMismatch, SnapshotMissing
from index.results import VectorId

SCHEMA = 1
MANIFEST = "manifest.json"
READ_ATTEMPTS_MAX = 5

_CURRENT = "CURRENT"
_CURRENT_NEXT = "CURRENT.next"
_SAVING = "saving"
_LOCK = "LOCK"
_CURRENT_LINE = re.compile(rb"generation-(\d{8,18}) ([0-9a-f]{64})\n")
_GENERATION_NAME = re.compile(r"generation-(\d{8,18})")
_PART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
PartWriter = Callable[[Path], int | None]
"""Creates the file; returns how many bytes it must have, or None where that is not known."""


@dataclass(frozen=True)
class Part:
    """One file of a snapshot, as it was read back after it was written."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a snapshot says of itself. `write_snapshot` fills in the last three fields."""

    kind: str
    """Whose state it is, such as "index" or "worker"."""
    dim: int
    """Length of a vector."""
    size: int
    """Vectors held."""
    metric: str = "cosine"
    model: str = ""
    """Version of the model that made the vectors; "" when unknown."""
    offsets: dict[str, int] = field(default_factory=dict)
    """Per source: the first offset that is not in the snapshot."""
    saved_at_s: float = 0.0
    """Epoch seconds; 0 when unknown."""
    extra: dict[str, Json] = field(default_factory=dict)
    """Whatever else its owner needs to load it."""
    schema: int = SCHEMA
    generation: int = 0
    parts: dict[str, Part] = field(default_factory=dict)


def write_snapshot(
    path: Path, manifest: Manifest, parts: Mapping[str, PartWriter], check: Callable[[Path], object] | None = None
) -> Manifest:
    """Saves the parts and the manifest as the snapshot at `path`, a folder made where missing; blocks on fsync.

    When it returns, the snapshot is on the disk and no older one is. When it raises, the snapshot of before still
    counts, and the space of the failed one is free; only where the deletion of older ones fails (OSError) the new one
    counts. `check` is the test load: it gets the folder with all files before the switch, and raises where they are
    not right. What writers and `check` raise comes through.

    Raises:
        ValueError, TypeError: a part's name is unusable, or the manifest is no JSON; nothing was written.
        SnapshotError: somebody else is saving to this path.
        SnapshotCorrupt: a part is not as long as its writer claims; numpy and hnswlib may be silent about a full disk.
        OSError: the disk is full or cannot be written.
    """
    _require_writable(manifest, parts)
    _make_folder(path)
    with _locked(path):
        _sweep(path)
        try:
            return _save(path, manifest, parts, check)
        finally:
            _sweep(path)
            _sync_folder(path)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the snapshot at `path`; its parts are not looked at. Safe beside a saver.

    Raises:
        SnapshotMissing: there is none.
        SnapshotCorrupt: the manifest or `CURRENT` is damaged.
        SnapshotMismatch: it was written in a newer schema.
    """
    current = _require_current(path)
    for _ in range(READ_ATTEMPTS_MAX):
        try:
            return _read_generation(path, current)
        except SnapshotCorrupt:
            # a saver may have replaced and deleted it since CURRENT was read
            if (latest := _require_current(path)) == current:
                raise
            current = latest
    raise SnapshotMissing(f"The snapshot at {path} was replaced again and again while it was read; read it again.")


def open_part(path: Path, manifest: Manifest, name: str) -> Path:
    """The file of that part of the snapshot that `manifest` describes, after its size and SHA-256 were found right.

    Parts of two saves never mix. The next save deletes the file; whoever has it open may read on.

    Raises:
        SnapshotMismatch: the snapshot is sound, but has no such part.
        SnapshotCorrupt: the file is damaged, cut short or missing.
        SnapshotMissing: a save has replaced this snapshot since its manifest was read.
    """
    if (expected := manifest.parts.get(name)) is None:
        held = ", ".join(sorted(manifest.parts)) or "none"
        raise SnapshotMismatch(f"The snapshot at {path} has no part {name!r}; it has: {held}.")
    file = path / _generation_name(manifest.generation) / name
    try:
        found = _measured(file)
    except FileNotFoundError:
        if (current := _read_current(path)) is not None and current.generation != manifest.generation:
            raise SnapshotMissing(f"The snapshot at {path} was replaced while it was read; read it again.") from None
        raise SnapshotCorrupt(f"Part {name!r} of the snapshot at {path} is missing.") from None
    if found != expected:
        raise SnapshotCorrupt(
            f"Part {name!r} of the snapshot at {path} is damaged: expected {expected.bytes} bytes with SHA-256 "
            f"{expected.sha256}, found {found.bytes} bytes with {found.sha256}."
        )
    return file


def array_part(array: NDArray[Any]) -> PartWriter:
    """Writes the array as `.npy`; a TypeError at once where it holds Python objects, which would need pickle."""
    if array.dtype.hasobject:
        raise TypeError(f"Expected an array of numbers, got dtype {array.dtype}; save ids with ids_part.")

    def write(file: Path) -> int:
        with file.open("xb") as opened:
            np.lib.format.write_array(opened, array, allow_pickle=False)
            return opened.tell()

    return write


def read_array(file: Path) -> NDArray[Any]:
    """The array that `array_part` wrote, in memory of its own.

    Raises:
        SnapshotCorrupt: the file is no such array.
        SnapshotMissing: a save has replaced this snapshot since the part was opened.
    """
    with _opened(file) as opened:
        try:
            array: NDArray[Any] = np.lib.format.read_array(opened, allow_pickle=False)
        except ValueError as error:
            raise SnapshotCorrupt(f"Expected an array in {file}: {error}") from error
    return array


def ids_part(ids: Iterable[VectorId]) -> PartWriter:
    """Writes the ids as one JSON list. Strings come back as strings and ints, of up to 4,300 digits, as ints.

    numpy's scalars come back as Python's. A TypeError at once where an id is neither.
    """
    plain = [_plain_id(vector_id) for vector_id in ids]

    def write(file: Path) -> int:
        # ASCII with escapes: lone surrogates, which no UTF-8 can hold, survive as well
        with file.open("xb") as opened:
            return opened.write(json.dumps(plain, separators=(",", ":")).encode("ascii"))

    return write


def read_ids(file: Path) -> list[VectorId]:
    """The ids that `ids_part` wrote, in their order.

    Raises:
        SnapshotCorrupt: the file is no list of strings and ints.
        SnapshotMissing: a save has replaced this snapshot since the part was opened.
    """
    try:
        with _opened(file) as opened:
            ids = json.loads(opened.read())
    except ValueError as error:
        raise SnapshotCorrupt(f"Expected a JSON list of ids in {file}: {error}") from error
    if not isinstance(ids, list) or not set(map(type, ids)) <= {str, int}:
        raise SnapshotCorrupt(f"Expected a JSON list of strings and ints in {file}, got something else.")
    return ids


def _opened(file: Path) -> BinaryIO:
    """For reading; a part that `open_part` found right can be gone only because a newer save deleted it."""
    try:
        return file.open("rb")
    except FileNotFoundError as error:
        raise SnapshotMissing(f"{file} was replaced by a newer snapshot while it was read; read it again.") from error


class _Current(NamedTuple):
    generation: int
    manifest_sha256: str


def _save(
    path: Path, manifest: Manifest, parts: Mapping[str, PartWriter], check: Callable[[Path], object] | None
) -> Manifest:
    folder = path / _SAVING
    folder.mkdir()
    written = {name: _write_part(folder / name, writer) for name, writer in parts.items()}
    generation = max(_generations(path), default=0) + 1
    encoded = _encoded(replace(manifest, schema=SCHEMA, generation=generation, parts=written))
    _write_synced(folder / MANIFEST, encoded)
    _sync_folder(folder)
    if check is not None:
        check(folder)
    folder.rename(path / _generation_name(generation))
    _sync_folder(path)
    _switch(path, _Current(generation, hashlib.sha256(encoded).hexdigest()))
    return _decoded(encoded)


def _switch(path: Path, current: _Current) -> None:
    line = f"{_generation_name(current.generation)} {current.manifest_sha256}\n"
    _write_synced(path / _CURRENT_NEXT, line.encode("ascii"))
    (path / _CURRENT_NEXT).replace(path / _CURRENT)
    _sync_folder(path)


def _write_part(file: Path, writer: PartWriter) -> Part:
    """Trusts the disk, not the writer: hnswlib's `save_index` and the end of numpy's arrays get lost in silence."""
    claimed = writer(file)
    try:
        part = _measured(file, sync=True)
    except FileNotFoundError:
        raise SnapshotCorrupt(f"The writer of part {file.name!r} made no file {file}.") from None
    if part.bytes == 0 or (claimed is not None and part.bytes != claimed):
        expected = "some" if claimed is None else claimed
        raise SnapshotCorrupt(
            f"Part {file.name!r} was not written whole: expected {expected} bytes, found {part.bytes}; "
            "is the disk full? The snapshot of before still counts."
        )
    return part


def _measured(file: Path, *, sync: bool = False) -> Part:
    """Size and SHA-256 of what is read; `SnapshotCorrupt` for what is no regular file, such as a device."""
    if not stat.S_ISREG(file.lstat().st_mode):
        raise SnapshotCorrupt(f"Expected a regular file at {file}, found a link, folder or device.")
    with file.open("rb") as opened:
        if sync:
            os.fsync(opened.fileno())
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return Part(opened.tell(), digest)


def _read_current(path: Path) -> _Current | None:
    try:
        line = (path / _CURRENT).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if (match := _CURRENT_LINE.fullmatch(line)) is None:
        raise SnapshotCorrupt(
            f"Expected 'generation-<number> <SHA-256>' in {path / _CURRENT}, got {line[:100]!r}; "
            "delete the folder and build the state anew from its source."
        )
    return _Current(int(match[1]), match[2].decode("ascii"))


def _require_current(path: Path) -> _Current:
    if (current := _read_current(path)) is None:
        raise SnapshotMissing(f"There is no snapshot at {path}.")
    return current


def _read_generation(path: Path, current: _Current) -> Manifest:
    file = path / _generation_name(current.generation) / MANIFEST
    try:
        encoded = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise SnapshotCorrupt(f"{path / _CURRENT} names {file}, which is missing.") from None
    if (digest := hashlib.sha256(encoded).hexdigest()) != current.manifest_sha256:
        raise SnapshotCorrupt(f"{file} is damaged: expected SHA-256 {current.manifest_sha256}, found {digest}.")
    fields = json.loads(encoded)
    if fields["schema"] > SCHEMA:
        raise SnapshotMismatch(
            f"The snapshot at {path} has schema {fields['schema']}, this version reads up to {SCHEMA}: upgrade, "
            "or delete the folder and build the state anew from its source."
        )
    return _decoded(encoded)


def _encoded(manifest: Manifest) -> bytes:
    return json.dumps(asdict(manifest), indent=1, sort_keys=True, allow_nan=False).encode("ascii")


def _decoded(encoded: bytes) -> Manifest:
    fields = json.loads(encoded)
    fields["parts"] = {name: Part(**part) for name, part in fields["parts"].items()}
    return Manifest(**fields)


def _require_writable(manifest: Manifest, parts: Mapping[str, PartWriter]) -> None:
    """Fails before anything is written, not after the parts are."""
    for name in parts:
        if not _PART_NAME.fullmatch(name) or name == MANIFEST:
            raise ValueError(
                f"Expected a plain file name of 1 to 100 of A-Z a-z 0-9 . _ - for a part, other than {MANIFEST}, "
                f"got {name!r}."
            )
    _encoded(manifest)


def _plain_id(vector_id: object) -> VectorId:
    if isinstance(vector_id, str):
        return str(vector_id)
    if isinstance(vector_id, int | np.integer):
        return int(vector_id)
    raise TypeError(f"Expected ids that are strings or ints, got {vector_id!r}.")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One saver at a time, whatever its thread or process; the lock ends with the process that holds it."""
    with (path / _LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SnapshotError(
                f"Somebody else is saving to {path} just now; let that save end, or save to another folder."
            ) from None
        try:
            yield
        finally:
            # said, not left to the closing: a forked child would hold on to it
            fcntl.flock(lock, fcntl.LOCK_UN)


def _sweep(path: Path) -> None:
    """Deletes what `CURRENT` does not name. Where it is damaged, generations stay until a save succeeds."""
    (path / _CURRENT_NEXT).unlink(missing_ok=True)
    if (path / _SAVING).exists():
        shutil.rmtree(path / _SAVING)
    try:
        current = _read_current(path)
    except SnapshotCorrupt:
        # which one it named is unknown, and a person may still want to rescue it
        return
    for generation in _generations(path):
        if current is None or generation != current.generation:
            shutil.rmtree(path / _generation_name(generation))


def _generations(path: Path) -> list[int]:
    names = (entry.name for entry in path.iterdir())
    matches = (_GENERATION_NAME.fullmatch(name) for name in names)
    return [int(match[1]) for match in matches if match]


def _generation_name(generation: int) -> str:
    return f"generation-{generation:08d}"


def _make_folder(path: Path) -> None:
    """Makes the folder and its parents, and has their names on the disk."""
    if not path.parent.exists():
        _make_folder(path.parent)
    path.mkdir(exist_ok=True)
    _sync_folder(path.parent)


def _write_synced(file: Path, content: bytes) -> None:
    with file.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())


def _sync_folder(folder: Path) -> None:
    """A name that was made, replaced or removed is on the disk only after the fsync of its folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
