"""`nearstream train`: a folder that is served, one line of JSON, and nothing half-written when it cannot be done."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from encoder import EncoderConfig, load_encoder
from encoder.checkpoint import load_model, load_resume
from encoder.config import ModelConfig, TrainingConfig
from encoder.inference import encoder_of
from streams.cli import cli, main
from streams.cli.train_progress import TrainProgress
from streams.core.errors import UsageError
from streams.train import Listeners, TrainPlan, train_model
from tests.fakes_encoder import planted_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from encoder.train import Validation

SHOP = ("synthetic", "--users=80", "--items=60", "--communities=4", "--events=2500")
OTHER_SHOP = ("--events=3000", "--seed=1")
"""Its items are the same and come up in another order."""
SMALL = ("--dim=8", "--width=16", "--negatives=32", "--batch=32", "--text-encoder=none", "--device=cpu")
"""On the CPU, where the same seed gives the same bits."""
QUICK = (*SMALL, "--epochs=4", "--validate-every=2")
LONG_EPOCHS = 6
LONG = (*SMALL, f"--epochs={LONG_EPOCHS}", "--patience=1000", "--validate-every=1")
COMMAND_S_MAX = 120.0
WAITING = """
import sys
from streams.cli import main
from streams.cli.train_progress import TrainProgress

learned, validated, seen = TrainProgress.step, TrainProgress.validated, []

def count(self, validation):
    validated(self, validation)
    seen.append(validation)

def wait_after_two(self, now):
    learned(self, now)
    if len(seen) == 2:
        sys.stdin.read()

TrainProgress.step, TrainProgress.validated = wait_after_two, count
main()
"""
"""`nearstream` whose training stands still within its third epoch, for the signal to come before its end."""
INT8_SHARE_MAX = 0.6
"""Of the float32 file: a quarter, and scales and names, which weigh most where rows are as short as 8."""


@pytest.fixture(autouse=True)
def _own_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text caches of these tests are nobody else's, and no settings of this machine count."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEARSTREAM_DATA_DIR", str(tmp_path / "data"))


def run(*arguments: str) -> Result:
    """`nearstream train`, in this process."""
    return CliRunner().invoke(cli, ["train", *arguments])


def trained(*arguments: str) -> dict[str, Any]:
    """The summary of a training that must succeed."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.exception or result.stderr
    (line,) = result.stdout.splitlines()
    summary: dict[str, Any] = json.loads(line)
    return summary


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the small shop."""
    folder = tmp_path_factory.mktemp("base") / "model"
    trained(*SHOP, *QUICK, "--out", str(folder))
    return folder


def test_a_training_is_served_and_summed_up(tmp_path: Path) -> None:
    """The folder loads through the front door under the name of the summary; the summary counts the log."""
    out = tmp_path / "deep" / "model"
    summary = trained(*SHOP, *QUICK, "--out", str(out))
    encoder = load_encoder(EncoderConfig(model=str(out), event_types=("view", "purchase")))
    assert encoder.profiles.name == summary["model"]
    assert encoder.profiles.dim == encoder.items.dim == 8
    vectors = encoder.items.encode(["i1", "never seen"], ["", ""], [(), ()])
    assert np.isfinite(vectors).all()
    assert (summary["out"], summary["epochs"], summary["events"], summary["items"]) == (str(out), 4, 2500, 60)
    assert summary["new_items"] == 60
    assert 0 < summary["validation"]["ndcg@10"] <= summary["validation"]["hr@10"] <= 1
    assert not load_resume(out), "a finished training leaves no state behind"
    assert not list(tmp_path.rglob("*.part"))


def test_words_say_what_the_json_says(tmp_path: Path) -> None:
    """Without --json one sentence on stdout, a line for each validation on stderr."""
    result = run(*SHOP, *QUICK, "--out", "m")
    assert re.fullmatch(
        r"gated-recurrence@[0-9a-f]{12} in m: epoch \d of 4 was best, HR@10 0\.\d{4}, NDCG@10 0\.\d{4} in validation; "
        r"2,500 events of \d+ users and 60 items, \d+ s of CPU\n",
        result.stdout,
    )
    assert re.findall(r"^epoch (\d): loss", result.stderr, re.MULTILINE) == ["2", "4"]


def test_the_same_command_gives_the_same_model(base: Path, tmp_path: Path) -> None:
    """Chance comes from the seed alone; another seed gives another model."""
    same, other = (trained(*SHOP, *QUICK, "--out", str(tmp_path / name), "--model-seed", name) for name in ("0", "1"))
    assert same["model"] == load_model(base).name
    assert other["model"] != same["model"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images of twelve items of the shop, and one file that is none."""
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install 'nearstream[images]'")
    folder = tmp_path / "images"
    folder.mkdir()
    for item in range(12):
        pillow.new("RGB", (64, 64), (20 * item, 255 - 20 * item, 7 * item)).save(folder / f"i{item}.png")
    (folder / "i13.png").write_text("not an image")
    return folder


