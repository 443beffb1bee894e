"""The metrics: declared once, exported as Prometheus reads them, and described in the documentation."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams.metrics import DEFINITIONS, Metrics

ROOT = Path(__file__).resolve().parents[3]
UNITS = ("_total", "_seconds", "_bytes", "_events", "_users", "_items", "_rows", "_share", "_segments")
UNITLESS = {
    "nearstream_index_recall",
    "nearstream_index_generation",
    "nearstream_index_building",
    "nearstream_index_erasures_pending",
    "nearstream_index_failed_builds",
    "nearstream_index_warning",
    "nearstream_list_hit_rate",
    "nearstream_list_ndcg",
    "nearstream_model_failures",
    "nearstream_model_fallback",
    "nearstream_model_switches",
    "nearstream_shedding_level",
    "nearstream_snapshot_failures",
    "nearstream_source_weight",
}
"""Shares, flags and counts whose own word says what they count."""


def samples(metrics: Metrics) -> dict[str, float]:
    """The exported values by name and labels."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        sample.name + "".join(f",{value}" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_was_counted_is_exported() -> None:
    """Each kind of metric, with and without labels, under its declared name."""
    metrics = Metrics()
    metrics.counter("nearstream_events_total", type="view").inc(3)
    metrics.counter("nearstream_events_total", type="cart").inc()
    metrics.counter("nearstream_lists_total").inc(2)
    metrics.gauge("nearstream_lag_events", partition="7").set(12)
    metrics.histogram("nearstream_batch_events").observe(60)
    found = samples(metrics)
    assert found["nearstream_events_total,view"] == 3
    assert found["nearstream_events_total,cart"] == 1
    assert found["nearstream_lists_total"] == 2
    assert found["nearstream_lag_events,7"] == 12
    assert found["nearstream_batch_events_bucket,50.0"] == 0
    assert found["nearstream_batch_events_bucket,100.0"] == 1


def test_partitions_that_left_are_no_longer_exported() -> None:
    """`clear` drops the children, so that no worker reports the lag of what it does not own."""
    metrics = Metrics()
    metrics.gauge("nearstream_lag_events", partition="7").set(12)
    metrics.clear("nearstream_lag_events")
    metrics.gauge("nearstream_lag_events", partition="8").set(1)
    found = samples(metrics)
    assert "nearstream_lag_events,7" not in found
    assert found["nearstream_lag_events,8"] == 1


def test_a_metric_of_another_kind_is_a_mistake() -> None:
    """Asking for a gauge under a counter's name fails at once, with the name."""
    metrics = Metrics()
    with pytest.raises(TypeError, match="nearstream_lists_total is not a gauge"):
        metrics.gauge("nearstream_lists_total")
    with pytest.raises(KeyError, match="nearstream_nothing"):
        metrics.counter("nearstream_nothing")


def test_two_workers_in_one_process_count_apart() -> None:
    """Each has a registry of its own."""
    one, two = Metrics(), Metrics()
    one.counter("nearstream_lists_total").inc()
    assert samples(two)["nearstream_lists_total"] == 0


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.name)
def test_every_metric_is_named_and_described(definition) -> None:
    """The unit is in the name where there is one, only counters end in `_total`, and the meaning is a sentence."""
    assert definition.name.startswith("nearstream_")
    assert definition.name.endswith(UNITS) != (definition.name in UNITLESS)
    assert definition.name.endswith("_total") == (definition.kind == "counter")
    assert definition.meaning.endswith(".")
    assert len(definition.meaning.split()) >= 2


def test_names_are_declared_once() -> None:
    """Two definitions of one name would hide each other."""
    assert len({definition.name for definition in DEFINITIONS}) == len(DEFINITIONS)


def test_the_reference_of_metrics_is_current() -> None:
    """Run `python docs/generate_reference.py` after a change of streams/metrics.py."""
    generated = runpy.run_path(str(ROOT / "docs" / "generate_reference.py"))["metrics_page"]()
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == generated
    assert all(f"| `{definition.name}` | {definition.kind} |" in generated for definition in DEFINITIONS)
