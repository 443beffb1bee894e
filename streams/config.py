"""Every setting, declared once: name, default, unit, meaning. Only this file reads the environment.

Precedence: command-line flags, then `NEARSTREAM_*` variables, then `nearstream.toml` in the working directory,
then the defaults below.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, IPvAnyNetwork, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from streams.core.errors import UsageError
from streams.core.events import EventType

DEFAULT_TYPE_WEIGHTS: dict[EventType, float] = {
    EventType.VIEW: 1.0,
    EventType.CLICK: 1.5,
    EventType.SEARCH: 0.5,
    EventType.IMPRESSION: 0.0,
    EventType.RATING: 3.0,
    EventType.COMMENT: 2.0,
    EventType.SHARE: 3.0,
    EventType.BOOKMARK: 3.0,
    EventType.FOLLOW: 3.0,
    EventType.LIKE: 3.0,
    EventType.CART: 4.0,
    EventType.PURCHASE: 6.0,
    EventType.DISLIKE: -3.0,
    EventType.REMOVE: -2.0,
}
HEARTBEATS_PER_SESSION_MIN = 3
TLS_SETTINGS = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_key_password")
PLAINTEXT = {"security_protocol": "PLAINTEXT", **dict.fromkeys(TLS_SETTINGS, "")}
"""Settings of a child that talks to the embedded Kafka, whatever its surroundings say of another cluster."""
TOKEN_SETTINGS = ("read_token", "write_token")
TOKEN_CHARS_MIN = 16
LOGIN_IN_URL = re.compile(r"://[^/\s]*@")
SECRET_SETTINGS = frozenset({"sasl_password", "ssl_key_password", *TOKEN_SETTINGS})
EXCLUDED_ITEMS_LIMIT = 700
"""With the recent items, ids of 256 characters of 4 bytes then still fit one record of 1 MiB, Kafka's default bound."""


