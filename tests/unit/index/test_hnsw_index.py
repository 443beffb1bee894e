"""HnswIndex and AutoIndex beyond the port: when they build, what a build leaves, what they say of themselves."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from index import AutoIndex, ExactIndex, HnswIndex, IndexConfig
from index.build import Build, tune
from index.graph import BuildCancelled, Graph
from index.results import Floats, Slots
from index.twins import GROUP_MIN, Twins

DIM = 16
CONFIG = IndexConfig(dim=DIM, capacity_initial=8, delta_max=100, stale_share_max=0.5, segments_max=2, recall_target=1.0)


def directions(seed: int, count: int) -> Floats:
    rows = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def nudged(vectors: Floats, cosine: float, seed: int = 99) -> Floats:
    """Unit rows at exactly this cosine to the given ones."""
    aside = directions(seed, len(vectors))
    aside -= np.einsum("nd,nd->n", aside, vectors)[:, None] * vectors
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    return cosine * vectors + np.sqrt(1 - cosine**2) * aside


def built(config: IndexConfig = CONFIG, count: int = 600) -> tuple[HnswIndex, Floats]:
    index, vectors = HnswIndex(config), directions(1, count)
    index.upsert(range(count), vectors)
    assert index.settle(30.0)
    return index, vectors


def agreement(index: HnswIndex, queries: Floats, k: int = 10) -> float:
    found, exact = index.search(queries, k), index.exact(queries, k)
    return float(np.mean(found.similarities >= exact.similarities[:, -1:] - 1e-6))


def test_small_moves_stay_with_the_graph_and_far_ones_go_to_the_delta() -> None:
    """The gate is the cosine to what the graph holds, however many steps led there."""
    index, vectors = built()
    index.upsert(range(50), nudged(vectors[:50], 0.995))
    assert index.stats().delta == 0
    index.upsert(range(30), nudged(vectors[:30], 0.98))
    assert (index.stats().delta, index.stats().moved) == (30, 30)
    index.upsert(range(30, 50), vectors[30:50])
    for step in range(12):  # every step is small and so is the way back: in sum far, in truth near
        index.upsert(range(30, 50), nudged(vectors[30:50], 0.995, seed=200 + step))
    assert index.stats().delta == 30
    index.close()


def test_slow_drift_leaves_the_gate_in_the_end() -> None:
    """Steps that each stay within the gate, all in one direction, end in the delta once their sum does not."""
    index, vectors = built()
    goal = nudged(vectors[:10], 0.9)
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        way = (1 - share) * vectors[:10] + share * goal
        index.upsert(range(10), way)
    assert index.stats().delta == 10
    assert index.search(goal, 1).ids[:, 0].tolist() == list(range(10))
    index.close()


def test_a_full_delta_becomes_a_segment_and_many_a_new_base() -> None:
    """Segments take the delta over until half of the base is out of date; then one graph holds all again."""
    index, _ = built()
    generations, segments = set(), set()
    for step in range(8):
        index.upsert(range(600 + 100 * step, 700 + 100 * step), directions(10 + step, 100))
        assert index.settle(30.0)
        stats = index.stats()
        generations.add(stats.generation)
        segments.add(stats.segments)
        assert stats.delta < 100
        assert agreement(index, directions(50 + step, 40)) > 0.98
    assert generations >= {1, 2}
    assert segments >= {0, 1, 2}
    assert index.stats().failed_builds == 0
    index.close()


def test_too_many_segments_are_merged_into_one() -> None:
    """The segment that would be one too many takes the others in."""
    index, _ = built(replace(CONFIG, stale_share_max=1.0), count=2000)
    for step in range(5):
        index.upsert(range(2000 + 100 * step, 2100 + 100 * step), directions(30 + step, 100))
        assert index.settle(30.0)
        assert index.stats().segments <= CONFIG.segments_max + 1
    assert index.stats().generation == 1
    assert agreement(index, directions(60, 40)) > 0.98
    index.close()


def test_what_changes_during_a_build_is_in_the_delta_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that moved, came or went after the build read them are right when the graph comes into service."""
    index, vectors = built()
    reached, go_on = threading.Event(), threading.Event()
    inner = Build.take

    def take(build: Build, view: Any, start: int) -> tuple[Slots, Floats]:
        chunk = inner(build, view, start)
        if start >= 256:
            reached.set()
        return chunk

    def pausing(chunks: Iterable[Any]) -> Iterable[Any]:
        for number, chunk in enumerate(chunks):
            yield chunk
            if number == 1:
                assert go_on.wait(30.0)

    graph_build = Graph.build

    def paused_build(config: Any, tag: Any, rows: Any, chunks: Any, twins: Any, cancelled: Any) -> Graph:
        return graph_build(config, tag, rows, pausing(chunks), twins, cancelled)

    monkeypatch.setattr(Build, "take", take)
    monkeypatch.setattr(Graph, "build", paused_build)
    index.rebuild()
    assert reached.wait(30.0)
    moved = nudged(vectors[:20], 0.5)
    index.upsert(range(20), moved)
    index.upsert(range(900, 910), directions(77, 10))
    index.remove(range(100, 110))
    assert 0 < index.stats().build_progress <= 1
    assert index.stats().building
    go_on.set()
    assert index.settle(30.0)
    stats = index.stats()
    assert (stats.generation, stats.delta, stats.dead, stats.building) == (2, 30, 10, False)
    assert index.search(moved, 1).ids[:, 0].tolist() == list(range(20))
    assert index.search(directions(77, 10), 1).ids[:, 0].tolist() == list(range(900, 910))
    assert agreement(index, directions(78, 50)) > 0.98
    index.close()


