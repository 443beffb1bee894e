"""docs/clients.md as code that runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "clients" / "python"
TYPESCRIPT = ROOT / "clients" / "typescript"
GUIDE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8686"
RUN_S_MAX = 120


def run(*command: str | Path, cwd: Path) -> str:
    """What the command says on stdout; its words are the failure when it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=RUN_S_MAX)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def examples(language: str, url: str) -> list[str]:
    """The examples of a language, talking to `url`."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    assert found
    assert all(ADDRESS in example for example in found)
    return [example.replace(ADDRESS, url) for example in found]
