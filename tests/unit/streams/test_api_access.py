"""Who may do what: tokens, cookies, a login proxy, foreign pages, rates, and where the server may listen."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.api.rate_limit import ADDRESSES_MAX, RateLimit, limited_address
from streams.api.session import SESSION_S, session_right, signed_session
from streams.config import load_settings
from streams.core.errors import UsageError
from tests.fakes import START_MS
from tests.fakes_api import FakeBackend, list_value, serving_api

READ, WRITE = "read-" + "r" * 20, "write-" + "w" * 20
TOKENS = {"read_token": READ, "write_token": WRITE}
PROXY = {"trusted_user_header": "X-Forwarded-User", "trusted_proxies": ["127.0.0.0/8"], "writers": ["ada"]}
EVENT = {"user_id": "u1", "item_id": "i1", "type": "view", "timestamp": START_MS}


def bearer(token: str) -> dict[str, str]:
    """The header that shows a token."""
    return {"Authorization": f"Bearer {token}"}


async def reads(client: aiohttp.ClientSession, **headers: str) -> int:
    """Status of a read."""
    async with client.get("/v1/users/u1/list", headers=headers) as response:
        return response.status


async def writes(client: aiohttp.ClientSession, **headers: str) -> int:
    """Status of a write."""
    async with client.post("/v1/events", json=EVENT, headers=headers) as response:
        return response.status


def backend() -> FakeBackend:
    """With a list."""
    return FakeBackend(lists={"u1": list_value()})


async def test_with_tokens_each_gives_its_right_and_nothing_else_does() -> None:
    """The write token reads too; a wrong one, and none, are told how to send one; public paths need none."""
    async with serving_api(backend(), **TOKENS) as client:
        assert (await reads(client), await writes(client)) == (401, 401)
        assert (await reads(client, **bearer("x" * 26)), await writes(client, **bearer("x" * 26))) == (401, 401)
        assert (await reads(client, **bearer(READ)), await writes(client, **bearer(READ))) == (200, 403)
        assert (await reads(client, **bearer(WRITE)), await writes(client, **bearer(WRITE))) == (200, 202)
        async with client.get("/api/overview") as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
            assert READ not in await response.text()
        for path in ("/healthz", "/sign-in", "/v1/openapi.json", "/page/app.js"):
            async with client.get(path) as response:
                assert response.status == 200


async def test_a_read_token_alone_lets_nobody_write() -> None:
    """The sentence says which token is missing."""
    async with serving_api(backend(), read_token=READ) as client:
        async with client.delete("/v1/users/u1", headers=bearer(READ)) as response:
            assert response.status == 403
            assert "NEARSTREAM_WRITE_TOKEN" in await response.text()
        async with client.post("/v1/users", json={"user_ids": ["u1"]}, headers=bearer(READ)) as response:
            assert response.status == 200  # reading several is no write


@pytest.mark.parametrize("token", ["ä" * 20, "\udcff" * 20, "", " "])
async def test_any_text_may_come_as_a_token(token: str) -> None:
    """It is refused, not a fault."""
    headers = {"Authorization": f"Bearer {token}".encode("utf-8", "surrogateescape").decode("latin-1")}
    async with serving_api(backend(), **TOKENS) as client:
        assert await reads(client, **headers) == 401


async def test_people_sign_in_by_a_form_and_get_a_cookie_that_scripts_cannot_read() -> None:
    """The cookie is not the token, goes to no other site, and gives the right of the token that was shown."""
    async with serving_api(backend(), **TOKENS) as client:
        async with client.get("/", allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (303, "/sign-in")
        async with client.post("/sign-in", data={"token": "wrong"}, allow_redirects=False) as response:
            assert (response.status, "Set-Cookie" in response.headers) == (401, False)
        async with client.post("/sign-in", data={"token": READ}, allow_redirects=False) as response:
            cookie = response.headers["Set-Cookie"]
            assert (response.status, response.headers["Location"]) == (303, "/")
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert READ not in cookie
        session = {"Cookie": cookie.partition(";")[0]}
        assert (await reads(client, **session), await writes(client, **session)) == (200, 403)
        async with client.get("/", headers=session) as response:
            assert response.status == 200


async def test_a_browsers_write_comes_from_our_own_page_or_not_at_all() -> None:
    """By cookie: another origin, another site, a missing header and a body that a form could send are refused."""
    async with serving_api(backend(), **TOKENS) as client:
        own = f"http://127.0.0.1:{client._base_url.port}"
        cookie = {"Cookie": f"nearstream={signed_session('write', WRITE, START_MS / 1000)}"}
        ours = {**cookie, "Origin": own, "X-Nearstream": "1"}
        assert await writes(client, **ours, **{"Sec-Fetch-Site": "same-origin"}) == 202
        assert await writes(client, **cookie, Origin=own) == 403
        assert await writes(client, **{**ours, "Origin": "https://evil.example"}) == 403
        assert await writes(client, **{**ours, "Origin": "null"}) == 403
        assert await writes(client, **ours, **{"Sec-Fetch-Site": "cross-site"}) == 403
        assert await writes(client, **ours, **{"Sec-Fetch-Site": "same-site"}) == 403
        async with client.post("/v1/events", data=b"{}", headers={**ours, "Content-Type": "text/plain"}) as response:
            assert response.status == 400
        async with client.delete("/v1/users/u1", headers={**cookie, "Origin": "https://evil.example"}) as response:
            assert response.status == 403
        async with client.post(
            "/sign-in", data={"token": WRITE}, headers={"Origin": "https://evil.example"}, allow_redirects=False
        ) as response:
            assert (response.status, "Set-Cookie" in response.headers) == (403, False)


async def test_without_tokens_this_machine_may_do_everything_and_foreign_pages_nothing() -> None:
    """A foreign name in Host, a foreign Origin, and a form's content type are refused; a program needs no Origin."""
    async with serving_api(backend()) as client:
        assert (await reads(client), await writes(client)) == (200, 202)
        assert (await reads(client, Host="evil.example"), await writes(client, Host="evil.example")) == (403, 403)
        assert await writes(client, Origin="https://evil.example", **{"X-Nearstream": "1"}) == 403
        async with client.post("/v1/events", data={"a": "b"}) as response:
            assert response.status == 400
        async with client.get("/healthz", headers={"Host": "pod-17.internal"}) as response:
            assert response.status == 200


