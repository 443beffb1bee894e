"""What a worker's status record carries only now and then: see `streams.core.worker_details`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from streams.config import settings_in_force
from streams.core.status import DETAILS_EVERY_S
from streams.core.worker_details import SettingReport, WorkerDetails, shortened
from streams.kafka.model_watch import plain_report

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.kafka.model_watch import ModelWatch
    from streams.kafka.rules_watch import RulesWatch
    from streams.recommend.engine import Engine


class DetailsReporter:
    """Says when the details are due: at first, when they have changed, and every DETAILS_EVERY_S seconds."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        """Reads the settings' sources once; they are frozen. Raises what `settings_in_force` raises."""
        self.models: ModelWatch | None = None
        """None where the settings name a built-in model."""
        self.rules: RulesWatch | None = None
        """None where they name no rules file."""
        self._engine = engine
        self._settings = setting_reports(settings)
        self._told: WorkerDetails | None = None
        self._told_s = 0.0

    def due(self, now_s: float) -> WorkerDetails | None:
        """The details of now, epoch seconds; None while the readers of the topic have them from lately."""
        details = self.now()
        if details == self._told and now_s - self._told_s < DETAILS_EVERY_S:
            return None
        return details

    def told(self, details: WorkerDetails, now_s: float) -> None:
        """They are on the topic."""
        self._told, self._told_s = details, now_s

    def now(self) -> WorkerDetails:
        """As they are now."""
        encoder = self._engine.encoder
        return WorkerDetails(
            settings=self._settings,
            models=[plain_report(encoder.name, encoder.dim)] if self.models is None else self.models.reports(),
            rules=None if self.rules is None else self.rules.report(),
        )


def setting_reports(settings: Settings) -> list[SettingReport]:
    """Every setting in force, with its source; secrets hidden."""
    return [SettingReport(found.name, _text(found.value), found.source) for found in settings_in_force(settings)]


def _text(value: object) -> str:
    plain = msgspec.to_builtins(value, enc_hook=str)
    return shortened(plain if isinstance(plain, str) else msgspec.json.encode(plain).decode())
