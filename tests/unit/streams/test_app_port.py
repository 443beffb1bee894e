"""The worker's web port: the settings' own, or any free one."""

from __future__ import annotations

import socket

import pytest

from streams.app import _usable_port, create_app
from streams.config import Settings
from streams.core.errors import UsageError


def test_port_0_is_a_free_one_that_the_app_listens_on() -> None:
    """Faust knows no port 0; the address that is told has the one that was chosen."""
    settings = Settings(web_port=0)
    port = _usable_port(settings)
    assert port > 0
    app, service = create_app(settings, port)
    assert app.conf.web_port == port
    assert service._web_port == port
    with socket.socket() as probe:
        probe.bind((settings.web_host, port))


def test_a_port_of_the_settings_is_that_port_or_a_clear_refusal() -> None:
    """Whoever has it already is not disturbed."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"127.0.0.1:{port} cannot be used"):
            _usable_port(Settings(web_port=port))
    assert _usable_port(Settings(web_port=port)) == port
