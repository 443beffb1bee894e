"""A replay as one page that needs no network: curves, weights, tables, calibration, and what was run how."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from math import isfinite
from typing import TYPE_CHECKING

from streams.replay_judge import PRODUCT
from streams.replay_report import calibration, calibration_error, curves
from streams.svg import COLOURS, Axes, Series, lines, points

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from encoder.report import Report, Row
    from streams.replay_compare import Comparison
    from streams.replay_judge import Replayed

FIGURES = ("hr@10", "ndcg@10", "mrr@10", "hr@20", "ndcg@20", "mrr@20")
LIST_FIGURES = (
    "distance@10", "category_distance@10", "miscalibration", "coverage@10", "gini@10", "provider_gini@10",
    "floors_held", "short_lists",
)  # fmt: skip
PARTS = {
    "type": "By type of event",
    "history": "By events of the user before: cold and warm users",
    "item": "By events of the item before: cold and warm items",
    "target": "By whether the user had had the item",
}
MEANINGS = {
    "distance@10": "1 − mean cosine of the described items in a list's first ten",
    "category_distance@10": "the same of their sets of categories",
    "miscalibration": "KL distance of the list's categories from those of the user's recent items",
    "coverage@10": "share of all items that stand in some list's first ten",
    "gini@10": "inequality of exposure over items, 0 = all alike",
    "provider_gini@10": "the same over providers",
    "floors_held": "share of windows in which every fairness floor held",
    "short_lists": "share of lists that are not full",
}

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --panel: #fff; --rule: #dfe3e8; --text: #18222d; --quiet: #5a6673;
  --c0: #18222d; --c1: #0072b2; --c2: #b85c00; --c3: #00714f; --c4: #99407a; --c5: #7d7d7d; }
@media (prefers-color-scheme: dark) { :root { --page: #11161c; --panel: #1a2129; --rule: #2c3641; --text: #e6ebf0;
  --quiet: #9aa7b4; --c0: #f4f7fa; --c1: #56b4e9; --c2: #e69f00; --c3: #4cc79a; --c4: #e59cc8; --c5: #a3a3a3; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px 20px 60px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; font-variant-numeric: tabular-nums; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 8px; }
p, dl { margin: 4px 0 10px; } .quiet, caption, dt { color: var(--quiet); }
.panel { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 14px; }
svg[role=img] { display: block; width: 100%; height: auto; }
.panel + .panel { margin-top: 12px; } .pair > .panel { margin-top: 0; }
.axis { fill: var(--quiet); font-size: 11px; } .grid { stroke: var(--rule); }
.diagonal { stroke: var(--quiet); } .line { stroke-width: 1.6; }
.strong { stroke-width: 3.2; } .dot { stroke: none; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 8px 0 0; padding: 0;
  font-size: 13px; }
.legend svg { width: 26px; height: 10px; margin-right: 6px; vertical-align: middle; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: 14px; }
caption { text-align: left; padding-bottom: 4px; } td, th { padding: 4px 7px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule); } th[scope=row], thead th:first-child { text-align: left; font-weight: 500; }
thead th { white-space: normal; vertical-align: bottom; min-width: 5em; }
tr.own > * { font-weight: 700; } dd { margin: 0; } td.words { text-align: left; white-space: normal; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; }
code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 13px; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 16px; }
@media print { body { max-width: none; } .panel { break-inside: avoid; } }
""" + "\n".join(f".s{n}.line {{ stroke: var(--c{n}); }} .s{n}.dot {{ fill: var(--c{n}); }}" for n in range(COLOURS))


@dataclass(frozen=True, slots=True)
class Run:
    """One replay and its figures."""

    name: str
    """What tells it from another on the same page; empty when it is alone."""
    replayed: Replayed
    report: Report


@dataclass(frozen=True, slots=True)
class Conditions:
    """What was run."""

    title: str
    command: str
    facts: Mapping[str, str]
    """What else bears on the figures, such as machine and settings, by name."""


def page(conditions: Conditions, runs: Sequence[Run], comparison: Comparison | None = None) -> str:
    """The whole page; at least one run."""
    sections = [] if comparison is None else [_comparison(comparison)]
    for run in runs:
        sections += _run(run)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(conditions.title)}</title><style>{STYLE}</style></head>\n<body>"
        f"<header><h1>{escape(conditions.title)}</h1>{_summary(runs[0])}</header>\n<main>"
        + "\n".join(sections)
        + f"</main>\n<footer>{_conditions(conditions)}</footer></body></html>\n"
    )


