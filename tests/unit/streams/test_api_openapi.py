"""The OpenAPI document, and whether the API keeps it: generated requests against a running server."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.checks import positive_data_acceptance

from streams.api.openapi import openapi_document
from streams.api.people import People
from streams.api.stream import Streams
from streams.api.what_if import Supposing
from streams.api.writing import Writing
from streams.config import load_settings
from streams.core.events import EventMessage
from streams.dashboard.server import serve_dashboard
from tests.fakes import START_MS, FakeObserver, recommendation
from tests.fakes_api import FakeBackend, letter, list_value, profile, supposition

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = 20
START_S_MAX = 10
DOCUMENT: dict[str, Any] = msgspec.to_builtins(openapi_document())
schema = schemathesis.openapi.from_dict(DOCUMENT)


class EveryUser(dict[str, Any]):
    """Knows every user whose id is no longer than ten characters, so that both answers come up."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def get(self, user_id: str, default: Any = None) -> Any:
        """What is made for a known one."""
        return self._made(user_id) if len(user_id) <= 10 else default


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a running server, in a thread of its own, whose backend knows some users and two dead letters."""
    loop, stop, found = asyncio.new_event_loop(), asyncio.Event(), []
    listening = threading.Event()

    def ready(where: str) -> None:
        found.append(where)
        listening.set()

    known = EveryUser(list_value), EveryUser(profile), [letter(0), letter(1)]
    backend = FakeBackend(*known, suppositions=EveryUser(supposition))
    serving = serve_dashboard(
        FakeObserver(),
        load_settings(dashboard_port=0, api_requests_per_s=0),
        ready=ready,
        stop=stop,
        clock=lambda: START_MS / 1000,
        backend=backend,
    )
    thread = threading.Thread(target=loop.run_until_complete, args=(serving,))
    thread.start()
    assert listening.wait(START_S_MAX)
    yield found[0].rstrip("/")
    loop.call_soon_threadsafe(stop.set)
    thread.join(START_S_MAX)
    loop.close()


@schema.exclude(operation_id="liveLists").parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_api_keeps_its_document(case: schemathesis.Case, address: str) -> None:
    """No 5xx, only declared statuses, types and shapes; what breaks the document is refused, what keeps it is not.

    An event that keeps the document may still break a rule that JSON Schema cannot say, such as a time too far ahead,
    or that a whole number is not written as 1.0.
    The stream, which does not end, is tested beside the others.
    """
    takes_events = case.operation.definition.raw["operationId"] in {"sendEvents", "replayDeadLetters", "whatIf"}
    case.call_and_validate(
        base_url=address, excluded_checks=[positive_data_acceptance] if takes_events else [], timeout=START_S_MAX
    )


def test_the_document_names_every_route_and_no_other() -> None:
    """By path and method."""
    backend = FakeBackend()
    routes = [*People(backend, str).routes(), *Streams(backend).routes(), *Writing(backend).routes()]
    routes += Supposing(backend).routes()
    served = {(route.path.replace(":[^/]+", ""), route.method.lower()) for route in routes}
    documented = {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert served | {("/healthz", "get")} == documented


def test_messages_keep_the_schemas_of_the_document() -> None:
    """A list, a profile and an event as they are sent."""
    schemas = DOCUMENT["components"]

    def check(name: str, message: msgspec.Struct) -> None:
        validator = Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": schemas})
        validator.validate(msgspec.to_builtins(message))

    check("Recommendation", recommendation())
    check("ServedProfile", profile())
    check("WhatIf", supposition())
    check("EventMessage", EventMessage("u1", "i1", "view", START_MS))
