"""The notebook runs from its first cell to its last, and what it finds makes sense."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "notebooks" / "train-and-inspect.ipynb"
CELL_S_MAX = 150
SECONDS_MAX = 60.0
"""Of CPU, in the notebook's short form."""
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|Users|tmp|var|work)/")
RESULTS = (
    "figures", "validations", "board_files", "recall_by_history", "community_share", "chance_share", "pairs", "user",
    "turned_degrees", "towards", "known", "least_like", "list_before", "list_after", "neighbours_before",
    "neighbours_after", "bins", "expected_error", "cpu_s",
)  # fmt: skip
PROBE = f"""
import json
import time

cpu_s = time.process_time()
found = {{name: globals()[name] for name in {RESULTS!r}}}
found["validations"] = [seen.score for seen in validations]
found["known"] = sorted(known)
(FOLDER / "results.json").write_text(json.dumps(found, default=lambda number: number.item()))
"""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the names in `RESULTS` hold after a run of the short form in an empty folder."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    for line, wanted in (("SHORT = False", "SHORT = True"), ("FOLDER = .*", f"FOLDER = Path({str(folder)!r})")):
        parameters.source, changed = re.subn(f"^{line}$", wanted, parameters.source, flags=re.MULTILINE)
        assert changed == 1, f"the parameter cell has no line {line}"
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    client = NotebookClient(
        notebook, timeout=CELL_S_MAX, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parents[2])}}
    )
    client.execute()
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def test_the_training_learns(results: dict[str, Any]) -> None:
    """NDCG@10 rises over the epochs, and the model is better than popularity on events it never saw."""
    scores, figures = results["validations"], results["figures"]
    assert max(scores) > scores[0]
    product = next(iter(figures))
    assert product.startswith("gated-recurrence@")
    assert figures[product]["ndcg@10"] > 1.1 * figures["popularity"]["ndcg@10"]


def test_the_short_form_is_short(results: dict[str, Any]) -> None:
    """All cells together take under a minute of CPU."""
    assert results["cpu_s"] < SECONDS_MAX


def test_tensorboard_gets_its_files(results: dict[str, Any]) -> None:
    """Scalars and the projector's items are in the folder that the notebook tells of."""
    assert any("events.out.tfevents" in path for path in results["board_files"])
    assert any(path.endswith("tensors.tsv") for path in results["board_files"])


def test_nearest_users_are_of_the_same_taste(results: dict[str, Any]) -> None:
    """Neighbours are of the user's own planted community far more often than by chance, and share something."""
    assert results["community_share"] > 2 * results["chance_share"]
    for user, neighbour, similarity, shared in results["pairs"]:
        assert user != neighbour
        assert -1.0 <= similarity <= 1.0
        assert "category:" in shared


def test_one_event_moves_vector_list_and_neighbours(results: dict[str, Any]) -> None:
    """The vector turns towards the item of the event; the list changes and never shows what the user knows."""
    before, after = results["towards"]
    assert results["turned_degrees"] > 1.0
    assert after > before
    assert results["list_before"] != results["list_after"]
    assert not {*results["known"], results["least_like"]} & set(results["list_after"])
    assert results["user"] not in [user for user, _ in results["neighbours_before"] + results["neighbours_after"]]
    assert results["neighbours_before"] != results["neighbours_after"]


def test_higher_promises_come_true_more_often(results: dict[str, Any]) -> None:
    """In the reliability plot the upper half of the bins beats the lower one, and promises are not far off."""
    promised, came = np.array(results["bins"]).T
    half = len(came) // 2
    assert (np.diff(promised) > 0).all()
    assert came[half:].mean() > came[:half].mean()
    assert results["expected_error"] < 0.05


def test_recall_is_told_by_history_length(results: dict[str, Any]) -> None:
    """Each part of the users has a recall and a count; the counts add up to the users asked."""
    parts = results["recall_by_history"]
    assert len(parts) >= 3
    assert all(0.0 <= recall <= 1.0 and n > 0 for recall, n in parts.values())


def test_the_committed_notebook_is_clean() -> None:
    """No outputs, no counts and no path of anybody's machine are committed; each code cell has words before it."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert not MACHINE_PATH.search(NOTEBOOK.read_text(encoding="utf-8"))
    kinds = [cell.cell_type for cell in notebook.cells]
    unexplained = [n for n, kind in enumerate(kinds) if kind == "code" and kinds[n - 1] == "code"]
    assert [notebook.cells[n].source.split()[0] for n in unexplained] == ["import"]