def _summary(run: Run) -> str:
    own = run.report.rows[0]
    asked = [row for row in run.report.rows if row.n == own.n and row.model in run.replayed.sources]
    best = max(asked, key=lambda row: row.figures["ndcg@10"])
    low, high = own.intervals["ndcg@10"]
    return (
        f"<p>{own.n:,} events were predicted before they were learned, among all items. NDCG@10 of the product is "
        f"<strong>{own.figures['ndcg@10']:.4f}</strong> (95 % of users: {low:.4f} to {high:.4f}), HR@10 "
        f"<strong>{own.figures['hr@10']:.4f}</strong>; the best source alone is {escape(best.model)} with "
        f"{best.figures['ndcg@10']:.4f}.</p>"
    )


def _run(run: Run) -> list[str]:
    name = f" – {escape(run.name)}" if run.name else ""
    made = [
        f"<section><h2>NDCG@10 over the log{name}</h2>"
        '<p class="quiet">Each point is the mean of one stretch of the judged events, all stretches of equal size.</p>'
        f"{_curves(run)}</section>",
        f"<section><h2>Learned weights of the sources{name}</h2>"
        '<p class="quiet">What all users share; segments add to it. A source at 0 is not heard.</p>'
        f'<div class="panel">{_weights(run)}</div></section>',
        f"<section><h2>Figures{name}</h2>{_rows(run.report)}</section>",
    ]
    if run.replayed.listed:
        made.append(f"<section><h2>Lists before and after the rules{name}</h2>{_lists(run)}</section>")
    made.append(
        f"<section><h2>Is the promised chance true?{name}</h2>"
        f'<div class="panel">{_reliability(run)}</div>{_exposure(run)}</section>'
    )
    made.append(f"<section><h2>Parts of the log{name}</h2>{_parts(run)}</section>")
    return made


def _curves(run: Run) -> str:
    ends, means = curves(run.replayed)
    sources, others = run.replayed.sources, run.replayed.arms

    def series(wanted: Sequence[str]) -> list[Series]:
        columns = [column for column, name in enumerate(others) if name == PRODUCT or name in wanted]
        return [Series(others[c], ends.tolist(), means[:, c].tolist(), others[c] == PRODUCT) for c in columns]

    baselines = [name for name in others if name not in sources and not name.startswith("without ")]
    return (
        f'<div class="panel">{lines(series(sources), _over("NDCG@10 beside each source alone", "NDCG@10", run))}</div>'
        f'<div class="panel">{lines(series(baselines), _over("NDCG@10 beside baselines", "NDCG@10", run))}</div>'
    )


def _weights(run: Run) -> str:
    trace = run.replayed.trace
    series = [
        Series(name, trace.judged.tolist(), trace.weights[:, column].tolist())
        for column, name in enumerate(run.replayed.sources)
    ]
    return lines(series, _over("Learned weight of each source", "weight", run))


def _over(title: str, y: str, run: Run) -> Axes:
    times_s = run.replayed.judged.times_s
    return Axes(title, f"judged events, {_date(times_s[0])} to {_date(times_s[-1])}", y, lambda count: f"{count:,.0f}")


def _reliability(run: Run) -> str:
    bins = calibration(run.replayed.judged)
    series = Series(
        "first item of the list", [promised for promised, _, _ in bins], [true for _, true, _ in bins], strong=True,
        labels=[f"{count:,}" for _, _, count in bins],
    )  # fmt: skip
    error = calibration_error(run.replayed.judged)
    plot = points(
        [series],
        Axes("Promised chance of the first item beside the share that came true", "promised chance", "came true"),
        diagonal=True,
    )
    return (
        f'{plot}<p class="quiet">On the dashed line promises are kept; numbers count lists. Mean error {error:.3f}.</p>'
    )


def _exposure(run: Run) -> str:
    own = run.report.rows[0].figures
    meant = {
        "coverage@10": "share of all items that stand in some list's first ten",
        "gini@10": "inequality of exposure over items: 0 all alike, 1 one item takes all",
        "calibration_error": "mean gap between promised and true chance of the first item",
        "candidates_found": "share of the items that came which were candidates at all",
    }
    rows = [[name, _number(own[name], 3), escape(meaning)] for name, meaning in meant.items() if name in own]
    body = "".join(
        f'<tr><th scope="row">{name}</th><td>{value}</td><td class="words">{meaning}</td></tr>'
        for name, value, meaning in rows
    )
    return f'<div class="panel wide"><table><caption>Exposure and promises of the product</caption>{body}</table></div>'


