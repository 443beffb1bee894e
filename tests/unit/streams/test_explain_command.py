"""`nearstream explain`: an item, event by event, out of what the topics hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from encoder import UserEncoder
from encoder.checkpoint import save_model
from encoder.inference import encoder_of
from streams.cli import cli
from streams.cli import explain as command
from streams.cli.explain_report import Explanation, Found, explained
from streams.cli.explain_words import sentences
from streams.config import Settings, load_settings
from streams.core.errors import ModelUnusable, UsageError
from streams.core.events import EVENT_TYPES, EventType, Item
from streams.kafka.changelog import ProfileRecord
from tests.fakes_core import FakeItems, FakeProfiles, event
from tests.fakes_encoder import random_model
from tests.fakes_explain import HISTORY, ITEMS, MEAN, RECENT, found_of, list_of

TRAINED = encoder_of(random_model(8, items=tuple(ITEMS), types=("view", "purchase")), tuple(EVENT_TYPES))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Small memories; no settings of this machine count."""
    monkeypatch.chdir(tmp_path)
    return load_settings(recent_items=RECENT, event_id_window=4)


def vector_of(model: UserEncoder, record: ProfileRecord) -> np.ndarray:
    """The vector that is served."""
    return model.profiles.vectors(np.frombuffer(record.state, np.float32)[None].copy())[0]


@pytest.mark.parametrize("model", [MEAN, TRAINED], ids=["decayed mean", "trained"])
def test_the_parts_sum_to_the_served_cosine(model: UserEncoder, settings: Settings) -> None:
    """Every remembered event has its part, the largest first; nothing is missing when all events are remembered."""
    found = found_of(model)
    told = explained(model, settings, found, "shoe", None)
    shoe = model.items.encode(["shoe"], [ITEMS["shoe"].description()], [ITEMS["shoe"].attributes()])[0]
    assert told.cosine == pytest.approx(float(vector_of(model, found.profile) @ shoe), abs=1e-5)
    assert sum(each.adds for each in told.events) + told.constant == pytest.approx(told.cosine, abs=1e-5)
    assert told.forgotten == pytest.approx(0.0, abs=1e-5)
    assert told.profile_covered == pytest.approx(1.0, abs=1e-5)
    assert sorted(each.timestamp for each in told.events) == [e.timestamp for e in HISTORY]
    assert [abs(each.adds) for each in told.events] == sorted((abs(each.adds) for each in told.events), reverse=True)
    assert {each.item_id: each.title for each in told.events}["boot"] == "Brown boot"


def test_what_is_no_longer_remembered_is_told_apart(settings: Settings) -> None:
    """Events beyond the memory and dislikes moved the profile too: their share stands alone, and the sum holds."""
    events = [event(item_id=f"i{n % 9}", at_s=n) for n in range(RECENT + 5)]
    events.append(event(item_id="boot", kind=EventType.DISLIKE, at_s=99))
    told = explained(MEAN, settings, found_of(MEAN, events), "shoe", None)
    assert len(told.events) == RECENT
    assert abs(told.forgotten) > 0.01
    total = sum(each.adds for each in told.events) + told.constant + told.forgotten
    assert total == pytest.approx(told.cosine, abs=1e-5)
    assert told.remembered == pytest.approx(told.cosine - told.forgotten, abs=1e-5)


@pytest.mark.parametrize("starts", [False, True])
def test_what_users_say_of_themselves_is_told_apart(starts: bool, settings: Settings) -> None:
    """A profile that began where its attributes say has a part of its own for them; without them the sum is off."""
    saved = random_model(8, items=tuple(ITEMS), types=("view", "purchase"), starts=starts)
    model = encoder_of(saved, tuple(EVENT_TYPES))
    found = found_of(model, said=["gender:f"])
    told = explained(model, settings, found, "shoe", "sock")
    assert abs(told.start) > 0.001
    total = sum(each.adds for each in told.events) + told.constant + told.start
    assert total == pytest.approx(told.cosine, abs=1e-5)
    assert told.forgotten == pytest.approx(0.0, abs=1e-5)
    assert told.profile_covered == pytest.approx(1.0, abs=1e-5)
    other = vector_of(model, found_of(model, [e for e in HISTORY if e.item_id != "sock"], said=["gender:f"]).profile)
    assert told.without is not None
    assert told.without.profile_cosine == pytest.approx(float(other @ vector_of(model, found.profile)), abs=1e-5)
    assert any("what the user says of themselves" in line for line in sentences(told))
    silent = explained(model, settings, replace(found, tokens=()), "shoe", None)
    assert silent.start == 0.0
    assert abs(silent.forgotten) > 1e-3
    assert not any("says of themselves" in line for line in sentences(silent))


