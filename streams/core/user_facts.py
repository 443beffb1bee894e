"""What people say of themselves: attribute tokens by user, as the topic `users` has them."""

from __future__ import annotations

from collections import Counter
from itertools import islice, repeat
from sys import intern
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from xxhash import xxh3_64_intdigest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streams.core.events import User
    from streams.core.ports import Floats, ProfileEncoder, Slots

TOKENS_KEPT = 16
"""Of a user with more, the first ones; training reads no more either."""
TOKEN_CHARS_MAX = 128
"""A longer one is a text, and nobody else's: it is passed over."""
NO_GROUP = -1

Tokens = tuple[str, ...]
NO_TOKENS: Tokens = ()


@runtime_checkable
class StartingEncoder(Protocol):
    """A profile encoder that knows where users with attributes begin."""

    def initial_states(self, attributes: Sequence[Sequence[str]]) -> Floats:
        """(u, state_width) states of users without history of whom these attribute tokens are known."""
        ...


class UserFacts:
    """The attributes of every user who is described, whether there is a profile or not. The last description counts.

    Not thread-safe: read and written in the compute thread only. Memory: about 230 bytes a described user with five
    tokens, 320 with all sixteen, and 230 a token. Of a forgotten user nothing stays, and no token without a user.
    """

    def __init__(self) -> None:
        self._tokens: dict[str, Tokens] = {}
        self._members: Counter[str] = Counter()
        self._codes: dict[str, int] = {}
        """`group_code` of each token: to hash 20,000 of them for every batch took 7 ms of it."""
        self._names: dict[int, str] = {}
        """By code, a token; of tokens that share one the first."""
        self._shared: set[int] = set()
        """Codes that more than one token has or had."""

    def __len__(self) -> int:
        return len(self._tokens)

    def put(self, users: Iterable[User]) -> Slots:
        """Takes over what is now known of the users, in place of what was known before.

        Returns the codes (n,) of groups that nobody is in any more.
        """
        return self._replace((user.user_id, _kept(user.tokens())) for user in users)

    def forget(self, user_ids: Iterable[str]) -> Slots:
        """Drops what is known of the users; unknown ones are passed over. Returns the same as `put`."""
        return self._replace(zip(user_ids, repeat(NO_TOKENS)))

    def tokens(self, user_ids: Iterable[str]) -> list[Tokens]:
        """Of each user the tokens, none where nothing is known."""
        return list(map(self._tokens.get, user_ids, repeat(NO_TOKENS)))

    def group_codes(self, user_ids: Sequence[str]) -> Slots:
        """(u, 16) `group_code` of each token, padded with -1."""
        codes = np.full((len(user_ids), TOKENS_KEPT), NO_GROUP, np.int32)
        for row, tokens in enumerate(self.tokens(user_ids)):
            codes[row, : len(tokens)] = [self._codes[token] for token in tokens]
        return codes

    def names_of(self, codes: Slots) -> dict[int, str]:
        """The tokens with these codes, by code; -1 is none."""
        wanted = set(codes[codes >= 0].tolist())
        return {code: self._names[code] for code in wanted & self._names.keys()}

    def token_of(self, user_id: str, code: int) -> str | None:
        """The user's token with this code; None where there is none."""
        return next((t for t in self._tokens.get(user_id, NO_TOKENS) if self._codes[t] == code), None)

    def _replace(self, known: Iterable[tuple[str, Tokens]]) -> Slots:
        left: dict[str, None] = {}
        for user_id, tokens in known:
            before = self._tokens.pop(user_id, NO_TOKENS)
            if tokens:
                self._tokens[user_id] = tokens
            self._name(tokens)
            self._members.update(tokens)
            self._members.subtract(before)
            left.update(dict.fromkeys(before))
        empty = [token for token in left if self._members[token] <= 0]
        return np.array([self._drop(token) for token in empty], np.int32)

    def _name(self, tokens: Tokens) -> None:
        for token in tokens:
            if token not in self._codes:
                code = self._codes[token] = group_code(token)
                if self._names.setdefault(code, token) != token:
                    self._shared.add(code)

    def _drop(self, token: str) -> int:
        """Forgets a token that nobody has; returns its code."""
        del self._members[token]
        code = self._codes.pop(token)
        if self._names[code] == token:
            del self._names[code]
            if code in self._shared:  # one of some thousands
                others = (other for other, theirs in self._codes.items() if theirs == code)
                self._names.update((code, other) for other in islice(others, 1))
        return code


def _kept(tokens: Iterable[str]) -> Tokens:
    short = [token for token in dict.fromkeys(tokens) if len(token) <= TOKEN_CHARS_MAX]
    return tuple(map(intern, short[:TOKENS_KEPT]))


def group_code(token: str) -> int:
    """A number of 31 bits, the same on every machine: of a thousand groups two share one in 1 of 4,000 cases."""
    return xxh3_64_intdigest(token.encode("utf-8", "surrogatepass")) & 0x7FFF_FFFF


def start_states(encoder: ProfileEncoder, tokens: Sequence[Tokens]) -> Floats:
    """(u, state_width) where the encoder lets users with these attributes begin; zeros where it reads none."""
    states = np.zeros((len(tokens), encoder.state_width), np.float32)
    known = [row for row, each in enumerate(tokens) if each]
    if known and isinstance(encoder, StartingEncoder):
        states[known] = encoder.initial_states([tokens[row] for row in known])
    return states