class Settings(BaseSettings):
    """The settings of every command, frozen once loaded."""

    model_config = SettingsConfigDict(
        env_prefix="NEARSTREAM_", toml_file="nearstream.toml", frozen=True, extra="forbid"
    )

    _flags: frozenset[str] = PrivateAttr(frozenset())

    # Kafka
    bootstrap: str = Field("127.0.0.1:9092", description="Kafka bootstrap servers, host:port[,host:port].")
    prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]*$", description="Put before every topic name.")
    group: str = Field("nearstream", min_length=1, description="Consumer group of the workers.")
    partitions: int = Field(8, ge=1, le=1024, description="Partitions of each topic when they are created.")
    replication: int = Field(1, ge=1, le=5, description="Replication factor of topics when they are created.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How clients talk to Kafka."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="SASL mechanism, used with a SASL security protocol."
    )
    sasl_username: str | None = Field(None, description="SASL user name.")
    sasl_password: SecretStr | None = Field(None, description="SASL password; never printed.")
    ssl_cafile: Path | None = Field(None, description="PEM file with the certificate authority to trust.")
    ssl_certfile: Path | None = Field(None, description="PEM file with the client's certificate, for mTLS.")
    ssl_keyfile: Path | None = Field(None, description="PEM file with the client's key, for mTLS.")
    ssl_key_password: SecretStr | None = Field(None, description="Password of an encrypted key; never printed.")
    ssl_check_hostname: bool = Field(True, description="Whether a broker's certificate must name its address.")

    # This machine
    data_dir: Path = Field(
        Path("~/.local/share/nearstream"),
        description="Folder of the embedded broker's jars and data, and of workers' saved memory.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="Log lines for people or machines; auto is console on a terminal."
    )
    web_host: str = Field("127.0.0.1", description="Address of the worker's metrics and health endpoints.")
    web_port: int = Field(6066, ge=0, le=65535, description="Port of the worker's web endpoints; 0 = any.")
    web_url: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="Where page and commands reach the worker's web endpoints, such as http://worker-1.internal:6066; "
        "unset = its host and port.",
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="Where traces go by OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; unset = no traces.",
    )
    dashboard_host: str = Field("127.0.0.1", description="Address that the live page listens on.")
    dashboard_port: int = Field(8686, ge=0, le=65535, description="Port of the live page; 0 = any free one.")
    dashboard_local_only: bool = Field(
        False,
        description="The page's port is reached from this machine only, whatever it listens on, as a container's that "
        "is published on 127.0.0.1: no token is needed.",
    )

    # Who may do what on the page and the API
    read_token: SecretStr | None = Field(
        None, min_length=TOKEN_CHARS_MIN, description="Bearer token that may read; never printed."
    )
    write_token: SecretStr | None = Field(
        None, min_length=TOKEN_CHARS_MIN, description="Bearer token that may read and write; never printed."
    )
    trusted_user_header: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]+$",
        description="Header in which a login proxy names who asks, such as X-Forwarded-User; they may read.",
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        (), description="Networks, as 10.0.0.0/8, whose trusted_user_header and X-Forwarded-For are believed."
    )
    writers: tuple[str, ...] = Field((), description="Names in trusted_user_header that may write too.")
    api_requests_per_s: float = Field(
        2000.0,
        ge=0,
        le=1_000_000,
        description="Requests a second from one address, and twice as many at once, before 429; 0 = no limit.",
    )
    api_memory_mb: int = Field(
        512, ge=1, le=1_000_000, description="Most MB of lists and profiles that the page's process keeps at hand."
    )

    # Worker
    worker_id: str | None = Field(None, description="Name on the page and in `status`; default host-pid.")
    group_instance_id: str | None = Field(
        None, description="Static group membership id; a restart within the session then moves no partition."
    )
    batch_events_max: int = Field(2000, ge=1, le=100_000, description="Most events in one transaction.")
    freshness_target_ms: int = Field(
        500,
        ge=0,
        le=600_000,
        description="Event sent to list committed: batches follow it, and what would miss it is shed; 0 = no target.",
    )
    linger_ms: int = Field(20, ge=0, le=1000, description="Wait for more events when a batch is not full.")
    session_timeout_ms: int = Field(10_000, ge=6000, description="A silent worker loses its partitions after this.")
    heartbeat_interval_ms: int = Field(1000, ge=100, description="Pause between two heartbeats.")
    rebalance_timeout_ms: int = Field(20_000, ge=5000, description="Most time that a rebalance may take.")
    transaction_timeout_ms: int = Field(15_000, ge=1000, description="Kafka aborts a transaction after this.")
    dead_letter_share_max: float = Field(
        0.5, gt=0, le=1, description="Share of dead letters in the last 1,000 records that stops the worker."
    )
    dead_letter_run_max: int = Field(
        1000, ge=1, description="Dead letters in a row, on one partition, that stop the worker."
    )
    snapshot_interval_s: float = Field(
        600.0,
        ge=0,
        le=36_000,
        description="Seconds between two saves of a worker's memory to data_dir, for its next start; 0 = never.",
    )
    forget_deadline_s: float = Field(
        3600.0, ge=1, le=604_800, description="Seconds after which no saved file holds a forgotten user any more."
    )
    weights_interval_s: float = Field(
        30.0,
        ge=0,
        le=36_000,
        description="Seconds between two writes of what a worker learned of the sources; 0 = never.",
    )

    # Profiles
    model: str = Field(
        "decayed-mean",
        description="Encoder of the profiles: `decayed-mean`, or a folder that `nearstream train` wrote.",
    )
    model_check_interval_s: float = Field(
        10.0,
        ge=0,
        le=86_400,
        description="Seconds between two looks whether the model folder holds another model; 0 = never.",
    )
    images: Path | None = Field(
        None, description="Folder that the `image` of an item is looked up in, for a model that sees images."
    )
    dim: int = Field(
        64, ge=8, le=256, description="Length of profile and item vectors; a trained model brings its own."
    )
    half_life_days: float = Field(14.0, gt=0, le=36_500, description="Days after which an event counts half.")
    recent_items: int = Field(32, ge=1, le=255, description="Recent items kept in each profile.")
    event_id_window: int = Field(24, ge=1, le=255, description="Event ids kept to spot a client's retry.")
    excluded_items_max: int = Field(
        500, ge=1, le=EXCLUDED_ITEMS_LIMIT, description="Bought or disliked items remembered for each user."
    )
    type_weights: dict[EventType, Annotated[float, Field(ge=-1000, le=1000)]] = Field(
        DEFAULT_TYPE_WEIGHTS, description="How far an event of each type moves the profile; negative repels."
    )

    # Index
    canary_interval_s: float = Field(
        60.0, ge=1, le=86_400, description="Seconds between two checks of the index by canary queries."
    )
    recall_min: float = Field(
        0.95, gt=0, le=1, description="Share of the exact neighbours below which the index is built anew."
    )

    # Lists
    neighbours: int = Field(10, ge=1, le=100, description="Neighbours in each list.")
    list_items: int = Field(20, ge=1, le=200, description="Items in each list.")
    neighbour_candidates: int = Field(50, ge=1, le=1000, description="Neighbours whose recent items are candidates.")
    reverse_refreshes_per_s: float = Field(
        100.0,
        ge=0,
        le=100_000,
        description="Lists a second, by worker, refreshed because a neighbour came near or went; 0 = none.",
    )
    trend_half_lives_hours: tuple[Annotated[float, Field(gt=0, le=876_000)], ...] = Field(
        (12.0, 96.0, 2160.0),
        min_length=2,
        max_length=4,
        description="Hours after which popularity halves, one trend each, ascending.",
    )
    candidates: int = Field(30, ge=1, le=500, description="Items that each source proposes.")
    interests: int = Field(
        1, ge=1, le=4, description="Tastes of a user that are looked at apart; 1 = the profile is the only one."
    )
    rules: Path | None = Field(None, description="TOML file of business rules, read again when it changes.")
    diversity: float = Field(
        0.0, ge=0, le=1, description="How much items of a list must differ; 0 = by score only, 1 = by difference only."
    )
    diversity_by: Literal["msd", "mmr", "dpp"] = Field(
        "msd",
        description="msd: far from the list's items on average; mmr: unlike the most similar of them; dpp: unlike all "
        "of them together.",
    )
    diversity_head: int = Field(
        4, ge=0, le=200, description="First places of a list that go by score, whatever diversity asks for."
    )
    calibration: float = Field(
        0.0, ge=0, le=1, description="How much a list must have the categories of the user's recent items; 0 = not."
    )
    repeats: bool = Field(False, description="Recommend items that the user has seen or bought.")
    position_bias: Literal["on", "off"] = Field(
        "on", description="on: a reaction to a list counts more the further down it came; off: no places are learned."
    )
    exploration: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Share of the lists that try one pair of items, half of them the other way round, to learn what "
        "places are looked at; 0, or position_bias off = none.",
    )

    @field_validator("type_weights", mode="after")
    @classmethod
    def _complete_weights(cls, given: dict[EventType, float]) -> dict[EventType, float]:
        return {**DEFAULT_TYPE_WEIGHTS, **given}

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        self._check_security()
        self._check_rights()
        if HEARTBEATS_PER_SESSION_MIN * self.heartbeat_interval_ms > self.session_timeout_ms:
            raise ValueError(
                f"heartbeat_interval_ms may be a third of session_timeout_ms at most, "
                f"got {self.heartbeat_interval_ms} and {self.session_timeout_ms}"
            )
        if self.neighbours > self.neighbour_candidates:
            raise ValueError(
                f"neighbours may be neighbour_candidates at most, got {self.neighbours} and {self.neighbour_candidates}"
            )
        return self

    @field_validator(*TLS_SETTINGS, *TOKEN_SETTINGS, "trusted_user_header", "web_url", mode="before")
    @classmethod
    def _empty_is_none(cls, given: object) -> object:
        """So that a variable can take back what the file says."""
        return None if given == "" else given

    def _check_security(self) -> None:
        """What would be refused later, or worse, would go unused without a word."""
        protocol = self.security_protocol
        if protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ValueError(f"security_protocol {protocol} needs sasl_username and sasl_password")
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ValueError("ssl_keyfile needs the certificate it belongs to, in ssl_certfile")
        unused = [name for name in TLS_SETTINGS if getattr(self, name) is not None and not protocol.endswith("SSL")]
        if unused:
            raise ValueError(
                f"{', '.join(unused)}: expected security_protocol SSL or SASL_SSL beside it, got {protocol}, which "
                "would connect without TLS"
            )

    def _check_rights(self) -> None:
        """What would give a right to nobody, or to more than were meant."""
        if self.read_token is not None and self.read_token == self.write_token:
            raise ValueError("read_token and write_token must differ: whoever may read could write")
        if self.trusted_user_header is not None and not self.trusted_proxies:
            raise ValueError(
                "trusted_user_header needs the networks of the proxies that set it, in trusted_proxies: anybody could "
                "send it"
            )
        if self.writers and self.trusted_user_header is None:
            raise ValueError("writers are named by a login proxy: expected trusted_user_header beside them")

    @field_validator("trend_half_lives_hours", mode="after")
    @classmethod
    def _ascending(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        if any(later <= earlier for earlier, later in pairwise(given)):
            raise ValueError(f"expected ascending half-lives, got {list(given)}")
        return given

    @field_validator("data_dir", mode="after")
    @classmethod
    def _expand_home(cls, given: Path) -> Path:
        return given.expanduser()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not used: no hidden .env file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(**flags: Any) -> Settings:
    """Settings from all sources; `None` flags count as not given.

    Raises:
        UsageError: a flag or a name in the file is unknown, a value is of the wrong type or out of range, two do
            not fit each other, or the file is no TOML; all are named. An unknown variable is not an error: Kubernetes
            sets some for a service of that name.
    """
    try:
        given = {name: value for name, value in flags.items() if value is not None}
        settings = Settings(**given)
        settings._flags = frozenset(given)
    except ValidationError as error:
        lines = [_complaint(details) for details in error.errors()]
    except SettingsError as error:
        lines = [f"  {error}: expected JSON (got {str(error.__cause__)!r})"]
    except (TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        lines = [f"  nearstream.toml: expected a TOML file (got {str(error)!r})"]
    else:
        return settings
    raise UsageError(
        "These settings are not usable:\n" + "\n".join(lines) + "\n"
        "Correct the flag, the NEARSTREAM_* variable or nearstream.toml; docs/settings.md lists them all."
    )


def child_environment(**settings: object) -> dict[str, str]:
    """The environment of a program of ours that this process starts: our own, with these settings in place of its own.

    BLAS gets one thread there (rule 7).

    Raises:
        ValueError: there is no setting of one of these names.
    """
    unknown = settings.keys() - Settings.model_fields.keys()
    if unknown:
        raise ValueError(f"expected names of settings, got {', '.join(sorted(unknown))}")
    given = {f"NEARSTREAM_{name.upper()}": str(value) for name, value in settings.items()}
    return {**os.environ, **given, "OMP_NUM_THREADS": "1"}


SettingSource = Literal["flag", "environment", "nearstream.toml", "default"]


class SettingInForce(NamedTuple):
    """A setting as it counts, for reading: a secret's value is hidden."""

    name: str
    value: Any
    source: SettingSource
    description: str


def settings_in_force(settings: Settings) -> list[SettingInForce]:
    """Every setting with its value and where it came from, in the order of their declaration.

    Raises what the sources raise when `nearstream.toml` is no longer readable.
    """
    environment = set(EnvSettingsSource(Settings)())
    file = set(TomlConfigSettingsSource(Settings)())
    found = []
    for name, field in Settings.model_fields.items():
        source: SettingSource = "default"
        if name in settings._flags or name in settings.model_fields_set - environment - file:
            source = "flag"
        elif name in settings.model_fields_set:
            source = "environment" if name in environment else "nearstream.toml"
        found.append(SettingInForce(name, _shown(name, getattr(settings, name)), source, field.description or ""))
    return found


def _shown(name: str, value: Any) -> Any:
    """The value without what nobody may read: secrets, and a login within an address."""
    if name in SECRET_SETTINGS and value is not None:
        return "hidden"
    return LOGIN_IN_URL.sub("://hidden@", value) if isinstance(value, str) else value


def _complaint(details: ErrorDetails) -> str:
    """One line; the value is left out where it would show a secret."""
    where, message = details["loc"], details["msg"].removeprefix("Value error, ")
    if not where:  # several settings together: the input is all of them
        return f"  {message}"
    got = "" if where[0] in SECRET_SETTINGS else f" (got {details['input']!r})"
    return f"  {'.'.join(map(str, where))}: {message}{got}"
