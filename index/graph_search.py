"""What a query reads of an index of graphs: candidates from every graph, the delta and what changed last.

Whatever comes out only proposes: candidates are scored by their current vectors afterwards, so one that is out of date
costs a place and no error. Shapes: q queries, d dimensions, k neighbours, c candidates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from index.delta import RECENT_ROWS, DeltaView, Recent
from index.graph import Graph
from index.kernels import SCANNED, count_owned
from index.results import Floats, Mask, Slots
from index.scan import scan
from index.table import TableView

WIDENED = 8
"""Factor of the candidates of a query most of whose first ones were out of date."""


class GraphView(NamedTuple):
    """All that a query reads, as of one moment."""

    table: TableView
    graphs: tuple[Graph, ...]
    """The base first."""
    delta: DeltaView
    recent: Recent


class Candidates(NamedTuple):
    """What may be nearest."""

    slots: Slots
    """(q, c), -1 is none."""
    short: Slots
    """Rows of queries for which the graphs found too few that still answer there: those must meet every vector."""


def propose(
    view: GraphView, queries: Floats, k: int, count: int, base_needed: int, allowed: Mask, excluded: Slots
) -> Candidates:
    """`count` from each graph, and more of the base until `base_needed` of them still answer from it.

    Graphs first, then the delta: who moves from the one to the other meanwhile is met at least once.
    """
    owner, base = view.table.owner, view.graphs[0]
    found = [graph.with_twins(graph.nearest(queries, count), k, owner, allowed, excluded) for graph in view.graphs]
    for widened in (count * WIDENED, 0):
        short = np.flatnonzero(count_owned(found[0], owner, base.tag, allowed) < base_needed)
        if not len(short):
            break
        if widened and not len(allowed) and widened < base.nodes:
            wide = base.nearest(queries[short], widened)
            wide = base.with_twins(wide, k, owner, allowed, excluded[short])
            found[0] = np.concatenate([found[0], np.full((len(queries), wide.shape[1]), -1, np.int32)], axis=1)
            found[0][short, -wide.shape[1] :] = wide
    delta, recent = view.delta, view.recent
    scanned = scan(
        delta.vectors,
        delta.rows,
        queries,
        k,
        owner,
        slots=delta.slots,
        wanted=SCANNED,
        allowed=allowed,
        excluded=excluded,
    )[1]
    last = scan(recent.vectors, RECENT_ROWS, queries, k, owner, slots=recent.slots, allowed=allowed, excluded=excluded)[
        1
    ]
    return Candidates(np.concatenate([*found, scanned, last], axis=1), short.astype(np.int32))
