"""What can go wrong. The message of every error is a sentence, the server's own where it sent one.

NearstreamError
├── BadRequest          400, 413: mend the request; `index` and `reason` name the event that was refused
├── NotAllowed          401, 403: the token is missing, wrong, or has no right to write
├── NotFound            404: this user, or this item in the list, is unknown
├── Conflict            409
├── TooManyRequests     429: still refused after the last attempt; `retry_after_s`
├── NotReady            503: still starting or without Kafka after the last attempt; `retry_after_s`
├── ServerFault         any other status
├── Unreachable         no connection, or no answer in time
└── UnreadableAnswer    an answer that this version of the client does not understand
"""

from __future__ import annotations


class NearstreamError(Exception):
    """Base of every error of this client; `status` is the HTTP status, None where there was no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class BadRequest(NearstreamError):
    """The server refused what was sent, and did nothing. `index` is the place of the refused event in the request."""

    def __init__(self, message: str, status: int, index: int | None = None, reason: str | None = None) -> None:
        super().__init__(message, status)
        self.index = index
        self.reason = reason


class NotAllowed(NearstreamError):
    """The token is missing or wrong, or may not do this."""


class NotFound(NearstreamError):
    """What was asked for does not exist."""


class Conflict(NearstreamError):
    """The request does not fit what the server holds."""


class Refused(NearstreamError):
    """The server asks to come back later; `retry_after_s` is when, None where it did not say."""

    def __init__(self, message: str, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message, status)
        self.retry_after_s = retry_after_s


class TooManyRequests(Refused):
    """More requests than this client may make."""


class NotReady(Refused):
    """The server is still reading its topics, or Kafka is away."""


class ServerFault(NearstreamError):
    """A status that the API does not promise."""


class Unreachable(NearstreamError):
    """No connection, or no answer in time."""


class UnreadableAnswer(NearstreamError):
    """The answer is not what this version of the client expects."""
