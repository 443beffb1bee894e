"""What `nearstream show` prints of a list."""

from __future__ import annotations

import msgspec
import pytest

from streams.cli.show import print_list
from streams.core.recommendations import SHORT_SENTENCES, NewIn
from tests.fakes import recommendation


def test_a_list_is_printed_with_its_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each item; a full list has no line that says why it is short."""
    list_ = recommendation()
    msgspec.structs.force_setattr(list_.items[1], "reasons", [NewIn("hats", 1.0)])
    print_list(list_)
    said = capsys.readouterr().out
    assert "  1. i5  0.810  60% similar users (u9, u12, u30); 40% because of i2" in said
    assert "  2. i6  0.400  100% new in hats" in said
    assert "short" not in said


@pytest.mark.parametrize("word", list(SHORT_SENTENCES))
def test_a_short_list_says_why(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In its last line."""
    print_list(msgspec.structs.replace(recommendation(), short_because=word))
    assert capsys.readouterr().out.endswith(f"short    {SHORT_SENTENCES[word]}\n")
