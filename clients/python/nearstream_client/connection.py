"""What both clients tell httpx, and what they make of its errors."""

from __future__ import annotations

from typing import TypedDict

import httpx

from nearstream_client.errors import Unreachable

STREAM_SILENCE_S_MAX = 60.0
"""A stream without even a keep-alive for so long is opened anew."""
STREAM_HEADERS = {"Accept": "text/event-stream"}


class ConnectionOptions(TypedDict):
    """Keyword arguments of httpx.Client and httpx.AsyncClient."""

    base_url: str
    headers: dict[str, str]
    timeout: httpx.Timeout


def connection_options(base_url: str, token: str | None, timeout_s: float) -> ConnectionOptions:
    """How to reach the API. ValueError for an address that is not http(s)."""
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"Expected an address such as http://127.0.0.1:8686, got {base_url!r}.")
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return {"base_url": base_url, "headers": headers, "timeout": httpx.Timeout(timeout_s)}


def stream_timeout(timeout_s: float) -> httpx.Timeout:
    """The client's own timeout, but patient between two pushed bytes."""
    return httpx.Timeout(timeout_s, read=STREAM_SILENCE_S_MAX)


def unreachable(error: httpx.RequestError) -> Unreachable:
    """httpx's error in a sentence."""
    return Unreachable(f"No answer from {error.request.url.copy_with(query=None)}: {error!r}.")


def stream_ended() -> Unreachable:
    """A stream has no end of its own; one that ended was cut."""
    return Unreachable("The server ended the stream.")
