"""Plots and the page of a replay: well-formed, readable by machines, and true to the figures."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from streams.config import load_settings
from streams.recommend.rerank import RerankConfig
from streams.replay import replay
from streams.replay_html import Conditions, Run, page
from streams.replay_judge import ReplayPlan
from streams.replay_lists import ListPlan
from streams.replay_report import report
from streams.sources import open_source
from streams.svg import Axes, Series, lines, points, ticks
from streams.wiring import build_engine

VOID = {"meta", "path", "line", "circle", "br", "link"}


class _Balance(HTMLParser):
    """Fails where a tag is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def run() -> Run:
    """A short replay with two kinds of lists."""
    source = open_source("synthetic", users=20, items=60, communities=4, events=250, seed=1)
    engine = build_engine(load_settings(), lessons_max=None)
    lists = [ListPlan("before rules", RerankConfig()), ListPlan("msd 0.4", RerankConfig(diversity=0.4))]
    made = replay(engine, source, ReplayPlan(), lists=lists)
    return Run("", made, report(made, ReplayPlan(), len(engine.catalogue), 1.0, 1.0))


def test_the_page_is_balanced_named_and_says_the_figures(run: Run) -> None:
    """Tags close, every plot has a name, tables have heads, and the product's figure is written out."""
    text = page(Conditions("A <log>", "nearstream replay 'x & y'", {"machine": "m"}), [run])
    reader = _Balance()
    reader.feed(text)
    assert reader.open == []
    assert "A <log>" in reader.words, "names are escaped"
    assert text.count('role="img"') == text.count("aria-label=") >= 4
    assert text.count("<table>") == text.count("<caption>")
    assert f"{run.report.rows[0].figures['ndcg@10']:.4f}" in text
    assert not re.search(r"<(script|link|img)|url\(|@import", text), "nothing is fetched"
    assert "prefers-color-scheme: dark" in text


def test_a_line_goes_through_its_points_and_breaks_at_gaps() -> None:
    """Higher values stand higher, later ones further right, NaN parts the line."""
    drawn = lines([Series("a", [0, 1, 2, 3], [0.0, 1.0, float("nan"), 0.5])], Axes("t", "x", "y"))
    root = ET.fromstring(drawn)
    path = next(node.attrib["d"] for node in root.iter("path"))
    moves = re.findall(r"([ML])([\d.]+) ([\d.]+)", path)
    assert [kind for kind, _, _ in moves] == ["M", "L", "M"]
    assert float(moves[0][1]) < float(moves[1][1]) < float(moves[2][1])
    assert float(moves[0][2]) > float(moves[2][2]) > float(moves[1][2]), "down the page is down"


def test_series_beyond_the_colours_differ_by_dash_and_legend_names_all() -> None:
    """Nobody has to tell two lines apart by nothing."""
    many = [Series(f"n{n}", [0, 1], [n, n]) for n in range(12)]
    drawn = lines(many, Axes("t", "x", "y"))
    strokes = re.findall(r'<line x1="0"[^>]*(class="line[^/]*)/>', drawn)
    assert len(strokes) == len(set(strokes)) == 12
    assert all(f"n{n}</li>" in drawn for n in range(12))


def test_nothing_to_draw_is_said() -> None:
    """No finite point makes a sentence, one point a plot."""
    assert "nothing to draw" in points([Series("a", [0.0], [float("nan")])], Axes("t", "x", "y"))
    assert "<circle" in points([Series("a", [1.0], [2.0])], Axes("t", "x", "y"))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.0731), (-3, 12), (0, 72312), (0.2, 0.21)])
def test_ticks_are_few_round_and_within(low: float, high: float) -> None:
    """Between three and eight numbers of at most three digits, none outside."""
    found = ticks(low, high)
    assert 3 <= len(found) <= 8
    assert all(low - 1e-9 <= each <= high + 1e-9 for each in found)
    assert found == sorted(set(found))
