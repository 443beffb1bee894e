"""Exact cosine search: every query meets every vector. The judge of faster indexes, and the server of small ones.

Shapes: n rows, q queries, d dimensions, k neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from index import slot_map, stored
from index.config import IndexConfig
from index.errors import (
    InvalidFilter,
)
from index.kernels import NOBODY
from index.recall import check_recall
from index.results import (
    Floats,
    IndexStats,
    Mask,
    Matches,
    RecallReport,
    Slots,
    UpsertReport,
    VectorId,
)
from index.rows import padded, sound_queries, sound_rows
from index.scan import NO_MASK, empty_best, rescore, scan_admitted, warm_up
from index.snapshot import Json, Manifest
from index.stored import Stored
from index.table import TableView, VectorTable, float_row

SPARE = 8
"""Candidates beyond k where a write went on during the scan."""


class ExactIndex:
    """Unit vectors in one growing float32 array; ids are strings or ints.

    What a call changed, the next search sees. `search` may be called from many threads beside one that changes: it
    answers from vectors that were current during the call, and nobody waits for it. Among equal similarities the lower
    slot comes first. Memory: 4·d + 12 bytes a row, and 12 to 20 for finding it by its id.
    """

    def __init__(self, config: IndexConfig) -> None:
        """An empty index; its code is compiled on return, so the first search is as fast as the next."""
        self.config = config
        self._table = VectorTable(self._row(), config.capacity_initial)
        self._epoch = 0
        self.origin: Manifest | None = None
        """What the snapshot that it was loaded from says of itself; None for an index that began empty."""
        warm_up(config.dim)
        slot_map.warm_up()

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, vector_id: VectorId) -> bool:
        return vector_id in self._table.slot_of

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def vector(self, vector_id: VectorId) -> Floats:
        """A copy of the unit vector (d,) stored under the id.

        Raises:
            UnknownId: there is none.
        """
        vector: Floats = self.vectors([vector_id])[0]
        return vector

    def vectors(self, ids: Sequence[VectorId]) -> Floats:
        """Copies of the unit vectors (n, d) stored under the ids, all as of one moment.

        Raises:
            UnknownId: one is not there.
        """
        table = self._table
        return table.guard.read(lambda: self._taken(table.view, table.known_slots(ids)))

    def ids(self) -> list[VectorId]:
        """All ids, in the order of their slots."""
        view = self._table.view
        held = view.ids[: view.high]
        return [vector_id for vector_id in held.tolist() if vector_id is not None]

    def slots(self, ids: Sequence[VectorId]) -> Slots:
        """The slots of the ids, -1 for unknown ones. A slot keeps its id until the id is removed."""
        return self._table.slots(ids)

    def mask(self, ids: Sequence[VectorId]) -> Mask:
        """A filter for `search` that admits these ids and no other; unknown ones are passed over.

        It speaks of slots: after a `remove`, make a new one.
        """
        mask = np.zeros(self._table.view.high, np.bool_)
        slots = self._table.slots(ids)
        mask[slots[slots >= 0]] = True
        return mask

    def stats(self) -> IndexStats:
        """Size, capacity, memory and epoch, as of now."""
        return IndexStats(len(self), len(self._table.view.owner), self._table.memory_bytes, self._epoch)

    def upsert(self, ids: Sequence[VectorId], vectors: Floats) -> UpsertReport:
        """Adds or moves the vectors (n, d), normalised; of an id given twice the last row counts.

        Good rows go in. A row that is not finite or has no direction is reported by its position, and what the
        index held under its id stays as it was.

        Raises:
            DimensionMismatch: the shape is not (len(ids), d); nothing has changed.
        """
        distinct, rows, rejected = sound_rows(ids, vectors, self.config.dim)
        if not distinct:
            return UpsertReport(0, 0, rejected)
        with self._table.guard.write():
            slots = self._table.slots(distinct)
            new = np.flatnonzero(slots < 0)
            known = np.flatnonzero(slots >= 0)
            self._move(slots[known], rows if len(known) == len(rows) else rows[known])
            if len(new):
                slots[new] = self._table.claim([distinct[row] for row in new.tolist()])
                self._add(slots[new], rows if len(new) == len(rows) else rows[new])
            self._epoch += 1
            self._changed()
        return UpsertReport(len(new), len(known), rejected)

    def remove(self, ids: Sequence[VectorId]) -> int:
        """Takes the ids out, zeroing their rows; returns how many were there. Unknown ones are left alone."""
        with self._table.guard.write():
            self._leave(self._table.slots(ids))
            slots = self._table.release(ids)
            if len(slots):
                self._freed(slots)
                self._epoch += 1
                self._changed()
        return len(slots)

    def forget(self, ids: Sequence[VectorId]) -> int:
        """Removes the ids so that no byte of their vectors stays behind. Returns how many were there."""
        return self.remove(ids)

    def search(
        self,
        vectors: Floats,
        k: int,
        exclude: Sequence[VectorId | None] | None = None,
        filter: Mask | None = None,  # noqa: A002 - the field's own word
    ) -> Matches:
        """The k most similar ids of each query (q, d), by cosine, best first: `Matches` of shape (q, k).

        Rows are padded with None and NaN where fewer than k are there; a query of zeros has no direction and gets
        padding only. `exclude` names one id a query (or None) that its row must not hold; `filter` is a boolean by
        slot (`mask`): only the ids of its true slots are found.

        Raises:
            InvalidNeighbours: k is below 1.
            DimensionMismatch: the shape is not (q, d).
            NonFiniteQuery: a query holds NaN or infinity; the message names its row.
            InvalidFilter: the mask is not boolean and flat, or there is not one excluded id per query.
        """
        return self._answer(vectors, k, exclude, filter, exact=False)

    def exact(
        self,
        vectors: Floats,
        k: int,
        exclude: Sequence[VectorId | None] | None = None,
        filter: Mask | None = None,  # noqa: A002 - the field's own word
    ) -> Matches:
        """As `search`, by comparing every vector: what `search` is judged by."""
        return self._answer(vectors, k, exclude, filter, exact=True)

    def check_recall(self, queries: int = 256, k: int = 10, rng: np.random.Generator | None = None) -> RecallReport:
        """Measures `search` by stored vectors; may run in a thread of its own beside the writer.

        Raises:
            EmptyIndex: nothing is stored.
        """
        return check_recall(self, queries, k, rng=np.random.default_rng(self.config.seed) if rng is None else rng)

    def save(
        self, path: Path, *, model: str = "", offsets: Mapping[str, int] | None = None, saved_at_s: float = 0.0
    ) -> Manifest:
        """Saves the index into the folder `path`, replacing the snapshot there; it survives a crash at any instant.

        Waits for the disk, in any thread; only to copy the vectors it holds up whoever changes the index (a tenth of
        a second for a million of them). `offsets`, `model` and `saved_at_s` are kept in the manifest.

        Raises:
            SnapshotError: somebody else saves there, or what was written cannot be read back.
            OSError: the disk is full or cannot be written.
        """
        with self._table.guard.write():
            held = self._captured()
        extra: dict[str, Json] = {"high": held.high}
        if held.graph is not None:
            extra |= {"ef": held.graph.graph.ef, "nodes": held.graph.graph.nodes}
        manifest = Manifest(
            kind=stored.KIND,
            dim=self.config.dim,
            size=len(held.ids),
            model=model,
            offsets=dict(offsets or {}),
            saved_at_s=saved_at_s,
            extra=extra,
        )
        return stored.write(path, held, manifest, self.config)

    @classmethod
    def load(cls, path: Path, config: IndexConfig | None = None) -> Self:
        """The index that was saved at `path`, by any of the index classes; `origin` is its manifest.

        Raises:
            SnapshotMissing: there is no snapshot.
            SnapshotCorrupt: what cannot be made anew is damaged.
            SnapshotMismatch: it does not fit `config`, or is no index.
        """
        held, manifest, config = stored.read(path, config)
        index = cls(config)
        with index._table.guard.write():
            index._restore(held)
            index._changed()
        index.origin = manifest
        return index

    def settle(self, timeout_s: float | None = None) -> bool:  # noqa: ARG002 - nothing to wait for here
        """Waits until no work goes on in the background; False when that took longer than `timeout_s`."""
        return True

    def close(self) -> None:
        """Ends what runs in the background."""

    def _captured(self) -> Stored:
        """A copy of all rows."""
        view = self._table.view
        slots = np.flatnonzero(view.owner[: view.high] != NOBODY).astype(np.int32)
        return Stored(view.ids[slots].tolist(), slots, self._taken(view, slots), None, view.high)

    def _restore(self, held: Stored) -> None:
        """Takes over a snapshot while empty; the slots it was saved with do not matter here."""
        if held.ids:
            self._add(self._table.claim(held.ids), held.vectors)

    def _answer(
        self, vectors: Floats, k: int, exclude: Sequence[VectorId | None] | None, mask: Mask | None, *, exact: bool
    ) -> Matches:
        queries, directed = sound_queries(vectors, k, self.config.dim)
        width = min(k, max(len(self), 1))
        guard = self._table.guard
        for attempt in range(guard.TRIES + 1):
            with guard.hold() if attempt == guard.TRIES else nullcontext():
                layout, sequence = self._table.view.layout, guard.sequence
                allowed, excluded = self._checked(mask, exclude, len(queries))
                scores, found_ids = (self._scan_all if exact else self._find)(queries, width, allowed, excluded)
            # slots may have changed their meaning meanwhile, or what was found have left so that a row is too short
            crossed = guard.sequence != sequence and mask is None and not np.isfinite(scores).all()
            if self._table.view.layout == layout and not crossed:
                break
        ids, similarities = answer = padded(len(queries), k)
        found = np.isfinite(scores) & directed[:, None]
        ids[:, :width][found] = found_ids[found]
        similarities[:, :width][found] = np.clip(scores[found], -1.0, 1.0)
        return answer

    def _checked(
        self, mask: Mask | None, exclude: Sequence[VectorId | None] | None, queries: int
    ) -> tuple[Mask, Slots]:
        """The filter as the kernels take it. No mask is an empty one; a mask of nothing admits nothing."""
        if mask is None:
            allowed = NO_MASK
        elif mask.dtype != np.bool_ or mask.ndim != 1:
            raise InvalidFilter(
                f"filter must be a flat array of bool, one a slot (see mask()), got {mask.dtype} of shape {mask.shape}."
            )
        else:
            allowed = mask if len(mask) else np.zeros(1, np.bool_)
        if exclude is None:
            return allowed, np.full(queries, -1, np.int32)
        if len(exclude) != queries:
            raise InvalidFilter(f"exclude must name one id (or None) per query, got {len(exclude)} for {queries}.")
        return allowed, self._table.slots(exclude)

    def _find(self, queries: Floats, k: int, allowed: Mask, excluded: Slots) -> tuple[Floats, NDArray[np.object_]]:
        """Scores and ids (q, k) of unit queries, best first; -inf where there is none."""
        return self._scan_all(queries, k, allowed, excluded)

    def _scan_all(self, queries: Floats, k: int, allowed: Mask, excluded: Slots) -> tuple[Floats, NDArray[np.object_]]:
        guard = self._table.guard
        before = guard.sequence
        view = self._table.view
        scores, slots = self._scanned(view, queries, k, allowed, excluded)
        ids = view.ids[slots]
        if before % 2 == 0 and guard.sequence == before:
            return scores, ids
        # one of the best may have moved away or left since it was found: some more stand by for its place
        slots = self._scanned(view, queries, k + SPARE, allowed, excluded)[1]
        return self._scored_anew(view.layout, queries, slots, k, allowed, excluded)

    def _scored_anew(
        self, layout: int, queries: Floats, candidates: Slots, k: int, allowed: Mask, excluded: Slots
    ) -> tuple[Floats, NDArray[np.object_]]:
        """The best of the candidates by vectors and ids that belong together, whatever the writer does meanwhile.

        Of a layout that is gone nothing can be said; the caller asks again.
        """

        def work() -> tuple[Floats, NDArray[np.object_]]:
            view = self._table.view
            if view.layout != layout:
                return empty_best(len(queries), k)[0], np.full((len(queries), k), None, np.object_)
            scores, slots = self._rescored(view, queries, candidates, k, allowed, excluded)
            return scores, view.ids[slots]

        return self._table.guard.read(work)

    def _move(self, slots: Slots, rows: Floats) -> None:
        """Known slots get new rows."""
        self._put(slots, rows)

    def _add(self, slots: Slots, rows: Floats) -> None:
        """Newly claimed slots get their first rows."""
        self._put(slots, rows)

    def _leave(self, slots: Slots) -> None:
        """These slots (-1: unknown) are about to be released."""

    def _freed(self, slots: Slots) -> None:
        """These slots were released."""
        self._table.free.extend(slots.tolist())
        self._table.close_up()

    def _changed(self) -> None:
        """A call has changed something; the guard is still held."""

    # -- how a row is kept --------------------------------------------------------------------------------------------

    def _row(self) -> np.dtype[Any]:
        """The form of one row of the table."""
        return float_row(self.config.dim)

    def _put(self, slots: Slots, rows: Floats) -> None:
        """Writes unit rows (n, d) at distinct slots."""
        self._table.view.vectors[slots] = rows

    def _taken(self, view: TableView, slots: Slots) -> Floats:
        """Copies (n, d) of the rows at these slots."""
        taken: Floats = view.vectors[slots]
        return taken

    def _scanned(
        self, view: TableView, queries: Floats, k: int, allowed: Mask, excluded: Slots
    ) -> tuple[Floats, Slots]:
        """The best k of all rows, as `scan` gives them."""
        return scan_admitted(view.vectors, view.high, queries, k, view.owner, allowed, excluded)

    def _rescored(
        self, view: TableView, queries: Floats, candidates: Slots, k: int, allowed: Mask, excluded: Slots
    ) -> tuple[Floats, Slots]:
        """The best k of each query's candidates (q, c), by the rows as they are now."""
        return rescore(queries, view.vectors, view.owner, candidates, k, allowed, excluded)
