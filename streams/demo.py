"""Everything on this machine: embedded Kafka, topics, a worker process, a feed and the live page, in one command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streams.core.errors import NearstreamError, UsageError
from streams.core.status import Quantiles, WorkerStatus
from streams.dashboard.server import serve_dashboard
from streams.demo_worker import DemoWorker, worker_process
from streams.feed import FeedSummary, epoch_ms, feed
from streams.kafka.api_backend import KafkaBackend
from streams.kafka.broker import EmbeddedKafka
from streams.kafka.digest import digest_of, read_profiles
from streams.kafka.observer import KafkaObserver
from streams.kafka.topics import create_topics
from streams.sources.stretch import Stretch

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.core.observation import Observation
    from streams.demo_training import Trained
    from streams.feed import TimeMode
    from streams.kafka.processes import OnProgress
    from streams.sources import Source

PARTITIONS = 4
WORKER_START_S_MAX = 60.0
STALL_S_MAX = 60.0
POLL_S = 0.25
HISTORY_EVENTS_MAX = 10_000
HISTORY_RATE = 2_000.0
"""Events per second: quick, and still no more than a worker on a busy laptop keeps up with."""
MODEL_FOLDER, TEXT_CACHE_FOLDER = "model", "text-cache"


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Train first, on the source's past; the live feed goes on after it."""

    past_events: int | None
    """How many of the source's first events are the past; None: half of them, within reason."""
    required: bool
    """Whether the demo fails if nothing can be learned; otherwise it runs without a trained model and says why."""


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What the person asked for. `events` None: until Ctrl-C; the past does not count."""

    source: Source
    rate: float | None
    events: int | None
    time_mode: TimeMode
    once: bool
    training: TrainingPlan | None = None
    """None: the settings' own model serves, and everything in the source is live."""


class DemoSummary(msgspec.Struct, frozen=True):
    """What `demo --once` prints. `freshness_ms` runs from sending an event to its committed list."""

    events: int
    lists: int
    users: int
    dead_letters: int
    freshness_ms: Quantiles
    events_per_s: float
    lag: int


@dataclass(frozen=True, slots=True)
class TrainingScene:
    """How far the training is. `total` None: unknown; `best` is the NDCG@10 in validation, NaN before the first."""

    stage: str
    done: int
    total: int | None
    best: float


@dataclass(slots=True)
class DemoScene:
    """What the terminal shows while the demo runs."""

    stage: str = "starting"
    training: TrainingScene | None = None
    """While and after a model is trained."""
    note: str | None = None
    """What is not as the person may expect."""
    page: str | None = None
    observe: Callable[[], Observation] | None = None
    """Looks at the topics, once there are any."""
    observation: Observation | None = None


async def run_demo(
    plan: DemoPlan,
    settings: Settings,
    *,
    on_progress: OnProgress,
    on_page: Callable[[str], None],
    on_scene: Callable[[DemoScene], None],
    stop: asyncio.Event,
) -> DemoSummary | None:
    """Runs until `stop` is set, or with `plan.once` until its events are through; then ends all it started.

    Jars are cached in `settings.data_dir`; topics and the model live in a temporary folder that goes with the demo.
    Kafka starts while the model is trained.

    Raises:
        NearstreamError: Kafka cannot be started, the worker ended by itself, or a training that is required failed.
    """
    scene = DemoScene()
    with tempfile.TemporaryDirectory(prefix="nearstream-demo-") as folder:
        async with _shown(scene, on_scene), _trained(plan, Path(folder), scene, stop) as training:
            jars = settings.data_dir / "kafka" / "jars"
            loop = asyncio.get_running_loop()
            kafka = EmbeddedKafka(Path(folder), brokers=1, die_with_owner=True, jars_dir=jars)
            info = await loop.run_in_executor(None, kafka.start, on_progress)
            try:
                trained = await training
                if stop.is_set():
                    return None
                model = settings.model if trained is None else str(Path(folder) / MODEL_FOLDER)
                local = settings.model_copy(
                    update={
                        "bootstrap": info.bootstrap,
                        "security_protocol": "PLAINTEXT",
                        "partitions": PARTITIONS,
                        "replication": 1,
                        "model": model,
                    }
                )
                return await _run_on(local, plan, trained, scene, Path(folder), on_page, stop)
            finally:
                await loop.run_in_executor(None, kafka.stop)


