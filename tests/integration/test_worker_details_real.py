"""A real worker on a free web port tells its settings, model and rules on the topic, and the page hears of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

from streams.config import Settings
from streams.kafka.observer import KafkaObserver
from streams.kafka.topics import create_topics
from tests.integration.storm import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from streams.core.status import WorkerStatus
    from streams.kafka.broker import EmbeddedKafka

HEARD_S_MAX = 90.0
SECRET = "nobody-may-read-this-token"


async def heard(observer: KafkaObserver, wanted: Callable[[WorkerStatus], bool]) -> WorkerStatus:
    """The worker's report as soon as it is as wanted."""
    async with asyncio.timeout(HEARD_S_MAX):
        while True:
            for worker in observer.snapshot().workers:
                if wanted(worker):
                    return worker
            await asyncio.sleep(0.1)


async def test_a_worker_on_any_free_port_tells_its_details(kafka: EmbeddedKafka, prefix: str, tmp_path: Path) -> None:
    """Its address answers; settings have their source, secrets do not leave it; rules change while it runs."""
    settings = Settings(bootstrap=kafka.bootstrap, prefix=prefix, group=f"{prefix}group", partitions=2)
    await create_topics(settings)
    rules = tmp_path / "rules.toml"
    rules.write_text("[caps]\nbrand = 3\n")
    (tmp_path / "nearstream.toml").write_text("list_items = 12\n")
    environment = {
        **os.environ,
        "NEARSTREAM_BOOTSTRAP": settings.bootstrap,
        "NEARSTREAM_PREFIX": prefix,
        "NEARSTREAM_GROUP": settings.group,
        "NEARSTREAM_WEB_PORT": "0",
        "NEARSTREAM_READ_TOKEN": SECRET,
        "NEARSTREAM_RULES": str(rules),
        "NEARSTREAM_WORKER_ID": "teller",
        "NEARSTREAM_DATA_DIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    with (tmp_path / "worker.log").open("ab") as log:
        command = [sys.executable, "-m", "streams", "worker"]
        with subprocess.Popen(  # noqa: ASYNC220 - as the other tests start theirs
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log
        ) as worker:
            try:
                async with KafkaObserver(settings) as observer:
                    first = await heard(
                        observer,
                        lambda w: (
                            w.state == "running"
                            and w.details is not None
                            and bool(w.details.rules and w.details.rules.loaded_at)
                        ),
                    )
                    assert first.web_url is not None
                    assert not first.web_url.endswith(":0")
                    status = await asyncio.to_thread(_status_of, f"{first.web_url}/healthz")
                    assert status == 200
                    details = first.details
                    assert details is not None
                    told = {report.name: (report.value, report.source) for report in details.settings}
                    assert told["list_items"] == ("12", "nearstream.toml")
                    assert told["web_port"] == ("0", "environment")
                    assert told["read_token"] == ("hidden", "environment")
                    assert [(model.kind, model.training) for model in details.models] == [("decayed-mean", None)]
                    assert details.rules is not None
                    assert [sentence.table for sentence in details.rules.sentences] == ["caps"]
                    rules.write_text("[caps]\nbrand = 0\n")
                    changed = await heard(
                        observer, lambda w: bool(w.details and w.details.rules and w.details.rules.problem)
                    )
                    assert changed.details is not None
                    assert "line 2, [caps], key brand" in str(changed.details.rules and changed.details.rules.problem)
                    assert changed.started_at == first.started_at
            finally:
                worker.terminate()
    assert SECRET not in (tmp_path / "worker.log").read_text()
    assert "Traceback" not in (tmp_path / "worker.log").read_text()


def _status_of(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return int(answer.status)
