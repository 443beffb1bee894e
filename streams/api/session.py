"""A browser's login: a signed cookie instead of the token itself. Pure; the time is an argument."""

from __future__ import annotations

import hmac
from typing import Literal

Right = Literal["read", "write"]

COOKIE = "nearstream"
SESSION_S = 12 * 3600


def signed_session(right: Right, token: str, now_s: float) -> str:
    """The cookie of somebody who showed the token of this right, good for SESSION_S or until the token changes."""
    return _signed(right, token, int(now_s) + SESSION_S)


def session_right(cookie: str, tokens: dict[Right, str], now_s: float) -> Right | None:
    """The right that a cookie gives; None where it is forged, over, or of a token that is no longer in force."""
    right, _, rest = cookie.partition(".")
    until = rest.partition(".")[0]
    if right not in {"read", "write"} or not (until.isascii() and until.isdigit() and len(until) <= 12):
        return None
    named: Right = "write" if right == "write" else "read"
    if named not in tokens or int(until) < now_s:
        return None
    expected = _signed(named, tokens[named], int(until))
    return named if hmac.compare_digest(expected.encode(), cookie.encode()) else None


def _signed(right: Right, token: str, until_s: int) -> str:
    payload = f"{right}.{until_s}"
    signature = hmac.new(token.encode(), f"nearstream session {payload}".encode(), "sha256").hexdigest()
    return f"{payload}.{signature}"
