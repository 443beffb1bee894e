"""Equal vectors in a graph: one of them stands for all.

HNSW links a point to its nearest; a thousand equal points link to each other only, and a search that meets them finds
no way out (recall of everybody else fell from 1.0 to .90 when a tenth of all vectors were one). Users whose whole
history is the same one event have equal vectors, so this is no rare case. So of many equal rows only the first becomes
a node, and the others hang on it in a chain that a search walks when it has found the node.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from index.kernels import hash_rows
from index.results import Floats, Mask, Slots

GROUP_MIN = 16
"""Fewer equal rows than this are nodes like all others: the graph copes with them."""
BLOCK_ROWS = 4096
END = -1
NO_CHAIN = np.empty(0, np.int32)


class Twins:
    """Chains of equal rows, made while a graph is built."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._crowded: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._nodes: dict[int, int] = {}
        self.node_of: dict[int, int] = {}
        """The node that stands for each chained slot."""
        self.chain: Slots = NO_CHAIN
        """(capacity,) the next slot of a slot's chain, `END` at its end; empty when there is no chain."""

    def look_for(self, vectors: Floats, slots: Slots) -> None:
        """Notes which directions occur often among the slots' rows, by a 64-bit hash of their bits."""
        hashes = np.empty(len(slots), np.uint64)
        for start in range(0, len(slots), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            hashes[part] = hash_rows(vectors[slots[part]])
        hashes, counts = np.unique(hashes, return_counts=True)
        self._crowded = hashes[counts >= GROUP_MIN]

    def take(self, slots: Slots, vectors: Floats) -> Mask:
        """Which of these rows (n, d) become nodes; the others are chained to the node of their equals."""
        nodes = np.ones(len(slots), np.bool_)
        if not len(self._crowded):
            return nodes
        hashes = hash_rows(vectors)
        for row in np.flatnonzero(np.isin(hashes, self._crowded)).tolist():
            slot = int(slots[row])
            node = self._nodes.setdefault(int(hashes[row]), slot)
            if node != slot:
                self.join(slot, node)
                nodes[row] = False
        return nodes

    def join(self, slot: int, node: int) -> None:
        """Chains a slot to a node."""
        if not len(self.chain):
            self.chain = np.full(self._capacity, END, np.int32)
        self.chain[slot] = self.chain[node]
        self.chain[node] = slot
        self.node_of[slot] = node

    def pairs(self) -> Slots:
        """(n, 2) chained slot and node."""
        return np.array(list(self.node_of.items()), np.int32).reshape(-1, 2)

    def nodes(self, slots: Slots) -> Slots:
        """The node that holds each slot's vector."""
        if not self.node_of:
            return slots
        get = self.node_of.get
        return np.array([get(slot, slot) for slot in slots.tolist()], np.int32)
