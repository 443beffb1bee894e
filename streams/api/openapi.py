"""The OpenAPI 3.1 document of the API, made from the same structs that are decoded and encoded."""

from __future__ import annotations

from typing import Any

import msgspec

from streams.api.people import Explanation
from streams.api.requests import (
    EVENTS_MAX,
    LETTERS_MAX,
    LETTERS_SHOWN,
    LetterId,
    UsersRequest,
)
from streams.core.events import ID_CHARS_MAX, EventMessage
from streams.core.recommendations import Neighbour, Recommendation
from streams.core.serving import ForgetReceipt, Place, ReplayedLetters, ServedProfile, WaitingLetters
from streams.core.what_if import WhatIf, WhatIfQuestion

Schema = dict[str, Any]

REF = "#/components/schemas/{name}"
MESSAGES = (
    EventMessage,
    Recommendation,
    Neighbour,
    ServedProfile,
    Explanation,
    UsersRequest,
    LetterId,
    Place,
    ForgetReceipt,
    WaitingLetters,
    ReplayedLetters,
    WhatIfQuestion,
    WhatIf,
)
ERRORS = {
    400: "The request is malformed; the sentence says what was expected.",
    401: "No token, no login, or one that is not in force.",
    403: "The right to write is missing, or a foreign page sent this.",
    404: "There is nothing of that name.",
    409: "Nothing was done, because another did it or it would be refused again.",
    413: "The body is too large.",
    429: "Too many requests from this address; `Retry-After` says when to ask again.",
    503: "The topics are still being read, or Kafka or every worker is silent; ask again.",
}
READ_ERRORS = (400, 401, 403, 404, 429, 503)
WRITE_ERRORS = (400, 401, 403, 413, 429, 503)


