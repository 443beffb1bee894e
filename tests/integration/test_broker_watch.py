"""The watch over the tests' own broker: one that falls silent fails the test that waits for it, and all after it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from streams.kafka.broker import EmbeddedKafka
from tests.broker_watch import BrokerWatch

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kafka
SILENT_S = 1.0
NOTICED_S_MAX = 15.0


def test_a_silent_broker_fails_the_test_that_waits_and_the_next(tmp_path: Path, jars_dir: Path) -> None:
    """A JVM that is paused, and one that is gone; while it answers, and while nobody needs it, nothing happens."""
    with EmbeddedKafka(tmp_path, port=0, die_with_owner=True, jars_dir=jars_dir) as broker:
        (pid,) = _pids(broker)
        watch = BrokerWatch(SILENT_S)
        with watch.watching(broker):
            with watch.guarding():
                asyncio.run(asyncio.sleep(2 * SILENT_S))
            os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(pytest.fail.Exception, match=r"did not answer within 1 s\. It said"), watch.guarding():
                asyncio.run(asyncio.sleep(2 * NOTICED_S_MAX))
            assert time.monotonic() - began < NOTICED_S_MAX
            os.kill(pid, signal.SIGCONT)
            with pytest.raises(pytest.fail.Exception, match="answers nobody"), watch.guarding():
                raise AssertionError("the next test ran")
        watch = BrokerWatch(SILENT_S)
        with watch.watching(broker):
            broker.kill(1)
            time.sleep(2 * SILENT_S)
            with pytest.raises(pytest.fail.Exception, match="node 1 ended"), watch.guarding():
                asyncio.run(asyncio.sleep(NOTICED_S_MAX))


def _pids(broker: EmbeddedKafka) -> tuple[int, ...]:
    info = broker.status()
    assert info is not None
    return info.pids
