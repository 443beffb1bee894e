"""Hypothesis strategies for the public messages: sound ones, and ones that something happened to."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from streams.core.events import EVENT_TYPES, FUTURE_MS_MAX, NESTING_MAX, Event, Item, User
from tests.benchmarks.fuzz_events import MUTATIONS, NOW_MS, FuzzRecord, valid_message

__all__ = [
    "NOW_MS",
    "event_records",
    "events",
    "ids",
    "items",
    "json_objects",
    "messages",
    "mutated_records",
    "raw_records",
    "users",
]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
finite = st.floats(allow_nan=False, allow_infinity=False)
timestamps_ms = st.integers(0, NOW_MS + FUTURE_MS_MAX)


def ids(max_size: int = 256) -> st.SearchStrategy[str]:
    """Any id: whatever UTF-8 can carry, control characters included."""
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=max_size)


def json_objects(max_leaves: int = 8) -> st.SearchStrategy[dict[str, Any]]:
    """Shallow JSON objects, as in `properties`."""
    leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | text
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
        max_leaves=max_leaves,
    )
    return st.dictionaries(text, values, max_size=3)


def events(
    user_ids: st.SearchStrategy[str] | None = None, item_ids: st.SearchStrategy[str] | None = None
) -> st.SearchStrategy[Event]:
    """Events as the codec hands them on; those whose properties are too long or deep are left out."""
    return st.builds(
        Event,
        user_id=user_ids or ids(64),
        item_id=item_ids or ids(64),
        type=st.sampled_from(EVENT_TYPES),
        timestamp=timestamps_ms,
        event_id=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=128),
        value=st.none() | finite,
        rec_id=st.none() | ids(64),
        session_id=st.none() | ids(64),
        properties=st.none() | json_objects(),
    ).filter(lambda event: event.properties is None or _fits(event.properties))


def _fits(properties: dict[str, Any]) -> bool:
    depth, deepest = 0, 0
    for character in json.dumps(properties):  # brackets inside strings only make this stricter
        depth += (character in "{[") - (character in "}]")
        deepest = max(deepest, depth)
    return deepest < NESTING_MAX and len(json.dumps(properties)) <= 4096


def items() -> st.SearchStrategy[Item]:
    """Items of the catalogue."""
    words = st.none() | text
    return st.builds(
        Item,
        item_id=ids(64),
        title=words,
        categories=st.lists(text, max_size=3),
        brand=words,
        provider=words,
        price=st.none() | finite,
        tags=st.lists(text, max_size=3),
        text=words,
        available=st.booleans(),
    )


def users() -> st.SearchStrategy[User]:
    """Personal attributes."""
    words = st.none() | text
    return st.builds(
        User,
        user_id=ids(64),
        age=st.none() | st.integers(0, 130),
        gender=words,
        occupation=words,
        country=words,
        attributes=json_objects(4),
    )


def messages() -> st.SearchStrategy[dict[str, Any]]:
    """Events as JSON objects, with timestamps in both forms and unknown fields."""
    return st.randoms(use_true_random=False).map(valid_message)


def event_records() -> st.SearchStrategy[FuzzRecord]:
    """Records of sound events."""
    return messages().map(lambda m: FuzzRecord(m["user_id"].encode(), json.dumps(m).encode()))


@st.composite
def mutated_records(draw: st.DrawFn) -> FuzzRecord:
    """Records of events that something happened to, in one of the ways of the fuzz script."""
    name = draw(st.sampled_from(sorted(MUTATIONS)))
    rng = draw(st.randoms(use_true_random=False))
    key, value = MUTATIONS[name](rng, valid_message(rng))
    return FuzzRecord(key, value, mutation=name)


def raw_records() -> st.SearchStrategy[FuzzRecord]:
    """Any bytes at all."""
    anything = st.none() | st.binary(max_size=64)
    jsonish = st.text(st.sampled_from('{}[]":,\\u0d8e1-+.NaInfityl \n'), max_size=64).map(str.encode)
    return st.builds(FuzzRecord, key=anything, value=anything | jsonish)
