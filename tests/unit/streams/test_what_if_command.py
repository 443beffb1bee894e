"""`nearstream what-if`: its question, its sentences, and its errors."""

from __future__ import annotations

import msgspec
import pytest
from click.testing import CliRunner, Result

from streams.cli import cli
from streams.cli import what_if as command
from streams.cli.what_if import question_of, sentences
from streams.core.errors import UsageError, WorkerUnavailable
from streams.core.events import EventType
from streams.core.what_if import SupposedEvent, WhatIfQuestion, WhatIfRefusal
from tests.fakes_api import supposition

QUESTION = WhatIfQuestion(without=["i2"], events=[SupposedEvent(item_id="a:shoe", type=EventType.VIEW)])


def run(monkeypatch: pytest.MonkeyPatch, answer: bytes | WhatIfRefusal, *arguments: str) -> Result:
    """The command against a worker that answers this to QUESTION."""

    async def answered(_settings: object, _directory: object, user: str, question: WhatIfQuestion) -> object:
        assert (user, question) == ("u1", QUESTION)
        return answer

    monkeypatch.setattr(command, "ask_workers", answered)
    return CliRunner().invoke(cli, ["what-if", "u1", "--without", "i2", "--event", "view:a:shoe", *arguments])


def test_the_list_comes_with_marks_and_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """What entered, moved, stayed and left, the cosine, and who would be near."""
    result = run(monkeypatch, msgspec.json.encode(supposition()))
    assert result.exit_code == 0, result.exception
    assert result.stdout.splitlines() == [
        "Without the 2 events of i2 and with view of a:shoe the list of u1 (decayed-mean@1) would be",
        "  1.      =  i5  1.000  100% trending",
        "  2.  was 3  i7  0.500  100% trending",
        "  3.    new  i9  0.333  100% trending",
        "No longer in it: i6 (was 2).",
        "The profile would lie at cosine 0.710 to what it is.",
        "Both lists are made from the remembered events alone.",
        "Nearest users: u9 (0.500), u4 (0.400).",
    ]


def test_json_is_the_workers_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte."""
    value = msgspec.json.encode(supposition())
    assert run(monkeypatch, value, "--json").stdout == f"{value.decode()}\n"


def test_a_list_that_stays_the_same_is_said_to() -> None:
    """Also short ones, and profiles without a direction."""
    then = msgspec.structs.replace(supposition().now, short_because="rules", neighbours=[])
    same = msgspec.structs.replace(
        supposition(), then=then, now=then, entered=[], left=[], moved=[], profile_cosine=None, left_out=0
    )
    said = list(sentences(WhatIfQuestion(events=QUESTION.events), same))
    assert said[0].startswith("With view of a:shoe the list of u1")
    assert said[4:] == [
        "     The rules take out whatever else there is.",
        "That is the list as it is now.",
        "The profile would have no direction, or has none now.",
    ]


def test_what_is_refused_and_what_cannot_be_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the program's own kinds, so that the exit status is right."""
    assert isinstance(run(monkeypatch, WhatIfRefusal("unknown-user", "No profile.")).exception, UsageError)
    assert isinstance(run(monkeypatch, b'{"of": "another version"}').exception, WorkerUnavailable)


@pytest.mark.parametrize(
    ("without", "events", "words"),
    [
        ((), (), "came nothing"),
        (("i",) * 33, (), "came 33 and 0"),
        ((), ("view:i",) * 9, "came 0 and 9"),
        ((), ("stare:i",), "Expected an event as TYPE:ITEM, such as view:a-shoe, came 'stare:i'. Types: view, click"),
        ((), ("view:",), "came 'view:'"),
        ((), ("view",), "came 'view'"),
    ],
)
def test_a_question_that_is_none_is_named(without: tuple[str, ...], events: tuple[str, ...], words: str) -> None:
    """Before any Kafka is asked."""
    with pytest.raises(UsageError, match=words):
        question_of(without, events)
