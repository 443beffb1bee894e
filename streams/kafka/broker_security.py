"""TLS and logins of an embedded Kafka, for who wants to try or test them on this machine."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from streams.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SAFE = re.compile(r"[A-Za-z0-9._-]+")
_LOGIN = "org.apache.kafka.common.security"


@dataclass(frozen=True, slots=True)
class BrokerSecurity:
    """What every node asks of its clients, and of the other nodes, on the clients' port.

    Attributes:
        protocol: of the port.
        keystore: PEM file of the brokers: the key (PKCS#8), then its certificate, for 127.0.0.1. With TLS only.
        truststore: PEM file of the authorities that signed the certificates of brokers and clients. With TLS only.
        client_certificates: whether a client must show a certificate (mTLS).
        users: name to password; each may come by PLAIN and by SCRAM. The first is the nodes' own. With SASL only.

    Raises:
        UsageError: something is missing for the protocol, or a name or password has characters beyond `[A-Za-z0-9._-]`.
    """

    protocol: Literal["SSL", "SASL_PLAINTEXT", "SASL_SSL"]
    keystore: Path | None = None
    truststore: Path | None = None
    client_certificates: bool = False
    users: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.has_tls and None in (self.keystore, self.truststore):
            raise UsageError(f"A broker with {self.protocol} needs a keystore and a truststore.")
        if self.has_logins and not self.users:
            raise UsageError(f"A broker with {self.protocol} needs at least one user.")
        for name, password in self.users.items():
            if not (_SAFE.fullmatch(name) and _SAFE.fullmatch(password)):
                raise UsageError(f"Name and password of the broker's user {name!r} may have letters, digits, and . _ -")

    @property
    def has_tls(self) -> bool:
        """Whether the port speaks TLS."""
        return self.protocol.endswith("SSL")

    @property
    def has_logins(self) -> bool:
        """Whether clients log in."""
        return self.protocol.startswith("SASL")

    def properties(self) -> str:
        """Lines for `server.properties`; they hold the passwords."""
        lines: dict[str, object] = {"inter.broker.listener.name": self.protocol}
        if self.has_tls:
            lines |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": self.keystore,
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": self.truststore,
                # On the listener, since Kafka ignores the plain one beside SASL.
                f"listener.name.{self.protocol.lower()}.ssl.client.auth": (
                    "required" if self.client_certificates else "none"
                ),
            }
        if self.has_logins:
            lines |= self._logins()
        return "".join(f"{name}={value}\n" for name, value in lines.items())

    def _logins(self) -> dict[str, object]:
        listener = f"listener.name.{self.protocol.lower()}"
        own, password = next(iter(self.users.items()))
        known = " ".join(f'user_{name}="{secret}"' for name, secret in self.users.items())
        scram = f"{_LOGIN}.scram.ScramLoginModule required;"
        return {
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            f"{listener}.plain.sasl.jaas.config": (
                f'{_LOGIN}.plain.PlainLoginModule required username="{own}" password="{password}" {known};'
            ),
            f"{listener}.scram-sha-256.sasl.jaas.config": scram,
            f"{listener}.scram-sha-512.sasl.jaas.config": scram,
        }

    def format_arguments(self) -> list[str]:
        """Arguments of Kafka's StorageTool that put the users' SCRAM logins into the first metadata."""
        if not self.has_logins:
            return []
        return [
            argument
            for name, password in self.users.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for argument in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
        ]

    def probe_context(self) -> ssl.SSLContext | None:
        """TLS for the question whether a node answers; it trusts whatever listens, and shows the nodes' certificate."""
        if not self.has_tls:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        assert self.keystore is not None
        context.load_cert_chain(self.keystore)
        return context
