"""What a worker tells now and then: settings without secrets, models, rules; when it does; and who remembers it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from streams.config import SECRET_SETTINGS, Settings, load_settings, settings_in_force
from streams.core.observation import Observation
from streams.core.status import DETAILS_EVERY_S, ModelStatus, SwapOverlap, WorkerStatus, WorkerTotals
from streams.core.worker_details import ModelReport, WorkerDetails
from streams.dashboard.details_view import OWN_SETTINGS, details_view
from streams.dashboard.history import History
from streams.dashboard.view import overview
from streams.kafka.details import DetailsReporter, setting_reports
from streams.kafka.observed import Observed
from streams.kafka.topics import Topics
from tests.fakes import START_MS, connected, observation, worker_status
from tests.fakes_core import world
from tests.fakes_status import rules_report, trained_report, worker_details

SECRET = "do-not-tell-this-secret-0123"


def told(settings: Settings) -> dict[str, tuple[str, str]]:
    """Value and source by name."""
    return {report.name: (report.value, report.source) for report in setting_reports(settings)}


@pytest.mark.parametrize("name", sorted(SECRET_SETTINGS))
def test_no_secret_is_ever_told(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Neither its value nor a part of it, in the whole record; that there is one is no secret."""
    monkeypatch.setenv(f"NEARSTREAM_{name.upper()}", SECRET)
    if name in {"sasl_password", "ssl_key_password"}:
        beside = {"security_protocol": "SASL_SSL", "sasl_username": "me", "sasl_password": SECRET}
        for more, value in {**beside, "ssl_certfile": "/cert.pem", "ssl_keyfile": "/key.pem"}.items():
            monkeypatch.setenv(f"NEARSTREAM_{more.upper()}", value)
    settings = load_settings()
    record = msgspec.json.encode(worker_status(details=DetailsReporter(settings, world().engine).now()))
    assert SECRET.encode() not in record
    assert told(settings)[name] == ("hidden", "environment")


def test_every_setting_that_holds_a_secret_is_known_as_one() -> None:
    """Whoever declares another SecretStr must name it."""
    secret = {name for name, found in Settings.model_fields.items() if "SecretStr" in str(found.annotation)}
    assert secret == SECRET_SETTINGS


def test_a_login_in_an_address_is_hidden_too() -> None:
    """The rest of the address is told."""
    settings = load_settings(otlp_endpoint=f"http://me:{SECRET}@collector:4318/v1/traces")
    assert told(settings)["otlp_endpoint"] == ("http://hidden@collector:4318/v1/traces", "flag")


def test_settings_are_told_with_their_source_as_people_write_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Text as it is, the rest as JSON; all of them, in the order of their declaration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nearstream.toml").write_text("list_items = 12\n")
    monkeypatch.setenv("NEARSTREAM_TREND_HALF_LIVES_HOURS", "[1, 2]")
    monkeypatch.setenv("NEARSTREAM_TRUSTED_PROXIES", '["10.0.0.0/8"]')
    found = told(load_settings(group="shop", rules=tmp_path / "rules.toml"))
    assert list(found) == list(Settings.model_fields)
    assert found["group"] == ("shop", "flag")
    assert found["list_items"] == ("12", "nearstream.toml")
    assert found["trend_half_lives_hours"] == ("[1.0,2.0]", "environment")
    assert found["trusted_proxies"] == ('["10.0.0.0/8"]', "environment")
    assert found["rules"] == (str(tmp_path / "rules.toml"), "flag")
    assert found["worker_id"] == ("null", "default")
    assert found["repeats"] == ("false", "default")
    assert len(settings_in_force(load_settings())) == len(found)


@dataclass
class FakeWatch:
    """A model folder or a rules file that tells what it is given."""

    held: list[Any] = field(default_factory=list)

    def reports(self) -> list[ModelReport]:
        """As a `ModelWatch`."""
        return self.held

    def report(self) -> Any:
        """As a `RulesWatch`."""
        return self.held[-1]


def test_details_are_due_at_first_when_they_change_and_every_half_minute() -> None:
    """Until they are on the topic they stay due."""
    reporter = DetailsReporter(load_settings(), world().engine)
    first = reporter.due(1000.0)
    assert first is not None
    assert [(model.name, model.training) for model in first.models] == [("fake@1", None)]
    assert reporter.due(1000.5) == first, "nobody said that it was sent"
    reporter.told(first, 1000.5)
    assert reporter.due(1001.0) is None
    reporter.rules = FakeWatch([rules_report()])  # type: ignore[assignment]
    changed = reporter.due(1002.0)
    assert changed is not None
    assert changed.rules == rules_report()
    reporter.told(changed, 1002.0)
    reporter.models = FakeWatch([trained_report()])  # type: ignore[assignment]
    assert reporter.due(1003.0).models == [trained_report()]  # type: ignore[union-attr]
    reporter.told(reporter.now(), 1003.0)
    assert reporter.due(1003.0 + DETAILS_EVERY_S - 1) is None
    assert reporter.due(1003.0 + DETAILS_EVERY_S) is not None


