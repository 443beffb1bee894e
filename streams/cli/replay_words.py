"""What `nearstream replay` says to people."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from encoder.report import Row
    from streams.replay_compare import Comparison
    from streams.replay_html import Run

FIGURES = ("hr@10", "ndcg@10", "mrr@20")
OF_LISTS = ("hr@20", "ndcg@20", "distance@10", "category_distance@10", "miscalibration")
FLOOR_CHARS_MAX = 60
OF_THE_FIRST = ("coverage@10", "gini@10", "calibration_error", "candidates_found")


def told(run: Run) -> list[str]:
    """Lines on a replay: a table, the lists before and after the rules, floors, and effort."""
    rows = run.report.rows
    first = rows[0]
    lines = [f"{'':24}{'n':>9}" + "".join(f"{name:>10}" for name in FIGURES) + "   95 % of ndcg@10, minus the first's"]
    lines += map(_line, rows)
    lines += by_type(first)
    lines += _of_lists(run)
    lines.append("of the first: " + ", ".join(f"{name} {first.figures[name]:.3f}" for name in OF_THE_FIRST))
    lines.append(f"{first.cpu_score_s:,.0f} s of CPU, {first.memory_mb:,.0f} MB")
    return lines


def by_type(row: Row) -> Iterator[str]:
    """A line for each event type, where more than one was judged: people who are followed apart from products."""
    parts = row.parts.get("type", {})
    for name, part in parts.items() if len(parts) > 1 else ():
        figures = "  ".join(f"{figure} {part[figure]:.4f}" for figure in FIGURES)
        yield f"  {name:22}n {part['n']:,}  {figures}"


def _line(row: Row) -> str:
    ahead = row.ahead_of_first.get("ndcg@10")
    note = "" if ahead is None else f"   {ahead[0]:+.4f} to {ahead[1]:+.4f}"
    return f"{row.model:24}{row.n:>9,}" + "".join(f"{row.figures[name]:>10.4f}" for name in FIGURES) + note


def _of_lists(run: Run) -> Iterator[str]:
    figures = {row.model: row.figures for row in run.report.rows}
    for listed in run.replayed.listed:
        known = figures[listed.name]
        yield f"{listed.name}: " + ", ".join(f"{name} {known[name]:.3f}" for name in OF_LISTS if isfinite(known[name]))
        if listed.floors is not None:
            names, windows, held, each, least = listed.floors
            yield f"  all floors held in {held:,} of {windows:,} windows"
            for name, own, share in zip(names, each, least, strict=True):
                short = name if len(name) <= FLOOR_CHARS_MAX else f"{name[:FLOOR_CHARS_MAX]}…"
                yield f"  {short} in {own:,}, least share {share:.3f}"


def compared(comparison: Comparison) -> list[str]:
    """Lines on two replays beside each other."""
    lines = [
        f"A is {comparison.a}, B is {comparison.b}: {comparison.n:,} events of {comparison.users:,} users in both"
        + (f", {comparison.left_out:,} left out" if comparison.left_out else ""),
        f"{'':10}{'A':>9}{'B':>9}{'B - A':>10}   95 % by user            p",
    ]
    lines += [
        f"{name:10}{each.a:9.4f}{each.b:9.4f}{each.difference:+10.4f}   "
        f"{each.low:+.4f} to {each.high:+.4f}   {each.p:.4f}"
        for name, each in comparison.differences.items()
    ]
    return lines
