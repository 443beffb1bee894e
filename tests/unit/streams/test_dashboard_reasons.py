"""Every kind of reason reads as a sentence on the page."""

from __future__ import annotations

from typing import get_args

import pytest

from streams.core.recommendations import (
    Again,
    BecauseOf,
    NewIn,
    PopularAmong,
    PopularIn,
    Reason,
    Rising,
    SimilarUsers,
    TogetherWith,
    Trending,
)
from streams.dashboard.person import reason_sentence

SENTENCES: list[tuple[Reason, str]] = [
    (SimilarUsers(["u9"], 1.0), "u9, a similar user, had it."),
    (BecauseOf("i2", 1.0), "Resembles “Wool scarf”, which this user had."),
    (TogetherWith("i2", 1.0), "Often goes together with “Wool scarf”, which this user had."),
    (TogetherWith("i3", 1.0), "Often goes together with “i3”, which this user had."),
    (PopularIn("winter", 1.0), "Popular in “winter”, which this user looks at."),
    (NewIn("winter", 1.0), "New in “winter”, which this user looks at."),
    (PopularAmong("age:20", 1.0), "Popular among people with “age:20”, as this user."),
    (Again(1.0), "This user had it lately and may want it again."),
    (Rising(1.0), "Many more people have it lately than before."),
    (Trending(1.0), "Many people have it right now."),
]


@pytest.mark.parametrize(("reason", "sentence"), SENTENCES)
def test_a_reason_is_a_sentence(reason: Reason, sentence: str) -> None:
    """With the title where it is known, else the id."""
    assert reason_sentence(reason, {"i2": "Wool scarf"}.get) == sentence


def test_no_kind_is_without_a_sentence() -> None:
    """A new kind of the message needs one here and on the page."""
    assert {type(reason) for reason, _ in SENTENCES} == set(get_args(Reason))
