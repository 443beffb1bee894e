"""Kafka with TLS and logins: certificates, users, and brokers that ask for them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from streams.config import Settings, load_settings
from streams.kafka.broker import EmbeddedKafka
from streams.kafka.broker_security import BrokerSecurity

if TYPE_CHECKING:
    from collections.abc import Iterator

USERS = {"nodes": "between-brokers", "worker": "open-sesame"}


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, what it signed, and an authority that nobody trusts."""

    authority: Path
    keystore: Path
    client: Path
    client_key: Path
    stranger: Path
    stranger_client: Path


@dataclass(frozen=True)
class SecureKafka:
    """A broker that asks for TLS or a login."""

    broker: EmbeddedKafka
    certificates: Certificates
    security: BrokerSecurity

    def settings(self, **changes: Any) -> Settings:
        """Settings that are let in, with these changes."""
        right: dict[str, Any] = {
            "bootstrap": self.broker.bootstrap,
            "security_protocol": self.security.protocol,
            "ssl_cafile": self.certificates.authority,
        }
        if self.security.has_logins:
            right |= {"sasl_username": "worker", "sasl_password": USERS["worker"]}
        return load_settings(**{**right, **changes})


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Made anew by each run; nothing of it is kept."""
    trustme = pytest.importorskip("trustme", reason="needs trustme to make certificates; see `make setup`")
    folder = tmp_path_factory.mktemp("certificates")
    ca, strange_ca = trustme.CA(), trustme.CA()
    broker, client = ca.issue_cert("127.0.0.1"), ca.issue_cert("worker@nearstream.example")
    made = Certificates(*(folder / f"{name}.pem" for name in Certificates.__annotations__))
    made.authority.write_bytes(ca.cert_pem.bytes())
    made.keystore.write_bytes(_pkcs8(broker.private_key_pem.bytes()) + broker.cert_chain_pems[0].bytes())
    made.client.write_bytes(client.cert_chain_pems[0].bytes())
    made.client_key.write_bytes(client.private_key_pem.bytes())
    made.stranger.write_bytes(strange_ca.cert_pem.bytes())
    made.stranger_client.write_bytes(
        strange_ca.issue_cert("thief@nearstream.example").private_key_and_cert_chain_pem.bytes()
    )
    return made


def _pkcs8(key: bytes) -> bytes:
    """The form of a key that Kafka reads."""
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - comes with trustme
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    return load_pem_private_key(key, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@contextmanager
def _secure(
    folder: Path, jars_dir: Path, certificates: Certificates, security: BrokerSecurity
) -> Iterator[SecureKafka]:
    broker = EmbeddedKafka(folder, brokers=1, port=0, die_with_owner=True, jars_dir=jars_dir, security=security)
    with broker:
        yield SecureKafka(broker, certificates, security)


@pytest.fixture(scope="module")
def sasl_ssl_kafka(
    tmp_path_factory: pytest.TempPathFactory, jars_dir: Path, certificates: Certificates
) -> Iterator[SecureKafka]:
    """TLS and logins, by PLAIN and by SCRAM."""
    security = BrokerSecurity("SASL_SSL", certificates.keystore, certificates.authority, users=USERS)
    with _secure(tmp_path_factory.mktemp("sasl-ssl"), jars_dir, certificates, security) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def mtls_kafka(
    tmp_path_factory: pytest.TempPathFactory, jars_dir: Path, certificates: Certificates
) -> Iterator[SecureKafka]:
    """TLS where the client must show a certificate."""
    security = BrokerSecurity("SSL", certificates.keystore, certificates.authority, client_certificates=True)
    with _secure(tmp_path_factory.mktemp("mtls"), jars_dir, certificates, security) as kafka:
        yield kafka