def test_the_place_and_its_reasons_are_the_lists(settings: Settings) -> None:
    """Rank from 1, length, score and reasons as they were published."""
    found = found_of(MEAN)
    told = explained(MEAN, settings, found, "shoe", None)
    assert told.place is not None
    assert (told.place.rank, told.place.of, told.place.score, told.absent) == (2, 2, 0.8, None)
    assert found.list_ is not None
    assert told.place.reasons == found.list_.items[1].reasons


@pytest.mark.parametrize(
    ("item", "change", "why"),
    [
        ("shoe", {"list_": None}, "no list has been published yet"),
        ("sock", {}, "the user has seen it"),
        ("lamp", {}, "the user has seen it"),
        ("cap", {"items": {"cap": Item("cap", available=False)}}, "it is not available"),
        ("cap", {"gone": frozenset({"cap"})}, "it is not available"),
        ("cap", {"items": {"cap": Item("cap")}}, "the 2 items of the list rank higher"),
        (
            "cap",
            {"items": {"cap": Item("cap")}, "list_": msgspec.structs.replace(list_of([]), short_because="rules")},
            "the list has only 0 items: the rules take out whatever else there is",
        ),
    ],
)
def test_an_item_outside_the_list_has_a_reason_too(
    item: str, change: dict[str, Any], why: str, settings: Settings
) -> None:
    """Seen, not available, outranked, or no list at all."""
    told = explained(MEAN, settings, replace(found_of(MEAN), **change), item, None)
    assert (told.place, told.absent) == (None, why)


def test_a_bought_item_is_absent_for_that(settings: Settings) -> None:
    """Bought counts before seen."""
    found = found_of(MEAN, [*HISTORY, event(item_id="boot", kind=EventType.PURCHASE, at_s=500)])
    assert explained(MEAN, settings, found, "boot", None).absent == "it was bought or disliked"


@pytest.mark.parametrize("model", [MEAN, TRAINED], ids=["decayed mean", "trained"])
def test_without_an_item_the_user_is_who_never_touched_it(model: UserEncoder, settings: Settings) -> None:
    """Both events of the item go; cosines are those of a profile that never saw them, the neighbours' too."""
    found = found_of(model)
    told = explained(model, settings, found, "shoe", "sock")
    other = vector_of(model, found_of(model, [e for e in HISTORY if e.item_id != "sock"]).profile)
    shoe = model.items.encode(["shoe"], [ITEMS["shoe"].description()], [ITEMS["shoe"].attributes()])[0]
    near = vector_of(model, found.neighbours["u2"])
    assert told.without is not None
    assert (told.without.item_id, told.without.events) == ("sock", 2)
    assert told.without.cosine == pytest.approx(float(other @ shoe), abs=1e-5)
    assert told.without.profile_cosine == pytest.approx(float(other @ vector_of(model, found.profile)), abs=1e-5)
    (neighbour,) = told.neighbours
    assert (neighbour.user_id, neighbour.has_item) == ("u2", True)
    assert neighbour.similarity == pytest.approx(float(near @ vector_of(model, found.profile)), abs=1e-5)
    assert neighbour.similarity_without == pytest.approx(float(near @ other), abs=1e-5)


def test_without_the_only_item_nothing_is_left(settings: Settings) -> None:
    """The profile would have no direction: no cosines, and a sentence that says so."""
    told = explained(MEAN, settings, found_of(MEAN, [event(item_id="sock")]), "shoe", "sock")
    assert told.without is not None
    assert (told.without.profile_cosine, told.without.cosine) == (None, None)
    assert told.neighbours[0].similarity_without is None
    assert "Without the event of sock nothing is remembered" in "\n".join(sentences(told))


def test_a_neighbour_of_another_model_is_left_out(settings: Settings) -> None:
    """Vectors of two models cannot be compared."""
    found = found_of(MEAN)
    other = msgspec.structs.replace(found.neighbours["u2"], model="another@1")
    assert explained(MEAN, settings, replace(found, neighbours={"u2": other}), "shoe", None).neighbours == []


@pytest.mark.parametrize(
    ("item", "without", "profile", "complaint"),
    [
        ("hut", None, {}, "There is no item 'hut'.*spelled as in the events"),
        ("shoe", "hat", {}, "'u1' has no remembered event of 'hat'; remembered are events of lamp, sock, boot"),
        (
            "shoe",
            None,
            {"model": "gated@1"},
            "made by the model gated@1, the settings name decayed-mean@1.*NEARSTREAM_",
        ),
        (
            "shoe",
            None,
            {"state": bytes(12)},
            "state of 'u1' has 3 numbers, the model of the settings 4.*NEARSTREAM_DIM",
        ),
        ("shoe", None, {"recent_items": [], "events": 2}, "remembers no event that attracted.*Its 2 events"),
    ],
)
def test_what_cannot_be_explained_is_said(
    item: str, without: str | None, profile: dict[str, Any], complaint: str, settings: Settings
) -> None:
    """An unknown item, an item the user never touched, another model's profile, an empty memory."""
    found = found_of(MEAN)
    if profile.get("recent_items") == []:
        profile = {**profile, "recent_types": b"", "recent_times_s": b""}
    found = replace(found, profile=msgspec.structs.replace(found.profile, **profile))
    with pytest.raises(UsageError, match=complaint):
        explained(MEAN, settings, found, item, without)