def test_images_are_read_and_served(images: Path, tmp_path: Path) -> None:
    """A bad file is named and passed over; the items with images are served by them; the next training needs them."""
    result = run(*SHOP, *QUICK, "--images", str(images), "--out", "m")
    assert result.exit_code == 0, result.exception or result.stderr
    assert f"{images / 'i13.png'} cannot be read as an image" in result.stderr
    saved = load_model(Path("m"))
    named = sorted(saved.vocabulary.items[row] for row in saved.images["rows"])
    assert named == sorted(f"i{item}" for item in range(12))
    assert saved.image_encoder_version.startswith("efficientnet-lite0@")
    bare = replace(saved, images={})
    vectors = [encoder_of(each, ("view",)).items.encode(["i3", "i40"], ["", ""], [(), ()]) for each in (saved, bare)]
    assert [bool(np.allclose(*pair)) for pair in zip(*vectors, strict=True)] == [False, True]
    without = run(*SHOP, *QUICK, "--from", "m", "--out", "n")
    assert isinstance(without.exception, UsageError)
    assert re.search(r"reads the image vectors efficientnet-lite0@\S+, the training has none", str(without.exception))
    assert (tmp_path / "data" / "text-cache" / "images").is_dir()


def test_a_folder_without_images_of_items_is_refused(tmp_path: Path) -> None:
    """With what was expected; nothing is written."""
    (tmp_path / "empty").mkdir()
    result = run(*SHOP, *QUICK, "--images", "empty", "--out", "m")
    assert isinstance(result.exception, UsageError)
    assert "None of the 0 files in empty is named as an item of the log" in str(result.exception)
    assert not Path("m").exists()


def test_texts_are_read_and_kept(tmp_path: Path) -> None:
    """With a text encoder the folder holds the items' vectors, and an item never seen is placed by its words."""
    summary = trained(*SHOP, *QUICK, "--text-encoder=wordllama", "--out", "m")
    saved = load_model(tmp_path / "m")
    assert saved.text_encoder == "wordllama"
    assert saved.content["vectors"].shape == (len(saved.content["hashes"]), saved.model.content_dim)
    items = load_encoder(EncoderConfig(model="m", event_types=("view",))).items
    plain, told = items.encode(["new", "new"], ["", "a red wool scarf"], [(), ()])
    assert float(plain @ told) < 0.99
    assert summary["model"] == saved.name


def test_a_log_without_words_can_follow_one_with(tmp_path: Path) -> None:
    """--from a model that reads texts, on a log that has none: its text encoder and sizes stay."""
    trained(*SHOP, *QUICK, "--text-encoder=wordllama", "--out", "worded")
    known = load_model(tmp_path / "worded").vocabulary.items
    rows = [f"u{n % 7},{known[n * n % 60]},{n},view" for n in range(120)]
    (tmp_path / "more.csv").write_text("user_id,item_id,timestamp,type\n" + "\n".join(rows) + "\n")
    trained("csv", "more.csv", "--epochs=1", "--from", "worded", "--out", "grown")
    first, second = (load_model(tmp_path / name) for name in ("worded", "grown"))
    assert (second.text_encoder_version, second.model) == (first.text_encoder_version, first.model)
    load_encoder(EncoderConfig(model="grown", event_types=("view",)))


