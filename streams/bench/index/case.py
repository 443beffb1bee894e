"""One data set at one size: its vectors, and an index over them that was built once and is loaded by every part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from index import HnswIndex, IndexConfig
from streams.bench.index.data import Floats, VectorSource, vector_source
from streams.bench.index.population import Population
from streams.bench.report import Bar

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to measure, and how long."""

    sizes: tuple[int, ...] = (100_000,)
    kinds: tuple[str, ...] = ("clustered", "cloud")
    parts: tuple[str, ...] = ()
    """Empty for all but those that run on request only."""
    million: bool = False
    config: IndexConfig = field(default_factory=IndexConfig)
    seed: int = 0
    queries: int = 512
    """Per recall figure and per round of a cost figure."""
    stress_queries: int = 1_000_000
    churn: tuple[float, ...] = (0.25, 1.0, 3.0, 10.0)
    """Changes so far, as multiples of the size, at which recall is measured; ascending."""
    changes_per_s: float = 10_000.0
    """Pace of the changes: twice what the worker must carry."""
    alone_s: float = 4.0
    """Of queries before and after a rebuild."""
    rounds: int = 5

    def quick(self) -> Plan:
        """The same on so few vectors that a test can wait for it; its figures mean nothing."""
        config = replace(self.config, graph_min=700, delta_max=128)
        return replace(
            self,
            sizes=(1200,),
            config=config,
            queries=128,
            stress_queries=min(self.stress_queries, 4000),
            changes_per_s=40_000.0,
            alone_s=0.1,
            rounds=2,
        )


@dataclass(frozen=True)
class Figures:
    """What a part of the table measured."""

    bars: list[Bar]
    details: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Vectors of one kind at one size. `base` must not be written to; `folder` holds the saved index over them."""

    plan: Plan
    kind: str
    source: VectorSource
    base: Floats
    folder: Path
    build_s: float
    """What building the index took, all of it: wall seconds from the first call to the graph in service."""

    @property
    def size(self) -> int:
        """Users."""
        return len(self.base)

    @property
    def name(self) -> str:
        """How its bars begin."""
        return f"{self.kind} {self.size:,}"

    def rng(self, purpose: int) -> np.random.Generator:
        """Chance for one part: the same in every run with the same seed."""
        return np.random.default_rng([self.plan.seed, self.size, purpose])

    def population(self, purpose: int) -> Population:
        """The users at the start."""
        return Population(self.base, self.source, self.rng(purpose))

    def index(self) -> HnswIndex:
        """A copy of the built index, which whoever asks closes."""
        return HnswIndex.load(self.folder, self.plan.config)


@contextmanager
def open_case(plan: Plan, kind: str, size: int, say: Say) -> Iterator[Case]:
    """Draws the vectors, builds the index over them, and saves it for as long as the case is in use."""
    source = vector_source(kind, plan.config.dim, plan.seed)
    base = source.draw(size, np.random.default_rng([plan.seed, size]))
    with TemporaryDirectory(prefix="nearstream-bench-") as folder, HnswIndex(plan.config) as index:
        started_s = time.perf_counter()
        index.upsert(range(size), base)
        wait_for_build(index, 0)
        build_s = time.perf_counter() - started_s
        say(f"{kind} {size:,}: built in {build_s:.1f} s, ef {index.stats().ef}")
        index.save(Path(folder))
        yield Case(plan, kind, source, base, Path(folder), build_s)


def wait_for_build(index: HnswIndex, generation: int) -> None:
    """Returns when a base later than that generation is in service, the one that already began or one asked for."""
    index.settle()
    if index.stats().generation == generation:
        index.rebuild(wait=True)
