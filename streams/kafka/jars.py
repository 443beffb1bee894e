"""The embedded broker's jars: fetched once by Maven coordinate, every file checked against `jars.lock`.

`python -m streams.kafka.jars` prints the lock for `COORDINATES`; with a new version, that is the upgrade.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from streams.core.errors import BrokerUnavailable, UsageError
from streams.kafka.processes import exclusive, full_disk_named, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streams.kafka.processes import OnProgress

KAFKA_VERSION = "4.3.1"
COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
FETCH_THREADS = 4
FETCH_TIMEOUT_S = 30
FETCH_TRIES_MAX = 3


@dataclass(frozen=True, slots=True)
class LockedJar:
    """One file as the lock wants it; `coordinate` is group:artifact:version."""

    sha256: str
    size_bytes: int
    coordinate: str

    @property
    def file_name(self) -> str:
        """The name that Maven gives the file."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def locked_jars() -> list[LockedJar]:
    """Every jar of the broker, in class path order."""
    lines = files("streams.kafka").joinpath("jars.lock").read_text(encoding="ascii").splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return [LockedJar(sha256, int(size), coordinate) for sha256, size, coordinate in rows]


def ensure_jars(
    folder: Path,
    on_progress: OnProgress = silent,
    jars: Sequence[LockedJar] | None = None,
    fetcher: Callable[[Path, Callable[[int], None]], Callable[[str], Path]] | None = None,
) -> list[Path]:
    """Paths of all jars in class path order; fetches those that `folder` lacks and checks them all (44 MB: 50 ms).

    Several processes may call it for one folder: one fetches, the others wait.

    Raises:
        UsageError: a file is not the locked one, or the package that fetches is not installed.
        BrokerUnavailable: a jar cannot be fetched, or the disk is full.
    """
    jars = locked_jars() if jars is None else jars
    with full_disk_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / ".lock", on_progress):
            missing = [jar for jar in jars if not (folder / jar.file_name).exists()]
            if missing:
                _fetch(missing, folder, on_progress, fetcher or maven_fetcher)
    paths = [folder / jar.file_name for jar in jars]
    for path, jar in zip(paths, jars, strict=True):
        _check(path, jar)
    return paths


def _check(path: Path, jar: LockedJar) -> None:
    """Raises UsageError unless the file is byte for byte the locked one."""
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != jar.sha256:
        raise UsageError(
            f"{path} is not the {jar.coordinate} that this version of Nearstream was tested with: expected SHA-256 "
            f"{jar.sha256}, found {found} ({len(content):,} bytes instead of {jar.size_bytes:,}). Delete that file and "
            "start again to fetch it anew; if it comes back, something between you and Maven Central changes files."
        )


def _fetch(
    jars: Sequence[LockedJar],
    folder: Path,
    on_progress: OnProgress,
    fetcher: Callable[[Path, Callable[[int], None]], Callable[[str], Path]],
) -> None:
    """Fetches beside the jars, checks, then renames, so that a kill leaves no half jar."""
    total = sum(jar.size_bytes for jar in jars)
    text = f"fetching Apache Kafka {KAFKA_VERSION} ({len(jars)} jars)"
    done = 0
    counting = Lock()

    def count(size: int) -> None:
        nonlocal done
        with counting:
            done += size
            on_progress(text, min(done, total), total)

    on_progress(text, 0, total)
    for interrupted in folder.glob(".fetch-*"):
        shutil.rmtree(interrupted, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as staging:
        fetch = fetcher(Path(staging), count)
        with ThreadPoolExecutor(FETCH_THREADS) as pool:
            pending = {pool.submit(fetch, jar.coordinate): jar for jar in jars}
            try:
                for future in as_completed(pending):
                    path, jar = future.result(), pending[future]
                    _check(path, jar)
                    path.rename(folder / jar.file_name)
            finally:
                pool.shutdown(cancel_futures=True)


def maven_fetcher(repository: Path, on_bytes: Callable[[int], None]) -> Callable[[str], Path]:
    """A function from coordinate to file; jgo writes below `repository` and nowhere else, the home stays as it is.

    Raises:
        UsageError: jgo is not installed.
    """
    try:
        maven: Any = import_module("jgo.maven")
    except ImportError as error:
        raise UsageError(
            "The embedded broker needs the package jgo to fetch Apache Kafka. Install it with "
            "`pip install 'nearstream[local]'`, or set --bootstrap to a Kafka of your own."
        ) from error

    @contextmanager
    def progress(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
        yield on_bytes

    resolver = maven.PythonResolver(progress_callback=progress)
    context = maven.MavenContext(resolver=resolver, repo_cache=repository, timeout=FETCH_TIMEOUT_S)

    def fetch(coordinate: str) -> Path:
        group, artifact, version = coordinate.split(":")
        file = context.project(group, artifact).at_version(version).artifact()
        return _with_retries(file, coordinate)

    return fetch


def _with_retries(file: Any, coordinate: str) -> Path:
    """Jgo's file of an artifact. Its HTTP errors are OSErrors, everything else it says is a RuntimeError."""
    problem: Exception
    for _ in range(FETCH_TRIES_MAX):
        try:
            return Path(file.resolve())
        except (OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise
            problem = error
            Path(file.cached_path).unlink(missing_ok=True)  # jgo would take half a file for the whole
    raise BrokerUnavailable(
        f"{coordinate} could not be fetched from Maven Central ({type(problem).__name__} in {FETCH_TRIES_MAX} tries). "
        "Check the network and the HTTPS_PROXY variable and start again; what arrived is kept, and once all jars are "
        "there no network is needed. Or set --bootstrap to a Kafka of your own."
    ) from problem


def resolve_lock() -> str:
    """The text of `jars.lock` for `COORDINATES`, found and fetched anew."""
    jgo: Any = import_module("jgo")
    lines = [f"# {COORDINATES}", "# SHA-256, bytes, coordinate; class path order; by `python -m streams.kafka.jars`"]
    with tempfile.TemporaryDirectory() as repository:
        fetch = maven_fetcher(Path(repository), lambda _size: None)
        for artifact in jgo.resolve(COORDINATES):
            coordinate = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
            content = fetch(coordinate).read_bytes()
            lines.append(f"{hashlib.sha256(content).hexdigest()} {len(content):>9} {coordinate}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(resolve_lock())
