"""The records of the topic `weights`: written and read back, averaged, and passed over when they are unreadable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streams.core.errors import CorruptState
from streams.kafka.topics import DAY_MS
from streams.kafka.weights_topic import (
    Learned,
    WeightsCommand,
    WeightsRecord,
    decode_command,
    decode_weights,
    encode_command,
    encode_weights,
    mean_weights,
    state_of,
)
from streams.recommend.fusion import FusionWeights
from streams.recommend.request import source_names
from streams.recommend.shown_lists import PLACES

GOLDEN = Path(__file__).parents[2] / "data" / "weights"
SOURCES = ("neighbours", "profile", "rising")
NOW_MS = 1_700_000_000_000


def learned(seed: int, lessons: int = 10, **changes: Any) -> Learned:
    """Weights like no others."""
    rng = np.random.default_rng(seed)
    weights = FusionWeights(*(rng.uniform(0, 9, part.shape) for part in FusionWeights.start(len(SOURCES), 8.0)))
    return Learned(SOURCES, weights, lessons, NOW_MS, 0, frozen=False)._replace(**changes)


def test_a_record_is_read_as_it_was_written() -> None:
    """Every array to the last bit, every figure."""
    wrote = learned(1, reset_ms=77, frozen=True)
    read = decode_weights(encode_weights(wrote))
    assert read._replace(weights=wrote.weights) == wrote
    for mine, others in zip(read.weights, wrote.weights, strict=True):
        assert_array_equal(mine, others)
        assert mine.shape == others.shape


def test_what_is_known_of_places_goes_with_the_weights() -> None:
    """To the last bit; the mean is of those who count any, and as many as one of them has."""
    counts = np.random.default_rng(5).uniform(0, 9, (3, PLACES))
    wrote = learned(1, reactions=counts, exploration=0.02)
    read = decode_weights(encode_weights(wrote))
    assert read.reactions is not None
    assert_array_equal(read.reactions, counts)
    assert read.exploration == 0.02
    mean = mean_weights([wrote, learned(2, reactions=3 * counts), learned(3)], SOURCES, 0, NOW_MS)
    assert mean is not None
    assert mean.reactions is not None
    assert_allclose(mean.reactions, 2 * counts)


def test_records_of_before_there_were_places_are_read() -> None:
    """Without the last two fields, as older workers write them; those read ours and pass over what they do not know."""
    fields = msgspec.msgpack.decode(encode_weights(learned(1, reactions=np.ones((3, PLACES)))))
    old = decode_weights(msgspec.msgpack.encode(fields[:9]))
    assert (old.reactions, old.exploration, old.lessons) == (None, 0.0, 10)
    newer = decode_weights(msgspec.msgpack.encode([*fields, "unknown"]))
    assert newer.reactions is not None
    assert mean_weights([old], SOURCES, 0, NOW_MS).reactions is None  # type: ignore[union-attr]


def test_the_schema_comes_first_and_arrays_are_little_endian() -> None:
    """Another program can read it by this."""
    wrote = learned(1)
    fields = msgspec.msgpack.decode(encode_weights(wrote))
    assert fields[0] == 1
    assert fields[1] == list(SOURCES)
    assert_array_equal(np.frombuffer(fields[2], "<f8").reshape(3, 2), wrote.weights.shared)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema": 2}, "Expected schema 1 of the topic weights, came 2"),
        ({"sources": ["one"]}, "Expected weights of 1 sources"),
        ({"shared": bytes(8)}, r"Expected weights of 3 sources in \[48, 192, 12288\] bytes, came \[8, "),
        ({"shared": np.full(6, np.nan).tobytes()}, "Expected finite weights"),
        ({"lessons": -1}, "no less than 0 lessons"),
        ({"reactions": bytes(8)}, "Expected counts of reactions"),
        ({"reactions": np.full((3, PLACES), -1.0).tobytes()}, "Expected counts of reactions"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], complaint: str) -> None:
    """The error says what was expected and what came."""
    record = msgspec.msgpack.decode(encode_weights(learned(1)), type=WeightsRecord)
    with pytest.raises(CorruptState, match=complaint):
        decode_weights(msgspec.msgpack.encode(msgspec.structs.replace(record, **change)))


def test_bytes_that_are_no_record_are_refused() -> None:
    """Of the weights and of the commands alike."""
    with pytest.raises(CorruptState, match="Expected a record of weights"):
        decode_weights(b"\xc1")
    with pytest.raises(CorruptState, match="Expected a command"):
        decode_command(b"\x91\xa1x")
    with pytest.raises(CorruptState, match="schema"):
        decode_command(encode_command(WeightsCommand(schema=9)))


def test_the_mean_goes_by_lessons() -> None:
    """Thirty lessons count three times as much as ten; it stands for as many as one of the workers has on average."""
    one, other = learned(1, 10), learned(2, 30)
    mean = mean_weights([one, other], SOURCES, 0, NOW_MS)
    assert mean is not None
    assert (mean.workers, mean.lessons) == (2, 20)
    for found, first, second in zip(mean.weights, one.weights, other.weights, strict=True):
        assert_allclose(found, 0.25 * first + 0.75 * second)


@pytest.mark.parametrize(
    "change",
    [
        {"sources": ("together", "repeat", "trend")},
        {"lessons": 0},
        {"reset_ms": 499},
        {"written_ms": NOW_MS - DAY_MS - 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_who_does_not_count_in_the_mean(change: dict[str, object]) -> None:
    """Who weighs none of these sources, has learned nothing, has not obeyed the last reset, or was silent for a day."""
    one, other = learned(1, reset_ms=500), learned(2, reset_ms=500)._replace(**change)
    mean = mean_weights([one, other], SOURCES, 500, NOW_MS)
    assert mean is not None
    assert mean.workers == 1
    assert_array_equal(mean.weights.shared, one.weights.shared)
    assert mean_weights([other], SOURCES, 500, NOW_MS) is None


def test_each_source_is_the_mean_of_those_who_weigh_it() -> None:
    """While a new version is rolled out: an older worker says nothing of the new source, a newer one all of it."""
    old, new = learned(1, 30), learned(2, 10)
    old = old._replace(sources=("rising", "gone", "neighbours"))
    mean = mean_weights([old, new], (*SOURCES, "newest"), 0, NOW_MS)
    assert mean is not None
    assert (mean.workers, mean.lessons) == (2, 20)
    for found, first, second in zip(mean.weights, old.weights, new.weights, strict=True):
        assert_allclose(found[..., 0, :], 0.75 * first[..., 2, :] + 0.25 * second[..., 0, :])
        assert_allclose(found[..., 1, :], second[..., 1, :])
        assert_allclose(found[..., 2, :], 0.75 * first[..., 0, :] + 0.25 * second[..., 2, :])
        assert not found[..., 3, :].any()


def test_a_record_of_before_a_source_was_added_is_taken_over() -> None:
    """Written by a worker that did not know `interests` yet: what it learned of the others stays as it is."""
    old = decode_weights((GOLDEN / "weights-v1.msgpack").read_bytes())
    now = source_names([3600.0, 86_400.0])
    assert set(now) - set(old.sources) == {"interests"}
    mean = mean_weights([old], now, 0, old.written_ms)
    assert mean is not None
    assert mean.lessons == old.lessons > 0
    for name, pair in zip(now, mean.weights.shared.tolist(), strict=True):
        before = [0.0, 0.0] if name == "interests" else old.weights.shared[old.sources.index(name)].tolist()
        assert pair == before


def test_commands_keep_what_they_do_not_say() -> None:
    """A freeze outlives a reset, a reset outlives freeze and thaw; a clock that went back does not undo a reset."""
    frozen = WeightsCommand().freeze(100)
    assert (frozen.frozen, frozen.reset_ms) == (True, 0)
    reset = frozen.reset(200)
    assert (reset.frozen, reset.reset_ms) == (True, 200)
    assert (reset.thaw(300).frozen, reset.thaw(300).reset_ms) == (False, 200)
    assert reset.reset(150).reset_ms == 201
    assert decode_command(encode_command(reset)) == reset


def test_the_state_is_the_newest_of_each_key() -> None:
    """Tombstones and the silent are left out; what cannot be read is counted and hides nothing else."""
    values = {
        b"command": encode_command(WeightsCommand().freeze(5)),
        b"one": encode_weights(learned(1)),
        b"silent": encode_weights(learned(2, written_ms=NOW_MS - DAY_MS - 1)),
        b"gone": None,
        b"broken": b"\xc1",
    }
    state = state_of(values, NOW_MS)
    assert state.command.frozen
    assert list(state.workers) == ["one"]
    assert state.unreadable == 1
    assert not state_of({}, NOW_MS).command.frozen
