"""Small stand-ins for the ports of the core, and what tests need to build and to compare state."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from index import SnapshotMissing
from streams.config import DEFAULT_TYPE_WEIGHTS
from streams.core.catalogue import Catalogue
from streams.core.events import Event, EventType
from streams.core.ports import EncoderEvents, Floats, ItemEncoder, ProfileEncoder
from streams.core.profile import FORGOTTEN, ProfileColumns, ProfileLayout, ProfileStore
from streams.core.updater import ProfileUpdater
from streams.recommend.engine import Engine
from streams.recommend.ranker import Ranker
from streams.recommend.request import RankerConfig
from streams.recommend.views import Views

DIM = 4
START_MS = 1_700_000_000_000
DAY_MS = 86_400_000
HALF_LIVES_S = (3600.0, 86_400.0)


class FakeItems:
    """Directions drawn from a checksum of the words, or of the id without words. Counts what it encodes."""

    dim = DIM

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(
        self, item_ids: Sequence[str], descriptions: Sequence[str], attributes: Sequence[Sequence[str]]
    ) -> Floats:
        """Unit vectors (n, 4)."""
        self.encoded.extend(item_ids)
        texts = [words or f"id:{item_id}" for item_id, words in zip(item_ids, descriptions, strict=True)]
        drawn = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=DIM) for text in texts]
        vectors = np.array(drawn, np.float32).reshape(len(texts), DIM)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class FakeProfiles:
    """A decayed sum in plain Python, halved every day: what it gives depends on the order of the events."""

    dim = state_width = DIM

    def __init__(self, name: str = "fake@1") -> None:
        self.name = name
        self.gaps_s: list[float] = []

    def step(self, states: Floats, events: EncoderEvents) -> None:
        """One event after the other."""
        self.gaps_s.extend(events.gaps_s.tolist())
        for row, item, weight, gap_s, *_ in zip(*events, strict=True):
            states[row] = stepped(states[row], item, weight, gap_s)

    def vectors(self, states: Floats) -> Floats:
        """Unit vectors, zeros without direction."""
        norms = np.linalg.norm(states, axis=1, keepdims=True)
        return np.divide(states, norms, out=np.zeros_like(states), where=norms > 1e-6)


def stepped(state: Floats, item: Floats, weight: float, gap_s: float) -> Floats:
    """The state after one event, as `FakeProfiles` and the models in tests compute it."""
    return state * np.float32(2.0 ** (-float(gap_s) / 86_400)) + np.float32(weight) * item


class FakeMatches(NamedTuple):
    """Best first, padded with None and NaN."""

    ids: NDArray[np.object_]
    similarities: Floats


class FakeStats(NamedTuple):
    """What a saver asks for."""

    erasures_pending: int
    generation: int


class FakeIndex:
    """Every vector in a dict."""

    config = None

    def __init__(self) -> None:
        self.stored: dict[int, Floats] = {}
        self.pending = self.generation = 0

    def upsert(self, ids: Sequence[int], vectors: Floats) -> None:
        """Adds or moves."""
        self.stored.update((key, vector.copy()) for key, vector in zip(ids, vectors, strict=True))

    def remove(self, ids: Sequence[int]) -> None:
        """Takes out."""
        for key in ids:
            self.stored.pop(key, None)

    def forget(self, ids: Sequence[int]) -> None:
        """Takes out."""
        self.remove(ids)

    def ids(self) -> list[int]:
        """All that is there."""
        return list(self.stored)

    def stats(self) -> FakeStats:
        """What is pending."""
        return FakeStats(self.pending, self.generation)

    def save(self, path: Path, *, model: str = "") -> None:
        """One file that holds it all."""
        path.mkdir(exist_ok=True)
        stored = {key: vector.tobytes() for key, vector in self.stored.items()}
        (path / "vectors").write_bytes(msgspec.msgpack.encode(stored))

    @classmethod
    def load(cls, path: Path, config: None = None) -> FakeIndex:
        """What was saved."""
        if not (path / "vectors").exists():
            raise SnapshotMissing(f"There is no snapshot at {path}.")
        loaded = cls()
        stored = msgspec.msgpack.decode((path / "vectors").read_bytes(), type=dict[int, bytes])
        loaded.stored = {key: np.frombuffer(vector, np.float32) for key, vector in stored.items()}
        return loaded

    def search(self, vectors: Floats, k: int) -> FakeMatches:
        """By plain dot products."""
        ids = np.full((len(vectors), k), None, np.object_)
        similarities = np.full((len(vectors), k), np.nan, np.float32)
        for row, vector in enumerate(vectors):
            if vector.any():
                ranked = sorted(
                    ((float(v @ vector), key) for key, v in self.stored.items()), key=lambda p: (-p[0], p[1])
                )
                for place, (similarity, key) in enumerate(ranked[:k]):
                    ids[row, place], similarities[row, place] = key, similarity
        return FakeMatches(ids, similarities)

    def __len__(self) -> int:
        return len(self.stored)


@dataclass
class World:
    """An engine of fakes, with its parts at hand."""

    layout: ProfileLayout
    store: ProfileStore
    items: FakeItems
    catalogue: Catalogue
    encoder: FakeProfiles
    updater: ProfileUpdater
    index: FakeIndex
    views: Views
    engine: Engine

    def feed(self, events: Sequence[Event], first_offset: int = 0, partition: int = 0) -> None:
        """Prepares and applies one batch."""
        self.engine.apply(self.engine.prepare(events, offsets(len(events), first_offset), partition))

    def profile(self, user_id: str) -> dict[str, Any]:
        """The stored profile."""
        return row_of(self.store.take(self.store.slots([user_id])), 0)

    def recents(self, user_id: str) -> list[str]:
        """Ids of the recent items, oldest first."""
        row = self.profile(user_id)
        return [self.catalogue.item_ids[slot] for slot in row["recent_items"][: row["recent_count"]]]

    def excluded(self, user_id: str) -> list[str]:
        """Ids of the items that are never recommended again."""
        return [self.catalogue.item_ids[item] for item in self.store.excluded.get(self.store.slot_of[user_id], ())]

    def popularity(self) -> dict[str, float]:
        """The shortest trend of each item that has any, right at the start time."""
        scores = self.views.trends[0].scores(START_MS / 1000, np.arange(len(self.catalogue), dtype=np.int32))
        return {item: float(score) for item, score in zip(self.catalogue.item_ids, scores, strict=True) if score > 0}


def world(
    recent_items: int = 8,
    event_id_window: int = 4,
    excluded_items_max: int = 5,
    model: str = "fake@1",
    neighbour_candidates: int = 3,
    *,
    ranking: bool = True,
    lessons_max: int | None = None,
) -> World:
    """An engine without history."""
    layout = ProfileLayout(DIM, recent_items, event_id_window)
    store, items, encoder, index = ProfileStore(layout), FakeItems(), FakeProfiles(model), FakeIndex()
    catalogue, views = Catalogue(items), Views(HALF_LIVES_S)
    updater = ProfileUpdater(store, catalogue, encoder, DEFAULT_TYPE_WEIGHTS, excluded_items_max)
    ranker = Ranker(store, catalogue, views, RankerConfig(list_items=5)) if ranking else None
    engine = Engine(store, catalogue, updater, encoder, index, views, ranker, neighbour_candidates, lessons_max)
    return World(layout, store, items, catalogue, encoder, updater, index, views, engine)


# the annotations are the point: mypy refuses a fake that has drifted from its port
_ITEMS: ItemEncoder = FakeItems()
_PROFILES: ProfileEncoder = FakeProfiles()


def event(
    user_id: str = "u1",
    item_id: str = "i1",
    kind: EventType = EventType.VIEW,
    at_s: float = 0.0,
    event_id: str | None = None,
    value: float | None = None,
) -> Event:
    """An event `at_s` seconds after the start."""
    return Event(user_id, item_id, kind, START_MS + round(at_s * 1000), event_id=event_id, value=value)


def offsets(count: int, first: int = 0) -> NDArray[np.int64]:
    """Offsets without gaps."""
    return np.arange(first, first + count, dtype=np.int64)


def row_of(columns: ProfileColumns, row: int) -> dict[str, Any]:
    """One profile as plain Python values; the state as bytes, so that equal means bit for bit."""
    values = {column.name: getattr(columns, column.name)[row] for column in fields(columns)}
    return {name: value.tobytes() if name == "state" else value.tolist() for name, value in values.items()}


def contents(built: World) -> dict[str, Any]:
    """What is stored of profiles, index and trend, by text ids, ready to be compared; the rest is in `learned`."""
    item_ids = built.catalogue.item_ids
    profiles = built.store.take(np.arange(len(built.store), dtype=np.int32))
    rows = {}
    for slot, user_id in enumerate(built.store.user_ids):
        if user_id == FORGOTTEN:
            continue
        row = row_of(profiles, slot)
        row["recent_items"] = [None if item < 0 else item_ids[item] for item in row["recent_items"]]
        row["excluded"] = [item_ids[item] for item in built.store.excluded.get(slot, ())]
        rows[user_id] = row
    indexed = {built.store.user_ids[slot]: vector.tobytes() for slot, vector in built.index.stored.items()}
    return {"profiles": rows, "index": indexed, "trend": built.popularity(), "epoch": built.engine.epoch}


def learned(built: World) -> dict[str, Any]:
    """Every array of the views and the weights, by slots, as plain Python values."""
    return {name: array.tolist() for name, array in built.engine.currents().views.items()}


class Record(NamedTuple):
    """A Kafka record, as far as the codec reads one."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = START_MS
    headers: Sequence[tuple[str, bytes]] = ()


def event_records(events: Sequence[Event], first_offset: int = 0) -> list[Record]:
    """The events as a producer sends them."""
    return [
        Record(first_offset + place, e.user_id.encode(), msgspec.json.encode(e), e.timestamp)
        for place, e in enumerate(events)
    ]