def test_a_model_without_parts_is_refused(settings: Settings) -> None:
    """An encoder that nobody split by event: misuse, with the encoder's name."""
    model = UserEncoder(FakeProfiles(), FakeItems())
    with pytest.raises(UsageError, match="cosines of a FakeProfiles cannot be split"):
        explained(model, settings, found_of(model), "shoe", None)


def test_the_sentences_tell_place_parts_what_if_and_neighbours(settings: Settings) -> None:
    """One line each: titles, signs, UTC times; long memories are cut to ten lines and a sum."""
    settings = settings.model_copy(update={"recent_items": 20})
    told = explained(TRAINED, settings, found_of(TRAINED), "shoe", "sock")
    lines = list(sentences(told))
    assert lines[0] == (
        "shoe (Red shoe) is number 2 of 2 for u1, score 0.800: 60% similar users (u2); 40% because of boot."
    )
    assert lines[1].endswith(f"is {told.cosine:+.3f}. Of that")
    largest = told.events[0]
    assert lines[2].startswith(f"  {largest.adds:+.3f}  view of {largest.item_id} (")
    assert lines[2].endswith(" UTC")
    assert any("what the model gives every user" in line for line in lines)
    assert "Without the 2 events of sock the cosine would be" in lines[-2]
    assert lines[-1].startswith("Nearest users: u2 (")
    assert lines[-1].endswith("has the item).")


def test_a_long_memory_is_cut_and_a_strange_profile_is_said(settings: Settings) -> None:
    """Ten events have a line each, the others one together; a profile that the memory does not cover is told."""
    told = explained(MEAN, settings, found_of(MEAN), "shoe", None)
    many = msgspec.structs.replace(told, events=told.events[:1] * 14, profile_covered=0.4)
    lines = list(sentences(many))
    assert sum(" of sock" in line or " of lamp" in line or " of boot" in line for line in lines[2:]) == 10
    assert f"{4 * told.events[0].adds:+.3f}  4 more events together" in "\n".join(lines)
    assert "Read this with care" in "\n".join(lines)
    assert "no longer remembered" not in "\n".join(lines)
    assert any("no longer remembered" in line for line in sentences(msgspec.structs.replace(told, forgotten=-0.2)))


def run(found: Found, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """The command in this process; the topics hold what was found."""

    async def read(settings: Settings, user: str, item: str) -> Found:
        return found

    monkeypatch.setattr(command, "read_topics", read)
    return CliRunner().invoke(cli, ["explain", *arguments])


def test_json_is_one_line_on_stdout(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--json` prints the whole explanation, by the model of the folder that the settings name."""
    saved = random_model(8, items=tuple(ITEMS), types=("view", "purchase"))
    save_model(tmp_path / "model", saved)
    monkeypatch.setenv("NEARSTREAM_MODEL", str(tmp_path / "model"))
    model = command.load_served(load_settings())
    result = run(found_of(model), monkeypatch, "u1", "shoe", "--without", "sock", "--json")  # type: ignore[arg-type]
    assert result.exit_code == 0, result.exception
    (line,) = result.stdout.splitlines()
    told = msgspec.json.decode(line, type=Explanation)
    assert (told.user_id, told.item_id, told.model) == ("u1", "shoe", model.profiles.name)
    assert json.loads(line)["place"]["reasons"][0] == {"kind": "similar-users", "users": ["u2"], "share": 0.6}


def test_words_come_without_json(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in model explains a profile of its own."""
    model = command.load_served(load_settings(dim=8))
    monkeypatch.setenv("NEARSTREAM_DIM", "8")
    result = run(found_of(model), monkeypatch, "u1", "shoe")  # type: ignore[arg-type]
    assert result.exit_code == 0, result.exception
    assert result.stdout.startswith("shoe (Red shoe) is number 2 of 2 for u1")


def test_a_model_folder_that_cannot_be_served_fails(tmp_path: Path, settings: Settings) -> None:
    """Another model in its place would explain another profile."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelUnusable, match="There is no model in"):
        command.load_served(load_settings(model=str(tmp_path / "empty")))
    with pytest.raises(UsageError, match="There is no model 'nothing'"):
        command.load_served(load_settings(model="nothing"))
