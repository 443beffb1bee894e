"""A worker's memory in a folder and back: profiles, their users, catalogue slots, views, weights, index.

```
<data_dir>/snapshots/<cluster id>/<name of the profiles topic>/
  memory/   one part, `memory`: frames of MessagePack, each after its length (8 bytes, little-endian)
  index/    the index's own snapshot: a cache, rebuilt from the profiles when it is missing or damaged
  OWNER     locked by the worker that saves here
```

How a copy that takes seconds comes from memory that moves meanwhile:

1. The changelog's offsets are taken first. Reading the topic from there on covers all that memory lacked then.
2. The views and the weights of the sources are copied next, then the profiles in slot order, a few thousand at a
   time, each piece in one job of the compute thread, with its users' ids and excluded items; last the item ids.
   Between the jobs batches go on.
3. So every profile in the copy is at least as new as the offsets. Restored, the records from the offsets on are read
   again in their order: one that is not newer than the profile is passed over; a tombstone, a return after it and a
   user who was new during the copy happen again as they did. The last record of each user decides, as it always does.
4. A profile's recent items name catalogue slots. Slots only grow, and their names are copied last, so each has one.
5. Only views, weights and exposure are of the beginning: events that came in during the copy and are in it already are
   not counted again by the replay. What they lose by a restart are the events of a second; of the lists, whatever was
   published since the save. What each user was shown (fatigue) is copied with the user's profile: no replay counts it.
6. The index is saved after the memory, and may thus be newer, or older after a kill between the two. Restored, it is
   made to hold what the profiles say, whatever it held: its graphs save time, its vectors are not believed.
7. A user who was forgotten before the copy began is nowhere in it: slot emptied, id dropped, views without names; and
   the older copies are deleted by `write_snapshot`. Forgotten while it runs, a user may still be in it: that is why
   the next save is due (`streams.kafka.saver`).
8. A copy is of one model. When another one comes into service meanwhile, the save is given up, and the one of before
   counts: it names its model, and a worker that serves another reads the changelog instead.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, cast

import msgspec
import numpy as np

from index import Manifest, SnapshotCorrupt, SnapshotError, open_part, write_snapshot
from streams.core.profile import GROWTH, ROWS_MIN, ProfileColumns, ProfileLayout
from streams.recommend.engine import RULED, Currents
from streams.recommend.fusion import FusionWeights
from streams.recommend.rerank import check_saved, joined_users

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from index import IndexConfig
    from streams.core.ports import VectorIndex
    from streams.recommend.engine import Engine
    from streams.recommend.fatigue import ShownItems

logger = logging.getLogger(__name__)

SCHEMA = 3
KIND = "worker"
PART = "memory"
PIECE_USERS = 4096
"""Profiles copied in one job of the compute thread: about 3 MB, 1 ms."""
WEIGHTS = tuple(f"fusion/{name}" for name in FusionWeights._fields)
"""The columns whose rows belong to sources, by the names that `Engine.currents` gives them."""
_LENGTH = struct.Struct("<Q")

Ask = Callable[..., Any]
"""Runs a function in the compute thread and waits for what it returns."""


class SavedIndex(Protocol):
    """An index that has a snapshot of its own, without what was forgotten before the save."""

    @property
    def config(self) -> IndexConfig:
        """What it was made with."""
        ...

    def save(self, path: Path, *, model: str = "", offsets: Mapping[str, int] | None = None) -> object:
        """Writes it."""
        ...

    @classmethod
    def load(cls, path: Path, config: IndexConfig | None = None) -> Self:
        """Reads it; raises SnapshotError."""
        ...


class Beginning(msgspec.Struct, array_like=True, frozen=True, tag="beginning"):
    """The first frame: figures of the moment when the copy began."""

    users: int
    epoch: int
    stream_time_ms: int


class Column(msgspec.Struct, array_like=True, frozen=True, tag="column"):
    """One array of `Currents.views`, little-endian, in C order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    content: bytes

    @classmethod
    def of(cls, name: str, array: NDArray[np.generic]) -> Self:
        """As it is written."""
        laid = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        return cls(name, laid.dtype.str, array.shape, laid.tobytes())

    def array(self) -> NDArray[np.generic]:
        """As it was, to be written to.

        Raises:
            ValueError, TypeError: the content is not of this type and shape.
        """
        dtype = np.dtype(self.dtype)
        return np.frombuffer(self.content, dtype).reshape(self.shape).astype(dtype.newbyteorder("="))


