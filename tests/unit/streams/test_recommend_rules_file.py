"""The rules file: what is accepted, and what is said of what is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streams.core.errors import UsageError
from streams.recommend.rules import Caps, Fatigue, Pin, Rules
from streams.recommend.rules_file import RULES_BYTES_MAX, RulesFile, parse_rules

DOCS = Path(__file__).resolve().parents[3] / "docs" / "rules.md"
PLACES = 20


def parsed(text: str) -> Rules:
    return parse_rules(text.encode(), "rules.toml", PLACES)


def refusal(text: str | bytes | None) -> str:
    """What is said of a file that is not usable."""
    with pytest.raises(UsageError) as refused:
        parse_rules(text.encode() if isinstance(text, str) else text, "rules.toml", PLACES)
    return str(refused.value)


def test_an_empty_file_has_no_rules() -> None:
    """Lists are then what the ranker made them."""
    assert parsed("") == Rules()


def test_every_table_is_read() -> None:
    """One name stands for a list of one, a whole number for a float."""
    rules = parsed(
        """
        exclude = {seen = false, items = ["i1"]}
        [[drop]]
        category = ["guns", "knives"]
        [[keep]]
        price_min = 1
        price_max = 99.5
        [[boost]]
        attribute = "tag:new"
        factor = 2
        [[bury]]
        brand = "acme"
        factor = 0.5
        [[pin]]
        item = "i2"
        position = 1
        [caps]
        brand = 3
        [[floor]]
        provider = ["p", "q"]
        share = 0.1
        [exposure]
        window_lists = 50
        [fatigue]
        shown = 3
        rest_hours = 24
        """
    )
    assert (rules.exclude.seen, rules.exclude.bought, rules.exclude.items) == (False, None, ("i1",))
    assert rules.drop[0].category == ("guns", "knives")
    assert (rules.keep[0].price_min, rules.keep[0].price_max) == (1.0, 99.5)
    assert (rules.boost[0].attribute, rules.boost[0].factor) == (("tag:new",), 2.0)
    assert (rules.bury[0].brand, rules.bury[0].factor) == (("acme",), 0.5)
    assert rules.pin == (Pin(item="i2", position=1),)
    assert rules.caps == Caps(brand=3)
    assert (rules.floor[0].provider, rules.floor[0].share) == (("p", "q"), 0.1)
    assert rules.exposure.window_lists == 50
    assert rules.fatigue == Fatigue(shown=3, rest_hours=24)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "[x]: unknown table: expected one of exclude, drop, keep"),
        ("[pin]\nitem = 'a'", "line 1, [[pin]]: expected tables [[pin]], got {'item': 'a'}"),
        ("[[caps]]\nbrand = 1", "line 1, [caps]: expected tables [caps], got"),
        ("[exclude]\nseen = 'yes'", "line 2, [exclude], key seen: expected true, to leave out the user's recent items"),
        ("[exclude]\n\nsen = true", "line 3, [exclude], key sen: unknown key: expected one of seen, bought"),
        ("[[boost]]\nfactor = 2", "line 1, [[boost]], number 1: says of no item that it is meant: add one of category"),
        ("[[boost]]\nbrand = 'a'\nfactor = 1", "line 3, [[boost]], number 1, key factor: expected a factor above 1"),
        ("[[bury]]\nbrand = 'a'\nfactor = 0", "[[bury]], number 1, key factor: expected a factor between 0 and 1"),
        ("[[bury]]\nbrand = 'a'\nfactor = nan", "key factor: expected a factor between 0 and 1"),
        ("[[drop]]\nprice_min = 5\nprice_max = 3", "no price is between 5 and 3"),
        ("[[drop]]\nbrand = []", "line 2, [[drop]], number 1, key brand: expected one name or several"),
        ("[[drop]]\nbrand = ['a', 3]", "line 2, [[drop]], number 1, key brand: expected one name or several"),
        ("[[pin]]\nitem = 'a'\nposition = 0", "line 3, [[pin]], number 1, key position: expected a place in the list"),
        ("[[pin]]\nitem = 'a'\n[[pin]]\nitem = 'b'\nposition = 1", "line 1, [[pin]], number 1, key position: missing"),
        (
            "[caps]\nbrand = 0",
            "line 2, [caps], key brand: expected a number of items from 1; to show none use [[drop]]",
        ),
        ("[fatigue]\nshown = 3", "line 1, [fatigue], key rest_hours: missing: expected the length of the pause"),
        ("[[floor]]\nbrand = 'a'\nshare = 0.1\n" * 32, "at most 31 items"),
        ("[[drop]\nbrand = 1", "expected TOML, got"),
        (b"\xff", "expected UTF-8, got"),
        (b"#" * (RULES_BYTES_MAX + 1), "expected at most"),
        (None, "expected a TOML file with rules, there is none"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(text: str | bytes | None, says: str) -> None:
    """Line, table, number and key; what was expected and what came."""
    assert says in refusal(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[exclude]\nitems = ['a']\n[[pin]]\nitem = 'a'\nposition = 1", "line 4, [[pin]], number 1, key item: 'a' is"),
        ("[[drop]]\nitem = 'a'\n[[pin]]\nitem = 'a'\nposition = 1", "'a' is pinned here and excluded elsewhere"),
        ("[[keep]]\nitem = 'b'\n[[pin]]\nitem = 'a'\nposition = 1", "'a' is pinned here and excluded elsewhere"),
        ("[[pin]]\nitem = 'a'\nposition = 21", "line 3, [[pin]], number 1, key position: lists have 20 places"),
        ("[[pin]]\nitem = 'a'\nposition = 1\n[[pin]]\nitem = 'b'\nposition = 1", "line 6, [[pin]], number 2"),
        ("[[pin]]\nitem = 'a'\nposition = 1\n[[pin]]\nitem = 'a'\nposition = 2", "'a' is pinned 2 times"),
        ("[exposure]\nlist_share_max = 1.0\n[[floor]]\nbrand = 'a'\nshare = 0.6\n[[floor]]\nbrand = 'b'\nshare = 0.6",
         "line 5, [[floor]], key share: the floors' shares must sum to 1 at most, got 1.2"),
        ("[[floor]]\nbrand = 'a'\nshare = 0.6", "more than one list may give to a group: raise exposure."),
        ("[[drop]]\nbrand = ['a', 'c']\n[[floor]]\nbrand = 'a'\nshare = 0.1", "excluded by [[drop]] or [[keep]]"),
        ("[[keep]]\nprovider = 'a'\n[[floor]]\nprovider = 'b'\nshare = 0.1", "excluded by [[drop]] or [[keep]]"),
        ("[caps]\nbrand = 1\n[[floor]]\nbrand = 'a'\nshare = 0.4", "the caps leave it 0.142 at most, got 0.4"),
    ],
)  # fmt: skip
def test_rules_that_contradict_each_other_are_refused(text: str, says: str) -> None:
    """Whatever the catalogue holds, no list could satisfy both."""
    assert says in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "[[drop]]\nbrand = 'a'\nprice_max = 3\n[[floor]]\nbrand = 'a'\nshare = 0.1",
        "[[drop]]\nitem = 'a'\nbrand = 'x'\n[[pin]]\nitem = 'a'\nposition = 20",
        "[[keep]]\ncategory = 'a'\n[[floor]]\ncategory = 'b'\nshare = 0.1",
        "[caps]\nbrand = 3\n[[floor]]\nbrand = ['a', 'b']\nshare = 0.45",
    ],
)
def test_rules_that_some_catalogue_satisfies_are_accepted(text: str) -> None:
    """A group may lose a part of its items, and an item may have two categories."""
    parsed(text)


def test_all_faults_are_told_at_once() -> None:
    """And that nothing of the file is used."""
    said = refusal("[caps]\nbrand = 0\n[[pin]]\nitem = 'a'\n[fatigue]\nshown = 0\nrest_hours = 1")
    assert "nothing of it is used" in said
    assert sorted(map(int, re.findall(r"line (\d+)", said))) == [2, 3, 6]


def test_a_file_is_reloaded_when_it_changes() -> None:
    """The same content is no change; a missing file is none either, once it was told."""
    rules_file = RulesFile("rules.toml", PLACES)
    assert rules_file.look(b"") is None
    reload = rules_file.look(b"[caps]\nbrand = 2")
    assert reload is not None
    assert (reload.rules.caps.brand, reload.problem) == (2, None)
    assert rules_file.look(b"[caps]\nbrand = 2") is None


def test_a_bad_file_leaves_the_old_rules_in_service() -> None:
    """It is reported once, and the next good one counts."""
    rules_file = RulesFile("rules.toml", PLACES)
    rules_file.look(b"[caps]\nbrand = 2")
    for bad in (b"[caps]\nbrand = 0", None):
        reload = rules_file.look(bad)
        assert reload is not None
        assert reload.problem is not None
        assert "rules.toml" in reload.problem
        assert reload.rules.caps.brand == rules_file.rules.caps.brand == 2
        assert rules_file.look(bad) is None
    reload = rules_file.look(b"")
    assert reload is not None
    assert (reload.rules, reload.problem) == (Rules(), None)


def test_the_example_of_the_reference_is_a_rules_file() -> None:
    """And it shows every table and every key."""
    (example,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    rules = parse_rules(example.encode(), "docs/rules.md", PLACES)
    assert rules.model_fields_set == set(Rules.model_fields)
    for name in Rules.model_fields:
        tables = getattr(rules, name)
        for table in tables if isinstance(tables, tuple) else (tables,):
            for key in type(table).model_fields:
                assert re.search(rf"^#? ?{key} = ", example, re.MULTILINE), f"{name}.{key} is not shown"