def test_close_ends_a_running_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that is told to stop leaves the index as it was, answering, and nothing runs on."""
    index, vectors = built()
    started = threading.Event()

    def endless(config: Any, tag: Any, rows: Any, chunks: Any, twins: Any, cancelled: Callable[[], bool]) -> Graph:
        started.set()
        while not cancelled():
            pass
        raise BuildCancelled

    monkeypatch.setattr(Graph, "build", endless)
    index.rebuild()
    assert started.wait(30.0)
    assert not index.settle(0.05)
    index.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "index-build"]
    assert index.stats().generation == 1
    assert index.search(vectors[:5], 1).ids[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_build_that_fails_is_counted_and_tried_again_when_asked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The index goes on with what it has, says so in the log, and does not try at every change."""
    index, _ = built()
    attempts = []

    def failing(*arguments: Any) -> Graph:
        attempts.append(arguments)
        raise MemoryError("no room")

    monkeypatch.setattr(Graph, "build", failing)
    index.rebuild(wait=True)
    for step in range(5):
        index.upsert(range(1000 + 100 * step, 1100 + 100 * step), directions(80 + step, 100))
    assert len(attempts) == 1
    assert index.stats().failed_builds == 1
    assert "building a graph failed" in caplog.text
    assert agreement(index, directions(90, 20)) > 0.98
    monkeypatch.undo()
    index.rebuild(wait=True)
    assert index.stats().generation == 2
    index.close()


def test_forgotten_bytes_leave_tables_and_graphs() -> None:
    """After the build that forgetting starts, neither table, delta nor graph holds the vector; others are found."""
    index, vectors = built()
    index.upsert([600], directions(91, 1))  # in the delta
    lost = index.vectors([7, 600])
    assert index.forget([7, 600, 12345]) == 2
    assert 7 not in index
    assert index.search(lost, 5).similarities[:, 0].max() < 0.999
    assert index.settle(30.0)
    assert index.stats().erasures_pending == 0
    held = [index._table.view.vectors, index._delta.view.vectors]
    held += [graph.vectors(graph.slots) for graph in index._graphs]
    for rows in held:
        assert np.abs(rows @ lost.T).max() < 0.9999
    index.upsert([7], vectors[7:8])
    assert index.search(vectors[7:8], 1).ids.tolist() == [[7]]
    index.close()


def test_many_dead_rows_start_a_build_and_their_slots_are_used_again() -> None:
    """When a fifth of the base is dead it is built anew; until then no slot changes hands."""
    index, _ = built()
    index.remove(range(100))
    assert index.stats().dead == 100
    before = index._table.view.high
    index.upsert(range(2000, 2010), directions(92, 10))
    assert index._table.view.high == before + 10
    index.remove(range(100, 400))
    assert index.settle(30.0)
    assert index.stats().dead == 0
    index.upsert(range(3000, 3100), directions(93, 100))
    assert index._table.view.high == before + 10
    index.close()


