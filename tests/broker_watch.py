"""A test whose Kafka answers nobody fails within seconds, with Kafka's last words, not with its timeout."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from streams.core.errors import BrokerUnavailable
from streams.kafka.cluster import read_state
from streams.kafka.node import wait_until_answering

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streams.kafka.broker import EmbeddedKafka
    from streams.kafka.node import Node

LOOK_EVERY_S = 1.0
SILENT_S_MAX = 30.0
"""A machine with more to do than it has cores keeps a sound Kafka waiting for some of these."""


class BrokerWatch:
    """Looks at a running broker again and again, and interrupts the guarded test of this process once it is silent."""

    def __init__(self, silent_s_max: float = SILENT_S_MAX) -> None:
        self._silent_s_max = silent_s_max
        self._failure: BrokerUnavailable | None = None
        self._guarding = False
        self._ended = threading.Event()

    @contextmanager
    def watching(self, broker: EmbeddedKafka) -> Iterator[None]:
        """Looks while the block runs, once; enter it in the main thread, where signals arrive."""
        info = broker.status()
        assert info is not None, "the broker was started before it is watched"
        state = read_state(info.data_dir / "kafka")
        assert state is not None
        nodes = state.nodes(info.data_dir / "kafka")
        before = signal.signal(signal.SIGUSR1, lambda *_: self._fail_guarded())
        thread = threading.Thread(target=self._look, args=(nodes,), name="broker-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            signal.signal(signal.SIGUSR1, before)

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """What runs in the block fails as soon as a broker that is watched is silent; at once if it already is."""
        self._guarding = True
        try:
            self._fail_guarded()
            yield
        finally:
            self._guarding = False

    def _fail_guarded(self) -> None:
        if self._guarding and self._failure is not None:
            pytest.fail(f"The Kafka of these tests answers nobody. {self._failure}", pytrace=False)

    def _look(self, nodes: Sequence[Node]) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            try:
                wait_until_answering(nodes, self._silent_s_max)
            except BrokerUnavailable as error:
                self._failure = error
                break
        # Again and again: a signal that arrives while another task runs fails that task, and the test waits on.
        while not self._ended.wait(LOOK_EVERY_S):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
