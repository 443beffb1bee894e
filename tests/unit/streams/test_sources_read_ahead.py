from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from streams.sources.read_ahead import ReadAhead

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 30.0


async def drain(ahead: ReadAhead[int], most: int = 7) -> list[int]:
    got: list[int] = []
    while not ahead.exhausted:
        await ahead.arrival()
        taken = ahead.take(most)
        assert len(taken) <= most
        got += taken
    return got


@pytest.mark.parametrize("ahead_max", [1, 2, 3, 100, 100_000])
async def test_everything_comes_through_in_order(ahead_max: int) -> None:
    """Whatever the bound, no record is lost, doubled or moved."""
    async with ReadAhead(range(5_000), ahead_max) as ahead:
        assert await asyncio.wait_for(drain(ahead), WAIT_S) == list(range(5_000))


async def test_the_reader_stays_within_its_bound() -> None:
    """With nobody taking, the reader stops at the bound; each taking lets it go on a little."""
    produced: list[int] = []
    at_bound = threading.Event()

    def records() -> Iterator[int]:
        for number in range(100):
            produced.append(number)
            if number == 9:
                at_bound.set()
            yield number

    async with ReadAhead(records(), 10) as ahead:
        assert await asyncio.to_thread(at_bound.wait, WAIT_S)
        assert ahead.take(3) == [0, 1, 2]
        assert len(produced) <= 13
        assert await asyncio.wait_for(drain(ahead), WAIT_S) == list(range(3, 100))


async def test_a_slow_iterable_is_passed_on_record_by_record() -> None:
    """A record is there as soon as it was read, though the next one is still awaited."""
    more = threading.Event()

    def records() -> Iterator[str]:
        yield "first"
        more.wait(WAIT_S)
        yield "second"

    async with ReadAhead(records()) as ahead:
        await asyncio.wait_for(ahead.arrival(), WAIT_S)
        assert ahead.take(10) == ["first"]
        assert ahead.take(10) == []
        more.set()
        await asyncio.wait_for(ahead.arrival(), WAIT_S)
        assert ahead.take(10) == ["second"]


async def test_a_failure_comes_after_the_records_before_it() -> None:
    """What was read before the error is delivered; then the error is raised to the taker."""

    def records() -> Iterator[int]:
        yield 1
        raise ValueError("damaged")

    async with ReadAhead(records()) as ahead:
        await asyncio.wait_for(ahead.arrival(), WAIT_S)
        assert ahead.take(10) == [1]
        await asyncio.wait_for(ahead.arrival(), WAIT_S)
        with pytest.raises(ValueError, match="damaged"):
            ahead.take(10)
        assert not ahead.exhausted


async def test_leaving_early_ends_the_reader() -> None:
    """An endless iterable is no longer read, and its clean-up has run, when the block ends."""
    ended = threading.Event()

    def records() -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            ended.set()

    ahead = ReadAhead(records(), 4)
    async with ahead:
        await asyncio.wait_for(ahead.arrival(), WAIT_S)
    del ahead
    assert await asyncio.to_thread(ended.wait, WAIT_S)
