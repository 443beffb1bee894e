"""The demo's worker: a process of its own, what it says, and its end with the demo's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.config import PLAINTEXT, child_environment
from streams.core.errors import NearstreamError
from streams.kafka.processes import free_ports, spawn_watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streams.config import Settings

WORKER_STOP_S_MAX = 10.0
LAST_WORDS_LINES = 5
LAST_WORDS_BYTES = 4096


@dataclass(frozen=True, slots=True)
class DemoWorker:
    """The worker's process and what it writes."""

    process: subprocess.Popen[bytes]
    log: Path

    def check_alive(self) -> None:
        """Raises NearstreamError, with what the worker said last, when it has ended by itself."""
        if self.process.poll() is not None:
            raise NearstreamError(
                f"The worker ended by itself with exit code {self.process.returncode}. {self.last_words()}"
            )

    def last_words(self) -> str:
        """The end of its log, as a sentence and lines."""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            lines = log.read().decode(errors="replace").splitlines()[-LAST_WORDS_LINES:]
        return "It said last:\n" + ("\n".join(f"  {line}" for line in lines) or "  (nothing)")


@contextmanager
def worker_process(settings: Settings, log: Path) -> Iterator[DemoWorker]:
    """A worker in a process of its own, ended with this one however that ends."""
    name = f"demo-{uuid.uuid4().hex[:8]}"
    environment = child_environment(
        bootstrap=settings.bootstrap,
        **PLAINTEXT,
        prefix=settings.prefix,
        model=settings.model,
        web_port=free_ports(1)[0],
        log_format="json",
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "streams", "worker", "--worker-id", name],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    watchdog = spawn_watchdog(process.pid, name)
    try:
        yield DemoWorker(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(WORKER_STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(watchdog)
