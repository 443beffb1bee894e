"""The form at /sign-in: a token against a cookie, for people. There are no scripts in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from streams.api.access import FAILED_LOGIN_COST, Access, check_same_origin
from streams.api.problem import Problem
from streams.api.session import COOKIE, SESSION_S, signed_session

if TYPE_CHECKING:
    from collections.abc import Callable

FORM = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Nearstream: sign in</title>
<link rel="stylesheet" href="/page/style.css">
<main>
<h1>Sign in</h1>
<form method="post" action="/sign-in">
<p><label for="token">Token</label></p>
<p><input id="token" name="token" type="password" autocomplete="current-password" required autofocus></p>
<p><button>Sign in</button></p>
</form>
<p role="alert">{message}</p>
</main>
</html>
"""
WRONG = "This token is not in force. Ask whoever runs the page for one."
NOT_NEEDED = "No token is needed here: the page answers this machine only."


class SignIn:
    """Form, login and end of a session."""

    def __init__(self, access: Access, clock: Callable[[], float]) -> None:
        self._access = access
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """GET shows the form, POST signs in, DELETE ends the session."""
        return [
            web.get("/sign-in", self._form),
            web.post("/sign-in", self._sign_in),
            web.delete("/sign-in", self._sign_out),
        ]

    async def _form(self, _request: web.Request) -> web.Response:
        return _page(NOT_NEEDED if self._access.is_open else "", 200)

    async def _sign_in(self, request: web.Request) -> web.Response:
        check_same_origin(request)
        if request.content_type != "application/x-www-form-urlencoded":
            raise Problem(
                400, f"Expected the form's fields, came {request.content_type!r}. Send `token` as a form does."
            )
        token = (await request.post()).get("token", "")
        right = self._access.right_of_token(token) if isinstance(token, str) else None
        if right is None:
            self._access.check_rate(request, FAILED_LOGIN_COST)
            return _page(WRONG, 401)
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(
            COOKIE,
            signed_session(right, self._access.token_of(right), self._clock()),
            max_age=SESSION_S,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self._access.is_encrypted(request),
        )
        return response

    async def _sign_out(self, request: web.Request) -> web.Response:
        check_same_origin(request)
        response = web.Response(status=204)
        response.del_cookie(COOKIE, path="/")
        return response


def _page(message: str, status: int) -> web.Response:
    return web.Response(text=FORM.format(message=message), content_type="text/html", status=status)