@dataclass
class Record:
    """As much of aiokafka's record as memory reads."""

    value: bytes
    key: bytes = b"w1"
    topic: str = "status"
    offset: int = 0
    headers: tuple[()] = ()


def observed(*statuses: WorkerStatus) -> dict[str, WorkerStatus]:
    """What is remembered of these reports."""
    memory = Observed(Topics(), "nearstream")
    memory.add("status", [Record(msgspec.json.encode(status)) for status in statuses])  # type: ignore[list-item]
    return memory.workers


def test_the_observer_remembers_details_until_the_worker_starts_anew() -> None:
    """Reports in between carry none."""
    full, later = worker_status("w1", details=worker_details()), worker_status("w1", now_ms=START_MS + 1000)
    later = msgspec.structs.replace(later, started_at=full.started_at)
    assert observed(full, later)["w1"] == msgspec.structs.replace(later, details=worker_details())
    anew = worker_status("w1", now_ms=START_MS + 9000)
    assert observed(full, anew)["w1"].details is None


def test_records_are_read_both_ways() -> None:
    """Those of before have neither details, overlap nor short lists; a reader of before passes over what is new."""
    overlap = SwapOverlap("decayed-mean@1", 256, 10, 0.31, None)
    folder = ModelStatus("models/shop", False, None, None, 0.0, 1, 0, 12.0, 3.0, overlap)
    status = worker_status(details=worker_details(), folder=folder)
    written = msgspec.json.encode(status)
    assert msgspec.json.decode(written, type=WorkerStatus) == status
    old = msgspec.json.decode(written)
    del old["details"], old["folder"]["overlap"], old["totals"]["short_lists"]
    read = msgspec.json.decode(msgspec.json.encode(old), type=WorkerStatus)
    assert read.details is None
    assert read.folder is not None
    assert (read.folder.overlap, read.totals.short_lists) == (None, {})

    class Before(msgspec.Struct):
        worker: str
        model: str

    assert msgspec.json.decode(written, type=Before) == Before(status.worker, status.model)


def seen(**details: WorkerDetails | None) -> Observation:
    """Workers by name, all reporting."""
    workers = [worker_status(name, details=each) for name, each in details.items()]
    return Observation(connected(), START_MS, workers=workers)


def test_settings_of_workers_stand_side_by_side_and_differences_are_marked() -> None:
    """But not of what each worker has its own of; alike values stand once."""
    other = worker_details(list_items=30)
    own = [s if s.name != "worker_id" else msgspec.structs.replace(s, value="w2") for s in other.settings]
    view = details_view(
        seen(w2=msgspec.structs.replace(other, settings=own), w1=worker_details(), w3=None),
        START_MS,
        {"list_items": "Items in each list."},
    )
    assert (view.workers, view.unheard) == (["w1", "w2"], ["w3"])
    rows = {row.name: row for row in view.settings}
    assert [name for name, row in rows.items() if row.differs] == ["list_items"]
    assert rows["list_items"].description == "Items in each list."
    assert [(v.value, v.source, v.workers) for v in rows["list_items"].values] == [
        ("20", "default", ["w1"]),
        ("30", "nearstream.toml", ["w2"]),
    ]
    assert [v.workers for v in rows["neighbours"].values] == [["w1", "w2"]]
    assert "worker_id" in OWN_SETTINGS
    assert Settings.model_fields.keys() >= OWN_SETTINGS


def test_a_setting_that_one_worker_does_not_know_differs() -> None:
    """Its program is another version."""
    old = worker_details(settings=worker_details().settings[:-1])
    rows = {row.name: row for row in details_view(seen(w1=old, w2=worker_details()), START_MS, {}).settings}
    assert rows["neighbours"].differs
    assert not rows["bootstrap"].differs


def test_alike_models_and_rules_stand_once() -> None:
    """Whenever each worker loaded them; other ones stand apart."""
    late = worker_details(rules=rules_report(loaded_at=START_MS))
    refused = worker_details(rules=rules_report(problem="line 3: no"), models=[trained_report("gated-recurrence@ffff")])
    view = details_view(seen(w1=worker_details(), w2=late, w3=refused), START_MS, {})
    assert [models.workers for models in view.models] == [["w1", "w2"], ["w3"]]
    assert [(rules.workers, rules.rules and rules.rules.loaded_at) for rules in view.rules] == [
        (["w1", "w2"], START_MS),
        (["w3"], 1_699_999_000_000),
    ]


def test_silent_workers_tell_nothing_any_more() -> None:
    """What they had in force says nothing of now."""
    gone = worker_status("w1", details=worker_details(), now_ms=START_MS - 60_000)
    view = details_view(observation([], [gone]), START_MS, {})
    assert (view.workers, view.unheard, view.settings, view.models, view.rules) == ([], [], [], [], [])


def test_short_lists_come_to_the_frame() -> None:
    """By reason, beside the number of lists."""
    totals = WorkerTotals(10, 9, 0, {}, 1, 0, short_lists={"rules": 4})
    (worker,) = overview(observation([], [worker_status(totals=totals)]), History(), "g", START_MS).workers
    assert (worker.lists, worker.short_lists) == (9, {"rules": 4})
