"""The TypeScript client: it compiles strictly, its own tests pass, and the example of the documentation runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.unit.clients.fake_api import Refusal
from tests.unit.clients.guide import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.clients.fake_api import FakeApi


def test_types_come_with_it(built: Path) -> None:
    """The build writes JavaScript and the types that package.json promises."""
    assert {"index.js", "index.d.ts", "client.d.ts"} <= {path.name for path in (built / "dist").iterdir()}


def test_node_runs_its_own_tests(node: str, built: Path) -> None:
    """The client's own tests pass in Node's test runner."""
    said = run(node, "--test", "--test-reporter=tap", "test/client.test.mjs", cwd=built)
    assert re.search(r"^# pass [1-9]", said, re.MULTILINE)
    assert "# fail 0" in said


def test_the_documented_example_runs(api: FakeApi, run_typescript_example: Callable[[str], str]) -> None:
    """docs/clients.md's TypeScript compiles strictly as a user of the package would compile it, and runs."""
    api.answers_by_path["/v1/users/nobody/profile"] = Refusal(404, {"error": "There is no profile of this user."})
    assert run_typescript_example(api.url) == "[ 'blue-shoes' ]\nThere is no profile of this user.\n"
    assert [asked.path for asked in api.asked] == ["/v1/events", "/v1/users/ada/stream", "/v1/users/nobody/profile"]