@asynccontextmanager
async def _trained(
    plan: DemoPlan, folder: Path, scene: DemoScene, stop: asyncio.Event
) -> AsyncIterator[asyncio.Task[Trained | None]]:
    """The training, on its way in a thread of its own; it has ended when the block is left, however that is."""
    left = threading.Event()
    training = asyncio.create_task(_train(plan, folder, scene, lambda: stop.is_set() or left.is_set()))
    try:
        yield training
    finally:
        left.set()
        await asyncio.wait({training})
        training.exception()  # seen here too, where Kafka's fault is the one that is reported


async def _train(plan: DemoPlan, folder: Path, scene: DemoScene, is_stopped: Callable[[], bool]) -> Trained | None:
    """None: not wanted, stopped, or not possible and not required."""
    if plan.training is None:
        return None
    scene.stage = "training"
    try:
        trained = await asyncio.to_thread(_train_here, plan.source, plan.training, folder, scene, is_stopped)
    except UsageError as error:
        if plan.training.required:
            raise
        scene.note = f"nothing was trained, the built-in model serves: {error}"
        return None
    finally:
        scene.stage = "starting Kafka"
    if trained is not None:
        scene.note = f"trained on the first {trained.past_events:,} events; what is live comes after them"
    return trained


def _train_here(
    source: Source, training: TrainingPlan, folder: Path, scene: DemoScene, is_stopped: Callable[[], bool]
) -> Trained | None:
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "torch"))  # torch would leave a folder behind
    from streams.demo_training import TrainingStopped, train_on_past  # noqa: PLC0415 - torch, for those who train

    def on_training(stage: str, done: int, total: int | None, best: float) -> None:
        scene.training = TrainingScene(stage, done, total, best)

    try:
        return train_on_past(
            source, training.past_events, folder / MODEL_FOLDER, folder / TEXT_CACHE_FOLDER, on_training, is_stopped
        )
    except TrainingStopped:
        return None


async def _run_on(
    settings: Settings,
    plan: DemoPlan,
    trained: Trained | None,
    scene: DemoScene,
    folder: Path,
    on_page: Callable[[str], None],
    stop: asyncio.Event,
) -> DemoSummary | None:
    """The demo on a broker that runs."""
    await create_topics(settings)
    with worker_process(settings, folder / "worker.log") as worker:
        async with KafkaObserver(settings) as observer, _page(observer, settings, scene, on_page):
            with _observed(observer, scene):
                scene.stage = "starting the worker"
                await _until(lambda: _is_running(observer), worker, stop, WORKER_START_S_MAX)
                live = await _publish_past(plan, trained, settings, scene, worker, stop)
                scene.stage = "running"
                started = time.monotonic()
                fed = await _feed(live, settings, worker, stop, rate=plan.rate, limit=plan.events, mode=plan.time_mode)
                if not plan.once:
                    await _until(lambda: False, worker, stop, None)
                    return None
                scene.stage = "draining"
                await _drain(fed.events, observer, worker, stop)
                return None if stop.is_set() else await _summary(settings, observer, time.monotonic() - started)


async def _publish_past(
    plan: DemoPlan,
    trained: Trained | None,
    settings: Settings,
    scene: DemoScene,
    worker: DemoWorker,
    stop: asyncio.Event,
) -> Source:
    """Gives people a history, so that the page has lists at once; returns what is live: all after the past.

    With `plan.once` nothing is published: what is measured then is the live events' own road.
    """
    if trained is None:
        return plan.source
    if plan.once or stop.is_set():
        return Stretch(plan.source, trained.past_events)
    scene.stage = "publishing the past"
    first = max(0, trained.past_events - HISTORY_EVENTS_MAX)
    shift_ms = epoch_ms() - trained.last_ms if plan.time_mode == "now" else 0
    past = Stretch(plan.source, first, trained.past_events, shift_ms=shift_ms)
    await _feed(past, settings, worker, stop, rate=HISTORY_RATE, limit=None, mode="keep")
    return Stretch(plan.source, trained.past_events, events_only=True)


