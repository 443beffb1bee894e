"""The measurement of the index: data as described, judges that see faults, and a table with all its bars."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from index import ExactIndex, IndexConfig, Matches, UpsertReport
from streams.bench.index import child, storm
from streams.bench.index.case import Plan, open_case
from streams.bench.index.child import Job, footprint_apart, storm_apart
from streams.bench.index.churn import measure_churn
from streams.bench.index.cpu import CpuAccount
from streams.bench.index.data import KINDS, turned, vector_source
from streams.bench.index.population import Population, found_itself, recall_of
from streams.bench.index.table import PARTS, measure_index
from streams.bench.index.twins import measure_twins
from streams.cli import cli
from streams.core.errors import NearstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.bench.index.data import Floats
    from streams.bench.report import Bar

DIM = 16
QUICK = Plan(kinds=("clustered",), config=IndexConfig(dim=DIM), churn=(0.25, 1.0)).quick()


def silent(text: str) -> None:
    """Progress that nobody reads."""


def directions(count: int, seed: int) -> Floats:
    return vector_source("isotropic", DIM, 0).draw(count, np.random.default_rng(seed))


def answers(ids: list[list[int | None]]) -> Matches:
    return Matches(np.array(ids, np.object_), np.zeros(np.shape(ids), np.float32))


def named(bars: list[Bar], part: str) -> Bar:
    (one,) = (each for each in bars if part in each.name)
    return one


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_have_length_one_and_follow_the_seed(kind: str) -> None:
    """Every kind draws float32 rows of length one, the same ones for the same seed."""
    first, again = (vector_source(kind, DIM, 3).draw(100, np.random.default_rng(5)) for _ in range(2))
    assert first.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(first, again)


def test_an_unknown_kind_of_data_is_named() -> None:
    """A kind that does not exist is refused with the list of those that do."""
    with pytest.raises(ValueError, match=r"clustered, cloud, isotropic, got 'blobs'"):
        vector_source("blobs", DIM, 0)


def test_clusters_lie_as_close_as_described() -> None:
    """A clustered row has a centre at a cosine between .8 and .9."""
    source = vector_source("clustered", 64, 1)
    rows = source.draw(200, np.random.default_rng(2))
    nearest = (rows @ source._centres.T).max(axis=1)
    assert nearest.min() > 0.799
    assert nearest.max() < 0.901


def test_some_twenty_axes_of_the_cloud_count() -> None:
    """The participation ratio of a cloud of 64 axes is near twenty."""
    rows = vector_source("cloud", 64, 0).draw(20_000, np.random.default_rng(1))
    variances = np.linalg.eigvalsh(np.cov(rows.T))
    assert 18 < variances.sum() ** 2 / (variances**2).sum() < 22


def test_turned_rows_have_the_cosine_that_was_asked_for() -> None:
    """Moved rows are unit rows whose cosines to the old ones fill the span between the bounds."""
    rows = directions(500, 1)
    cosines = np.einsum("nd,nd->n", rows, turned(rows, (0.5, 0.7), np.random.default_rng(2)))
    assert 0.499 < cosines.min() < 0.52
    assert 0.68 < cosines.max() < 0.701


def test_a_tenth_of_the_changes_is_far() -> None:
    """Nine changes in ten keep a cosine of .995 or more, the others go anywhere; users of a batch are distinct."""
    source = vector_source("isotropic", DIM, 0)
    users = Population(directions(5000, 1), source, np.random.default_rng(2))
    before = users.vectors.copy()
    rows = users.change(4000)
    cosines = np.einsum("nd,nd->n", before[rows], users.vectors[rows])
    assert len(set(rows.tolist())) == 4000 == users.changes
    assert 0.08 < (cosines < 0.9949).mean() < 0.12
    untouched = np.setdiff1d(np.arange(5000), rows)
    np.testing.assert_array_equal(users.vectors[untouched], before[untouched])


def test_recall_of_exact_answers_is_one() -> None:
    """The judge agrees with exact search, also where k is more than there are."""
    vectors, queries = directions(50, 1), directions(20, 2)
    index = ExactIndex(IndexConfig(dim=DIM))
    index.upsert(range(50), vectors)
    assert recall_of(index.search(queries, 10), vectors, queries) == 1.0
    assert recall_of(index.search(queries, 60), vectors, queries) == 1.0


def test_recall_counts_what_is_missing_padded_or_named_twice() -> None:
    """Of two nearest, one wrong id, one gap and one repetition each cost a half of their row."""
    vectors = np.eye(4, dtype=np.float32)
    queries = np.array([[0.9, 0.4, 0.1, 0.0]] * 4, np.float32)
    matches = answers([[0, 1], [0, 3], [0, None], [0, 0]])
    assert recall_of(matches, vectors, queries) == pytest.approx((1 + 0.5 + 0.5 + 0.5) / 4)


def test_recall_takes_any_of_equals() -> None:
    """Any of several equally near users is as good as another."""
    vectors = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], np.float32)
    assert recall_of(answers([[0, 1], [0, 3]]), vectors, vectors[[0, 0]]) == 1.0


def test_finding_oneself_means_first_or_an_equal_twin() -> None:
    """A user behind another is not found; one behind an exact twin is; a gap is not."""
    vectors = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    matches = answers([[0, 1], [1, 2], [0, 2], [None, None]])
    assert found_itself(matches, np.array([0, 2, 1, 2]), vectors).tolist() == [True, True, False, False]


def test_work_aside_is_not_counted() -> None:
    """The account holds the CPU of the block, and neither the CPU nor the wall time of what was done aside."""
    account = CpuAccount()

    def work(seconds: float) -> None:
        ends_s = time.process_time() + seconds
        while time.process_time() < ends_s:
            pass

    started_s = account.clock_s()
    with account.running():
        work(0.02)
        with account.aside():
            work(0.1)
    assert 0.015 < account.spent_s < 0.06
    assert account.clock_s() - started_s < time.perf_counter() - started_s - 0.09


class _Forgetful(ExactIndex):
    """Tells that it took the vectors, and keeps the old ones of every other user."""

    def upsert(self, ids, vectors) -> UpsertReport:  # type: ignore[no-untyped-def]
        if not len(self):
            return super().upsert(ids, vectors)
        return super().upsert(list(ids)[::2], vectors[::2])

    def rebuild(self, *, wait: bool = False) -> None:
        """Nothing to build."""


def test_an_index_that_keeps_old_vectors_fails_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recall on current vectors and finding oneself fall below their bounds when changes get lost."""
    with open_case(QUICK, "clustered", 1200, silent) as case:
        forgetful = _Forgetful(case.plan.config)
        forgetful.upsert(range(case.size), case.base)
        monkeypatch.setattr("streams.bench.index.churn.CYCLE_CHURN_MAX", 0.5)
        monkeypatch.setattr(type(case), "index", lambda self: forgetful)
        bars = measure_churn(case, silent).bars
    assert named(bars, "find themselves next").holds is False
    assert named(bars, "after 1x churn, less").holds is False