def test_equal_vectors_do_not_hide_the_others() -> None:
    """A third of all users in one place: they find each other, and everybody else is found as before."""
    vectors = directions(94, 3000)
    vectors[:1000] = vectors[0]
    with HnswIndex(replace(CONFIG, recall_target=0.97)) as index:
        index.upsert(range(3000), vectors)
        assert index.settle(60.0)
        assert index._graphs[0].nodes == 2001
        assert agreement(index, vectors[1000:2000]) > 0.97
        assert index.search(vectors[:1], 1500).similarities[0, 999] == pytest.approx(1.0)
        index.upsert(range(500), directions(95, 500))
        index.remove(range(500, 700))
        twins = index.search(vectors[999:1000], 400)
        assert (twins.similarities[0] > 0.99999).sum() == 300
        assert set(twins.ids[0, :300].tolist()) == set(range(700, 1000))


def test_few_equal_vectors_are_nodes_like_others() -> None:
    """Only crowds are chained; a chain knows its node."""
    twins = Twins(100)
    rows = np.repeat(directions(96, 2), [GROUP_MIN - 1, GROUP_MIN], axis=0)
    slots = np.arange(len(rows), dtype=np.int32)
    twins.look_for(rows, slots)
    nodes = twins.take(slots, rows)
    assert np.flatnonzero(nodes).tolist() == list(range(GROUP_MIN))
    assert set(twins.node_of.values()) == {GROUP_MIN - 1}
    assert twins.nodes(np.array([0, GROUP_MIN + 3], np.int32)).tolist() == [0, GROUP_MIN - 1]


