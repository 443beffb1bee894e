"""Writes docs/settings.md and docs/metrics.md from their declarations: `python docs/generate_reference.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streams.config import DEFAULT_TYPE_WEIGHTS, Settings
from streams.metrics import DEFINITIONS, MetricDefinition

DOCS = Path(__file__).parent
NOTE = "<!-- Written by docs/generate_reference.py; do not edit. -->"
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "minLength": "length ≥", "pattern": "matches"}

SETTINGS_INTRO = """\
Each setting is a `NEARSTREAM_*` variable or a line of `nearstream.toml` in the working directory; many are flags too
(`nearstream COMMAND --help`). A flag counts more than a variable, a variable more than the file, the file more than
the default. A value out of range, or an unknown name in the file, stops the command with a sentence that says so.
Units are in the names: `_ms` milliseconds, `_days` days, `_hours` hours.
"""

WEIGHTS_INTRO = """\
## Weights of event types

`type_weights` is a JSON object in the variable (`NEARSTREAM_TYPE_WEIGHTS='{"view": 0.5}'`) and a table in the file.
Types that it does not name keep these weights. A rating's weight is multiplied by (value − 2.5) / 2.5, between −1 and
1; a rating without value counts in full.
"""

METRICS_INTRO = """\
The worker answers `GET /metrics` on its web port in the Prometheus text format; those called `nearstream_http_…` come
from `nearstream dashboard`, at the same path on its port. Units are in the names: `_seconds`,
`_bytes`, and for the rest a count. `_total` only grows, and starts at 0 with the worker.
"""


def settings_page() -> str:
    """Every setting with its variable, default, range and meaning."""
    properties = Settings.model_json_schema()["properties"]
    rows = []
    for name, field in Settings.model_fields.items():
        default = "see below" if name == "type_weights" else _default(field.default)
        rows.append(
            (f"`{name}`", f"`NEARSTREAM_{name.upper()}`", default, _accepted(properties[name]), field.description)
        )
    weights = [(f"`{kind}`", f"{weight:g}") for kind, weight in DEFAULT_TYPE_WEIGHTS.items()]
    return _page(
        "# Settings",
        NOTE,
        SETTINGS_INTRO,
        _table(("Setting", "Variable", "Default", "Accepted", "Meaning"), rows),
        WEIGHTS_INTRO,
        _table(("Type", "Weight"), weights),
    )


def metrics_page() -> str:
    """Every metric with its kind, labels and meaning."""
    rows = [(f"`{d.name}`", d.kind, _labels(d), d.meaning) for d in DEFINITIONS]
    buckets = [
        (f"`{d.name}`", ", ".join(f"{bucket:g}" for bucket in d.buckets)) for d in DEFINITIONS if d.kind == "histogram"
    ]
    return _page(
        "# Metrics",
        NOTE,
        METRICS_INTRO,
        _table(("Metric", "Kind", "Labels", "Meaning"), rows),
        "## Buckets",
        _table(("Histogram", "Upper bounds"), buckets),
    )


def _page(*blocks: str) -> str:
    return "\n\n".join(block.strip() for block in blocks) + "\n"


def _labels(definition: MetricDefinition) -> str:
    return ", ".join(f"`{label}`" for label in definition.labels) or "–"


def _default(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, str) and not value:
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _accepted(schema: dict[str, Any]) -> str:
    """The choices, or the type with its range, from the JSON Schema of one setting."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    schema = {**schema, **kinds[0]}
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    kind = "JSON object" if schema["type"] == "object" else schema.get("format", schema["type"])
    bounds = [f"{sign} `{schema[bound]}`" for bound, sign in BOUNDS.items() if bound in schema]
    return " ".join([kind, ", ".join(bounds)]).strip()


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


if __name__ == "__main__":
    (DOCS / "settings.md").write_text(settings_page(), encoding="utf-8")
    (DOCS / "metrics.md").write_text(metrics_page(), encoding="utf-8")