async def test_a_trusted_proxy_names_who_may_read_and_write() -> None:
    """Only the proxy is believed, and only writers write; their browsers' requests must still be our own page's."""
    async with serving_api(backend(), **PROXY) as client:
        assert (await reads(client), await writes(client)) == (401, 401)
        bob, ada = {"X-Forwarded-User": "bob"}, {"X-Forwarded-User": "ada"}
        assert (await reads(client, **bob), await writes(client, **bob)) == (200, 403)
        assert await writes(client, **ada) == 202
        assert await writes(client, **ada, Origin="https://evil.example", **{"X-Nearstream": "1"}) == 403
        assert await reads(client, Host="page.example", **bob) == 200
    elsewhere = {**PROXY, "trusted_proxies": ["10.0.0.0/8"]}
    async with serving_api(backend(), **elsewhere) as client:
        assert await reads(client, **ada) == 401


async def test_too_many_requests_of_one_address_are_429_with_the_time_to_wait() -> None:
    """Behind a trusted proxy each client has its own bucket; what others say of their address is not believed."""
    limits = {**TOKENS, "api_requests_per_s": 1.0, "trusted_proxies": ["127.0.0.0/8"]}
    async with serving_api(backend(), **limits) as client:
        one, two = {"X-Forwarded-For": "8.8.8.8, 203.0.113.1"}, {"X-Forwarded-For": "8.8.8.8, 203.0.113.2"}
        assert [await reads(client, **bearer(READ), **one) for _ in range(3)] == [200, 200, 429]
        assert await reads(client, **bearer(READ), **two) == 200
        async with client.get("/v1/users/u1/list", headers={**bearer(READ), **one}) as response:
            assert response.headers["Retry-After"] == "1"
            assert "1 s" in (await response.json())["error"]
    async with serving_api(backend(), api_requests_per_s=1.0) as client:
        lies = [{"X-Forwarded-For": f"203.0.113.{n}"} for n in range(3)]
        assert [await reads(client, **lie) for lie in lies] == [200, 200, 429]


async def test_guessing_tokens_is_slowed_down() -> None:
    """A wrong one costs as much as fifty requests."""
    async with serving_api(backend(), **TOKENS, api_requests_per_s=60.0) as client:
        assert [await reads(client, **bearer("x" * 26)) for _ in range(3)] == [401, 401, 429]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "page.example"])
