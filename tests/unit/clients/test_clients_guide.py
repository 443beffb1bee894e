"""docs/clients.md keeps its word: its Python runs against the API."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.unit.clients.fake_api import Refusal
from tests.unit.clients.guide import PACKAGE, examples, run

if TYPE_CHECKING:
    from tests.unit.clients.fake_api import FakeApi


def test_every_python_example_runs(api: FakeApi) -> None:
    """The blocking and the asyncio example print what the API holds."""
    blocking, awaited = examples("python", api.url)
    api.answers_by_path["/v1/users/nobody/profile"] = Refusal(404, {"error": "There is no profile of this user."})
    assert run(sys.executable, "-W", "error", "-c", blocking, cwd=PACKAGE).splitlines() == [
        "42 ['blue-shoes']",
        "40% Resembles “red-shoes”, which this user had.",
        "2 0.71",
        "There is no profile of this user.",
        "1700000600000",
    ]
    assert run(sys.executable, "-W", "error", "-c", awaited, cwd=PACKAGE).splitlines() == ["r1 r1", "['u9']"]
    assert {asked.path.rpartition("/")[2] for asked in api.asked} >= {"events", "users", "stream", "ada"}
