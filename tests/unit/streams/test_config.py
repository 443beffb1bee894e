"""Settings: where they come from, what is refused and in which words, and that each is documented."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from streams.config import (
    DEFAULT_TYPE_WEIGHTS,
    EXCLUDED_ITEMS_LIMIT,
    PLAINTEXT,
    Settings,
    child_environment,
    load_settings,
)
from streams.core.errors import UsageError
from streams.core.events import EVENT_TYPES, ID_CHARS_MAX, EventType

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _clean_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no file of the machine counts."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"NEARSTREAM_{name.upper()}", raising=False)


def refusal(**flags: Any) -> str:
    """The message with which these flags, on top of variables and file, are refused."""
    with pytest.raises(UsageError) as refused:
        load_settings(**flags)
    assert refused.value.__cause__ is None
    return str(refused.value)


def test_defaults_suit_a_broker_on_this_machine() -> None:
    """Without flags, variables and file everything has a value."""
    settings = load_settings()
    assert settings.bootstrap == "127.0.0.1:9092"
    assert settings.type_weights == DEFAULT_TYPE_WEIGHTS
    assert settings.data_dir == Path.home() / ".local/share/nearstream"


def test_flags_beat_variables_beat_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source fills in what those before it left open; a flag of None was not given."""
    Path("nearstream.toml").write_text('group = "file"\nprefix = "file"\npartitions = 3\n', encoding="utf-8")
    monkeypatch.setenv("NEARSTREAM_GROUP", "variable")
    monkeypatch.setenv("NEARSTREAM_PREFIX", "variable")
    settings = load_settings(group="flag", prefix=None, dim=None)
    assert (settings.group, settings.prefix, settings.partitions, settings.dim) == ("flag", "variable", 3, 64)


def test_no_hidden_env_file_is_read() -> None:
    """A `.env` file of some other program in the working directory is not ours."""
    Path(".env").write_text("NEARSTREAM_GROUP=hidden\n", encoding="utf-8")
    assert load_settings().group == "nearstream"


def test_settings_are_frozen() -> None:
    """Nobody changes them once they are loaded."""
    settings = load_settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.group = "other"


def test_given_weights_change_only_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other types keep their defaults, and the defaults themselves stay."""
    monkeypatch.setenv("NEARSTREAM_TYPE_WEIGHTS", '{"view": 0, "dislike": -9.5}')
    weights = load_settings().type_weights
    assert weights == {**DEFAULT_TYPE_WEIGHTS, EventType.VIEW: 0.0, EventType.DISLIKE: -9.5}
    assert DEFAULT_TYPE_WEIGHTS[EventType.VIEW] == 1.0


def test_every_type_has_a_default_weight() -> None:
    """A new event type without a weight would count as nothing."""
    assert set(DEFAULT_TYPE_WEIGHTS) == set(EVENT_TYPES)


def test_all_mistakes_are_named_at_once() -> None:
    """With the setting, what was expected and what came."""
    message = refusal(dim=3, linger_ms="soon", prefix="a b", nonsense=1)
    assert "dim: Input should be greater than or equal to 8 (got 3)" in message
    assert "linger_ms: Input should be a valid integer" in message
    assert "(got 'soon')" in message
    assert "prefix: String should match pattern" in message
    assert "nonsense: Extra inputs are not permitted (got 1)" in message
    assert "docs/settings.md lists them all" in message


@pytest.mark.parametrize(
    "flags",
    [
        {"half_life_days": float("inf")},
        {"half_life_days": float("nan")},
        {"half_life_days": 0},
        {"trend_half_life_hours": float("inf")},
        {"type_weights": {"view": float("nan")}},
        {"type_weights": {"view": float("inf")}},
        {"type_weights": {"view": 1e39}},
        {"type_weights": {"glance": 1.0}},
        {"dead_letter_share_max": 0},
        {"recent_items": 256},
        {"event_id_window": 0},
        {"excluded_items_max": EXCLUDED_ITEMS_LIMIT + 1},
        {"batch_events_max": 0},
        {"prefix": "ä"},
        {"group": ""},
    ],
    ids=str,
)
def test_values_that_would_fail_later_are_refused_now(flags: dict[str, Any]) -> None:
    """Numbers without end, widths that do not fit their columns, names that Kafka would not take."""
    assert next(iter(flags)) in refusal(**flags)


def test_the_largest_profile_fits_a_kafka_record() -> None:
    """The longest ids in the longest lists stay below the megabyte that brokers accept by default."""
    settings = load_settings(excluded_items_max=EXCLUDED_ITEMS_LIMIT, recent_items=255, event_id_window=255, dim=256)
    item_bytes = ID_CHARS_MAX * 4 + 3
    total = (settings.excluded_items_max + settings.recent_items) * item_bytes + item_bytes
    total += settings.recent_items * 5 + settings.event_id_window * 8 + settings.dim * 5 + 200
    assert total < 1_000_000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"security_protocol": "SASL_SSL"}, "SASL_SSL needs sasl_username and sasl_password"),
        ({"security_protocol": "SASL_PLAINTEXT", "sasl_username": "me"}, "needs sasl_username and sasl_password"),
        ({"security_protocol": "SASL_SSL", "sasl_username": "me", "sasl_password": ""}, "needs sasl_username and"),
        ({"security_protocol": "SSL", "ssl_keyfile": "key.pem"}, "ssl_keyfile needs the certificate"),
        ({"ssl_cafile": "ca.pem"}, "ssl_cafile: expected security_protocol SSL or SASL_SSL beside it, got PLAINTEXT"),
        ({"heartbeat_interval_ms": 4000}, "a third of session_timeout_ms at most, got 4000 and 10000"),
        ({"neighbours": 60}, "neighbour_candidates at most, got 60 and 50"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(flags: dict[str, Any], message: str) -> None:
    """With both values, since either may be the wrong one."""
    assert message in refusal(**flags)


def test_an_empty_variable_takes_back_a_tls_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a child can talk to the embedded Kafka whatever nearstream.toml says of another cluster."""
    Path("nearstream.toml").write_text('security_protocol = "SSL"\nssl_cafile = "ca.pem"\n', encoding="utf-8")
    assert load_settings().ssl_cafile == Path("ca.pem")
    for name, value in child_environment(**PLAINTEXT).items():
        monkeypatch.setenv(name, value)
    assert (load_settings().security_protocol, load_settings().ssl_cafile) == ("PLAINTEXT", None)


