"""What people say of themselves."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from streams.core import user_facts
from streams.core.events import User
from streams.core.ports import EncoderEvents, Floats
from streams.core.user_facts import TOKEN_CHARS_MAX, TOKENS_KEPT, UserFacts, group_code, start_states


class Starting:
    """Begins with the number of tokens, in both places of its state."""

    name, dim, state_width = "starting@1", 2, 2

    def step(self, states: Floats, events: EncoderEvents) -> None:
        """Nothing moves."""

    def vectors(self, states: Floats) -> Floats:
        """The states."""
        return states

    def initial_states(self, attributes: Sequence[Sequence[str]]) -> Floats:
        """As said above."""
        return np.array([[len(tokens)] * 2 for tokens in attributes], np.float32)


def described(*users: User) -> UserFacts:
    facts = UserFacts()
    facts.put(users)
    return facts


def test_the_last_description_replaces_the_one_before() -> None:
    """A country that is no longer given is no longer known; a user described as nothing is not kept."""
    facts = described(User("u1", age=34, country="no"), User("u2", gender="f"))
    facts.put([User("u1", age=41), User("u2")])
    assert facts.tokens(["u1", "u2", "u3"]) == [("age:40",), (), ()]
    assert len(facts) == 1


def test_codes_are_of_tokens_and_padded() -> None:
    """Equal tokens have equal codes, whoever has them; who is unknown has none."""
    facts = described(User("u1", gender="f", country="no"), User("u2", country="no"))
    codes = facts.group_codes(["u1", "u2", "u3"])
    assert codes.dtype == np.int32
    assert codes.shape == (3, TOKENS_KEPT)
    assert codes[0, :3].tolist() == [group_code("gender:f"), group_code("country:no"), -1]
    assert codes[1, 0] == codes[0, 1]
    assert (codes[2] == -1).all()
    assert facts.token_of("u1", group_code("country:no")) == "country:no"
    assert facts.token_of("u2", group_code("gender:f")) is None
    assert facts.token_of("u3", group_code("gender:f")) is None


def test_codes_are_named_by_the_tokens_that_people_have() -> None:
    """Those asked for, each once; padding and codes that nobody has any more name nothing."""
    facts = described(User("u1", gender="f", country="no"), User("u2", country="se"))
    codes = facts.group_codes(["u1", "u2"])
    names = {group_code("gender:f"): "gender:f", group_code("country:no"): "country:no"}
    assert facts.names_of(codes[:1]) == names
    facts.forget(["u1"])
    assert facts.names_of(codes) == {group_code("country:se"): "country:se"}
    assert facts.names_of(np.full((2, 3), -1, np.int32)) == {}


def test_a_code_of_two_tokens_is_named_as_long_as_either_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It happens once in some thousands: the first of them names it, then the other."""
    monkeypatch.setattr(user_facts, "group_code", len)
    facts = described(User("u1", country="no"), User("u2", country="se"))
    code = np.array([len("country:no")], np.int32)
    assert facts.names_of(code) == {10: "country:no"}
    facts.forget(["u1"])
    assert facts.names_of(code) == {10: "country:se"}
    facts.forget(["u2"])
    assert facts.names_of(code) == {}


def test_codes_are_the_same_on_every_machine() -> None:
    """They are saved and compared with those of other days."""
    assert [group_code(token) for token in ("gender:f", "age:30", "country:no")] == [1345734869, 1009478468, 1006084787]


def test_no_more_than_sixteen_tokens_and_none_that_is_a_text() -> None:
    """The first sixteen of those that are short enough."""
    attributes = {f"a{n}": "x" * (TOKEN_CHARS_MAX if n == 3 else 1) for n in range(40)}
    (tokens,) = described(User("u1", attributes=attributes)).tokens(["u1"])
    assert tokens == tuple(f"a{n}:x" for n in range(TOKENS_KEPT + 1) if n != 3)


def test_a_forgotten_user_leaves_nothing() -> None:
    """Another one of the same group keeps the token; unknown users are passed over."""
    facts = described(User("u1", age=34), User("u2", age=39))
    assert not len(facts.forget(["u1", "u9"]))
    assert facts.tokens(["u1", "u2"]) == [(), ("age:30",)]
    assert len(facts) == 1


def test_a_group_without_members_is_told() -> None:
    """By whoever leaves last, be it forgotten or described otherwise, and not by who is described the same again."""
    facts = described(User("u1", age=34, gender="f"), User("u2", age=39, gender="f"))
    assert not len(facts.put([User("u1", age=34, gender="f")]))
    assert facts.forget(["u1"]).tolist() == []
    assert facts.put([User("u2", gender="f")]).tolist() == [group_code("age:30")]
    assert facts.forget(["u2"]).tolist() == [group_code("gender:f")]
    assert facts.forget(["u2"]).tolist() == []
    assert not re.search(b"u1|u2|age|gender", pickle.dumps(facts)), "no id and no token is left anywhere in it"


def test_only_users_with_attributes_begin_elsewhere_than_at_zero() -> None:
    """And only where the encoder reads attributes at all."""
    tokens = [("age:30", "gender:f"), (), ("age:30",)]
    assert_array_equal(start_states(Starting(), tokens), [[2, 2], [0, 0], [1, 1]])

    class Plain:
        """A protocol's minimum."""

        name, dim, state_width = "plain@1", 2, 3
        step, vectors = Starting.step, Starting.vectors

    assert_array_equal(start_states(Plain(), tokens), np.zeros((3, 3)))
