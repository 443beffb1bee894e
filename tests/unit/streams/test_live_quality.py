"""Live quality: what it means after one lesson and after many, and that portions do not matter."""

from __future__ import annotations

import numpy as np
import pytest

from streams.recommend.live_quality import HALF_LIFE_LESSONS, LiveQuality


def test_there_is_no_quality_before_the_first_lesson() -> None:
    """None, not 0: nobody has been judged."""
    quality = LiveQuality()
    assert (quality.ndcg, quality.hit_rate) == (None, None)
    assert LiveQuality().after(np.empty(0)).ndcg is None


@pytest.mark.parametrize(
    ("rank", "gain", "hit"),
    [(0.0, 1.0, 1.0), (1.0, 1 / np.log2(3), 1.0), (9.0, 1 / np.log2(11), 1.0), (10.0, 0.0, 0.0), (np.inf, 0.0, 0.0)],
)
def test_one_lesson_is_the_definition(rank: float, gain: float, hit: float) -> None:
    """1 / log2(place + 2) within the first ten, nothing beyond them and for an item that was no candidate."""
    quality = LiveQuality().after(np.array([rank]))
    assert quality.ndcg == pytest.approx(gain)
    assert quality.hit_rate == pytest.approx(hit)


def test_portions_do_not_matter() -> None:
    """Lesson by lesson or all at once."""
    ranks = np.random.default_rng(5).choice([0.0, 3.0, 12.0, np.inf], 300)
    whole, parts = LiveQuality().after(ranks), LiveQuality()
    for first in range(0, len(ranks), 7):
        parts = parts.after(ranks[first : first + 7])
    assert parts.lessons == whole.lessons == 300
    assert parts.ndcg == pytest.approx(whole.ndcg)
    assert parts.hit_rate == pytest.approx(whole.hit_rate)


def test_what_is_old_counts_half() -> None:
    """After one half-life of misses, hits before count half of what as many misses do; two thirds are forgotten."""
    count = int(HALF_LIFE_LESSONS)
    quality = LiveQuality().after(np.zeros(count)).after(np.full(count, np.inf))
    assert quality.hit_rate == pytest.approx(1 / 3)
