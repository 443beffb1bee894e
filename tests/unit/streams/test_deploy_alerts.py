"""The alert rules ask for figures that exist, at thresholds that the settings have, and the runbook answers each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from streams.config import Settings
from tests.unit.streams.test_deploy import SCRAPE_LABELS, exported_samples, resolve

ROOT = Path(__file__).resolve().parents[3]
GROUPS: list[dict[str, Any]] = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
RUNBOOK = (ROOT / "deploy/runbook.md").read_text()
PROMQL_WORDS = {
    "absent", "and", "avg", "avg_over_time", "by", "delta", "deriv", "histogram_quantile", "increase", "max", "min",
    "or", "rate", "sum", "up", "vector",
}  # fmt: skip
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


def by_name(name: str) -> dict[str, Any]:
    """The rule of an alert."""
    (rule,) = (rule for rule in RULES if rule["alert"] == name)
    return rule


def section(name: str) -> str:
    """What the runbook says of an alert."""
    found = re.search(rf"^### {name}\n(.*?)(?=^##)", RUNBOOK, re.DOTALL | re.MULTILINE)
    assert found, f"deploy/runbook.md has no section `### {name}`"
    return found[1]


@each_rule
def test_a_rule_asks_for_exported_samples_and_labels(rule: dict[str, Any]) -> None:
    """Each word of an expression is a sample of the worker's exposition, one of its labels, or PromQL."""
    samples = exported_samples()
    expression = re.sub(r'"[^"]*"|\[[^\]]*\]', "", rule["expr"])
    words = set(re.findall(r"[a-zA-Z_]\w*", expression))
    named = words & set(samples)
    labels = {label for name in named for label in samples[name]}
    assert words - named - labels - SCRAPE_LABELS - PROMQL_WORDS == set()
    assert named or "up" in words


@each_rule
def test_a_rule_is_promql(rule: dict[str, Any]) -> None:
    """Brackets, ranges, operators and functions, by a parser of the language."""
    promql_parser = pytest.importorskip("promql_parser", reason="needs promql-parser; see `make setup`")
    promql_parser.parse(rule["expr"])


@each_rule
def test_a_rule_has_what_a_reader_at_night_needs(rule: dict[str, Any]) -> None:
    """A severity, a sentence whose labels the expression keeps, and the place in the runbook."""
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
    summary = rule["annotations"]["summary"]
    assert summary.endswith(".")
    kept = {word for group in re.findall(r"by \(([\w, ]+)\)", rule["expr"]) for word in group.split(", ")}
    kept |= {"instance"} if rule["expr"].startswith("up") else set()
    assert set(re.findall(r"\$labels\.(\w+)", summary)) <= kept
    assert rule["annotations"]["runbook"] == f"deploy/runbook.md#{rule['alert'].lower()}"


@each_rule
def test_the_runbook_answers_an_alert(rule: dict[str, Any]) -> None:
    """Meaning, look here, do this."""
    text = section(rule["alert"])
    assert re.findall(r"^- \*\*(.+?)\*\*: \S", text, re.MULTILINE) == ["Means", "Look here", "Do this"]


def test_names_are_unique_and_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    """Sections and rules agree both ways."""
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert set(re.findall(r"^### (Nearstream\w+)", RUNBOOK, re.MULTILINE)) == set(names)


def test_thresholds_that_repeat_a_setting_are_its_default() -> None:
    """A changed default must reach the alert."""
    fields = Settings.model_fields
    assert by_name("NearstreamFreshnessHigh")["expr"].endswith(f"> {fields['freshness_target_ms'].default / 1000:g}")
    assert by_name("NearstreamRecallLow")["expr"].endswith(f"< {fields['recall_min'].default:g}")
    snapshot_s = float(by_name("NearstreamSnapshotOld")["expr"].rpartition("> ")[2])
    assert snapshot_s >= 3 * fields["snapshot_interval_s"].default


@pytest.mark.parametrize(
    "subject",
    [
        "nearstream_lag_seconds",
        "nearstream_freshness_seconds_bucket",
        "nearstream_dead_letters_total",
        'up{job="nearstream"}',
        "nearstream_index_recall",
        "nearstream_index_generation_age_seconds",
        "nearstream_lists_shed_total",
        "nearstream_model_fallback",
        'nearstream_session_restarts_total{cause="fenced"}',
        "nearstream_snapshot_age_seconds",
    ],
)
def test_what_must_not_go_unnoticed_has_an_alert(subject: str) -> None:
    """Lag, freshness, dead letters, no worker, recall, old graph, shed lists, fallback, fencing, old snapshot."""
    assert any(subject in rule["expr"] for rule in RULES)


def test_commands_in_the_text_of_the_alerts_exist() -> None:
    """Each `nearstream …` between backticks is a command line that click accepts."""
    alerts = RUNBOOK[RUNBOOK.index("## Alerts") : RUNBOOK.index("## Kafka with TLS")]
    commands = re.findall(r"`nearstream ([a-z][^`]*)`", alerts)
    assert commands
    for command in commands:
        context: click.Context = resolve(command.split())
        assert context.command.name


def test_prometheus_reads_the_rules() -> None:
    """The file is named in prometheus.yml and mounted beside it."""
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    mounts = dict(mount.split(":")[:2] for mount in compose["services"]["prometheus"]["volumes"])
    assert prometheus["rule_files"] == ["alerts.yml"]
    assert mounts["./deploy/prometheus/alerts.yml"] == "/etc/prometheus/alerts.yml"


def test_links_inside_the_runbook_lead_somewhere() -> None:
    """Each `#anchor` is a heading."""
    headings = re.findall(r"^#+ (.+)$", RUNBOOK, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK)) <= anchors
