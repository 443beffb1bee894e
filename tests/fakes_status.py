"""What a worker reports about its index, and of itself now and then, for tests of the page and of its reader."""

from __future__ import annotations

import msgspec

from streams.core.status import IndexStatus
from streams.core.worker_details import (
    ModelReport,
    RuleSentence,
    RulesReport,
    SettingReport,
    TrainingCurve,
    TrainingReport,
    WorkerDetails,
)


def index_status(**changes: object) -> IndexStatus:
    """A graph of 100,000 users in good order, checked twelve seconds ago."""
    status = IndexStatus(
        tier="hnsw",
        users=98_500,
        memory_bytes=84_000_000,
        recall=0.978,
        recall_min=0.95,
        self_miss_share=0.002,
        canary_queries=256,
        checked_s_ago=12.0,
        graph_rows=100_000,
        segments=2,
        delta=3210,
        moved=4000,
        dead=1500,
        dead_share=0.015,
        ef=64,
        generation=4,
        generation_age_s=754.0,
        build_s=8.4,
        building=False,
        build_progress=0.0,
        erasures_pending=0,
        failed_builds=0,
        warnings=[],
    )
    return msgspec.structs.replace(status, **changes)


def scanned_status(**changes: object) -> IndexStatus:
    """A small index that is scanned and not checked yet."""
    nothing = dict.fromkeys(
        ("graph_rows", "segments", "delta", "moved", "dead", "ef", "generation", "canary_queries"), 0
    )
    unknown = dict.fromkeys(("recall", "self_miss_share", "checked_s_ago"))
    floats = dict.fromkeys(("dead_share", "generation_age_s", "build_s"), 0.0)
    small = {"tier": "exact", "users": 1313, "memory_bytes": 410_000}
    return index_status(**small, **nothing, **unknown, **floats, **changes)


def curve(best: int = 2) -> TrainingCurve:
    """Four looks; the third was the best."""
    return TrainingCurve(
        steps=[64, 128, 192, 256],
        losses=[6.5, 5.25, 4.75, 4.5],
        metrics={"hr@10": [0.11, 0.19, 0.231, 0.22], "ndcg@10": [0.05, 0.1, 0.124, 0.12]},
        best=best,
    )


def trained_report(name: str = "gated-recurrence@0a1b2c3d4e5f", **changes: object) -> ModelReport:
    """A model with everything that a folder of now tells."""
    training = TrainingReport(
        objective="next-item",
        trained_at=1_699_990_000_000,
        source="shop.jsonl",
        protocol="latest",
        events=120_000,
        users=3000,
        items=800,
        last_event_at=1_699_900_000_000,
        cpu_s=44.0,
        metrics={"hr@10": 0.231, "ndcg@10": 0.124},
        curve=curve(),
    )
    return ModelReport(name, "gated-recurrence", 64, msgspec.structs.replace(training, **changes))


def rules_report(**changes: object) -> RulesReport:
    """A file in good order, with a warning."""
    report = RulesReport(
        path="rules.toml",
        loaded_at=1_699_999_000_000,
        checked_at=1_699_999_000_000,
        problem=None,
        warnings=["floor number 1: no item has the provider 'garage-label' yet"],
        sentences=[
            RuleSentence("pin", "i7 stands at place 3 of every list whose reader has not seen or bought it."),
            RuleSentence("caps", "A list holds at most 3 of one brand."),
        ],
    )
    return msgspec.structs.replace(report, **changes)


def worker_details(list_items: int = 20, **changes: object) -> WorkerDetails:
    """Settings, a trained model that took over from the built-in one, and rules."""
    details = WorkerDetails(
        settings=[
            SettingReport("bootstrap", "kafka:9092", "environment"),
            SettingReport("sasl_password", "hidden", "environment"),
            SettingReport("worker_id", "w1", "flag"),
            SettingReport("list_items", str(list_items), "default" if list_items == 20 else "nearstream.toml"),
            SettingReport("neighbours", "10", "default"),
        ],
        models=[trained_report(), ModelReport("decayed-mean@1", "decayed-mean", 64)],
        rules=rules_report(),
    )
    return msgspec.structs.replace(details, **changes)
