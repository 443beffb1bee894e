"""Who may do what on page, API and a worker's port: tokens, a login proxy or this machine only; foreign pages; rates.

Without a token and without a proxy everything is allowed to requests that name this machine, and the server listens
on nothing else (`check_binding`). A browser's write must come from our own page, whatever right it has; a program that
sends a bearer token is no browser that somebody else could steer.
"""

from __future__ import annotations

import hmac
import math
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from aiohttp import web

from streams.api.problem import Problem
from streams.api.rate_limit import RateLimit, limited_address
from streams.api.session import COOKIE, Right, session_right
from streams.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler, Middleware

    from streams.config import Settings

BEARER = "Bearer "
CSRF_HEADER = "X-Nearstream"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
READS_BY_POST = frozenset({"/v1/users", "/v1/users/{user_id}/what-if", "/api/what-if", "/what-if"})
PUBLIC_PATHS = frozenset({"/healthz", "/sign-in", "/v1/openapi.json"})
"""No user's data is there."""
PUBLIC_FOLDER = "/page/"
ANY_HOST_PATHS = frozenset({"/healthz", "/metrics"})
"""Asked by machines under whatever name they know; no user's data is there either."""
FAILED_LOGIN_COST = 50.0
NAMES_MAX = 256
"""Names of hosts that were looked at, to spare doing it for each request."""


class Caller(NamedTuple):
    """What a request may do. `is_program`: it shows a bearer token, which no foreign page can make a browser send."""

    right: Right | None
    is_program: bool = False


class Access:
    """The rules of one server."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._tokens = _tokens(settings)
        self._user_header = settings.trusted_user_header
        self._proxies = settings.trusted_proxies
        self._writers = frozenset(settings.writers)
        self._clock = clock
        self._limit = RateLimit(settings.api_requests_per_s)

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked who they are, so that only requests that name this machine are answered."""
        return not self._tokens and self._user_header is None

    def check(self, request: web.Request) -> None:
        """Lets a request through.

        Raises:
            Problem: 400, 401, 403 or 429.
        """
        self.check_rate(request)
        if self.is_open and request.path not in ANY_HOST_PATHS and not is_loopback(host_name(request.host)):
            # A foreign name that resolves to this machine is how a web page elsewhere would read ours.
            raise Problem(403, f"This page answers only as localhost, not as {request.host!r}.")
        if request.path in PUBLIC_PATHS or request.path.startswith(PUBLIC_FOLDER):
            return
        caller = self.caller(request)
        self._check_right(caller, needed_right(request))
        is_there = request.match_info.http_exception is None  # else 404 or 405 is the better answer
        if request.method not in SAFE_METHODS and is_there:
            check_origin(request, is_program=caller.is_program)

    def check_rate(self, request: web.Request, cost: float = 1.0) -> None:
        """Counts a request of its address. Raises Problem 429 when there were too many."""
        wait_s = self._limit.wait_s(limited_address(self.address(request)), self._clock(), cost)
        if wait_s > 0:
            seconds = math.ceil(wait_s)
            raise Problem(
                429,
                f"Too many requests from this address: ask again in {seconds} s, or for several users in one request.",
                headers={"Retry-After": str(seconds)},
            )

    def address(self, request: web.Request) -> str:
        """Where a request comes from: the last address that no trusted proxy speaks for."""
        address = request.remote or ""
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        while self._is_proxy(address) and (before := forwarded.pop().strip() if forwarded else ""):
            address = before
        return address

    def is_encrypted(self, request: web.Request) -> bool:
        """Whether the request came by TLS, to us or to a trusted proxy."""
        forwarded = request.headers.get("X-Forwarded-Proto", "")
        return request.secure or (forwarded == "https" and self._is_proxy(request.remote or ""))

    def caller(self, request: web.Request) -> Caller:
        """Who asks. Raises Problem 401 for a bearer token that is none of ours."""
        if self.is_open:
            return Caller("write")
        authorization = request.headers.get("Authorization", "")
        if authorization.startswith(BEARER) and self._tokens:
            return Caller(self._right_of_bearer(request, authorization.removeprefix(BEARER).strip()), is_program=True)
        if self._user_header is not None and self._is_proxy(request.remote or ""):
            user = request.headers.get(self._user_header, "")
            if user:
                return Caller("write" if user in self._writers else "read")
        return Caller(session_right(request.cookies.get(COOKIE, ""), self._tokens, self._clock()))

    def right_of_token(self, token: str) -> Right | None:
        """The right that a token gives, in a time that tells nothing of it."""
        found: Right | None = None
        for right, expected in self._tokens.items():
            if hmac.compare_digest(expected.encode(), token.encode(errors="surrogateescape")):
                found = right
        return found

    def token_of(self, right: Right) -> str:
        """The token in force that gives a right which `right_of_token` found."""
        return self._tokens[right]

    def _right_of_bearer(self, request: web.Request, token: str) -> Right:
        right = self.right_of_token(token)
        if right is None:
            self.check_rate(request, FAILED_LOGIN_COST)
            raise _unauthorised("Expected a token that is in force, came another one. Correct it.")
        return right

    def _check_right(self, caller: Caller, needed: Right) -> None:
        if caller.right is None:
            raise _unauthorised(
                "Expected `Authorization: Bearer <token>` or a login, came neither. Send the token, or sign in at "
                "/sign-in."
            )
        if needed == "write" and caller.right != "write":
            raise Problem(
                403,
                "Expected the right to write, came the right to read. Use the token of NEARSTREAM_WRITE_TOKEN, or have "
                "your name added to NEARSTREAM_WRITERS.",
            )

    def _is_proxy(self, address: str) -> bool:
        return any(contains(network, address) for network in self._proxies)