def _rows(report: Report) -> str:
    head = ["", "events", *(name.upper() for name in FIGURES), "NDCG@10 minus the product's, 95 %"]
    body = []
    for place, row in enumerate(report.rows):
        behind = row.ahead_of_first.get("ndcg@10")
        note = "" if behind is None else f"{behind[0]:+.4f} to {behind[1]:+.4f}"
        cells = [row.model, f"{row.n:,}", *(_number(row.figures[name]) for name in FIGURES), note]
        body.append((cells, place == 0))
    return _table(
        "All items ranked. Sources alone judge the product's candidates; baselines judge all items.", head, body
    )


def _lists(run: Run) -> str:
    names = [listed.name for listed in run.replayed.listed]
    rows = [row for row in run.report.rows if row.model in names]
    shown = [name for name in LIST_FIGURES if any(isfinite(row.figures.get(name, float("nan"))) for row in rows)]
    head = ["", "HR@10", "NDCG@10", "HR@20", "NDCG@20", *(name.replace("_", " ") for name in shown)]
    body = []
    for row in rows:
        found = [_number(row.figures[name]) for name in ("hr@10", "ndcg@10", "hr@20", "ndcg@20")]
        body.append(([row.model, *found, *(_number(row.figures.get(name, float("nan")), 3) for name in shown)], False))
    explained = "".join(f"<dt>{name.replace('_', ' ')}</dt><dd>{escape(MEANINGS[name])}</dd>" for name in shown)
    plot = _trade_off(rows) if "distance@10" in shown and len(rows) > 1 else ""
    return _table("What would be published.", head, body) + f"<dl>{explained}</dl>" + plot


def _trade_off(rows: Sequence[Row]) -> str:
    first = rows[0].figures
    if not (first["distance@10"] > 0 and first["ndcg@10"] > 0):
        return ""
    kinds: dict[str, list[Row]] = {}
    for row in rows[1:]:
        kinds.setdefault(row.model.split(" ")[0], []).append(row)
    series = [
        Series(
            kind,
            [0.0, *(100 * (row.figures["distance@10"] / first["distance@10"] - 1) for row in own)],
            [0.0, *(100 * (row.figures["ndcg@10"] / first["ndcg@10"] - 1) for row in own)],
            labels=["", *(row.model.removeprefix(kind).strip() for row in own)],
        )
        for kind, own in kinds.items()
    ]
    axes = Axes("NDCG@10 lost for distance within lists", "distance@10, change in %", "NDCG@10, change in %")
    return f'<div class="panel">{points(series, axes)}</div>'


def _parts(run: Run) -> str:
    own, tables = run.report.rows[0], []
    for aspect, title in PARTS.items():
        parts = own.parts.get(aspect, {})
        if parts:
            body = [
                ([name, f"{int(part['n']):,}", *(_number(part[f]) for f in ("hr@10", "ndcg@10", "mrr@20"))], False)
                for name, part in parts.items()
            ]
            tables.append(_table(title, ["", "events", "HR@10", "NDCG@10", "MRR@20"], body))
    return f'<div class="pair">{"".join(tables)}</div>'


def _comparison(comparison: Comparison) -> str:
    head = ["", f"A: {comparison.a}", f"B: {comparison.b}", "B − A", "95 % by user", "p"]
    body = [
        ([
            name.upper(), _number(each.a), _number(each.b), f"{each.difference:+.4f}",
            f"{each.low:+.4f} to {each.high:+.4f}", f"{each.p:.4f}",
        ], False)
        for name, each in comparison.differences.items()
    ]  # fmt: skip
    caption = (
        f"{comparison.n:,} events of {comparison.users:,} users, judged by both; {comparison.left_out:,} left out."
    )
    return f"<section><h2>B beside A</h2>{_table(caption, head, body)}</section>"


def _conditions(conditions: Conditions) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in conditions.facts.items())
    return f"<h2>How it was run</h2><p><code>{escape(conditions.command)}</code></p><dl>{facts}</dl>"


def _table(caption: str, head: Sequence[str], rows: Sequence[tuple[Sequence[str], bool]]) -> str:
    """Rows of cells, the first of which names the row; marked ones are the product's own."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    classes = {True: ' class="own"', False: ""}
    body = "".join(
        f'<tr{classes[own]}><th scope="row">{escape(cells[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells[1:])
        + "</tr>"
        for cells, own in rows
    )
    return (
        f'<div class="panel wide"><table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}" if isfinite(value) else "–"


def _date(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d")