class Piece(msgspec.Struct, array_like=True, frozen=True, tag="piece"):
    """Profiles of consecutive slots: ids, excluded items by row of this piece, and rows as `row_type` lays them out."""

    user_ids: list[str]
    excluded: dict[int, tuple[int, ...]]
    rows: bytes


class _Copied(NamedTuple):
    """A piece as the compute thread hands it out; `shown` is `Reranker.saved_users`."""

    user_ids: list[str]
    excluded: dict[int, tuple[int, ...]]
    columns: ProfileColumns
    shown: ShownItems | None


class Ending(msgspec.Struct, array_like=True, frozen=True, tag="ending"):
    """The last frame: the catalogue's item ids, in slot order."""

    item_ids: list[str]


Frame = Beginning | Column | Piece | Ending


class Saved(NamedTuple):
    """What a save wrote, and of which memory."""

    users: int
    bytes: int
    epoch: int
    generation: int
    """The index's when the copy began."""
    forgotten: int
    """Users of whom no file holds anything any more: the engine's count when the copy began."""


class _Moment(NamedTuple):
    facts: Facts
    saved_index: SavedIndex
    layout: ProfileLayout
    currents: Currents
    users: int
    forgotten: int
    generation: int


class _Read(NamedTuple):
    beginning: Beginning
    views: dict[str, NDArray[np.generic]]
    user_ids: list[str]
    columns: ProfileColumns
    excluded: dict[int, tuple[int, ...]]
    item_ids: list[str]


