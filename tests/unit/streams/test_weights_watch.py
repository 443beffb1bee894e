"""One worker's part in the topic `weights`, without a broker: what it hears, obeys, takes over and would write."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streams.config import load_settings
from streams.core.errors import UsageError
from streams.kafka import weights_watch
from streams.kafka.topics import Topics
from streams.kafka.weights_topic import Learned, WeightsCommand, encode_command, encode_weights
from streams.kafka.weights_watch import WeightsWatch, export_weights, list_quality
from streams.metrics import Metrics
from streams.recommend.fusion import FusionWeights
from tests.fakes_core import World, event, world

NOW_S = 1_700_000_000.0
NOW_MS = int(NOW_S * 1000)


class Record(NamedTuple):
    """What the watch reads of a record."""

    key: bytes | None
    value: bytes | None
    offset: int = 0
    timestamp: int = NOW_MS
    headers: tuple[()] = ()


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


def _watch(built: World, clock: Clock | None = None, worker: str = "me") -> WeightsWatch:
    async def compute(function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    return WeightsWatch(load_settings(), Topics(), worker, built.engine, compute, clock=clock or Clock())


def _weights(built: World) -> FusionWeights:
    weights = built.engine.weights
    assert weights is not None
    return weights


def _learned(built: World, by: float, lessons: int, **changes: Any) -> Learned:
    """Weights that are all larger than the engine's first ones."""
    weights = FusionWeights(*(part + by for part in _weights(built)))
    return Learned(built.engine.sources, weights, lessons, NOW_MS, 0, frozen=False)._replace(**changes)


def _record(worker: str, learned: Learned) -> Record:
    return Record(worker.encode(), encode_weights(learned))


def _command(command: WeightsCommand) -> Record:
    return Record(b"command", encode_command(command))


async def test_a_fresh_worker_begins_with_the_mean() -> None:
    """By lessons, over what each worker wrote last; one that came later changes nothing any more."""
    built = world()
    watch, start = _watch(built), _weights(built).copy()
    await watch.hear([_record("a", _learned(built, 9.0, 10)), _record("b", _learned(built, 5.0, 30))])
    await watch.hear([_record("a", _learned(built, 1.0, 10))])
    assert await watch.begin() is not None
    assert_allclose(_weights(built).shared, start.shared + 4.0)
    assert built.engine.lessons == 20
    await watch.hear([_record("c", _learned(built, 100.0, 10**6))])
    assert_allclose(_weights(built).shared, start.shared + 4.0)


async def test_a_worker_with_weights_of_its_own_keeps_them() -> None:
    """Its memory was recalled: what others have learned is not asked."""
    built = world()
    built.engine.take_weights(_learned(built, 2.0, 5).weights, 5)
    watch, own = _watch(built), _weights(built).copy()
    await watch.hear([_record("a", _learned(built, 9.0, 10))])
    assert await watch.begin() is None
    assert_array_equal(_weights(built).shared, own.shared)


async def test_a_reset_is_obeyed_once() -> None:
    """Weights of before are given up and not taken from others; those learned since stay when it is heard again."""
    built = world()
    watch, start = _watch(built), _weights(built).copy()
    built.engine.take_weights(_learned(built, 2.0, 5).weights, 5)
    reset = _command(WeightsCommand().reset(NOW_MS))
    await watch.hear([_record("a", _learned(built, 9.0, 10)), reset])
    assert await watch.begin() is None
    assert_array_equal(_weights(built).shared, start.shared)
    built.engine.take_weights(_learned(built, 3.0, 5).weights, 5)
    await watch.hear([reset])
    assert built.engine.lessons == 5
    await watch.hear([_command(WeightsCommand().reset(NOW_MS + 1))])
    assert built.engine.lessons == 0