def test_a_stopped_training_goes_on_where_this_command_says(tmp_path: Path) -> None:
    """Of the command that resumes, the device counts; all else is as it was when the training began."""
    table, out = planted_log(users=60, items=24), tmp_path / "m"
    began = TrainingConfig(epochs_max=3, negatives=16, validate_every_epochs=1)
    plan = TrainPlan(out, model=ModelConfig(dim=8, width=8), config=began, text_encoder="none")

    def stop(_: Validation) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(plan, table, tmp_path / "texts", Listeners(on_validated=stop), source="planted")
    again = replace(plan, resume=True, config=TrainingConfig(epochs_max=9, negatives=99, device="auto"))
    summary = train_model(again, table, tmp_path / "texts", Listeners(), source="planted")
    assert summary.epochs == 3
    assert load_model(out).training == replace(began, device="auto")


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """SIGINT: exit 130, no traceback, the best model so far is served; --resume ends with the uninterrupted model."""
    out = tmp_path / "stopped"
    command = [sys.executable, "-c", WAITING, "train", *SHOP, *LONG]
    process = subprocess.Popen(
        [*command, "--out", str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        epochs = (
            line for line in process.stderr if line.startswith("epoch ")
        )  # between them what a slow machine shows
        first_lines = [next(epochs), next(epochs)]
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=COMMAND_S_MAX)
    finally:
        process.kill()
    assert [line.split(":")[0] for line in first_lines] == ["epoch 1", "epoch 2"]
    assert (process.returncode, stdout) == (130, "")
    assert "Traceback" not in stderr
    best = load_encoder(EncoderConfig(model=str(out), event_types=("view",)))
    assert load_resume(out)
    assert not any(line.startswith("epoch ") for line in stderr.splitlines()), "it was interrupted before its end"

    resumed = trained(*SHOP, *SMALL, "--out", str(out), "--resume")
    whole = trained(*SHOP, *LONG, "--out", str(tmp_path / "whole"))
    assert resumed["epochs"] == whole["epochs"] == LONG_EPOCHS
    assert resumed["model"] == whole["model"] != best.profiles.name
    assert resumed["validation"] == whole["validation"]
    assert not load_resume(out)


class _Interrupted(KeyboardInterrupt):
    """What Ctrl-C raises, at a place of the test's choice."""


@pytest.fixture
def interrupted_after_two(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C comes right after the second validation of a training."""
    seen: list[int] = []

    def interrupt(self: TrainProgress, validation: Any) -> None:
        seen.append(validation.epoch)
        if len(seen) == 2:
            raise _Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(TrainProgress, "validated", interrupt)
        yield


@pytest.fixture
def stopped(interrupted_after_two: None, base: Path, tmp_path: Path) -> Path:
    """A fine-tuning of the base model on purchases that was stopped."""
    out = tmp_path / "tuned"
    more = (*OTHER_SHOP, "--target=purchase", "--validate-every=1")
    result = run(*SHOP, *QUICK, *more, "--from", str(base), "--out", str(out))
    assert result.exit_code != 0
    assert load_resume(out)
    return out


def test_a_stopped_fine_tuning_goes_on_too(
    stopped: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--resume needs no --from: the vocabulary that had grown is in the folder, and the end is the same."""
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    shop = (*SHOP, *OTHER_SHOP)
    resumed = trained(*shop, "--resume", "--out", str(stopped))
    whole = trained(
        *shop, *QUICK, "--target=purchase", "--validate-every=1", "--from", str(base), "--out", str(tmp_path / "whole")
    )
    assert resumed["model"] == whole["model"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--events=2400", "--seed=1"), "events 2400 (then 3000)"),
        (("--events=3000", "--seed=5"), "was on other data"),
        ((*OTHER_SHOP, "--protocol=loo"), "protocol loo (then latest)"),
    ],
)
def test_resume_refuses_other_data(stopped: Path, change: tuple[str, ...], message: str) -> None:
    """Another log, another shop of the same size or another protocol: refused, and the folder stays as it was."""
    before = contents(stopped)
    result = run(*SHOP, *change, "--resume", "--out", str(stopped))
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert f"--from {stopped}" in str(result.exception)
    assert contents(stopped) == before


def test_going_on_appends_new_items(base: Path, tmp_path: Path) -> None:
    """--from on a log with further items: the old ones keep their rows, the new ones come after them."""
    known = load_model(base).vocabulary.items
    rows = [f"u{n % 7},{item},{n},view" for n, item in enumerate([*known[::3], "brand-new", known[0], "newer"] * 3)]
    (tmp_path / "more.csv").write_text("user_id,item_id,timestamp,type\n" + "\n".join(rows) + "\n")
    before = contents(base)
    summary = trained("csv", "more.csv", *QUICK, "--from", str(base), "--out", "grown")
    grown = load_model(tmp_path / "grown")
    assert grown.vocabulary.items == [*known, "brand-new", "newer"]
    assert (summary["items"], summary["new_items"]) == (len(known) + 2, 2)
    assert grown.weights["tower.ids.weight"].shape == (len(known) + 2, 8)
    assert contents(base) == before
    sentence = run("csv", "more.csv", *QUICK, "--from", str(base), "--out", "again").stdout
    assert "62 items, 2 of them new" in sentence


def test_fine_tuning_on_purchases_starts_from_what_was_learned(base: Path, tmp_path: Path) -> None:
    """--target purchase works where all purchases follow views; its first epoch is better than from nothing."""
    one = (*SHOP, *SMALL, "--target=purchase", "--epochs=1")
    tuned, fresh = run(*one, "--from", str(base), "--out", "tuned"), run(*one, "--out", "fresh")
    config = load_model(tmp_path / "tuned").training
    assert config is not None
    assert config.target_types == ("purchase",)
    losses = [float(re.findall(r"^epoch 1: loss ([\d.]+)", each.stderr, re.MULTILINE)[0]) for each in (tuned, fresh)]
    assert losses[0] < 0.8 * losses[1]


def test_ratings_are_learned(tmp_path: Path) -> None:
    """--objective rating on a csv: the error falls well below the spread of the ratings, and the model is served."""
    rng, rows = np.random.default_rng(0), ["user_id,item_id,timestamp,stars"]
    for user in range(60):
        for step, item in enumerate(rng.permutation(20)[:8].tolist()):
            rows.append(f"u{user},i{item},{1000 * step},{1 + item // 5}")
    (tmp_path / "stars.csv").write_text("\n".join(rows) + "\n")
    csv = ("csv", "stars.csv", "--type=rating", "--column=value=stars", "--objective=rating")
    summary = trained(*csv, *SMALL, "--learning-rate=0.02", "--epochs=12", "--out", "stars")
    spread = float(np.std([1 + item // 5 for item in range(20)]))
    assert summary["validation"].keys() == {"rmse"}
    assert summary["validation"]["rmse"] < 0.7 * spread
    assert load_model(tmp_path / "stars").model.rates
    load_encoder(EncoderConfig(model="stars", event_types=("rating",)))
    assert "RMSE" in run(*csv, *SMALL, "--epochs=1", "--out", "words").stdout


def test_int8_is_smaller_and_serves_nearly_the_same(base: Path, tmp_path: Path) -> None:
    """--int8 cuts the weights' file and leaves items where they were."""
    trained(*SHOP, *QUICK, "--int8", "--out", "small")
    sizes = [next(folder.glob("weights-*")).stat().st_size for folder in (base, tmp_path / "small")]
    assert sizes[1] < INT8_SHARE_MAX * sizes[0]
    known = load_model(base).vocabulary.items
    nothing: list[tuple[str, ...]] = [()] * len(known)
    exact, rounded = (
        load_encoder(EncoderConfig(model=str(folder), event_types=("view",))).items.encode(known, [""] * 60, nothing)
        for folder in (base, tmp_path / "small")
    )
    assert float(np.sum(exact * rounded, axis=1).min()) > 0.99


def test_tensorboard_files_are_written(tmp_path: Path) -> None:
    """--tensorboard leaves event files and the items for the projector, one label each."""
    trained(*SHOP, *QUICK, "--tensorboard", "board", "--out", "m")
    assert list((tmp_path / "board").glob("events.out.tfevents.*"))
    (labels,) = (tmp_path / "board").rglob("metadata.tsv")
    assert len(labels.read_text().splitlines()) == 1 + 60


ONE_USER = "user_id,item_id,timestamp,type\na,x,1000,view\na,y,2000,view\n"
NAN_STARS = "user_id,item_id,timestamp,type,stars\na,x,1,rating,nan\na,y,2,rating,NaN\nb,x,3,rating,\nb,y,4,rating,\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("synthetic", "--events=0"), "The log has no events"),
        (("csv", "one.csv"), "1 user(s)"),
        (("csv", "one.csv", "--column=user=person"), "no column 'person'"),
        (("csv", "nan.csv", "--column=value=stars", "--objective=rating"), "expected"),
        (("csv", "missing.csv"), "missing.csv"),
        (("nothing",), "Unknown format"),
        ((), "Give a FORMAT"),
        ((*SHOP, "--from-topic"), "one of the two"),
        ((*SHOP, "--from=a", "--resume"), "give one"),
        ((*SHOP, "--from=absent"), "There is no model in absent"),
        ((*SHOP, "--resume"), "There is no model in m"),
        ((*SHOP, "--text-encoder=bert"), "There is no text encoder 'bert'"),
        ((*SHOP, "--dropout=1.5"), "dropout must lie in [0, 1), got 1.5"),
        ((*SHOP, "--dim=10"), "multiples of 4"),
        ((*SHOP, "--epochs=0"), "epochs_max must be 1 or more"),
        ((*SHOP, "--target=applause"), "There is no event of type applause in this log; it has view"),
        ((*SHOP, "--type-weight=view"), "TYPE=WEIGHT"),
        ((*SHOP, "--objective=rating"), "no event to learn from is a `rating`"),
        ((*SHOP, "--device=abacus"), "device 'abacus'"),
    ],
)
def test_what_cannot_be_trained_is_told_and_nothing_is_written(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    """Misuse and unusable data: one paragraph that says what was expected, and no folder, not even an empty one."""
    (tmp_path / "one.csv").write_text(ONE_USER)
    (tmp_path / "nan.csv").write_text(NAN_STARS)
    result = run(*arguments, "--out=m", "--tensorboard=board")
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert result.stdout == ""
    assert {path.name for path in tmp_path.iterdir()} <= {"one.csv", "nan.csv", "data"}


def test_the_exit_code_of_misuse_is_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As a script sees it: the sentence on stderr, no traceback, exit 2."""
    monkeypatch.setattr(sys, "argv", ["nearstream", "train", *SHOP, "--dropout=1.5", "--out=m"])
    with pytest.raises(SystemExit) as left:
        main()
    written = capsys.readouterr()
    assert left.value.code == 2
    assert written.out == ""
    assert written.err == "nearstream: dropout must lie in [0, 1), got 1.5.\n"


def test_rows_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    """NaN ratings are left out, with their lines and their number on stderr; the rest is learned from."""
    rows = [f"u{n % 5},i{n % 4},{n},rating,{'nan' if n < 3 else 1 + n % 5}" for n in range(40)]
    (tmp_path / "some.csv").write_text("user_id,item_id,timestamp,type,stars\n" + "\n".join(rows) + "\n")
    result = run(
        "csv", "some.csv", "--column=value=stars", "--objective=rating", *SMALL, "--epochs=1", "--out=m", "--json"
    )
    assert json.loads(result.stdout)["events"] == 37
    assert "some.csv line 2: not-finite: value 'nan' is not finite" in result.stderr
    assert "3 records of the log were left out as not-finite" in result.stderr


@pytest.mark.parametrize("kept_bytes", [0, 100, -1])
def test_a_truncated_model_is_refused(base: Path, tmp_path: Path, kept_bytes: int) -> None:
    """--from a folder whose weights were cut off: the damaged file is named and nothing is written."""
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    weights = next(broken.glob("weights-*"))
    weights.write_bytes(weights.read_bytes()[:kept_bytes])
    result = run(*SHOP, *QUICK, "--from", str(broken), "--out", "m")
    assert isinstance(result.exception, UsageError)
    assert f"{weights} is damaged" in str(result.exception)
    assert not (tmp_path / "m").exists()


def test_a_failed_training_leaves_the_folder_as_it_was(base: Path, tmp_path: Path) -> None:
    """A model that stands in --out is whole and unchanged after a command that could not do it."""
    out = tmp_path / "kept"
    shutil.copytree(base, out)
    before = contents(out)
    for arguments in (("--target=applause",), ("--resume",), ("--from", str(tmp_path / "absent"))):
        result = run(*SHOP, *QUICK, *arguments, "--out", str(out))
        assert isinstance(result.exception, UsageError)
        assert contents(out) == before