def test_a_child_gets_our_environment_with_settings_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which count there before ours; a name that is no setting would be passed over there, so it is refused here."""
    monkeypatch.setenv("NEARSTREAM_GROUP", "ours")
    monkeypatch.setenv("NEARSTREAM_PREFIX", "kept.")
    environment = child_environment(group="theirs", web_port=7070)
    assert (environment["NEARSTREAM_GROUP"], environment["NEARSTREAM_PREFIX"]) == ("theirs", "kept.")
    assert (environment["NEARSTREAM_WEB_PORT"], environment["OMP_NUM_THREADS"]) == ("7070", "1")
    with pytest.raises(ValueError, match="expected names of settings, got web_prot"):
        child_environment(web_prot=7070)


def test_a_variable_that_is_no_json_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a setting is an object the message says that JSON was expected."""
    monkeypatch.setenv("NEARSTREAM_TYPE_WEIGHTS", "view=2")
    message = refusal()
    assert '"type_weights"' in message
    assert "expected JSON" in message


@pytest.mark.parametrize("content", [b"group = ", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_file_that_is_no_toml_is_refused(content: bytes) -> None:
    """By its name, not with a traceback."""
    Path("nearstream.toml").write_bytes(content)
    assert "nearstream.toml: expected a TOML file" in refusal()


def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the settings nor in a message about it or about others."""
    monkeypatch.setenv("NEARSTREAM_SASL_PASSWORD", "open-sesame")
    assert "open-sesame" not in repr(load_settings(security_protocol="SASL_SSL", sasl_username="me"))
    assert "open-sesame" not in refusal(security_protocol="SASL_SSL", dim=1)
    assert "open-sesame" not in refusal(security_protocol="SASL_SSL")
    monkeypatch.delenv("NEARSTREAM_SASL_PASSWORD")
    Path("nearstream.toml").write_text("sasl_password = 4711\n", encoding="utf-8")
    message = refusal()
    assert "sasl_password: Input should be a valid string" in message
    assert "4711" not in message


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described(name: str) -> None:
    """In a sentence."""
    description = Settings.model_fields[name].description
    assert description is not None
    assert description.endswith(".")
    assert len(description.split()) >= 3


def test_the_reference_of_settings_is_current() -> None:
    """Run `python docs/generate_reference.py` after a change of streams/config.py."""
    generated = runpy.run_path(str(ROOT / "docs" / "generate_reference.py"))["settings_page"]()
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == generated
    assert all(f"| `{name}` | `NEARSTREAM_{name.upper()}` |" in generated for name in Settings.model_fields)
