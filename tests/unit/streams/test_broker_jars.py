"""Jars of the embedded broker: what is fetched, what is trusted."""

from __future__ import annotations

import errno
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from streams.core.errors import BrokerUnavailable, UsageError
from streams.kafka import jars
from streams.kafka.jars import COORDINATES, KAFKA_VERSION, LockedJar, ensure_jars, locked_jars, maven_fetcher

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT = {"org.a:one:1": b"one", "org.b:two:2": b"twotwo"}
LOCK = [LockedJar(hashlib.sha256(data).hexdigest(), len(data), name) for name, data in CONTENT.items()]


class Repository:
    """Stands for Maven Central: serves `content`, or fails with `error`."""

    def __init__(self, content: dict[str, bytes], error: Exception | None = None) -> None:
        self.content, self.error = content, error
        self.asked: list[str] = []

    def __call__(self, folder: Path, on_bytes: Callable[[int], None]) -> Callable[[str], Path]:
        def fetch(coordinate: str) -> Path:
            self.asked.append(coordinate)
            if self.error is not None and coordinate == "org.b:two:2":
                raise self.error
            path = folder / coordinate.replace(":", "-")
            path.write_bytes(self.content[coordinate])
            on_bytes(len(self.content[coordinate]))
            return path

        return fetch


def test_the_lock_names_this_kafka_and_nothing_twice() -> None:
    """The shipped lock was made for the version in the code, and every row is whole."""
    rows = locked_jars()
    assert Path(jars.__file__).with_name("jars.lock").read_text().startswith(f"# {COORDINATES}\n")
    assert f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}" in {jar.coordinate for jar in rows}
    assert len({jar.file_name for jar in rows}) == len(rows) == 46
    assert all(len(jar.sha256) == 64 and jar.size_bytes > 0 for jar in rows)


def test_missing_jars_are_fetched_in_class_path_order(tmp_path: Path) -> None:
    """All files are there afterwards, in the lock's order, and progress ends at the whole."""
    seen: list[tuple[int, int]] = []
    paths = ensure_jars(tmp_path, lambda _text, done=0, total=0: seen.append((done, total)), LOCK, Repository(CONTENT))
    assert [path.name for path in paths] == ["one-1.jar", "two-2.jar"]
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert seen[0] == (0, 9)
    assert seen[-1] == (9, 9)


def test_jars_that_are_there_are_not_fetched_again(tmp_path: Path) -> None:
    """A second start asks for nothing; a single missing jar is fetched alone."""
    ensure_jars(tmp_path, jars=LOCK, fetcher=Repository(CONTENT))
    (tmp_path / "two-2.jar").unlink()
    repository = Repository(CONTENT)
    ensure_jars(tmp_path, jars=LOCK, fetcher=repository)
    ensure_jars(tmp_path, jars=LOCK, fetcher=repository)
    assert repository.asked == ["org.b:two:2"]


def test_a_jar_with_the_wrong_content_is_never_kept(tmp_path: Path) -> None:
    """What arrives changed is refused by name and not put beside the good ones."""
    with pytest.raises(UsageError, match=r"org\.b:two:2.*expected SHA-256.*Delete that file"):
        ensure_jars(tmp_path, jars=LOCK, fetcher=Repository({**CONTENT, "org.b:two:2": b"tampered"}))
    assert not (tmp_path / "two-2.jar").exists()


def test_a_cached_jar_that_changed_is_refused(tmp_path: Path) -> None:
    """A jar is checked at every start, not only when it arrives."""
    ensure_jars(tmp_path, jars=LOCK, fetcher=Repository(CONTENT))
    (tmp_path / "one-1.jar").write_bytes(b"onf")
    with pytest.raises(UsageError, match=rf"{tmp_path / 'one-1.jar'} is not the org\.a:one:1"):
        ensure_jars(tmp_path, jars=LOCK, fetcher=Repository(CONTENT))


def test_a_broken_fetch_keeps_what_arrived_and_leaves_no_rest(tmp_path: Path) -> None:
    """After a failure the next start goes on where this one ended."""
    with pytest.raises(BrokerUnavailable):
        ensure_jars(tmp_path, jars=LOCK, fetcher=Repository(CONTENT, BrokerUnavailable("no network")))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") in ([], ["one-1.jar"])
    ensure_jars(tmp_path, jars=LOCK, fetcher=Repository(CONTENT))


def test_a_disk_that_fills_while_jars_arrive_is_named(tmp_path: Path) -> None:
    """ENOSPC from the fetch becomes words."""
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(BrokerUnavailable, match="no room for the embedded broker"):
        ensure_jars(tmp_path, jars=LOCK, fetcher=Repository(CONTENT, full))


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded tries, then one error that names the jar, the network and the way round."""
    tries: list[str] = []

    def refuse(_method: str, url: str, **_options: Any) -> requests.Response:
        tries.append(url)
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(requests, "request", refuse)
    fetch = maven_fetcher(tmp_path, lambda _size: None)
    with pytest.raises(BrokerUnavailable, match=r"org\.a:one:1 could not be fetched.*network.*--bootstrap"):
        fetch("org.a:one:1")
    assert len(tries) == jars.FETCH_TRIES_MAX


def test_a_connection_lost_half_way_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file is not taken for the whole."""
    answers = [[b"o", requests.ConnectionError("reset")], [b"one"]]

    def answer(_method: str, url: str, **_options: Any) -> requests.Response:
        response = requests.Response()
        response.status_code = 404 if url.endswith(".sha1") else 200
        if response.status_code == 200:
            response.iter_content = _chunks(answers.pop(0))  # type: ignore[method-assign]
        return response

    monkeypatch.setattr(requests, "request", answer)
    assert maven_fetcher(tmp_path, lambda _size: None)("org.a:one:1").read_bytes() == b"one"


def test_without_jgo_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The optional packages are asked for by the extra's name."""
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    with pytest.raises(UsageError, match=r"pip install 'nearstream\[local\]'"):
        maven_fetcher(tmp_path, lambda _size: None)


def _chunks(parts: list[Any]) -> Callable[..., Any]:
    def iter_content(**_options: Any) -> Any:
        for part in parts:
            if isinstance(part, Exception):
                raise part
            yield part

    return iter_content
