"""The client for plain, blocking code."""

from __future__ import annotations

import random
import time
import uuid
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx

from nearstream_client.calls import (
    Call,
    Part,
    error_of,
    events_call,
    explain_call,
    forget_call,
    list_call,
    many_call,
    neighbours_call,
    profile_call,
    read_answer,
    stream_path,
    what_if_call,
)
from nearstream_client.connection import STREAM_HEADERS, connection_options, stream_ended, stream_timeout, unreachable
from nearstream_client.errors import NearstreamError
from nearstream_client.pushed import PushedLists
from nearstream_client.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from nearstream_client.messages import (
        Accepted,
        Explanation,
        ForgetReceipt,
        Neighbour,
        Profile,
        RecommendationList,
        UserParts,
        WhatIf,
    )

T = TypeVar("T")


class Client:
    """Calls the API at `base_url`, one connection pool a client; close it, or use it in `with`.

    Every method blocks at most `timeout_s` an attempt, and the waits of `retry` between attempts. It raises a
    NearstreamError, and ValueError for arguments that no server could take. `sleep`, `chance`, `new_event_id` and
    `transport` are for tests.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        timeout_s: float = 5.0,
        retry: Retry | None = None,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
        new_event_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(**connection_options(base_url, token, timeout_s), transport=transport)
        self._timeout_s = timeout_s
        self._retry = retry or Retry()
        self._sleep = sleep
        self._chance = chance
        self._new_event_id = new_event_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def list(self, user_id: str) -> RecommendationList:
        """The user's newest list; NotFound where there is none."""
        return self._send(list_call(user_id))

    def profile(self, user_id: str) -> Profile:
        """The user's profile with its vector; NotFound where there is none."""
        return self._send(profile_call(user_id))

    def neighbours(self, user_id: str) -> tuple[Neighbour, ...]:
        """The nearest users in the newest list, best first."""
        return self._send(neighbours_call(user_id))

    def explain(self, user_id: str, item_id: str) -> Explanation:
        """Why the item is in the user's newest list; NotFound where it is not."""
        return self._send(explain_call(user_id, item_id))

    def what_if(self, user_id: str, without: Sequence[str] = (), events: Iterable[Mapping[str, Any]] = ()) -> WhatIf:
        """What the list would be without up to 32 items of the history and after up to 8 events, each with `item_id`
        and `type`, and `value` or `timestamp` if wanted. A worker answers; nothing is sent and nothing changes.
        NotFound where there is no profile, BadRequest for an item that is unknown or not remembered."""
        return self._send(what_if_call(user_id, without, events))

    def many(self, user_ids: Sequence[str], parts: Sequence[Part] = ("list",)) -> dict[str, UserParts | None]:
        """Parts of up to 100 users by id; None for users that are unknown."""
        return self._send(many_call(user_ids, parts))

    def send_events(self, events: Iterable[Mapping[str, Any]]) -> Accepted:
        """Up to 100 events into Kafka; returns when they are acknowledged. An event without `event_id` gets one, so
        that a second attempt cannot count twice. BadRequest names the event that is wrong: then none was sent."""
        return self._send(events_call(events, self._new_event_id))

    def forget(self, user_id: str) -> ForgetReceipt:
        """Forget the user: profile, list and vector, by the receipt's deadline."""
        return self._send(forget_call(user_id))

    def stream(self, user_id: str) -> Generator[RecommendationList, None, None]:
        """The newest list at once and every new one, without end. Blocks between lists, and before the first one.

        Leave it through `contextlib.closing`. A broken connection is opened again; its error is raised after
        `retry.attempts_max` connections that brought nothing.
        """
        path, pushed = stream_path(user_id), PushedLists(self._retry, self._chance)
        while True:
            try:
                yield from self._one_connection(path, pushed)
            except NearstreamError as error:
                self._sleep(pushed.wait_s(error))

    def _one_connection(self, path: str, pushed: PushedLists) -> Iterator[RecommendationList]:
        pushed.connected()
        try:
            timeout = stream_timeout(self._timeout_s)
            with self._http.stream("GET", path, headers=STREAM_HEADERS, timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                    raise error_of(response)
                for chunk in response.iter_bytes():
                    yield from pushed.lists(chunk)
        except httpx.RequestError as error:
            raise unreachable(error) from error
        raise stream_ended()

    def _send(self, call: Call[T]) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._once(call)
            except NearstreamError as error:
                wait_s = self._retry.wait_s(error, attempt, self._chance)
                if wait_s is None:
                    raise
            self._sleep(wait_s)

    def _once(self, call: Call[T]) -> T:
        try:
            response = self._http.request(call.method, call.path, params=call.params, json=call.body)
        except httpx.RequestError as error:
            raise unreachable(error) from error
        return read_answer(call, response)
