"""Every metric of the worker and of the page, declared once: name, kind, unit (in the name), labels, meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

M = TypeVar("M", Counter, Gauge, Histogram)
Process = Literal["worker", "page"]
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 10.0)
HTTP_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
BATCH_SIZES = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2000, 5000)


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """What one exported metric is."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = SECONDS
    process: Process = "worker"


DEFINITIONS = (
    MetricDefinition("nearstream_events_total", "counter", ("type",), "Events accepted and committed."),
    MetricDefinition("nearstream_duplicates_total", "counter", (), "Events whose event_id was seen before; no effect."),
    MetricDefinition("nearstream_dead_letters_total", "counter", ("reason",), "Records sent to the dead letters."),
    MetricDefinition("nearstream_lists_total", "counter", (), "Refreshed lists published."),
    MetricDefinition(
        "nearstream_lists_short_total",
        "counter",
        ("because",),
        "Lists published with fewer items than asked for, by reason: catalogue-exhausted, rules, fatigue, caps.",
    ),
    MetricDefinition(
        "nearstream_lists_by_cause_total",
        "counter",
        ("cause",),
        "Lists published, by cause: event, neighbour, or owed for an event whose list was shed.",
    ),
    MetricDefinition(
        "nearstream_lists_coalesced_total",
        "counter",
        (),
        "Refreshes answered by another list of the same user: of earlier events, and of debts.",
    ),
    MetricDefinition(
        "nearstream_lists_shed_total", "counter", ("kind",), "Lists put off under overload: of views, of clicks."
    ),
    MetricDefinition("nearstream_owed_users", "gauge", ("partition",), "Users who wait for a list that was shed."),
    MetricDefinition(
        "nearstream_shedding_level",
        "gauge",
        ("partition",),
        "What gets no list now: 0 nothing, 1 reverse refreshes, 2 views too, 3 clicks too.",
    ),
    MetricDefinition("nearstream_batch_limit_events", "gauge", ("partition",), "Most events of the next batch."),
    MetricDefinition(
        "nearstream_reverse_waiting_users", "gauge", (), "Users whose refresh because of a neighbour waits."
    ),
    MetricDefinition(
        "nearstream_reverse_dropped_users",
        "gauge",
        (),
        "Refreshes because of a neighbour that found no room, since start.",
    ),
    MetricDefinition(
        "nearstream_lessons_total", "counter", (), "Events that judged the list of before and, unless frozen, taught."
    ),
    MetricDefinition(
        "nearstream_what_if_seconds",
        "histogram",
        (),
        "Questions of what a list would be, by the time that each took the compute thread.",
    ),
    MetricDefinition(
        "nearstream_list_ndcg", "gauge", (), "NDCG@10 of the lists, a mean of late lessons; NaN before the first."
    ),
    MetricDefinition(
        "nearstream_list_hit_rate", "gauge", (), "HR@10 of the lists, a mean of late lessons; NaN before the first."
    ),
    MetricDefinition(
        "nearstream_source_weight",
        "gauge",
        ("source", "part"),
        "What a source counts for all users alike: part a of its worth, l of the logarithm.",
    ),
    MetricDefinition("nearstream_batches_total", "counter", (), "Transactions committed."),
    MetricDefinition(
        "nearstream_session_restarts_total",
        "counter",
        ("cause",),
        "Pipelines rebuilt from the log: fenced by another owner of the partition, or after an error.",
    ),
    MetricDefinition(
        "nearstream_freshness_seconds", "histogram", (), "From the event's record timestamp to its committed list."
    ),
    MetricDefinition(
        "nearstream_stage_seconds",
        "histogram",
        ("stage",),
        "Time of one batch in one stage: fetch, linger, queue, decode, encode, search, rank, serialise, transaction.",
    ),
    MetricDefinition("nearstream_batch_events", "histogram", (), "Records in one transaction.", BATCH_SIZES),
    MetricDefinition("nearstream_lag_events", "gauge", ("partition",), "High watermark minus position."),
    MetricDefinition("nearstream_lag_seconds", "gauge", ("partition",), "Age of the next unprocessed record."),
    MetricDefinition("nearstream_index_users", "gauge", (), "Users that can be found as neighbours."),
    MetricDefinition("nearstream_catalogue_items", "gauge", (), "Items seen in events or on the items topic."),
    MetricDefinition("nearstream_memory_bytes", "gauge", (), "Resident memory of the worker."),
    MetricDefinition("nearstream_unreadable_items_total", "counter", (), "Records of the items topic passed over."),
    MetricDefinition("nearstream_unreadable_users_total", "counter", (), "Records of the users topic passed over."),
    MetricDefinition(
        "nearstream_index_recall",
        "gauge",
        (),
        "Share of the exact ten neighbours that the last canary queries found; NaN before the first ones.",
    ),
    MetricDefinition(
        "nearstream_index_self_miss_share",
        "gauge",
        (),
        "Share of canaries that did not find themselves first; NaN before the first ones.",
    ),
    MetricDefinition("nearstream_index_graph_rows", "gauge", (), "Rows of the base graph; 0 while all is scanned."),
    MetricDefinition("nearstream_index_delta_rows", "gauge", (), "Rows scanned beside the graphs."),
    MetricDefinition("nearstream_index_moved_rows", "gauge", (), "Rows of the base graph that answer from elsewhere."),
    MetricDefinition("nearstream_index_dead_share", "gauge", (), "Removed rows, as a share of the base graph."),
    MetricDefinition("nearstream_index_segments", "gauge", (), "Small graphs beside the base graph."),
    MetricDefinition("nearstream_index_generation", "gauge", (), "Base graphs built so far."),
    MetricDefinition("nearstream_index_generation_age_seconds", "gauge", (), "Since the base graph went into service."),
    MetricDefinition("nearstream_index_build_seconds", "gauge", (), "What the last base graph took to build."),
    MetricDefinition("nearstream_index_building", "gauge", (), "1 while a graph is built, else 0."),
    MetricDefinition("nearstream_index_memory_bytes", "gauge", (), "Held by the index: vectors, graphs and tables."),
    MetricDefinition("nearstream_index_erasures_pending", "gauge", (), "Forgotten users still in a graph's bytes."),
    MetricDefinition("nearstream_index_failed_builds", "gauge", (), "Builds that ended in an error since the start."),
    MetricDefinition("nearstream_index_warning", "gauge", ("trigger",), "1 while this figure is past its limit."),
    MetricDefinition("nearstream_index_failed_checks_total", "counter", (), "Canary checks that ended in an error."),
    MetricDefinition("nearstream_index_rebuilds_total", "counter", (), "Builds that the canary checks asked for."),
    MetricDefinition(
        "nearstream_model_fallback", "gauge", (), "1 while decayed-mean serves in place of the model folder, else 0."
    ),
    MetricDefinition("nearstream_model_ready_share", "gauge", (), "Share of a coming model that is ready, 0 to 1."),
    MetricDefinition("nearstream_model_switches", "gauge", (), "Models taken into service since the start."),
    MetricDefinition(
        "nearstream_model_failures", "gauge", (), "Model folders refused, and swaps that failed, since the start."
    ),
    MetricDefinition("nearstream_model_switch_seconds", "gauge", (), "From reading the last model to its service."),
    MetricDefinition(
        "nearstream_model_pause_seconds", "gauge", (), "The longest that the last swap held up the compute thread."
    ),
    MetricDefinition(
        "nearstream_model_overlap_share",
        "gauge",
        ("lists",),
        "Overlap@10 of a sample's lists before and after the last switch: of neighbours and of items, 0 to 1.",
    ),
    MetricDefinition(
        "nearstream_item_images_total",
        "counter",
        ("outcome",),
        "Images of items: seen by the model, or unreadable, their items known by their words alone.",
    ),
    MetricDefinition("nearstream_snapshot_age_seconds", "gauge", (), "Since the last snapshot on disk was taken."),
    MetricDefinition("nearstream_snapshot_bytes", "gauge", (), "Size of the last snapshot on disk."),
    MetricDefinition("nearstream_snapshot_seconds", "gauge", (), "What the last snapshot took to write."),
    MetricDefinition(
        "nearstream_snapshot_failures", "gauge", (), "Snapshots that could not be written, since the start."
    ),
    MetricDefinition(
        "nearstream_http_requests_total",
        "counter",
        ("route", "status"),
        "Requests answered by the page's process, by route and status.",
        process="page",
    ),
    MetricDefinition(
        "nearstream_http_seconds",
        "histogram",
        ("route",),
        "From a request's headers to its whole answer, live streams left out.",
        HTTP_SECONDS,
        process="page",
    ),
)


