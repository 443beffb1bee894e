"""Plots as SVG text, for pages that must work without a network: lines, points, bars. Pure.

Colours are the page's: series n has the class `s{n}`, axes `axis`, grid lines `grid`. Every plot names itself to
screen readers, and every point says its value to a pointer that rests on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 36, 16, 36
TICKS = 5
DASHES = ("", "6 3", "2 3", "8 3 2 3")
COLOURS = 6
"""Series beyond come again with another dash."""
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


class Series(NamedTuple):
    """Points that belong together; a y that is NaN leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    strong: bool = False
    """Drawn thicker: what the reader came for."""
    labels: Sequence[str] = ()
    """What to write beside each point."""


def plain(value: float) -> str:
    """Up to three significant digits."""
    return f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Axes:
    """What a plot says of its axes."""

    title: str
    """What is seen, in one sentence, for those who cannot see it."""
    x: str
    y: str
    x_label: Callable[[float], str] = plain
    y_from_zero: bool = True


class _Frame:
    """Numbers to places."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x_range, self.y_range = x, y

    def x(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self.y_range
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def lines(series: Sequence[Series], axes: Axes) -> str:
    """Curves, with a legend below; a sentence in their place where there is no finite point."""
    return _plot(series, axes, _line)


def points(series: Sequence[Series], axes: Axes, diagonal: bool = False) -> str:
    """Points joined by a thin line, each with its label; `diagonal` also draws y = x."""
    return _plot(series, axes, _points, diagonal)


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """About `count` round numbers from `low` to `high`; low < high."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** floor(log10(raw))
    step = next(each for each in STEPS if each * power >= raw * (1 - 1e-9)) * power
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _plot(
    series: Sequence[Series],
    axes: Axes,
    draw: Callable[[int, Series, _Frame], Iterator[str]],
    diagonal: bool = False,
) -> str:
    seen = [(x, y) for each in series for x, y in zip(each.x, each.y, strict=True) if isfinite(x) and isfinite(y)]
    if not seen:
        return f"<p>{escape(axes.title)}: nothing to draw.</p>"
    frame = _frame(seen, axes, diagonal)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(axes.title, quote=True)}">',
        *_axes(frame, axes),
    ]
    if diagonal:
        parts.append(_path(frame, [0, 1], [0, 1], 'class="diagonal" stroke-dasharray="4 4"'))
    for number, each in enumerate(series):
        parts += draw(number, each, frame)
    parts.append("</svg>")
    legend = "".join(
        f'<li><svg viewBox="0 0 26 10" aria-hidden="true"><line x1="0" x2="26" y1="5" y2="5" {_stroke(n, each)}/></svg>'
        f"{escape(each.name)}</li>"
        for n, each in enumerate(series)
    )
    return "\n".join(parts) + (f'<ul class="legend">{legend}</ul>' if len(series) > 1 else "")


def _frame(seen: Sequence[tuple[float, float]], axes: Axes, diagonal: bool) -> _Frame:
    if diagonal:
        return _Frame((0.0, 1.0), (0.0, 1.0))
    x, y = [each for each, _ in seen], [each for _, each in seen]
    low = min(0.0, *y) if axes.y_from_zero else min(y)
    return _Frame(_room(min(x), max(x), 0.0), _room(low, max(y), 0.05))


def _room(low: float, high: float, share: float) -> tuple[float, float]:
    if high <= low:
        return low - 0.5, low + 0.5
    return low, high + share * (high - low)


def _axes(frame: _Frame, axes: Axes) -> Iterator[str]:
    for value in ticks(*frame.y_range):
        at = frame.y(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield _text(LEFT - 6, at + 4, plain(value), "end")
    for value in ticks(*frame.x_range):
        at = frame.x(value)
        yield _text(at, HEIGHT - BOTTOM + 16, axes.x_label(value), "middle")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, axes.x, "middle")
    yield _text(12, HEIGHT / 2, axes.y, "middle", f' transform="rotate(-90 12 {HEIGHT / 2})"')


def _line(number: int, series: Series, frame: _Frame) -> Iterator[str]:
    yield "<g>" + f"<title>{escape(series.name)}</title>"
    yield _path(frame, series.x, series.y, _stroke(number, series))
    yield "</g>"


def _points(number: int, series: Series, frame: _Frame) -> Iterator[str]:
    yield from _line(number, series, frame)
    labels = series.labels or [""] * len(series.x)
    for x, y, label in zip(series.x, series.y, labels, strict=True):
        if isfinite(x) and isfinite(y):
            at, up = frame.x(x), frame.y(y)
            said = escape(f"{series.name} {label}: {plain(x)}, {plain(y)}")
            place = f'class="dot s{number % COLOURS}" cx="{at:.1f}" cy="{up:.1f}" r="4"'
            yield f"<circle {place}><title>{said}</title></circle>"
            yield _text(at + 6, up - 6, label, "start")


def _text(x: float, y: float, words: str, anchor: str, attributes: str = "") -> str:
    return f'<text class="axis" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{attributes}>{escape(words)}</text>'


def _stroke(number: int, series: Series) -> str:
    dash = DASHES[number // COLOURS % len(DASHES)]
    return f'class="line s{number % COLOURS}{" strong" if series.strong else ""}"' + (
        f' stroke-dasharray="{dash}"' if dash else ""
    )


def _path(frame: _Frame, x: Sequence[float], y: Sequence[float], attributes: str) -> str:
    """Joins the points; begins anew after a gap."""
    steps, pen = [], "M"
    for across, up in zip(x, y, strict=True):
        if not (isfinite(across) and isfinite(up)):
            pen = "M"
            continue
        steps.append(f"{pen}{frame.x(across):.1f} {frame.y(up):.1f}")
        pen = "L"
    return f'<path fill="none" {attributes} d="{"".join(steps)}"/>'
