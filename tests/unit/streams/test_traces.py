"""Traces: which events get spans, what their lists carry, and that nothing is made of what failed."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from streams.config import load_settings
from streams.core.errors import UsageError
from streams.kafka.traces import SPANS_MAX, Traces, open_traces

SENT_MS = 1_700_000_000_000
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def _record(offset: int, user: bytes, traceparent: bytes | None) -> ConsumerRecord:
    headers = () if traceparent is None else (("other", b"x"), ("traceparent", traceparent))
    return ConsumerRecord("events", 3, offset, SENT_MS + offset, 0, user, b"{}", 0, 1, 2, headers)


def _context(flags: str = "01", trace_id: str = TRACE_ID) -> bytes:
    return f"00-{trace_id}-{SPAN_ID}-{flags}".encode()


@pytest.fixture
def exported() -> Any:
    """Where finished spans arrive; its `traces` makes them."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="needs opentelemetry-sdk; see `make setup`")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    provider = sdk.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(export.SimpleSpanProcessor(memory))
    memory.traces = Traces(provider)
    yield memory
    memory.traces.close()


def _by_name(exported: Any) -> dict[str, Any]:
    return {span.name: span for span in exported.get_finished_spans()}


def test_one_event_is_one_trace_across_topics(exported: Any) -> None:
    """Its list carries a span of the same trace, from the event's timestamp on; the batch links to the event."""
    records = [_record(7, b"u1", _context()), _record(8, b"u2", None)]
    trace = exported.traces.batch(records, [0, 1], 0.01, "recommendations")
    assert list(trace.headers) == [b"u1"]
    ((name, value),) = trace.headers[b"u1"]
    assert name == "traceparent"
    trace.committed({"fetch": 0.01, "encode": 0.002, "transaction": 0.02})
    spans = _by_name(exported)
    published = spans["publish recommendations"]
    assert f"{published.context.trace_id:032x}" == TRACE_ID
    assert f"{published.parent.span_id:016x}" == SPAN_ID
    assert published.start_time == (SENT_MS + 7) * 1_000_000
    assert value == f"00-{TRACE_ID}-{published.context.span_id:016x}-01".encode()
    batch = spans["process events"]
    assert [f"{link.context.trace_id:032x}" for link in batch.links] == [TRACE_ID]
    assert batch.attributes["messaging.batch.message_count"] == 2


def test_stages_follow_each_other_inside_the_batch(exported: Any) -> None:
    """Each as long as it took; the batch ends after the last."""
    stages = {"fetch": 0.01, "decode": 0.002, "encode": 0.003, "rank": 0.004, "transaction": 0.02}
    exported.traces.batch([_record(1, b"u", _context())], [0], 0.019, "recommendations").committed(stages)
    spans = _by_name(exported)
    batch = spans["process events"]
    ends = [batch.start_time]
    for stage, seconds in stages.items():
        assert spans[stage].parent.span_id == batch.context.span_id
        assert spans[stage].start_time == ends[-1]
        assert spans[stage].end_time - spans[stage].start_time == pytest.approx(seconds * 1e9, abs=2)
        ends.append(spans[stage].end_time)
    assert batch.end_time >= ends[-1]


def test_a_transaction_that_failed_exports_nothing(exported: Any) -> None:
    """Its spans are never ended; the events come again."""
    exported.traces.batch([_record(1, b"u", _context())], [0], 0.0, "recommendations")
    assert exported.get_finished_spans() == ()


@pytest.mark.parametrize(
    "traceparent",
    [None, b"", b"garbage", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", _context().upper(), _context() + b"-x"],
    ids=repr,
)
def test_events_without_a_valid_context_cost_nothing(exported: Any, traceparent: bytes | None) -> None:
    """No header, and no span: whatever a producer wrote there."""
    trace = exported.traces.batch([_record(1, b"u", traceparent)], [0], 0.0, "recommendations")
    trace.committed({"fetch": 0.1})
    assert trace.headers == {}
    assert exported.get_finished_spans() == ()


def test_a_context_that_is_not_sampled_is_carried_on_only(exported: Any) -> None:
    """Whoever reads the list still finds the event's trace."""
    trace = exported.traces.batch([_record(1, b"u", _context("00"))], [0], 0.0, "recommendations")
    trace.committed({"fetch": 0.1})
    assert trace.headers == {b"u": [("traceparent", _context("00"))]}
    assert exported.get_finished_spans() == ()


def test_spans_of_a_batch_are_bounded(exported: Any) -> None:
    """Lists beyond the bound carry their event's own context on."""
    count = SPANS_MAX + 10
    records = [_record(n, f"u{n}".encode(), _context(trace_id=f"{n + 1:032x}")) for n in range(count)]
    trace = exported.traces.batch(records, range(count), 0.0, "recommendations")
    trace.committed({})
    spans = exported.get_finished_spans()
    assert len([span for span in spans if span.name.startswith("publish")]) == SPANS_MAX
    assert len(trace.headers) == count
    last = count - 1
    assert trace.headers[f"u{last}".encode()] == [("traceparent", _context(trace_id=f"{count:032x}"))]


def test_traces_are_off_by_default() -> None:
    """Nothing is imported, nothing is opened."""
    assert open_traces(load_settings(), "w1") is None


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    settings = load_settings(otlp_endpoint="http://127.0.0.1:4318/v1/traces")
    with pytest.raises(UsageError, match=r"pip install 'nearstream\[otel\]'"):
        open_traces(settings, "w1")
