"""HNSW that stays right while every vector moves: immutable graphs, an exact delta, and rebuilding in the background.

A vector is found through a graph as long as it is within `drift_cosine_min` of what the graph holds of it; found
candidates are scored by the current vectors. What moved further, and what is new, is in the delta and compared exactly.
When the delta is full it becomes a small graph of its own (a segment), or, when enough of the base is out of date, all
is built anew. Builds run in the background (`index/builder.py`) and come into service by one assignment; what a query
reads never changes under it (`index/graph_search.py`). Reasons and figures: `docs/adr/0013-two-tier-index.md`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from index.anchors import Anchors
from index.build import CHUNK, Build, Tuning, return_freed_memory, tune
from index.builder import Builder
from index.config import IndexConfig
from index.delta import Delta, Recent
from index.exact import ExactIndex
from index.graph import Graph
from index.graph_search import GraphView, propose
from index.kernels import NOBODY, SCANNED, TAG_MIN
from index.results import Floats, IndexStats, Mask, Slots, VectorId
from index.scan import BLOCK_QUERIES_MAX
from index.stored import Stored, StoredGraph
from index.twins import Twins

DEAD_MIN = 256
FILTERED_CANDIDATES_MAX = 4096
COST_RATIO_DEFAULT = 500.0
"""Rows that can be scanned for the price of one candidate of a graph, until it was measured."""


class HnswIndex(ExactIndex):
    """Approximate cosine search over vectors that move; the same calls as `ExactIndex`.

    An upserted vector is found by the very next query. `search` may be called from many threads beside one writer and
    beside builds. Call `close`, or use it as a context manager, to end a running build early.
    """

    def __init__(self, config: IndexConfig) -> None:
        super().__init__(config)
        table = self._table
        self._graphs: tuple[Graph, ...] = ()
        self._delta = self._new_delta(np.empty(0, np.int32))
        self._drift: Floats = np.zeros(len(table.view.owner), np.float32)
        self._anchors = Anchors(config.dim, len(table.view.owner))
        self._recent = Recent(config.dim)
        self._gate = float(np.arccos(config.drift_cosine_min))
        self._builds: list[Build] = []
        self._limbo: list[int] = []
        self._erasing: set[int] = set()
        self._tag_next = TAG_MIN
        self._base_live = 0
        self._dead = 0
        self._generation = 0
        self._in_service_since_s = 0.0
        self._build_s = 0.0
        self._rebuild_asked = False
        self._tuning: Tuning | None = None
        self._view = GraphView(table.view, (), self._delta.view, self._recent)
        self._builder = Builder(
            table.guard, self._base_is_wanted, self._segment_is_wanted, lambda base: self._build(base=base)
        )

    def stats(self) -> IndexStats:
        """All figures, as of now."""
        graphs, base = self._graphs, self._graphs[:1]
        base_rows = sum(len(graph) for graph in base)
        running = self._builds[:1]
        held = sum(graph.memory_bytes for graph in graphs) + self._delta.memory_bytes + self._anchors.memory_bytes
        held += 4 * self._table.view.high
        return (
            super()
            .stats()
            ._replace(
                memory_bytes=self._table.memory_bytes + held,
                tier="hnsw" if graphs else "exact",
                graph_rows=base_rows,
                segments=max(len(graphs) - 1, 0),
                delta=len(self._delta),
                moved=max(base_rows - self._base_live - self._dead, 0),
                dead=self._dead,
                ef=base[0].ef if base else 0,
                generation=self._generation,
                generation_age_s=time.monotonic() - self._in_service_since_s if base else 0.0,
                build_s=self._build_s,
                building=bool(running),
                build_progress=running[0].progress if running else 0.0,
                erasures_pending=len(self._erasing),
                failed_builds=self._builder.failed,
            )
        )

    def forget(self, ids: Sequence[VectorId]) -> int:
        """Removes the ids at once, and starts a build that leaves no byte of their vectors in any graph.

        `stats().erasures_pending` is 0 when that is done. Snapshots on disk keep what they held: save again.
        """
        with self._table.guard.write():
            slots = self._table.slots(ids)
            removed = self.remove(ids)
            if self._graphs or self._builds:
                self._erasing.update(slots[slots >= 0].tolist())
                self._builder.wake()
        return removed

    def rebuild(self, *, wait: bool = False) -> None:
        """Asks for a new base graph; `wait` returns when it is in service."""
        with self._table.guard.write():
            self._rebuild_asked = True
            self._builder.retry()
        if wait:
            self.settle()

    def settle(self, timeout_s: float | None = None) -> bool:
        """Waits until no build runs or is wanted; False when that took longer than `timeout_s`."""
        return self._builder.settle(timeout_s)

    def close(self) -> None:
        """Stops a running build within some hundredths of a second. The index still answers, but builds no more."""
        self._builder.close()

    # -- queries ------------------------------------------------------------------------------------------------------

    def _find(self, queries: Floats, k: int, allowed: Mask, excluded: Slots) -> tuple[Floats, NDArray[np.object_]]:
        view = self._view
        count = max(self.config.candidates, k + k // 4 + 8)
        if len(allowed):
            count = self._filtered_candidates(count, int(np.count_nonzero(allowed[: view.table.high])))
        if not view.graphs or not count or 2 * view.delta.rows > view.table.high:
            return self._scan_all(queries, k, allowed, excluded)
        scores = np.empty((len(queries), k), np.float32)
        ids = np.empty((len(queries), k), np.object_)
        for start in range(0, len(queries), BLOCK_QUERIES_MAX):
            part = slice(start, start + BLOCK_QUERIES_MAX)
            scores[part], ids[part] = self._find_block(view, queries[part], k, count, allowed, excluded[part])
        return scores, ids

    def _find_block(
        self, view: GraphView, queries: Floats, k: int, count: int, allowed: Mask, excluded: Slots
    ) -> tuple[Floats, NDArray[np.object_]]:
        candidates, short = propose(view, queries, k, count, min(k, self._base_live), allowed, excluded)
        scores, ids = self._scored_anew(view.table.layout, queries, candidates, k, allowed, excluded)
        if len(short):
            scores[short], ids[short] = self._scan_all(queries[short], k, allowed, excluded[short])
        return scores, ids

    def _filtered_candidates(self, count: int, admitted: int) -> int:
        """How many to take from each graph so that enough pass the filter; 0 where comparing all that pass is cheaper.

        The price of a candidate against that of a compared row is measured after every build.
        """
        wanted = count * max(len(self), 1) / max(admitted, 1)
        ratio = COST_RATIO_DEFAULT
        if (tuning := self._tuning) is not None and tuning.scan_s > 0:
            ratio = tuning.graph_s / max(tuning.ef, 1) / (tuning.scan_s / max(len(self), 1))
        if wanted > FILTERED_CANDIDATES_MAX or wanted * ratio > admitted:
            return 0
        return int(np.ceil(wanted))

    # -- snapshots, inside the write guard ----------------------------------------------------------------------------

    def _captured(self) -> Stored:
        held = super()._captured()
        if not self._graphs or self._erasing:
            return held
        answers = self._table.view.owner[held.slots] == self._graphs[0].tag
        return held._replace(graph=StoredGraph(self._graphs[0], answers, self._drift[held.slots]))

    def _restore(self, held: Stored) -> None:
        if held.graph is None:
            super()._restore(held)
            return
        graph, answers, drift = held.graph
        table, labels = self._table, graph.slots
        rows = held.high
        table.adopt(rows, held.slots, held.ids, held.vectors)
        graph.tag = self._tag_next
        self._tag_next += 1
        owner = table.view.owner
        owner[held.slots[answers]] = graph.tag
        self._drift = np.zeros(len(owner), np.float32)
        self._drift[held.slots] = drift
        self._anchors.reserve(len(owner))
        self._graphs, self._generation = (graph,), 1
        self._in_service_since_s = time.monotonic()
        self._base_live = int(np.count_nonzero(answers))
        in_graph = np.zeros(len(owner), np.bool_)
        in_graph[labels] = True
        unused = owner[:rows] == NOBODY
        self._dead = int(np.count_nonzero(unused & in_graph[:rows]))
        self._limbo = np.flatnonzero(unused & in_graph[:rows]).tolist()
        table.free.extend(np.flatnonzero(unused & ~in_graph[:rows]).tolist())
        beside = held.slots[~answers]
        self._delta = self._new_delta(beside)

    # -- changes, inside the write guard ------------------------------------------------------------------------------

    def _move(self, slots: Slots, rows: Floats) -> None:
        vectors, owner = self._table.view.vectors, self._table.view.owner
        if not (self._graphs or self._builds):
            vectors[slots] = rows
            return
        former = vectors[slots]
        angles = np.arccos(np.clip(np.einsum("nd,nd->n", former, rows), -1.0, 1.0))
        vectors[slots] = rows
        for build in self._builds:
            build.moved(slots, former, angles)
        if not self._graphs:
            return
        self._recent.put(slots, rows)
        scanned = owner[slots] == SCANNED
        far = np.zeros(len(slots), np.bool_)
        held = np.flatnonzero(~scanned)
        far[held] = self._drifted(slots[held], former[held], rows[held], angles[held])
        self._base_live -= int(np.count_nonzero(owner[slots[far]] == self._graphs[0].tag))
        owner[slots[far]] = SCANNED
        entering = scanned | far
        self._delta.put(slots[entering], rows[entering])

    def _drifted(self, slots: Slots, former: Floats, rows: Floats, angles: Floats) -> Mask:
        """Which rows left the gate around what their graph holds of them.

        The sum of a row's angles since bounds its distance from above, and the last one less the sum before bounds it
        from below; only between the two bounds the anchor is asked.
        """
        before = self._drift[slots]
        self._anchor(slots, former, before)
        self._drift[slots] = before + angles
        far: Mask = angles - before > self._gate
        unsure = np.flatnonzero(~far & (before + angles > self._gate))
        cosines = self._anchors.cosines(slots[unsure], rows[unsure])
        self._drift[slots[unsure]] = np.arccos(np.clip(cosines, -1.0, 1.0))
        far[unsure] = cosines < self.config.drift_cosine_min
        return far

    def _anchor(self, slots: Slots, former: Floats, drift: Floats) -> None:
        """Anchors rows at their first move. What is not known of those that moved before a restart is asked for."""
        missing = self._anchors.missing(slots)
        unmoved = missing & (drift == 0)
        self._anchors.put(slots[unmoved], former[unmoved])
        asked = slots[missing & ~unmoved]
        owners = self._table.view.owner[asked]
        for graph in self._graphs:
            own = asked[owners == graph.tag]
            if len(own):
                self._anchors.put(own, graph.vectors(own))

    def _add(self, slots: Slots, rows: Floats) -> None:
        super()._add(slots, rows)
        capacity = len(self._table.view.owner)
        if (more := capacity - len(self._drift)) > 0:
            self._drift = np.concatenate([self._drift, np.zeros(more, np.float32)])
        for build in self._builds:
            build.reserve(capacity)
        self._anchors.reserve(capacity)
        self._delta.reserve(capacity)
        if self._graphs:
            self._delta.put(slots, rows)

    def _leave(self, slots: Slots) -> None:
        if not self._graphs:
            return
        slots = np.unique(slots[slots >= 0])
        from_base = int(np.count_nonzero(self._table.view.owner[slots] == self._graphs[0].tag))
        self._base_live -= from_base
        self._dead += from_base
        self._delta.drop(slots)
        self._recent.drop(slots)

    def _freed(self, slots: Slots) -> None:
        if self._graphs or self._builds:
            self._limbo.extend(slots.tolist())  # a graph may hold them: not before the next base is another id theirs
        else:
            super()._freed(slots)

    def _changed(self) -> None:
        if self._graphs and self._graph_is_too_much():
            self._drop_graphs()
        self._publish()
        self._builder.wake()

    def _new_delta(self, slots: Slots) -> Delta:
        """With room for what may come until a segment takes it over, should a base be built meanwhile."""
        return Delta(self._table.view.vectors, slots, 3 * self.config.delta_max)

    def _publish(self) -> None:
        self._view = GraphView(self._table.view, self._graphs, self._delta.view, self._recent)

    # -- what to build ------------------------------------------------------------------------------------------------

    def _graph_is_wanted(self) -> bool:
        """Without graphs: whether to build the first."""
        return len(self) >= self.config.delta_max

    def _graph_is_too_much(self) -> bool:
        """With graphs: whether to go back to scanning."""
        return len(self) == 0

    def _pays(self, tuning: Tuning) -> bool:  # noqa: ARG002 - the subclass compares
        """Whether a graph that was built goes into service."""
        return True

    def _base_is_wanted(self) -> bool:
        if not self._graphs:
            return self._graph_is_wanted() or (self._rebuild_asked and len(self) > 0)
        rows, config = len(self._graphs[0]), self.config
        return (
            self._rebuild_asked
            or bool(self._erasing)
            or len(self) - self._base_live >= max(config.delta_max, config.stale_share_max * rows)
            or self._dead > max(DEAD_MIN, config.dead_share_max * rows)
        )

    def _segment_is_wanted(self, factor: int) -> bool:
        return bool(self._graphs) and len(self._delta) >= factor * self.config.delta_max

    # -- building, in a thread of the builder -------------------------------------------------------------------------

    def _build(self, *, base: bool) -> None:
        started = time.monotonic()
        with self._table.guard.write():
            build = self._begin(base=base)
        try:
            build.twins.look_for(self._table.view.vectors, build.slots)
            graph = Graph.build(
                self.config,
                build.tag,
                len(build.slots),
                self._chunks(build, base=base),
                build.twins,
                self._builder.cancelled,
            )
            if base:
                tuning = tune(self.config, graph, build, self._table.view, self._gate)
                if not self._pays(tuning):
                    return
                self._tuning = tuning
            with self._table.guard.write():
                if self._graph_is_too_much() or not (base or self._graphs):
                    return  # the index went back to scanning meanwhile
                self._install(build, graph, base=base)
                if base:
                    self._generation += 1
                    self._in_service_since_s = time.monotonic()
                    self._build_s = self._in_service_since_s - started
        finally:
            with self._table.guard.write():
                self._builds.remove(build)
                if base:
                    self._settle_limbo()
            return_freed_memory()

    def _begin(self, *, base: bool) -> Build:
        """The slots to build over: all for a base; the delta for a segment, and all segments when they are too many."""
        view = self._table.view
        if base:
            self._rebuild_asked = False
            slots = np.flatnonzero(view.owner[: view.high] != NOBODY).astype(np.int32)
            replaced = frozenset(graph.tag for graph in self._graphs)
        else:
            crowded = len(self._graphs) > self.config.segments_max
            replaced = frozenset(graph.tag for graph in self._graphs[1:]) if crowded else frozenset()
            answering = np.isin(view.owner[: view.high], [SCANNED, *replaced])
            slots = np.flatnonzero(answering).astype(np.int32)
        capacity = len(view.owner)
        drift = np.full(capacity, np.inf, np.float32)
        build = Build(self._tag_next, slots, replaced, drift, Anchors(self.config.dim, capacity), Twins(capacity))
        self._tag_next += 1
        self._builds.append(build)
        return build

    def _chunks(self, build: Build, *, base: bool) -> Iterator[tuple[Slots, Floats]]:
        for start in range(0, len(build.slots), CHUNK):
            if base:
                self._builder.keep_up()
            with self._table.guard.write():
                chunk = build.take(self._table.view, start)
            yield chunk

    def _install(self, build: Build, graph: Graph, *, base: bool) -> None:
        """Puts the graph into service. Those who search meanwhile keep the old view, whose owners stay as they were."""
        table = self._table
        owner = table.view.owner.copy()
        members = build.slots[build.read]
        near = members[(owner[members] != NOBODY) & (build.drift[members] <= self._gate)]
        owner[near] = graph.tag
        self._drift[near] = build.drift[near]
        if not base:
            graph.tune(self._graphs[0].ef)
        kept = tuple(other for other in self._graphs if other.tag not in build.replaced and (owner == other.tag).any())
        self._graphs = (graph, *kept) if base else (*kept, graph)
        outside = owner != NOBODY
        for each in self._graphs:
            outside &= owner != each.tag
        beside = np.flatnonzero(outside).astype(np.int32)
        owner[beside] = SCANNED
        self._delta = self._new_delta(beside)
        table.view = table.view._replace(owner=owner)
        if base:
            elsewhere = np.flatnonzero(np.isin(owner, [other.tag for other in kept])).astype(np.int32)
            build.anchors.take_over(self._anchors, elsewhere)
            self._anchors = build.anchors
            self._base_live = len(near)
            self._dead = int(np.count_nonzero(owner[members] == NOBODY))
        else:
            self._anchors.take_over(build.anchors, near)
            # a base may have come into service while this segment was built, and lose these rows to it
            self._base_live = int(np.count_nonzero(owner == self._graphs[0].tag))
        self._publish()

    def _settle_limbo(self) -> None:
        """Frees the removed slots that no graph holds any more, and counts erased what was to be erased.

        The build that just ended has either replaced the former base or been discarded.
        """
        held = np.zeros(len(self._table.view.owner), np.bool_)
        for graph in self._graphs:
            held[graph.slots] = True
        for running in self._builds:
            held[running.slots] = True
        limbo = np.array(self._limbo, np.int32)
        self._limbo = limbo[held[limbo]].tolist()
        self._erasing = {slot for slot in self._erasing if held[slot]}
        self._table.free.extend(limbo[~held[limbo]].tolist())

    def _drop_graphs(self) -> None:
        """Back to scanning everything."""
        table = self._table
        owner = np.where(table.view.owner == NOBODY, NOBODY, SCANNED).astype(np.int32)
        table.view = table.view._replace(owner=owner)
        self._graphs = ()
        self._delta = self._new_delta(np.empty(0, np.int32))
        self._base_live = self._dead = 0
        self._erasing.clear()
        if not self._builds:
            table.free.extend(self._limbo)
            self._limbo = []
