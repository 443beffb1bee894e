"""`nearstream evaluate`: one table of results, the product's own model first."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from encoder.checkpoint import load_model
from encoder.metrics import FIGURES
from streams.cli import cli
from streams.core.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

SHOP = ("synthetic", "--users=60", "--items=50", "--communities=4", "--events=1800")
MODEL = (
    "--dim=8",
    "--width=16",
    "--negatives=32",
    "--batch=32",
    "--epochs=4",
    "--validate-every=2",
    "--history-max=300",
)
IDS = (*MODEL, "--text-encoder=none")
LISTED = ("hr@10", "ndcg@10", "mrr@20", "coverage@10")
SAME = 1e-6


@pytest.fixture(autouse=True)
def _own_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text caches of these tests are nobody else's, and no settings of this machine count."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEARSTREAM_DATA_DIR", str(tmp_path / "data"))


def run(*arguments: str) -> Result:
    """`nearstream evaluate`, in this process."""
    return CliRunner().invoke(cli, ["evaluate", *arguments])


def judged(*arguments: str) -> dict[str, Any]:
    """The report of an evaluation that must succeed."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.exception or result.stderr
    (line,) = result.stdout.splitlines()
    report: dict[str, Any] = json.loads(line)
    return report


def trained(out: str, *arguments: str) -> None:
    """A model folder, chosen on the events before the last ones."""
    result = CliRunner().invoke(cli, ["train", *SHOP, "--protocol=loo", "--out", out, *arguments])
    assert result.exit_code == 0, result.exception or result.stderr


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything that the command can put into a table, on the small shop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("report"))
        return judged(*SHOP, *IDS, "--protocol=loo", "--seeds=2", "--also=gru", "--ids-only")


def test_the_json_is_what_scripts_read(report: dict[str, Any]) -> None:
    """Data, protocol and rows; each row with model, seed, n, its figures and the CPU it took."""
    assert (report["data"], report["protocol"], report["targets"]) == ("synthetic", "loo", "new")
    for row in report["rows"]:
        assert {"model", "seed", "n", "cpu_s", "coverage@10", *FIGURES} <= row.keys()
        assert 0 <= row["ndcg@10"] <= row["hr@10"] <= 1
        assert row["cpu_s"] == pytest.approx(row["cpu_fit_s"] + row["cpu_score_s"])
    assert len({row["n"] for row in report["rows"]}) == 1


def test_the_products_own_rows_come_first(report: dict[str, Any]) -> None:
    """A row per model and seed: the product, neighbours over its vectors, yardsticks, then baselines once each."""
    rows = [(row["model"], row["seed"]) for row in report["rows"]]
    assert rows[:2] == [("gated-recurrence", 0), ("gated-recurrence", 1)]
    assert [model.startswith("user-knn over gated-recurrence") for model, _ in rows[2:4]] == [True, True]
    assert rows[4:6] == [("gru", 0), ("gru", 1)]
    assert rows[6:8] == [("gated-recurrence, ids only", 0), ("gated-recurrence, ids only", 1)]
    baselines = [model for model, _ in rows[8:]]
    assert len(set(baselines)) == len(baselines) >= 5
    assert "popularity" in baselines
    assert {seed for _, seed in rows[8:]} == {0}


def test_seeds_and_attributes_count(report: dict[str, Any]) -> None:
    """Another seed and a model without attributes are other models."""
    figures = {(row["model"], row["seed"]): row["mrr@20"] for row in report["rows"]}
    assert figures["gated-recurrence", 0] != figures["gated-recurrence", 1]
    assert figures["gated-recurrence", 0] != figures["gated-recurrence, ids only", 0]


def test_a_served_folder_is_as_good_as_its_training(report: dict[str, Any], tmp_path: Path) -> None:
    """--model DIR streams events through the worker's code: its figures are those of the torch model to 1e-6."""
    trained("m", *IDS)
    served = judged(*SHOP, "--protocol=loo", "--model=m", "--text-encoder=none", "--no-baselines", "--no-user-knn")
    (row,) = served["rows"]
    assert row["model"] == load_model(tmp_path / "m").name
    in_training = report["rows"][0]
    for figure in (*FIGURES, "coverage@10", "novelty@10"):
        assert row[figure] == pytest.approx(in_training[figure], abs=SAME), figure