def openapi_document() -> Schema:
    """The document, ready to be encoded as JSON."""
    _, components = msgspec.json.schema_components(list(MESSAGES), ref_template=REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Nearstream",
            "version": "1",
            "description": "Lists, profiles and neighbours of users as last committed; events in; dead letters.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {**_user_paths(), **_other_paths()},
        "components": {
            "schemas": {**components, **_own_schemas()},
            "responses": {f"Error{status}": _error_response(text) for status, text in ERRORS.items()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _user_paths() -> Schema:
    one = "/v1/users/{user_id}"
    item = _parameter("item_id", "query", _id_schema(), "An item of the newest list.", required=True)
    return {
        f"{one}/list": {"get": _read("newestList", "The newest list as published.", _ref("Recommendation"))},
        f"{one}/profile": {"get": _read("profile", "The profile as last committed.", _ref("ServedProfile"))},
        f"{one}/neighbours": {"get": _read("neighbours", "The neighbours of the newest list.", _ref("Neighbours"))},
        f"{one}/explain": {"get": _read("explain", "Why an item is on the newest list.", _ref("Explanation"), [item])},
        f"{one}/stream": {
            "get": {
                **_read("liveLists", "The newest list at once, then each new one.", {"type": "string"}),
                "responses": {
                    "200": {
                        "description": "Server-sent events: `list` with a list, `gone` where there is none.",
                        "content": {"text/event-stream": {"schema": {"type": "string"}}},
                    },
                    **_errors(READ_ERRORS),
                },
            }
        },
        f"{one}/what-if": {
            "post": {
                "operationId": "whatIf",
                "summary": "What the list would be without some of the history and after events that did not happen.",
                "parameters": [_user_parameter()],
                "requestBody": _body(_ref("WhatIfQuestion")),
                "responses": {
                    "200": _answer("The list then beside the list now.", _ref("WhatIf")),
                    **_errors((*READ_ERRORS, 413)),
                },
            }
        },
        one: {
            "delete": {
                "operationId": "forget",
                "summary": "Ask that a user be forgotten: profile, list, index and saved files.",
                "parameters": [_user_parameter()],
                "responses": {"202": _answer("A receipt.", _ref("ForgetReceipt")), **_errors(WRITE_ERRORS)},
            }
        },
        "/v1/users": {
            "post": {
                "operationId": "severalUsers",
                "summary": "Lists, profiles and neighbours of several users.",
                "requestBody": _body(_ref("UsersRequest")),
                "responses": {"200": _answer("By user id.", _ref("Users")), **_errors((*READ_ERRORS, 413))},
            }
        },
    }


def _other_paths() -> Schema:
    events = {"type": "array", "items": _ref("EventMessage"), "minItems": 1, "maxItems": EVENTS_MAX}
    limit = {"type": "integer", "minimum": 1, "maximum": LETTERS_MAX, "default": LETTERS_SHOWN}
    return {
        "/v1/events": {
            "post": {
                "operationId": "sendEvents",
                "summary": "Write one event or several to Kafka; all of them or none.",
                "requestBody": _body({"oneOf": [_ref("EventMessage"), events]}),
                "responses": {"202": _answer("All replicas have them.", _ref("Accepted")), **_errors(WRITE_ERRORS)},
            }
        },
        "/v1/dead-letters": {
            "get": {
                "operationId": "deadLetters",
                "summary": "The newest dead letters that wait.",
                "parameters": [
                    _parameter("reason", "query", {"type": "string", "minLength": 1, "maxLength": 100}, "Only these."),
                    _parameter("limit", "query", limit, "How many of them to show."),
                ],
                "responses": {"200": _answer("Counts and letters.", _ref("WaitingLetters")), **_errors(READ_ERRORS)},
            }
        },
        "/v1/dead-letters/replay": {
            "post": {
                "operationId": "replayDeadLetters",
                "summary": "Send dead letters back to the events, each at most once, mended if `value` says how.",
                "requestBody": _body(_ref("ReplayRequest")),
                "responses": {
                    "202": _answer("What became of each.", _ref("ReplayedLetters")),
                    **_errors((*WRITE_ERRORS, 409)),
                },
            }
        },
        "/healthz": {
            "get": {
                "operationId": "health",
                "summary": "Whether the process answers.",
                "security": [],
                "responses": {"200": _answer("It does.", {"type": "object"}), **_errors((429,))},
            }
        },
    }


def _own_schemas() -> Schema:
    """What is put together of other parts, and has no struct of its own."""
    part = {"list": _or_null("Recommendation"), "profile": _or_null("ServedProfile")}
    neighbours = {"type": "array", "items": _ref("Neighbour")}
    some = {**part, "neighbours": {"anyOf": [neighbours, {"type": "null"}]}}
    user = {"anyOf": [{"type": "object", "properties": some}, {"type": "null"}]}
    return {
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {"type": "string", "description": "What was expected, what came, what to do."},
                "index": {"type": "integer", "description": "Of the first event that cannot count."},
                "reason": {"type": "string", "description": "In a word, why it cannot count or has no answer."},
            },
        },
        "Neighbours": {
            "type": "object",
            "required": ["user_id", "generated_at", "neighbours"],
            "properties": {
                "user_id": {"type": "string"},
                "generated_at": {"type": "integer"},
                "neighbours": neighbours,
            },
        },
        "Users": {
            "type": "object",
            "required": ["users"],
            "properties": {"users": {"type": "object", "additionalProperties": user}},
        },
        "Accepted": {
            "type": "object",
            "required": ["accepted", "events"],
            "properties": {
                "accepted": {"type": "integer"},
                "events": {"type": "array", "items": _ref("Place"), "description": "In the order of the request."},
            },
        },
        "ReplayRequest": {
            "type": "object",
            "required": ["ids"],
            "additionalProperties": False,
            "properties": {
                "ids": {"type": "array", "items": _ref("LetterId"), "minItems": 1, "maxItems": LETTERS_MAX},
                "value": {"description": "The mended event, beside one id.", **_or_null("EventMessage")},
            },
        },
    }


def _read(operation: str, summary: str, schema: Schema, more: list[Schema] | None = None) -> Schema:
    return {
        "operationId": operation,
        "summary": summary,
        "parameters": [_user_parameter(), *(more or [])],
        "responses": {"200": _answer("Found.", schema), **_errors(READ_ERRORS)},
    }


def _user_parameter() -> Schema:
    return _parameter("user_id", "path", _id_schema(), "As in the events; a slash is written %2F.", required=True)


def _id_schema() -> Schema:
    return {"type": "string", "minLength": 1, "maxLength": ID_CHARS_MAX}


def _parameter(name: str, place: str, schema: Schema, text: str, *, required: bool = False) -> Schema:
    return {"name": name, "in": place, "required": required, "schema": schema, "description": text}


def _body(schema: Schema) -> Schema:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _answer(text: str, schema: Schema) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _error_response(text: str) -> Schema:
    return _answer(text, _ref("Error"))


def _errors(statuses: tuple[int, ...]) -> Schema:
    return {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in sorted(statuses)}


def _ref(name: str) -> Schema:
    return {"$ref": REF.format(name=name)}


def _or_null(name: str) -> Schema:
    return {"anyOf": [_ref(name), {"type": "null"}]}