@dataclass(frozen=True, slots=True)
class Facts:
    """What must be equal for a memory to be taken over; of `sources` it is enough that one is in both."""

    cluster: str
    topic: str
    model: str
    dim: int
    state_width: int
    recent_items: int
    event_id_window: int
    trend_half_lives_s: list[float]
    sources: list[str]
    """Weights are taken over by these names, and empty lists are equal: nothing is ranked."""
    schema: int = SCHEMA

    @classmethod
    def of(cls, engine: Engine, cluster: str, topic: str) -> Self:
        """As this worker is."""
        layout, encoder = engine.store.layout, engine.encoder
        return cls(
            cluster=cluster,
            topic=topic,
            model=encoder.name,
            dim=encoder.dim,
            state_width=layout.state_width,
            recent_items=layout.recent_items,
            event_id_window=layout.event_id_window,
            trend_half_lives_s=list(engine.trend_half_lives_s),
            sources=list(engine.sources),
        )

    def differing(self, manifest: Manifest) -> list[str]:
        """One phrase for each fact in which the snapshot is another; of another schema only that."""
        facts = self.as_extra()
        if manifest.extra.get("schema") != self.schema:
            facts = {"schema": self.schema}
        return [
            f"its {name} is {manifest.extra.get(name)!r}, this worker's {value!r}"
            for name, value in facts.items()
            if manifest.extra.get(name) != value
            and not (name == "sources" and set(self.sources) & set(_names(manifest.extra.get(name))))
        ]

    def as_extra(self) -> dict[str, Any]:
        """For the manifest."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def save_memory(
    folder: Path, engine: Engine, facts: Facts, offsets: Mapping[int, int], saved_at_s: float, ask: Ask
) -> Saved:
    """Writes the engine's memory and index; blocks for seconds, so call it outside the event loop and compute thread.

    `offsets` were read before this call: the changelog's, by partition, from which on memory may lack something. Of
    `facts` cluster and topic count; the rest is as the engine is when the copy begins.

    Raises:
        SnapshotError, OSError: nothing was switched, the snapshot of before still counts.
    """
    moment: _Moment = ask(_moment, engine, facts)
    facts = moment.facts
    manifest = Manifest(
        kind=KIND,
        dim=facts.dim,
        size=moment.users,
        model=facts.model,
        offsets={str(partition): offset for partition, offset in offsets.items()},
        saved_at_s=saved_at_s,
        extra=dict(facts.as_extra()),
    )
    written = write_snapshot(folder / "memory", manifest, {PART: lambda file: _write(file, engine, moment, ask)})
    moment.saved_index.save(folder / "index", model=facts.model)
    size = sum(part.bytes for part in written.parts.values())
    size += sum(file.stat().st_size for file in (folder / "index").rglob("*") if file.is_file())
    return Saved(moment.users, size, moment.currents.epoch, moment.generation, moment.forgotten)


def load_memory(folder: Path, manifest: Manifest, engine: Engine) -> None:
    """Takes the memory that `manifest` describes over into an engine without history; the index follows.

    Raises:
        SnapshotError: damaged, cut short or replaced meanwhile; the engine is as it was.
    """
    found = _read(open_part(folder / "memory", manifest, PART), engine.store.layout)
    found.views.update(_weights_by_name(found.views, _names(manifest.extra.get("sources")), engine.sources))
    _check_views(found, engine)
    engine.catalogue.restore(found.item_ids)
    engine.store.restore(found.user_ids, found.columns, found.excluded)
    engine.restore(Currents(found.beginning.epoch, found.beginning.stream_time_ms, found.views))
    empty = cast("SavedIndex", engine.index)
    try:
        engine.index = cast("VectorIndex", type(empty).load(folder / "index", empty.config))
    except SnapshotError as error:
        logger.warning("the index is built anew from the profiles: %s", error)
    engine.align_index()


def row_type(layout: ProfileLayout) -> np.dtype[np.void]:
    """One profile as it lies in a piece: the fields of `ProfileColumns`, packed, little-endian."""
    none = ProfileColumns.empty(0, layout)
    columns = {column.name: getattr(none, column.name) for column in fields(none)}
    return np.dtype([(name, array.dtype.newbyteorder("<"), array.shape[1:]) for name, array in columns.items()])


def _moment(engine: Engine, facts: Facts) -> _Moment:
    """In the compute thread."""
    return _Moment(
        Facts.of(engine, facts.cluster, facts.topic),
        cast("SavedIndex", engine.index),
        engine.store.layout,
        engine.currents(),
        len(engine.store),
        engine.forgotten,
        engine.index.stats().generation,
    )


def _piece(engine: Engine, model: str, first: int, end: int) -> _Copied:
    """In the compute thread: ids, profiles, exclusions and what was shown, of the same instant.

    Raises:
        SnapshotError: another model has come into service since the copy began.
    """
    if engine.encoder.name != model:
        raise SnapshotError(f"The model {model} was replaced by {engine.encoder.name} during the copy; save again.")
    store = engine.store
    excluded = {slot - first: store.excluded[slot] for slot in range(first, end) if slot in store.excluded}
    columns = ProfileColumns(
        **{c.name: getattr(store.columns, c.name)[first:end].copy() for c in fields(ProfileColumns)}
    )
    reranker = engine.reranker
    shown = None if reranker is None else reranker.saved_users(first, end)
    return _Copied(store.user_ids[first:end], excluded, columns, shown)


def _item_ids(engine: Engine) -> list[str]:
    return engine.catalogue.item_ids.copy()


def _write(file: Path, engine: Engine, moment: _Moment, ask: Ask) -> int:
    layout = row_type(moment.layout)
    with file.open("xb") as opened:

        def put(frame: Frame) -> None:
            encoded = msgspec.msgpack.encode(frame)
            opened.write(_LENGTH.pack(len(encoded)))
            opened.write(encoded)

        put(Beginning(moment.users, moment.currents.epoch, moment.currents.stream_time_ms))
        for name, array in moment.currents.views.items():
            put(Column.of(name, array))
        shown: list[ShownItems | None] = []
        for first in range(0, moment.users, PIECE_USERS):
            copied: _Copied = ask(_piece, engine, moment.facts.model, first, min(first + PIECE_USERS, moment.users))
            rows = np.empty(len(copied.user_ids), layout)
            for name in layout.names or ():
                rows[name] = getattr(copied.columns, name)
            put(Piece(copied.user_ids, copied.excluded, rows.tobytes()))
            shown.append(copied.shown)
        for name, array in joined_users(shown).items():
            put(Column.of(f"{RULED}{name}", array))
        put(Ending(ask(_item_ids, engine)))
        return opened.tell()


_decode = msgspec.msgpack.Decoder(Frame).decode


def _frames(file: Path) -> Iterator[Frame]:
    with file.open("rb") as opened:
        while head := opened.read(_LENGTH.size):
            try:
                (length,) = _LENGTH.unpack(head)
                yield _decode(opened.read(length))
            except (struct.error, msgspec.MsgspecError) as error:
                raise SnapshotCorrupt(f"Expected frames of a worker's memory in {file}: {error}") from error


def _read(file: Path, layout: ProfileLayout) -> _Read:
    """All frames, each piece laid into the columns as it comes."""
    beginning, ending = None, None
    views: dict[str, NDArray[np.generic]] = {}
    user_ids: list[str] = []
    excluded: dict[int, tuple[int, ...]] = {}
    columns = ProfileColumns.empty(0, layout)
    for frame in _frames(file):
        match frame:
            case Beginning() if beginning is None:
                beginning = frame
                columns = ProfileColumns.empty(max(ROWS_MIN, int(frame.users * GROWTH)), layout)
            case Column() if beginning is not None and frame.name not in views:
                views[frame.name] = _array(frame, file)
            case Piece() if beginning is not None and len(user_ids) + len(frame.user_ids) <= beginning.users:
                first = len(user_ids)
                user_ids += frame.user_ids
                excluded.update((first + row, items) for row, items in frame.excluded.items())
                _lay(columns, slice(first, len(user_ids)), np.frombuffer(frame.rows, row_type(layout)))
            case Ending() if ending is None:
                ending = frame
            case _:
                raise SnapshotCorrupt(
                    f"Expected one beginning, its columns and pieces, and one ending in {file}, got another order."
                )
    if beginning is None or ending is None or len(user_ids) != beginning.users:
        raise SnapshotCorrupt(f"Expected a beginning, all of its pieces and an ending in {file}; some are missing.")
    return _Read(beginning, views, user_ids, columns, excluded, ending.item_ids)


def _array(frame: Column, file: Path) -> NDArray[np.generic]:
    try:
        return frame.array()
    except (ValueError, TypeError) as error:
        raise SnapshotCorrupt(
            f"Expected the column {frame.name!r} of {file} to be of {frame.dtype} and {frame.shape}: {error}"
        ) from error


def _names(written: object) -> list[str]:
    """The sources of a manifest; empty when it names none."""
    return [str(name) for name in written] if isinstance(written, list) else []


def _weights_by_name(
    views: Mapping[str, NDArray[np.generic]], known: Sequence[str], sources: Sequence[str]
) -> dict[str, NDArray[np.generic]]:
    """The saved weights as those of this worker's sources; nothing where they are the same or not there."""
    if not known or tuple(known) == tuple(sources) or not all(name in views for name in WEIGHTS):
        return {}
    try:
        saved = FusionWeights(*(np.asarray(views[name], np.float64) for name in WEIGHTS))
        return dict(zip(WEIGHTS, saved.for_sources(known, sources), strict=True))
    except (ValueError, IndexError) as error:
        raise SnapshotCorrupt(f"The weights of the sources cannot be taken over: {error}.") from error