def test_listening_beyond_this_machine_needs_a_login(host: str) -> None:
    """The refusal says what to set; with tokens, a proxy, or a port that is published locally it is no matter."""
    from streams.api.access import check_binding  # noqa: PLC0415 - beside its only use

    with pytest.raises(UsageError, match="NEARSTREAM_READ_TOKEN"):
        check_binding(load_settings(dashboard_host=host))
    for rights in (TOKENS, PROXY, {"dashboard_local_only": True}):
        check_binding(load_settings(dashboard_host=host, **rights))


async def test_the_server_refuses_to_start_where_others_could_reach_it() -> None:
    """Before it listens."""
    with pytest.raises(UsageError, match=r"0\.0\.0\.0"):
        async with serving_api(backend(), dashboard_host="0.0.0.0"):
            pass


async def test_in_a_container_whose_port_is_local_foreign_names_stay_out() -> None:
    """A web page elsewhere cannot read ours by a name of its own."""
    async with serving_api(backend(), dashboard_host="0.0.0.0", dashboard_local_only=True) as client:
        assert (await reads(client), await reads(client, Host="evil.example")) == (200, 403)


@given(st.text(max_size=80))
def test_no_other_text_is_a_session(text: str) -> None:
    """Whatever comes as a cookie gives no right, and is no fault."""
    assert session_right(text, {"read": READ, "write": WRITE}, 0) is None


def test_a_session_ends_with_its_time_and_with_its_token() -> None:
    """And a read session cannot be made a write session."""
    cookie = signed_session("read", READ, 1000)
    assert session_right(cookie, {"read": READ, "write": WRITE}, 1000) == "read"
    assert session_right(cookie, {"read": READ}, 1001 + SESSION_S) is None
    assert session_right(cookie, {"read": "another-" + "r" * 20}, 1000) is None
    assert session_right(cookie, {"write": READ}, 1000) is None
    assert session_right(cookie.replace("read", "write"), {"read": READ, "write": WRITE}, 1000) is None
    assert session_right(cookie.replace(".", "9.", 1), {"read": READ}, 1000) is None


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"read_token": "short"}, "16"),
        ({"read_token": READ, "write_token": READ}, "must differ"),
        ({"trusted_user_header": "X-User"}, "trusted_proxies"),
        ({"writers": ["ada"]}, "trusted_user_header"),
        ({"trusted_user_header": "X-User", "trusted_proxies": ["10.0.0.1/8"]}, "trusted_proxies"),
    ],
)
def test_rights_that_do_not_fit_together_are_refused(settings: dict[str, Any], complaint: str) -> None:
    """With the setting, and without the token."""
    with pytest.raises(UsageError, match=complaint) as refused:
        load_settings(**settings)
    assert not any(token in str(refused.value) for token in ("short", READ))


def test_a_bucket_lets_through_its_rate_and_a_burst() -> None:
    """Twice the rate at once, then one each second; the wait is told exactly; a clock that goes back gives nothing."""
    limit = RateLimit(1.0)
    assert [limit.wait_s("a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    assert limit.wait_s("b", 0.0) == 0.0
    assert limit.wait_s("a", 0.5) == 0.5
    assert limit.wait_s("a", 1.0) == 0.0
    assert limit.wait_s("a", -1000.0) == 1.0
    assert limit.wait_s("a", 1000.0, cost=99.0) == 0.0  # what costs more than a full bucket takes all of it
    assert limit.wait_s("a", 1000.0) == 1.0
    assert RateLimit(0).wait_s("a", 0.0, cost=1e9) == 0.0


def test_the_table_of_addresses_is_bounded() -> None:
    """However many there are."""
    limit = RateLimit(1.0)
    for number in range(ADDRESSES_MAX + 100):
        limit.wait_s(str(number), 0.0)
    assert len(limit) == ADDRESSES_MAX


def test_an_ipv6_network_counts_as_one_address() -> None:
    """A machine has 2^64 of its own; an IPv4 address written as IPv6 is that IPv4 address's."""
    assert limited_address("2001:db8::1") == limited_address("2001:db8::ffff:2")
    assert limited_address("2001:db8:0:1::1") != limited_address("2001:db8::1")
    assert limited_address("192.0.2.1") != limited_address("192.0.2.2")
    assert limited_address("nonsense") == "nonsense"