def test_a_served_folder_with_texts_is_judged_by_its_own_encoder(tmp_path: Path) -> None:
    """--model DIR reads texts as the folder says, whatever --text-encoder measures diversity by."""
    trained("m", *MODEL, "--text-encoder=wordllama")
    options = (*SHOP, "--protocol=loo", "--model=m", "--no-baselines", "--no-user-knn")
    plain, by_words = judged(*options, "--text-encoder=none"), judged(*options)
    assert plain["rows"][0]["ndcg@10"] == by_words["rows"][0]["ndcg@10"]
    assert plain["rows"][0]["diversity@10"] != by_words["rows"][0]["diversity@10"]


def test_the_table_is_for_people(report: dict[str, Any]) -> None:
    """Without --json: a header, then a line for each model with the mean over its seeds, in columns."""
    result = run(*SHOP, *IDS, "--protocol=loo", "--seeds=2", "--no-baselines", "--no-user-knn")
    header, line = result.stdout.splitlines()
    assert header.split() == [
        "model", "seeds", "n", *LISTED, "novelty@10", "diversity@10", "CPU", "s",
    ]  # fmt: skip
    model, seeds, n, *figures = line.split()
    assert (model, seeds, n) == ("gated-recurrence", "2", str(report["rows"][0]["n"]))
    for name, written in zip(LISTED, figures, strict=False):
        mean = sum(row[name] for row in report["rows"][:2]) / 2
        assert float(written) == pytest.approx(mean, abs=5.1e-5)
    assert len(header) == len(line)


def test_a_timeline_can_ask_for_repeats_of_one_type() -> None:
    """--protocol timeline with --only and --targets all judges those events only."""
    options = (*SHOP, *IDS, "--protocol=timeline", "--no-user-knn", "--no-baselines", "--targets=all")
    everything, purchases = judged(*options), judged(*options, "--only=purchase")
    assert (everything["protocol"], everything["targets"]) == ("timeline", "all")
    parts = everything["rows"][0]["parts"]["type"]
    assert purchases["rows"][0]["n"] == parts["purchase"]["n"] < everything["rows"][0]["n"]
    assert purchases["rows"][0]["parts"]["type"].keys() == {"purchase"}


def test_a_limit_reads_the_beginning_only(tmp_path: Path) -> None:
    """--limit N is the log cut off after N events: the same row, whatever comes later."""
    rows = [f"u{n % 17},i{(n * n + n // 5) % 23},{1000 * n},view" for n in range(600)]
    for name, kept in (("all.csv", 600), ("cut.csv", 400)):
        (tmp_path / name).write_text("\n".join(["user_id,item_id,timestamp,type", *rows[:kept], ""]))
    fast = (*IDS, "--protocol=timeline", "--targets=all", "--epochs=1", "--no-user-knn", "--no-baselines")
    options = (("all.csv", "--limit=400"), ("cut.csv",), ("all.csv",))
    rows_of = [judged("csv", *each, *fast)["rows"][0] for each in options]
    limited, cut, whole = ({name: row[name] for name in ("n", *FIGURES)} for row in rows_of)
    assert limited == cut
    assert whole["n"] > cut["n"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("s3rec", "order.txt", "--protocol=timeline"), "a timeline split needs times"),
        (("s3rec", "pairs.txt", "--protocol=loo"), "No user of this log has three events"),
        (("synthetic", "--events=0", "--protocol=loo"), "The log has no events"),
        ((*SHOP, "--protocol=loo", "--model=absent"), "There is no model in absent"),
        ((*SHOP, "--protocol=loo", "--only=applause"), "no event of type applause in this log; it has view"),
        ((*SHOP, "--protocol=loo", "--only=purchase"), "choose other types, or count repeats too"),
        ((*SHOP, "--protocol=loo", "--objective=rating"), "nearstream train --objective rating"),
        ((*SHOP, "--protocol=loo", "--dropout=1.5"), "dropout must lie in [0, 1), got 1.5"),
        ((*SHOP, "--protocol=loo", "--device=abacus"), "device 'abacus'"),
        ((*SHOP, "--protocol=loo", "--text-encoder=bert"), "There is no text encoder 'bert'"),
    ],
)
def test_what_cannot_be_judged_is_told(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """One sentence or two that say what was expected; no table."""
    (tmp_path / "order.txt").write_text("".join(f"{user} 5 6 7 8 9\n" for user in range(1, 9)))
    (tmp_path / "pairs.txt").write_text("1 5 6\n2 6 7\n")
    result = run(*arguments, *(() if "--dropout=1.5" in arguments else ("--dropout=0.1",)))
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert result.stdout == ""


def test_a_protocol_is_required() -> None:
    """Nobody gets figures without having said what was asked."""
    result = run(*SHOP)
    assert result.exit_code == 2
    assert "--protocol" in result.stderr