class _Credulous(ExactIndex):
    """Replaces what is not finite by zeros, so that it is rejected as something else."""

    def upsert(self, ids, vectors) -> UpsertReport:  # type: ignore[no-untyped-def]
        return super().upsert(ids, np.where(np.isfinite(vectors), vectors, 0.5).astype(np.float32))

    def rebuild(self, *, wait: bool = False) -> None:
        """Nothing to build."""


def test_bad_rows_that_go_in_fail_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that takes rows which are not finite does not hold the bar of rejected rows."""
    with open_case(QUICK, "clustered", 1200, silent) as case:
        credulous = _Credulous(case.plan.config)
        credulous.upsert(range(case.size), case.base)
        monkeypatch.setattr(type(case), "index", lambda self: credulous)
        bars = measure_twins(case, silent).bars
    assert named(bars, "rows rejected").value == 0.0


def test_every_part_of_the_table_reports_its_bars() -> None:
    """A quick run through all parts has each bar of the table once, and prints seed and conditions."""
    report = measure_index(replace(QUICK, parts=PARTS, stress_queries=2000), silent)
    names = "\n".join(each.name for each in report.bars)
    for part in (
        "recall@10 after 0.25x churn",
        "recall@10 after 1x churn, less a fresh build's",
        "find themselves next",
        "update CPU / in place, 40,000 changes/s",
        "update CPU / in place, every build ends first",
        "1,000 upserts visible",
        "full delta / clean, batches of 64",
        "full delta / exact, single queries",
        "beside a rebuild / alone, p99",
        "10 % share a vector",
        "non-finite rows rejected",
        "hnswlib in place: query CPU",
        "memory / raw float32, rebuilding",
        "crashes, exceptions and wrong answers in 2,000 queries",
    ):
        assert part in names
    assert named(report.bars, "find themselves next").holds
    assert named(report.bars, "crashes").holds
    assert len(names.split("\n")) == len(set(names.split("\n")))
    assert (report.conditions["seed"], report.conditions["parts"]) == (0, list(PARTS))
    assert {"clustered 1200: churn", "storm"} <= set(report.details)
    msgspec.json.encode(report)


def test_a_storm_sees_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that name an id twice are failures of the storm, and so is an exception of a query."""
    search = storm.AutoIndex.search

    def twice(self, vectors, k):  # type: ignore[no-untyped-def]
        matches = search(self, vectors, k)
        if k > 1:
            matches.ids[:, 1] = matches.ids[:, 0]
        return matches

    monkeypatch.setattr(storm.AutoIndex, "search", twice)
    seen = storm.raise_storm("cloud", 1200, QUICK.config, 0, 500)
    assert "query: a row names an id twice" in seen.failures
    monkeypatch.setattr(storm.AutoIndex, "search", _broken(search))
    seen = storm.raise_storm("cloud", 1200, QUICK.config, 0, 500)
    assert "query: RuntimeError('poisoned')" in seen.failures


def _broken(search: Callable[..., Matches]) -> Callable[..., Matches]:
    def broken(self, vectors, k):  # type: ignore[no-untyped-def]
        if k > 1 and len(vectors) >= 64:
            raise RuntimeError("poisoned")
        return search(self, vectors, k)

    return broken


def test_a_process_that_dies_is_a_failure_of_the_storm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code of a dead process is reported; without a footprint there is nothing to report but an error."""
    job = Job("storm", "cloud", 1200, 0, QUICK.config, 100)
    monkeypatch.setattr(child.sys, "executable", shutil.which("false"))
    assert storm_apart(job).failures == ["the process ended with exit code 1"]
    with pytest.raises(NearstreamError, match="exit code 1"):
        footprint_apart(job)


def test_the_command_prints_json() -> None:
    """`bench index --json` prints conditions, bars and details on stdout, and progress elsewhere."""
    options = ["--quick", "--data", "cloud", "--part", "twins", "--dim", str(DIM), "--seed", "7", "--json"]
    result = CliRunner().invoke(cli, ["bench", "index", *options])
    assert result.exit_code == 0, result.output
    printed = msgspec.json.decode(result.stdout)
    assert set(printed) == {"conditions", "bars", "details"}
    assert printed["conditions"]["seed"] == 7
    assert all(each["holds"] for each in printed["bars"])
    assert "twins" in result.stderr