async def test_after_a_reset_the_mean_is_of_those_who_obeyed() -> None:
    """A worker that starts later begins with what was learned since."""
    built = world()
    watch, start = _watch(built), _weights(built).copy()
    obeyed = _learned(built, 3.0, 10, reset_ms=NOW_MS)
    await watch.hear([_command(WeightsCommand().reset(NOW_MS))])
    await watch.hear([_record("old", _learned(built, 9.0, 10**6)), _record("new", obeyed)])
    await watch.begin()
    assert_allclose(_weights(built).shared, start.shared + 3.0)
    assert built.engine.weights_reset_ms == NOW_MS


async def test_freeze_and_thaw_reach_the_engine() -> None:
    """The newest command of several counts."""
    built = world()
    watch, frozen = _watch(built), WeightsCommand().freeze(NOW_MS)
    await watch.hear([_command(frozen)])
    assert built.engine.frozen
    await watch.hear([_command(frozen), _command(frozen.thaw(NOW_MS))])
    assert not built.engine.frozen


async def test_what_cannot_be_read_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """Weights, a command, a record without a key, a tombstone: said aloud where something is lost, never an error."""
    built = world()
    watch = _watch(built)
    with caplog.at_level(logging.WARNING):
        await watch.hear([Record(b"a", b"\xc1"), Record(b"command", b"\xc1"), Record(None, b""), Record(b"b", None)])
        await watch.hear([_record("c", _learned(built, 1.0, 10))])
    assert len(caplog.records) == 2
    mean = await watch.begin()
    assert mean is not None
    assert mean.workers == 1


async def test_the_mean_is_of_a_bounded_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that were used once only pile up on the topic: the latest to write count."""
    monkeypatch.setattr(weights_watch, "WORKERS_MAX", 3)
    built = world()
    watch = _watch(built)
    for n in range(6):
        await watch.hear([_record(f"w{n}", _learned(built, float(n), 1, written_ms=NOW_MS - 600 + n))])
    start = _weights(built).copy()
    mean = await watch.begin()
    assert mean is not None
    assert mean.workers == 3
    assert_allclose(_weights(built).shared, start.shared + 4.0)


def test_only_news_is_written_and_a_sign_of_life() -> None:
    """The same weights are not written twice, unless an hour has passed."""
    built, clock = world(), Clock()
    watch = _watch(built, clock)
    first = watch.own()
    assert first is not None
    watch.wrote(first)
    assert watch.own() is None
    built.engine.frozen = True
    news = watch.own()
    assert news is not None
    assert news.frozen
    watch.wrote(news)
    clock.now_s += weights_watch.UNCHANGED_S_MAX - 1
    assert watch.own() is None
    clock.now_s += 2
    later = watch.own()
    assert later is not None
    assert later.written_ms == int(clock.now_s * 1000)


def test_no_worker_may_have_the_name_of_the_commands() -> None:
    """Its weights would overwrite them."""
    with pytest.raises(UsageError, match="worker_id"):
        _watch(world(), worker="command")


def test_weights_and_quality_are_exported() -> None:
    """By source and part; quality is NaN, and absent from the status, before the first lesson."""
    built, metrics = world(), Metrics()
    export_weights(metrics, built.engine)
    assert list_quality(built.engine) is None
    assert b"nearstream_list_ndcg NaN" in metrics.exposition()
    for n in range(30):
        built.feed([event(f"u{n % 4}", f"i{(n * 3 + n // 4) % 7}", at_s=60.0 * n)], first_offset=n)
    export_weights(metrics, built.engine)
    quality = list_quality(built.engine)
    assert quality is not None
    assert quality.lessons == built.engine.quality.lessons
    assert quality.weights_lessons == built.engine.lessons
    source, weight = built.engine.sources[0], float(_weights(built).shared[0, 1])
    found = metrics.gauge("nearstream_source_weight", source=source, part="l")._value.get()
    assert found == weight
    ndcg = metrics.gauge("nearstream_list_ndcg")._value.get()
    assert np.isclose(ndcg, quality.ndcg, atol=1e-4)