def test_a_query_that_reaches_too_few_nodes_is_answered_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where hnswlib cannot fill its answer, the query meets every vector instead; the others of the batch do not."""
    index, vectors = built()
    scanned: list[int] = []
    inner = HnswIndex._scan_all

    def scan_all(self: HnswIndex, queries: Floats, *rest: Any) -> Any:
        scanned.append(len(queries))
        return inner(self, queries, *rest)

    real = Graph._ask

    def ask(graph: Graph, queries: Floats, count: int) -> Slots | None:
        unreachable = np.abs(queries @ vectors[3]).max() > 0.9999
        return None if unreachable else real(graph, queries, count)

    monkeypatch.setattr(HnswIndex, "_scan_all", scan_all)
    monkeypatch.setattr(Graph, "_ask", ask)
    assert index.search(vectors[:6], 3).ids[:, 0].tolist() == list(range(6))
    assert scanned == [1]
    index.close()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_filters_are_obeyed_in_graphs_too(share: float) -> None:
    """A graph is asked for more where few pass, or left aside; never a row too few, never one that is not admitted."""
    index, _ = built(count=3000)
    admitted = np.flatnonzero(np.random.default_rng(5).random(3000) < share).tolist()
    queries = directions(97, 30)
    found = index.search(queries, 10, filter=index.mask(admitted))
    exact = index.exact(queries, 10, filter=index.mask(admitted))
    assert set(found.ids.ravel().tolist()) - {None} <= set(admitted)
    assert (found.ids == exact.ids).mean() > 0.97
    assert ((found.ids == None) == (exact.ids == None)).all()  # noqa: E711 - elementwise
    index.close()


def test_auto_switches_by_size_with_a_gap() -> None:
    """Exact below the limit, a graph above, back only well below it, and every answer right on the way."""
    config = replace(CONFIG, graph_min=400)
    vectors = directions(98, 800)
    with AutoIndex(config) as index:
        index._pays = lambda tuning: True  # type: ignore[method-assign] # so few rows are cheaper to scan
        index.upsert(range(399), vectors[:399])
        assert index.stats().tier == "exact"
        index.upsert(range(399, 500), vectors[399:500])
        assert index.settle(30.0)
        assert index.stats().tier == "hnsw"
        index.remove(range(350, 500))
        assert index.settle(30.0)
        assert index.stats().tier == "hnsw"
        index.remove(range(290, 350))
        assert index.stats().tier == "exact"
        assert index.search(vectors[:290], 1).ids[:, 0].tolist() == list(range(290))
        assert index.stats().graph_rows == index.stats().delta == 0


def test_auto_stays_exact_where_a_graph_is_slower() -> None:
    """A graph that costs more than a scan never serves, and is not tried again before the index has grown by half."""
    builds = []
    with AutoIndex(replace(CONFIG, graph_min=200)) as index:
        inner = index._build
        index._build = lambda **how: (builds.append(how), inner(**how))[1]  # type: ignore[method-assign,func-returns-value]
        for start in range(0, 400, 20):
            index.upsert(range(start, start + 20), directions(start, 20))
            assert index.settle(30.0)
        assert index.stats().tier == "exact"
        assert len(builds) == 2  # at 200 and at 300 vectors


def test_recall_is_measured_on_the_index_itself() -> None:
    """A sound index finds all its canaries; one whose graph answers nonsense does not."""
    index, _ = built()
    report = index.check_recall(100)
    assert (report.queries, report.recall, report.self_miss_share) == (100, 1.0, 0.0)
    index._graphs[0].nearest = lambda queries, count: np.zeros((len(queries), count), np.int32)  # type: ignore[method-assign]
    index._base_live = 0  # no query is looked after
    assert index.check_recall(100).recall < 0.2
    index.close()


def test_exact_settles_and_closes_at_once() -> None:
    """The calls that mean something for graphs mean nothing to wait for here."""
    with ExactIndex(CONFIG) as index:
        index.upsert([1], directions(1, 1))
        assert index.settle(0.0)
        assert index.forget([1, 2]) == 1
    assert len(index) == 0


def test_builds_yield_to_queries() -> None:
    """The builder's thread has a lower priority than the threads that search."""
    seen: list[int] = []
    with HnswIndex(CONFIG) as index:
        inner = index._build

        def build(**how: Any) -> None:
            seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            inner(**how)

        index._build = build  # type: ignore[method-assign]
        index.upsert(range(200), directions(3, 200))
        assert index.settle(30.0)
    assert seen[0] > os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_delta_that_outgrows_the_polite_builder_is_built_at_ordinary_priority(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a base waits for a core, segments are built beside it, all vectors stay findable, and the base comes in."""
    index, _ = built()
    held, go_on = threading.Event(), threading.Event()

    def stuck(*arguments: Any) -> Any:
        held.set()
        assert go_on.wait(30.0)
        return tune(*arguments)

    monkeypatch.setattr("index.hnsw.tune", stuck)
    index.rebuild()
    assert held.wait(30.0)
    new = directions(5, 900)
    index.upsert(range(1000, 1900), new)
    deadline_s = time.monotonic() + 30.0
    while index.stats().delta >= 100 and time.monotonic() < deadline_s:
        index.upsert([0], directions(6, 1))
    between = index.stats()
    found = index.search(new, 1).ids[:, 0].tolist()
    go_on.set()
    assert index.settle(30.0)
    index.close()
    assert (between.segments, between.generation) == (1, 1)
    assert between.delta < 100
    assert found == list(range(1000, 1900))
    assert index.stats().generation >= 2
    assert agreement(index, new[:100]) == 1.0


def test_a_base_that_comes_in_beside_a_segment_keeps_the_count_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of two graphs that hold a row comes last answers for it, and the other counts it no more."""
    index, _ = built(replace(CONFIG, stale_share_max=1.0))
    held, go_on = threading.Event(), threading.Event()
    build = Graph.build.__func__  # type: ignore[attr-defined]

    def slow(*arguments: Any) -> Graph:
        if threading.current_thread().name == "index-build-urgent":
            held.set()
            assert go_on.wait(30.0)
        graph: Graph = build(Graph, *arguments)
        return graph

    monkeypatch.setattr(Graph, "build", slow)
    builder = index._builder
    monkeypatch.setattr(builder, "_build_all", lambda: setattr(builder, "_thread", None))
    index.upsert(range(1000, 1500), directions(5, 500))
    assert held.wait(30.0)
    monkeypatch.undo()
    index.rebuild()
    assert builder._thread is not None
    builder._thread.join(30.0)
    go_on.set()
    assert index.settle(30.0)
    index.close()
    stats, owner = index.stats(), index._table.view.owner
    assert stats.generation == 2
    assert index._base_live == int(np.count_nonzero(owner == index._graphs[0].tag))
    assert agreement(index, directions(5, 100)) == 1.0


def test_what_changed_last_is_found_even_where_the_graph_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moved row whose graph does not find it is found all the same, and gone when it is forgotten."""
    index, vectors = built()
    real = Graph._ask

    def blind(graph: Graph, queries: Floats, count: int) -> Slots | None:
        labels = real(graph, queries, count)
        assert labels is not None
        return np.where(labels <= 50, 300, labels)

    monkeypatch.setattr(Graph, "_ask", blind)
    assert index.search(vectors[1:51], 1).similarities.max() < 0.999
    moved = nudged(vectors[1:51], 0.999)
    index.upsert(range(1, 51), moved)
    assert index.stats().delta == 0
    assert index.search(moved, 1).ids[:, 0].tolist() == list(range(1, 51))
    index.forget([7])
    assert index.search(moved[6:7], 1).similarities.max() < 0.999
    assert np.abs(index._recent.vectors @ moved[6]).max() < 0.999
    index.close()


def moved_during_a_base(
    index: HnswIndex,
    monkeypatch: pytest.MonkeyPatch,
    after: Callable[[], object],
    before: Callable[[], object] = lambda: None,
) -> None:
    """Builds a base anew; `before` runs when the build has begun and `after` when it has read every row."""
    inner = index._chunks

    def chunks(build: Build, *, base: bool) -> Iterable[Any]:
        if base:
            before()
        yield from inner(build, base=base)
        if base:
            after()

    with monkeypatch.context() as patch:
        patch.setattr(index, "_chunks", chunks)
        index.rebuild(wait=True)


def test_rows_that_moved_during_a_build_need_not_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The build itself remembers where they stood when it read them, and the gate is right by that."""
    index, vectors = built()
    near = nudged(vectors[:40], 0.998)
    moved_during_a_base(index, monkeypatch, lambda: index.upsert(range(40), near))
    assert (index.stats().generation, index.stats().delta) == (2, 0)

    def asked(graph: Graph, slots: Slots) -> Floats:
        raise AssertionError(f"asked for {slots}")

    monkeypatch.setattr(Graph, "vectors", asked)
    index.upsert(range(20), near[:20] * 0.5 + vectors[:20] * 0.5)  # back: in sum far, in truth near
    index.upsert(range(20), vectors[:20])
    index.upsert(range(20), near[:20])
    assert index.stats().delta == 0
    index.upsert(range(40), nudged(vectors[:40], 0.985))
    assert index.stats().delta == 40
    index.close()


def test_rows_of_a_segment_keep_their_anchors_when_a_base_comes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that a segment took over while a base was built are judged by what the segment holds of them."""
    index, vectors = built(replace(CONFIG, stale_share_max=1.0))
    far = directions(70, 60)

    def change() -> None:
        index.upsert(range(60), far)
        index._build(base=False)
        index.upsert(range(60), nudged(far, 0.998))

    moved_during_a_base(index, monkeypatch, change)
    assert (index.stats().generation, index.stats().segments, index.stats().delta) == (2, 1, 0)
    for step in range(12):
        index.upsert(range(60), nudged(far, 0.995, seed=300 + step))
    assert index.stats().delta == 0
    index.upsert(range(60), vectors[:60])
    assert index.stats().delta == 60
    index.close()


def test_rows_that_moved_before_a_build_read_them_are_anchored_where_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is where a row stood when it was read, not when the build began."""
    index, _ = built()
    far = directions(71, 40)
    moved_during_a_base(
        index,
        monkeypatch,
        before=lambda: index.upsert(range(40), far),
        after=lambda: index.upsert(range(40), nudged(far, 0.998)),
    )
    for step in range(4):  # in sum far, in truth near
        index.upsert(range(40), nudged(far, 0.996, seed=400 + step))
    assert index.stats().delta == 0
    index.close()
