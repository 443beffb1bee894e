"""The index's surface over a Milvus collection, for more vectors than one machine holds. Needs the extra `milvus`.

What crosses the network: an upsert asks which ids are there and then sends the rows, a search is one call per
`queries_per_call_max` queries, `len` and `stats` are a count on the server. When to switch, what that costs and what
is lost: `docs/adr/0014-beyond-one-machine.md`.

A primary key is the id's kind and its percent-encoded text: `i7` is the int 7, `s7` the string "7". So both kinds live
in one VARCHAR field, any string is a legal key, and nothing of an id can be read as part of a filter expression.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import index as as_int
from typing import Any, Self
from urllib.parse import quote, unquote

import numpy as np

from index.errors import EmptyIndex, InvalidFilter, InvalidNeighbours, UnknownId, VectorIndexError
from index.milvus_collection import KEY, KEY_LENGTH_MAX, VECTOR, Collection, IndexRefused, MilvusConfig
from index.recall import recall_at, self_miss_share
from index.results import Floats, IndexStats, Mask, Matches, RecallReport, UpsertReport, VectorId
from index.rows import padded, sound_queries, sound_rows

NEIGHBOURS_MAX = 16_384
"""What Milvus returns for one query at most."""


class MilvusIndex:
    """Unit vectors in one Milvus collection. Search from any number of threads beside one that writes.

    Every method but `close` may raise, beside what it names:
    `IndexUnavailable` when the server did not serve it within `timeout_s`, during which the client retries with growing
    pauses; parts of a large call may have gone in, and since every write is idempotent, repeating it is right;
    `IndexRefused` when the server rejected the call.

    It cannot do what needs the vectors at hand: `filter` (Milvus has no slots), `mask`, `slots`, `rebuild`, `save` and
    `load` (the server builds and stores by itself).
    """

    def __init__(self, config: MilvusConfig) -> None:
        """Connects, and makes the collection when it is not there.

        Raises:
            MilvusNotInstalled: `pymilvus` is not installed.
            DimensionMismatch: the collection is there with vectors of another length.
        """
        self.config = config
        self._collection = Collection(config)
        self._epoch = 0
        try:
            self._collection.open()
        except VectorIndexError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; what is stored stays. Idempotent."""
        self._collection.close()

    def __len__(self) -> int:
        counted = self._collection.ask("query", filter="", output_fields=["count(*)"])
        return int(counted[0]["count(*)"])

    def __contains__(self, vector_id: VectorId) -> bool:
        return bool(self._present([_key(vector_id)]))

    def ids(self) -> list[VectorId]:
        """All ids, read page by page."""
        return [_vector_id(row[KEY]) for page in self._collection.pages([KEY]) for row in page]

    def vector(self, vector_id: VectorId) -> Floats:
        """The unit vector (d,) stored under the id.

        Raises:
            UnknownId: there is none.
        """
        vector: Floats = self.vectors([vector_id])[0]
        return vector

    def vectors(self, ids: Sequence[VectorId]) -> Floats:
        """The unit vectors (n, d) stored under the ids.

        Raises:
            UnknownId: one is not there; the message names the first.
        """
        keys = [_key(vector_id) for vector_id in ids]
        stored: dict[str, Sequence[float]] = {}
        for part in self._parts(list(dict.fromkeys(keys))):
            stored.update((row[KEY], row[VECTOR]) for row in self._rows(part, [KEY, VECTOR]))
        for vector_id, key in zip(ids, keys, strict=True):
            if key not in stored:
                raise UnknownId(f"No vector is stored under the id {vector_id!r}.")
        return np.array([stored[key] for key in keys], np.float32).reshape(len(keys), self.config.dim)

    def stats(self) -> IndexStats:
        """Size by a count on the server and the changes that this object made; memory and graphs are the server's."""
        size = len(self)
        return IndexStats(size, size, 0, self._epoch, "exact" if self.config.index_type == "FLAT" else "hnsw")

    def upsert(self, ids: Sequence[VectorId], vectors: Floats) -> UpsertReport:
        """Adds or moves the vectors (n, d), normalised; of an id given twice the last row counts.

        Good rows go in. A row that is not finite or has no direction is reported by its position, and what the
        collection held under its id stays as it was.

        Raises:
            DimensionMismatch: the shape is not (len(ids), d); nothing was sent.
            IndexRefused: an id is too long for a key; nothing was sent.
        """
        sound = sound_rows(ids, vectors, self.config.dim)
        keys = [_key(vector_id) for vector_id in sound.ids]
        moved = 0
        for start in range(0, len(keys), step := self.config.rows_per_call):
            part = keys[start : start + step]
            moved += len(self._present(part))
            rows = zip(part, sound.vectors[start : start + step], strict=True)
            self._collection.ask("upsert", data=[{KEY: key, VECTOR: row} for key, row in rows])
            self._epoch += 1
        return UpsertReport(len(keys) - moved, moved, sound.rejected)

    def remove(self, ids: Sequence[VectorId]) -> int:
        """Takes the ids out; returns how many were there. Unknown ones are left alone."""
        removed = 0
        for part in self._parts(list(dict.fromkeys(_key(vector_id) for vector_id in ids))):
            if present := self._present(part):
                self._collection.ask("delete", ids=present)
                self._epoch += 1
                removed += len(present)
        return removed

    def forget(self, ids: Sequence[VectorId]) -> int:
        """Removes the ids and asks the server to compact; returns how many were there.

        When their bytes leave its storage is the server's business: after the compaction and its garbage
        collection's grace period. This object cannot tell. Servers limit how often they may be asked (a flush every
        ten seconds by default): name many ids in one call. An error here comes after the removal.
        """
        removed = self.remove(ids)
        if removed:
            self._collection.ask("flush")
            self._collection.ask("compact")
        return removed

    def search(
        self,
        vectors: Floats,
        k: int,
        exclude: Sequence[VectorId | None] | None = None,
        filter: Mask | None = None,  # noqa: A002 - the field's own word
    ) -> Matches:
        """The k most similar ids of each query (q, d), by cosine, best first: `Matches` of shape (q, k).

        Rows are padded with None and NaN where fewer than k were found; a query of zeros has no direction and gets
        padding only. `exclude` names one id a query (or None) that its row must not hold.

        Raises:
            InvalidNeighbours: k is below 1 or above what Milvus returns.
            DimensionMismatch: the shape is not (q, d).
            NonFiniteQuery: a query holds NaN or infinity; the message names its row.
            InvalidFilter: a filter is given, or there is not one excluded id per query.
        """
        queries, directed = sound_queries(vectors, k, self.config.dim)
        limit = self._checked(k, exclude, filter, len(queries))
        matches = padded(len(queries), k)
        asked = np.flatnonzero(directed)
        for start in range(0, len(asked), step := self.config.queries_per_call(limit)):
            part = asked[start : start + step]
            for row, hits in zip(part.tolist(), self._collection.search(list(queries[part]), limit), strict=True):
                unwanted = None if exclude is None or exclude[row] is None else _key(exclude[row])
                wanted = [hit for hit in hits if hit[KEY] != unwanted][:k]
                matches.ids[row, : len(wanted)] = [_vector_id(hit[KEY]) for hit in wanted]
                matches.similarities[row, : len(wanted)] = [hit["distance"] for hit in wanted]
        np.clip(matches.similarities, -1.0, 1.0, out=matches.similarities)
        return matches

    def exact(self, vectors: Floats, k: int) -> Matches:
        """As `search`, by reading every stored vector over the network, page by page: the judge of small collections.

        Raises:
            InvalidNeighbours, DimensionMismatch, NonFiniteQuery: as `search`.
        """
        queries, directed = sound_queries(vectors, k, self.config.dim)
        matches = padded(len(queries), k)
        best = np.full((len(queries), k), -np.inf, np.float32)
        for page in self._collection.pages([KEY, VECTOR]):
            ids = np.array([_vector_id(row[KEY]) for row in page], np.object_)
            scores = queries @ np.array([row[VECTOR] for row in page], np.float32).T
            both = np.concatenate([best, scores], axis=1)
            order = np.argsort(-both, axis=1, kind="stable")[:, :k]
            names = np.concatenate([matches.ids, np.tile(ids, (len(queries), 1))], axis=1)
            best[:] = np.take_along_axis(both, order, axis=1)
            matches.ids[:] = np.take_along_axis(names, order, axis=1)
        matches.ids[~directed] = None
        found = np.isfinite(best) & directed[:, None]
        matches.similarities[found] = np.clip(best[found], -1.0, 1.0)
        return matches

    def check_recall(self, queries: int = 256, k: int = 10, *, rng: np.random.Generator) -> RecallReport:
        """Measures `search` against `exact` with stored vectors as queries. Reads the whole collection.

        Nobody may write meanwhile: what moves during the check counts as a miss.

        Raises:
            EmptyIndex: nothing is stored.
        """
        ids = self.ids()
        if not ids:
            raise EmptyIndex("Expected a collection with vectors to draw queries from, got one without.")
        drawn = [ids[place] for place in rng.choice(len(ids), min(queries, len(ids)), replace=False).tolist()]
        vectors = self.vectors(drawn)
        exact, found = self.exact(vectors, k).similarities, self.search(vectors, k).similarities
        own = np.einsum("qd,qd->q", vectors, vectors)
        return RecallReport(len(drawn), recall_at(found, exact, k), self_miss_share(found[:, 0], own))

    def settle(self, timeout_s: float | None = None) -> bool:  # noqa: ARG002 - nothing of ours runs there
        """True: whatever the server builds, under `Strong` it answers by what is stored."""
        return True

    def _checked(self, k: int, exclude: Sequence[VectorId | None] | None, mask: Mask | None, queries: int) -> int:
        """How many neighbours to ask for: one more when one of them may have to go."""
        if mask is not None:
            raise InvalidFilter("Milvus has no slots that a mask could speak of; drop the filter, or use AutoIndex.")
        if exclude is not None and len(exclude) != queries:
            raise InvalidFilter(f"exclude must name one id (or None) per query, got {len(exclude)} for {queries}.")
        limit = k + (exclude is not None)
        if limit > NEIGHBOURS_MAX:
            raise InvalidNeighbours(f"Milvus returns {NEIGHBOURS_MAX} neighbours at most, got k = {k}.")
        return limit

    def _present(self, keys: list[str]) -> list[str]:
        """Those of a call's distinct keys that are stored."""
        return [row[KEY] for row in self._rows(keys, [KEY])]

    def _rows(self, keys: list[str], fields: list[str]) -> Sequence[Mapping[str, Any]]:
        rows: Sequence[Mapping[str, Any]] = self._collection.ask("query", ids=keys, output_fields=fields)
        return rows

    def _parts(self, keys: list[str]) -> Iterator[list[str]]:
        for start in range(0, len(keys), step := self.config.rows_per_call):
            yield keys[start : start + step]


def _key(vector_id: VectorId) -> str:
    """The primary key of an id.

    Raises:
        TypeError: the id is neither a string nor an int.
        IndexRefused: the key would be too long.
    """
    if isinstance(vector_id, str):
        key = "s" + quote(vector_id, safe="", errors="surrogatepass")
    else:
        key = f"i{as_int(vector_id)}"
    if len(key) > KEY_LENGTH_MAX:
        raise IndexRefused(f"An id may take {KEY_LENGTH_MAX} characters as a key, got {len(key)}: {key[:40]}…")
    return key


def _vector_id(key: str) -> VectorId:
    return unquote(key[1:], errors="surrogatepass") if key[0] == "s" else int(key[1:])
