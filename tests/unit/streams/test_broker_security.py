"""TLS and logins of the embedded broker: what is written for Kafka, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streams.core.errors import UsageError
from streams.kafka.broker_security import BrokerSecurity
from streams.kafka.cluster import ClusterState

USERS = {"nodes": "between", "worker": "open-sesame"}


def _properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def test_a_login_is_known_by_every_mechanism(tmp_path: Path) -> None:
    """PLAIN users are in the configuration, SCRAM users go into the first metadata."""
    security = BrokerSecurity("SASL_SSL", tmp_path / "keys.pem", tmp_path / "ca.pem", users=USERS)
    written = _properties(security.properties())
    assert written["sasl.enabled.mechanisms"] == "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
    plain = written["listener.name.sasl_ssl.plain.sasl.jaas.config"]
    assert 'username="nodes" password="between"' in plain
    assert 'user_worker="open-sesame"' in plain
    assert written["ssl.keystore.location"] == str(tmp_path / "keys.pem")
    arguments = security.format_arguments()
    assert arguments[::2] == ["--add-scram"] * 4
    assert "SCRAM-SHA-512=[name=worker,password=open-sesame]" in arguments


def test_client_certificates_are_asked_for_on_the_listener(tmp_path: Path) -> None:
    """mTLS without logins."""
    security = BrokerSecurity("SSL", tmp_path / "keys.pem", tmp_path / "ca.pem", client_certificates=True)
    written = _properties(security.properties())
    assert written["listener.name.ssl.ssl.client.auth"] == "required"
    assert not any("sasl" in name for name in written)
    assert security.format_arguments() == []


def test_a_node_listens_by_the_protocol_and_keeps_its_passwords_to_itself(tmp_path: Path) -> None:
    """The configuration may be read by its owner only."""
    security = BrokerSecurity("SASL_PLAINTEXT", users=USERS)
    (node,) = ClusterState("c" * 22, [9092], [9093]).nodes(tmp_path, security)
    node.configure([node])
    path = node.folder / "server.properties"
    written = _properties(path.read_text())
    assert written["listeners"].startswith("SASL_PLAINTEXT://127.0.0.1:9092,")
    assert written["listener.security.protocol.map"].endswith("SASL_PLAINTEXT:SASL_PLAINTEXT")
    assert written["inter.broker.listener.name"] == "SASL_PLAINTEXT"
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "SSL"}, "needs a keystore and a truststore"),
        ({"protocol": "SASL_PLAINTEXT"}, "needs at least one user"),
        ({"protocol": "SASL_PLAINTEXT", "users": {"a b": "c"}}, "'a b' may have letters"),
        ({"protocol": "SASL_PLAINTEXT", "users": {"a": 'x" required'}}, "'a' may have letters"),
    ],
)
def test_what_kafka_would_misread_is_refused(arguments: dict[str, Any], message: str) -> None:
    """Missing parts, and characters that mean something to JAAS or StorageTool; the password is not repeated."""
    with pytest.raises(UsageError, match=message) as refused:
        BrokerSecurity(**arguments)
    assert "required" not in str(refused.value)


def test_passwords_are_not_in_the_representation() -> None:
    """Not even in a traceback of a test."""
    assert "open-sesame" not in repr(BrokerSecurity("SASL_PLAINTEXT", users=USERS))
