"""OpenTelemetry traces of events across topics, off unless `otlp_endpoint` is set.

An event may carry a W3C trace context in its header `traceparent`. Its list then carries the context of a span in the
same trace, from the event to the commit; the batch that made it is a trace of its own, with its stages, that links to
the events. Events without a context, or that their sender did not sample, cost nothing and make no span.
"""

from __future__ import annotations

import importlib
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streams.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiokafka import ConsumerRecord

    from streams.config import Settings

Headers = list[tuple[str, bytes]]

TRACEPARENT = "traceparent"
SPANS_MAX = 128
"""Links and list spans of a batch; lists beyond carry their event's own context on."""
FLUSH_MS_MAX = 1000
_SAMPLED = 1
_CONTEXT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_EXTRA = "traces need the extra `otel`: pip install 'nearstream[otel]', or take NEARSTREAM_OTLP_ENDPOINT back"


@dataclass(slots=True)
class BatchTrace:
    """The open spans of a batch whose transaction runs. Spans of one that fails are dropped, never exported."""

    headers: dict[bytes, Headers]
    """By key, what its list carries."""
    _tracer: Any = None
    _batch: Any = None
    _started_ns: int = 0
    _lists: list[Any] = field(default_factory=list)

    def committed(self, stage_s: dict[str, float]) -> None:
        """Ends the spans now; stages follow each other in the order in which they are given."""
        if self._batch is None:
            return
        trace = importlib.import_module("opentelemetry.trace")
        inside = trace.set_span_in_context(self._batch)
        at_ns = self._started_ns
        for stage, seconds in stage_s.items():
            span = self._tracer.start_span(stage, context=inside, start_time=at_ns)
            at_ns += int(seconds * 1e9)
            span.end(at_ns)
        end_ns = max(at_ns, time.time_ns())
        for span in [*self._lists, self._batch]:
            span.end(end_ns)


NOTHING_TRACED = BatchTrace({})


class Traces:
    """Spans of one worker's batches, exported in the background through a bounded queue that drops what overflows."""

    def __init__(self, provider: Any) -> None:
        """Of an OpenTelemetry `TracerProvider`, which is shut down with `close`."""
        self._provider = provider
        self._tracer = provider.get_tracer("nearstream")
        self._trace = importlib.import_module("opentelemetry.trace")

    def batch(
        self, records: Sequence[ConsumerRecord], newest: Iterable[int], waited_s: float, topic: str
    ) -> BatchTrace:
        """Opens the spans of a batch before its transaction.

        Args:
            records: of the batch.
            newest: positions of the records whose lists follow.
            waited_s: since the first stage of the batch began.
            topic: that the lists go to.
        """
        contexts = {place: context for place, record in enumerate(records) if (context := self._context(record))}
        sampled = {place: context for place, context in contexts.items() if context.trace_flags & _SAMPLED}
        headers = {records[p].key: [(TRACEPARENT, _header(contexts[p]))] for p in newest if p in contexts}
        if not sampled:
            return BatchTrace(headers) if headers else NOTHING_TRACED
        started_ns = time.time_ns() - int(waited_s * 1e9)
        links = [self._trace.Link(context) for context in list(sampled.values())[:SPANS_MAX]]
        first = records[0]
        attributes = {
            "messaging.system": "kafka",
            "messaging.destination.name": first.topic,
            "messaging.destination.partition.id": str(first.partition),
            "messaging.kafka.offset": first.offset,
            "messaging.batch.message_count": len(records),
        }
        root = importlib.import_module("opentelemetry.context").Context()
        batch = self._tracer.start_span(
            f"process {first.topic}", root, self._trace.SpanKind.CONSUMER, attributes, links, started_ns
        )
        opened = BatchTrace(headers, self._tracer, batch, started_ns)
        for place in [p for p in newest if p in sampled][:SPANS_MAX]:
            span = self._list_span(records[place], sampled[place], batch, topic)
            opened._lists.append(span)
            headers[records[place].key] = [(TRACEPARENT, _header(span.get_span_context()))]
        return opened

    def close(self) -> None:
        """Exports what waits and ends the exporter's thread; blocks a second at most, then gives it up."""
        self._provider.force_flush(FLUSH_MS_MAX)
        self._provider.shutdown()

    def _list_span(self, record: ConsumerRecord, context: Any, batch: Any, topic: str) -> Any:
        """From the event's timestamp on, in the event's trace."""
        trace = self._trace
        return self._tracer.start_span(
            f"publish {topic}",
            trace.set_span_in_context(trace.NonRecordingSpan(context)),
            trace.SpanKind.PRODUCER,
            {"messaging.system": "kafka", "messaging.destination.name": topic, "messaging.kafka.offset": record.offset},
            [trace.Link(batch.get_span_context())],
            record.timestamp * 1_000_000,
        )

    def _context(self, record: ConsumerRecord) -> Any:
        """The trace context of a record; None where there is none, or one that the standard tells to ignore."""
        for name, value in record.headers:
            if name == TRACEPARENT and value is not None and (found := _CONTEXT.fullmatch(value)):
                trace_id, span_id, flags = (int(part, 16) for part in found.groups())
                return self._trace.SpanContext(
                    trace_id, span_id, is_remote=True, trace_flags=self._trace.TraceFlags(flags)
                )
        return None


def _header(context: Any) -> bytes:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}".encode()


def open_traces(settings: Settings, worker: str) -> Traces | None:
    """Traces to `otlp_endpoint`; None when that is not set.

    Raises:
        UsageError: the extra `otel` is not installed.
    """
    if settings.otlp_endpoint is None:
        return None
    try:
        sdk = importlib.import_module("opentelemetry.sdk.trace")
        export = importlib.import_module("opentelemetry.sdk.trace.export")
        otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        resources = importlib.import_module("opentelemetry.sdk.resources")
    except ImportError as error:
        raise UsageError(f"OpenTelemetry is not installed ({error}); {_EXTRA}.") from error
    resource = resources.Resource.create({"service.name": "nearstream", "service.instance.id": worker})
    provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter(endpoint=settings.otlp_endpoint)))
    return Traces(provider)