def needed_right(request: web.Request) -> Right:
    """Reading is what changes nothing."""
    resource = request.match_info.route.resource
    is_read = request.method in SAFE_METHODS or (resource is not None and resource.canonical in READS_BY_POST)
    return "read" if is_read else "write"


def check_origin(request: web.Request, *, is_program: bool) -> None:
    """Refuses what a foreign page may have made a browser send, and bodies that are not declared as JSON.

    Raises:
        Problem: 403, or 400 for the content type.
    """
    if not is_program:
        check_same_origin(request)
        if "Origin" in request.headers and request.headers.get(CSRF_HEADER) != "1":
            raise Problem(403, f"Expected the header `{CSRF_HEADER}: 1` beside Origin, came none. Add it.")
    if request.method in {"POST", "PUT", "PATCH"} and request.content_type != "application/json":
        raise Problem(
            400, f"Expected the header `Content-Type: application/json`, came {request.content_type!r}. Send JSON."
        )


def check_same_origin(request: web.Request) -> None:
    """Raises Problem 403 for what a browser says a page of another origin sends."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    origin = request.headers.get("Origin")
    if site not in {"same-origin", "none"} or (origin is not None and urlsplit(origin).netloc != request.host):
        raise Problem(
            403, "Expected a request of our own page, came one of another site. Open the page and do it there."
        )


def access_rules(access: Access) -> Middleware:
    """The middleware that lets through what may pass; a browser without login is sent to the form."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            access.check(request)
        except Problem as problem:
            if problem.status == 401 and request.method == "GET" and request.path == "/":
                raise web.HTTPSeeOther("/sign-in") from problem
            raise
        return await handler(request)

    return guard


def check_binding(settings: Settings) -> None:
    """Refuses an address that others can reach while nobody is asked who they are.

    Raises:
        UsageError: with what to set.
    """
    is_open = not _tokens(settings) and settings.trusted_user_header is None
    if is_open and not is_loopback(settings.dashboard_host) and not settings.dashboard_local_only:
        raise UsageError(
            f"The page would listen on {settings.dashboard_host} and ask nobody who they are: expected a login where "
            "others can reach it. Set NEARSTREAM_READ_TOKEN and NEARSTREAM_WRITE_TOKEN, or "
            "NEARSTREAM_TRUSTED_USER_HEADER behind a login proxy, or listen on 127.0.0.1; "
            "NEARSTREAM_DASHBOARD_LOCAL_ONLY=true is for a container whose port is published on 127.0.0.1."
        )


def host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


@lru_cache(NAMES_MAX)
def is_loopback(host: str) -> bool:
    """Whether this names this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def contains(network: IPv4Network | IPv6Network, address: str) -> bool:
    """Whether the address, if it is one, is in the network."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed) in network


def _tokens(settings: Settings) -> dict[Right, str]:
    given = {"read": settings.read_token, "write": settings.write_token}
    tokens: dict[Right, str] = {}
    for right in ("read", "write"):
        secret = given[right]
        if secret is not None:
            tokens[right] = secret.get_secret_value()
    return tokens


def _unauthorised(sentence: str) -> Problem:
    return Problem(401, sentence, headers={"WWW-Authenticate": 'Bearer realm="nearstream"'})
