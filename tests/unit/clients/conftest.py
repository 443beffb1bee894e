"""The fake API, the Python client of this repository on the path, and the TypeScript client, built."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.unit.clients.fake_api import FakeApi
from tests.unit.clients.guide import ROOT, TYPESCRIPT, examples, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NODE_MAJOR_MIN = 20
USER_OPTIONS = ["--strict", "--target", "ES2022", "--module", "NodeNext", "--lib", "ES2022,DOM,DOM.AsyncIterable"]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """An API that answers as usual until told otherwise."""
    with FakeApi() as fake:
        yield fake


@pytest.fixture(scope="session")
def node() -> str:
    """Node, new enough."""
    found = shutil.which("node")
    if found is None:
        pytest.skip(f"needs Node ≥ {NODE_MAJOR_MIN}, which is not on the PATH")
    version = run(found, "--version", cwd=ROOT).strip()
    if int(version.removeprefix("v").partition(".")[0]) < NODE_MAJOR_MIN:
        pytest.skip(f"needs Node ≥ {NODE_MAJOR_MIN}, found {version}")
    return found


@pytest.fixture(scope="session")
def tsc(node: str) -> Path:
    """TypeScript's compiler in the pinned version, as `npm install` puts it beside the client."""
    found = TYPESCRIPT / "node_modules" / ".bin" / "tsc"
    if not found.exists():
        pytest.skip("needs TypeScript: run `npm install` in clients/typescript")
    return found


@pytest.fixture(scope="session")
def built(tsc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled copy of the client, so that a test run leaves nothing in the sources."""
    copy = tmp_path_factory.mktemp("clients") / "typescript"
    shutil.copytree(TYPESCRIPT, copy, ignore=shutil.ignore_patterns("node_modules", "dist"))
    run(tsc, "--project", copy, cwd=copy)
    return copy


@pytest.fixture
def run_typescript_example(node: str, tsc: Path, built: Path, tmp_path: Path) -> Callable[[str], str]:
    """Compiles docs/clients.md's TypeScript as a user of the package would, runs it, and gives what it says."""

    def ran(url: str) -> str:
        (example,) = examples("ts", url)
        (tmp_path / "node_modules").mkdir()
        (tmp_path / "node_modules" / "nearstream-client").symlink_to(built)
        (tmp_path / "example.mts").write_text(example, encoding="utf-8")
        run(tsc, *USER_OPTIONS, "example.mts", cwd=tmp_path)
        return run(node, "example.mjs", cwd=tmp_path)

    return ran