@asynccontextmanager
async def _page(
    observer: KafkaObserver, settings: Settings, scene: DemoScene, on_page: Callable[[str], None]
) -> AsyncIterator[None]:
    """The live page, as long as the block runs. A fault of the page ends the block with it.

    Raises:
        UsageError: the page's address cannot be listened on.
    """

    def ready(address: str) -> None:
        scene.page = address
        on_page(address)

    close = asyncio.Event()
    try:
        async with KafkaBackend(settings) as backend, asyncio.TaskGroup() as group:
            group.create_task(serve_dashboard(observer, settings, ready=ready, stop=close, backend=backend))
            try:
                yield
            finally:
                close.set()
    except BaseExceptionGroup as faults:
        if len(faults.exceptions) > 1:
            raise
        raise faults.exceptions[0] from None  # one fault is reported as itself, not as a group


@contextmanager
def _observed(observer: KafkaObserver, scene: DemoScene) -> Iterator[None]:
    """The scene shows the topics as long as the block runs."""
    scene.observe = observer.snapshot
    try:
        yield
    finally:
        scene.observe = None


@asynccontextmanager
async def _shown(scene: DemoScene, on_scene: Callable[[DemoScene], None]) -> AsyncIterator[None]:
    """Shows the scene twice a second, and as it is when the block ends."""

    async def show() -> None:
        while True:
            if scene.observe is not None:
                scene.observation = scene.observe()
            on_scene(scene)
            await asyncio.sleep(2 * POLL_S)

    showing = asyncio.create_task(show())
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.wait({showing})
        on_scene(scene)


async def _feed(
    source: Source,
    settings: Settings,
    worker: DemoWorker,
    stop: asyncio.Event,
    *,
    rate: float | None,
    limit: int | None,
    mode: TimeMode,
) -> FeedSummary:
    """Publishes a source; a worker that ends by itself ends the feed too."""
    feeding = asyncio.create_task(feed(source, settings, rate=rate, limit=limit, time_mode=mode, stop=stop))
    try:
        while not feeding.done():
            worker.check_alive()
            await asyncio.wait({feeding}, timeout=POLL_S)
        return feeding.result()
    finally:
        feeding.cancel()
        await asyncio.wait({feeding})


async def _drain(events: int, observer: KafkaObserver, worker: DemoWorker, stop: asyncio.Event) -> None:
    """Waits until the worker is done with so many records and owes nobody a list, as long as it gets on."""
    while ((done := _done(observer)).records < events or done.owed) and not stop.is_set():
        await _until(partial(_has_moved, observer, done), worker, stop, STALL_S_MAX)


async def _until(reached: Callable[[], bool], worker: DemoWorker, stop: asyncio.Event, limit_s: float | None) -> None:
    """Waits for a state of the topics, at most `limit_s`, or until stopped."""
    deadline = None if limit_s is None else time.monotonic() + limit_s
    while not reached() and not stop.is_set():
        worker.check_alive()
        if deadline is not None and time.monotonic() > deadline:
            raise NearstreamError(f"The worker made no progress for {limit_s:.0f} s. {worker.last_words()}")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), POLL_S)


def _workers(observer: KafkaObserver) -> list[WorkerStatus]:
    return observer.snapshot().workers


def _is_running(observer: KafkaObserver) -> bool:
    partitions = [p for worker in _workers(observer) for p in worker.partitions]
    return len(partitions) == PARTITIONS and all(p.state == "running" for p in partitions)


class _Done(NamedTuple):
    """How far the worker is."""

    records: int
    """Counted, known as duplicates, or dead letters."""
    owed: int
    """Users who wait for a list that was shed."""


def _done(observer: KafkaObserver) -> _Done:
    workers = _workers(observer)
    records = sum(t.events + t.duplicates + sum(t.dead_letters.values()) for t in (worker.totals for worker in workers))
    return _Done(records, sum(partition.owed for worker in workers for partition in worker.partitions))


def _has_moved(observer: KafkaObserver, before: _Done) -> bool:
    return _done(observer) != before


async def _summary(settings: Settings, observer: KafkaObserver, seconds: float) -> DemoSummary:
    worker = _workers(observer)[0]
    counted = digest_of(await read_profiles(settings))
    return DemoSummary(
        events=counted.events,
        lists=worker.totals.lists,
        users=counted.users,
        dead_letters=sum(worker.totals.dead_letters.values()),
        freshness_ms=worker.totals.freshness_ms,
        events_per_s=round(counted.events / seconds, 1),
        lag=sum(partition.lag for partition in worker.partitions),
    )