class Metrics:
    """The metrics in a registry of their own; with `process` only those of one, so that no other's stand at 0."""

    def __init__(self, process: Process | None = None) -> None:
        self.registry = CollectorRegistry()
        self._metrics: dict[str, Counter | Gauge | Histogram] = {}
        for definition in DEFINITIONS:
            if process in {None, definition.process}:
                self._metrics[definition.name] = self._create(definition)

    def counter(self, name: str, **labels: str) -> Counter:
        """The declared counter, or its child with these labels."""
        return self._child(name, Counter, labels)

    def gauge(self, name: str, **labels: str) -> Gauge:
        """The declared gauge, or its child with these labels."""
        return self._child(name, Gauge, labels)

    def histogram(self, name: str, **labels: str) -> Histogram:
        """The declared histogram, or its child with these labels."""
        return self._child(name, Histogram, labels)

    def clear(self, name: str) -> None:
        """Drops all children of a labelled metric, so that what is gone is no longer exported."""
        self._metrics[name].clear()

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)

    def _create(self, definition: MetricDefinition) -> Counter | Gauge | Histogram:
        if definition.kind == "counter":
            return Counter(definition.name, definition.meaning, definition.labels, registry=self.registry)
        if definition.kind == "gauge":
            return Gauge(definition.name, definition.meaning, definition.labels, registry=self.registry)
        return Histogram(
            definition.name, definition.meaning, definition.labels, registry=self.registry, buckets=definition.buckets
        )

    def _child(self, name: str, kind: type[M], labels: dict[str, str]) -> M:
        metric = self._metrics[name]
        if not isinstance(metric, kind):
            raise TypeError(f"{name} is not a {kind.__name__.lower()}.")
        return metric.labels(**labels) if labels else metric
