"""Business rules in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streams.core.worker_details import TEXT_CHARS_MAX
from streams.recommend.rule_words import SENTENCES_MAX, rule_sentences
from streams.recommend.rules import Rules
from streams.recommend.rules_file import TABLES, parse_rules

DOCS = Path(__file__).resolve().parents[3] / "docs" / "rules.md"


def said(text: str) -> list[tuple[str, str]]:
    """Tables and sentences of a file."""
    rules = parse_rules(text.encode(), "rules.toml", 20)
    return [(sentence.table, sentence.text) for sentence in rule_sentences(rules)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[exclude]\nseen = true\nitems = ["i1", "i2"]',
            "Items that the user has seen are left out, bought or disliked ones follow the setting repeats, "
            "unavailable ones are left out and i1 and i2 are in no list.",
        ),
        ('[[drop]]\ncategory = ["weapons"]', "No list shows items of category weapons."),
        (
            '[[keep]]\nbrand = ["acme", "b"]\nprice_min = 2',
            "Lists show only items of brand acme or b and at a price of 2 or more.",
        ),
        (
            '[[boost]]\nattribute = ["tag:new"]\nprice_min = 1\nprice_max = 9.5\nfactor = 1.5',
            "The score of items with tag:new and at a price from 1 to 9.5 counts 1.5 times.",
        ),
        ('[[bury]]\nitem = ["i5", "i6"]\nfactor = 0.3', "The score of i5 or i6 counts 0.3 times."),
        (
            '[[pin]]\nitem = "i7"\nposition = 3',
            "i7 stands at place 3 of every list whose reader has not seen or bought it.",
        ),
        ("[caps]\nbrand = 3\nprovider = 5", "A list holds at most 3 of one brand and 5 of one provider."),
        (
            '[[floor]]\nprovider = ["small-press"]\nshare = 0.1\n[exposure]\nlist_share_max = 0.25',
            "At least 10.0% of the exposure of the last 1,000 lists goes to items of provider small-press, of one "
            "list at most 25%.",
        ),
        (
            "[fatigue]\nshown = 5\nrest_hours = 48",
            "An item shown to a user 5 times, counted in lists, without a reaction pauses for them for 48 hours; what "
            "comes again within 600 s counts once.",
        ),
    ],
)
def test_each_table_has_its_sentence(text: str, expected: str) -> None:
    """With the values of the file."""
    assert [sentence for _, sentence in said(text)] == [expected]


def test_no_table_is_left_out() -> None:
    """`exposure` is told with the floors that it is about."""
    (example,) = re.findall(r"^```toml\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert {table for table, _ in said(example)} == set(TABLES) - {"exposure"}


def test_no_rules_need_no_words() -> None:
    """Nor does an empty file."""
    assert rule_sentences(Rules()) == []


def test_many_rules_and_many_names_are_cut_and_counted() -> None:
    """What is sent once and again stays small."""
    many = "\n".join(f'[[drop]]\ncategory = ["c{n}"]' for n in range(100))
    found = said(many)
    assert len(found) == SENTENCES_MAX
    assert found[-1] == ("", "And 61 tables more.")
    names = ", ".join(f'"i{n}"' for n in range(50))
    ((_, sentence),) = said(f"[[drop]]\nitem = [{names}]")
    assert sentence == "No list shows i0, i1, i2, i3, i4, i5 or 44 more."
    long = ", ".join(f'"{n}{"x" * 900}"' for n in range(6))
    assert len(said(f"[[drop]]\ncategory = [{long}]")[0][1]) == TEXT_CHARS_MAX