def _check_views(found: _Read, engine: Engine) -> None:
    """Raises SnapshotCorrupt unless the engine, which is without items, can take over the saved views."""
    expected = {name: empty for name, empty in engine.currents().views.items() if not name.startswith(RULED)}
    ruled = {name.removeprefix(RULED): array for name, array in found.views.items() if name.startswith(RULED)}
    if {name for name in found.views if not name.startswith(RULED)} != expected.keys():
        raise SnapshotCorrupt(f"Expected the columns {sorted(expected)}, got {sorted(found.views)}.")
    try:
        check_saved(ruled)
    except ValueError as error:
        raise SnapshotCorrupt(f"What the rules counted cannot be read: {error}.") from error
    for name, empty in expected.items():
        saved = found.views[name]
        rows = empty.shape[0] or min((len(found.item_ids), *saved.shape[:1]))
        if (saved.dtype, saved.shape) != (empty.dtype, (rows, *empty.shape[1:])):
            raise SnapshotCorrupt(
                f"Expected {empty.dtype} and rows of {empty.shape[1:]} of at most {len(found.item_ids)} items in the "
                f"column {name!r}, got {saved.dtype} and {saved.shape}."
            )


def _lay(columns: ProfileColumns, where: slice, rows: NDArray[np.void]) -> None:
    for name in rows.dtype.names or ():
        getattr(columns, name)[where] = rows[name]
