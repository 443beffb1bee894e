"""One event's trace across topics, through a worker on a real Kafka to a collector."""

from __future__ import annotations

import signal
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer

from streams.config import load_settings
from streams.core.events import Event, EventType
from streams.kafka.clients import client_options
from streams.kafka.codec import encode_event
from streams.kafka.records import read_all
from streams.kafka.topics import Topics, create_topics
from tests.integration.storm import WorkerProcess, drained

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streams.kafka.broker import EmbeddedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


class Collector(BaseHTTPRequestHandler):
    """Keeps what is posted to it."""

    bodies: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, bytes]]]:
    """What arrives at the address that workers are told."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otel; see `make setup`")
    bodies: list[tuple[str, bytes]] = []
    monkeypatch.setattr(Collector, "bodies", bodies, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("NEARSTREAM_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}/v1/traces")
        yield bodies
        server.shutdown()


async def test_a_list_carries_the_trace_of_its_event(
    kafka: EmbeddedKafka, prefix: str, tmp_path: Path, collector: list[tuple[str, bytes]]
) -> None:
    """The trace id goes from the event's header to the list's, and the spans reach the collector before the end."""
    settings = load_settings(bootstrap=kafka.bootstrap, prefix=prefix, group=prefix.strip("."), partitions=1)
    topics = Topics(prefix)
    await create_topics(settings)
    sent = {"traced": [("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-01".encode())], "plain": []}
    async with AIOKafkaProducer(**client_options(settings)) as producer:
        for user, headers in sent.items():
            event = Event(user_id=user, item_id="i1", type=EventType.VIEW, timestamp=int(time.time() * 1000))
            await producer.send_and_wait(topics.events, key=user.encode(), value=encode_event(event), headers=headers)
    with WorkerProcess("worker", settings, tmp_path / "worker.log") as worker:
        worker.start()
        await drained(settings, len(sent))
        worker.end(signal.SIGTERM)
    lists = {record.key.decode(): dict(record.headers) async for record in read_all(settings, topics.recommendations)}
    carried = lists["traced"]["traceparent"].decode()
    assert carried.startswith(f"00-{TRACE_ID}-")
    assert lists["plain"] == {}
    assert {path for path, _ in collector} == {"/v1/traces"}
    exported = b"".join(body for _, body in collector)
    assert bytes.fromhex(TRACE_ID) in exported
    assert bytes.fromhex(carried.split("-")[2]) in exported
    assert b"transaction" in exported
