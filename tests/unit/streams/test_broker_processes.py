"""Processes, locks and ports, against the real operating system."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from streams.core.errors import BrokerUnavailable
from streams.kafka import processes
from streams.kafka.processes import (
    HOST,
    end_process,
    exclusive,
    find_process,
    free_ports,
    has_ended,
    kill_process,
    listens,
    port_is_free,
    silent,
    spawn_detached,
    spawn_watchdog,
    wait_ended,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLEEPER = [sys.executable, "-c", "import time; time.sleep(120)"]
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(120)"
)
SERVER = """
import socket, sys, time
family = socket.AF_INET6 if sys.argv[1] == "IPv6" else socket.AF_INET
with socket.create_server(("", 0), family=family, dualstack_ipv6=sys.argv[1] == "IPv6") as server:
    print(server.getsockname()[1], flush=True)
    time.sleep(120)
"""
OWNER = """
import sys, time
from pathlib import Path
from streams.kafka.processes import spawn_detached, spawn_watchdog
mark, folder = sys.argv[1], Path(sys.argv[2])
pid = spawn_detached([sys.executable, "-c", "import time; time.sleep(120)", mark], folder, folder / "log")
pipe = spawn_watchdog(pid, mark)
print(pid, flush=True)
time.sleep(120)
"""


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[str]:
    """An argument that only this test's processes have; whatever is left with it is killed."""
    mark = f"-Dtest.mark={tmp_path}"
    yield mark
    while (pid := find_process(mark)) is not None:
        kill_process(pid, mark)


def test_a_detached_process_is_found_by_its_mark(tmp_path: Path, mark: str) -> None:
    """The pid that is returned is the one found, in a session of its own."""
    pid = spawn_detached([*SLEEPER, mark], tmp_path, tmp_path / "log")
    assert find_process(mark) == pid
    assert os.getsid(pid) != os.getsid(0)
    assert not has_ended(pid, mark)
    assert find_process(mark + "-other") is None


def test_a_process_that_stops_when_asked_is_not_killed(tmp_path: Path, mark: str) -> None:
    """SIGTERM was enough, and nothing is left."""
    pid = spawn_detached([*SLEEPER, mark], tmp_path, tmp_path / "log")
    assert end_process(pid, mark, 10.0) is True
    assert find_process(mark) is None


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path, mark: str) -> None:
    """The wait is bounded, and the caller learns that force was needed."""
    log = tmp_path / "log"
    pid = spawn_detached([sys.executable, "-c", STUBBORN, mark], tmp_path, log)
    while not log.exists() or "up" not in log.read_text():
        assert not has_ended(pid, mark)
    assert end_process(pid, mark, 0.1) is False
    assert has_ended(pid, mark)


def test_a_recycled_pid_counts_as_ended(tmp_path: Path, mark: str) -> None:
    """A living process with another command line is not the one that was meant."""
    pid = spawn_detached([*SLEEPER, mark], tmp_path, tmp_path / "log")
    assert has_ended(pid, mark + "-other")


def test_ending_what_has_ended_is_no_error(tmp_path: Path, mark: str) -> None:
    """Two who stop the same process do not disturb each other."""
    pid = spawn_detached([*SLEEPER, mark], tmp_path, tmp_path / "log")
    kill_process(pid, mark)
    assert end_process(pid, mark, 1.0) is True


def test_kill_9_of_the_owner_ends_the_process(tmp_path: Path, mark: str) -> None:
    """No orphan stays, even when the owner has no chance to clean up."""
    with subprocess.Popen([sys.executable, "-c", OWNER, mark, tmp_path], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert not has_ended(pid, mark)
        owner.send_signal(signal.SIGKILL)
    assert wait_ended(pid, mark, 20.0)


def test_the_watchdog_leaves_a_recycled_pid_alone(tmp_path: Path, mark: str) -> None:
    """When the number belongs to another command line by then, nobody is signalled."""
    pid = spawn_detached([*SLEEPER, mark], tmp_path, tmp_path / "log")
    other = f"{mark.removeprefix('-')}-other"
    pipe = spawn_watchdog(pid, other)
    watchdog = find_process(other)
    assert watchdog is not None
    os.close(pipe)
    assert wait_ended(watchdog, other, 20.0)
    assert not has_ended(pid, mark)


def test_the_watchdog_is_not_taken_for_the_process(tmp_path: Path, mark: str) -> None:
    """After the process ended, nothing is found although its watchdog still waits."""
    pid = spawn_detached([*SLEEPER, mark], tmp_path, tmp_path / "log")
    pipe = spawn_watchdog(pid, mark)
    kill_process(pid, mark)
    assert find_process(mark) is None
    os.close(pipe)


def test_the_lock_is_held_by_one_and_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second holder is told to wait, gives up in time, and gets it when it is free."""
    monkeypatch.setattr(processes, "LOCK_WAIT_S", 0.05)
    said: list[str] = []
    path = tmp_path / "lock"
    with (
        exclusive(path, silent),
        pytest.raises(BrokerUnavailable, match="has held"),
        exclusive(path, lambda text, *_: said.append(text)),
    ):
        pytest.fail("two held the lock")
    assert len(said) == 1
    with exclusive(path, silent):
        pass


def test_free_ports_are_free_distinct_and_never_given_to_clients() -> None:
    """They lie below the range from which kernels take ports for outgoing connections."""
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert all(port_is_free(port) and port < 32_768 for port in ports)
    assert free_ports(0) == []


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_only_the_process_that_listens_is_said_to(family: str) -> None:
    """Another process, another port, a client's end of a connection and a process that has ended do not count."""
    with (
        subprocess.Popen([sys.executable, "-c", SERVER, family], stdout=subprocess.PIPE, text=True) as server,
        subprocess.Popen(SLEEPER) as other,
    ):
        assert server.stdout is not None
        port = int(server.stdout.readline())
        with socket.create_connection((HOST, port), 5):
            assert listens(server.pid, port)
            assert not listens(other.pid, port)
            assert not listens(os.getpid(), port)
            assert not listens(server.pid, port + 1)
        server.kill()
        other.kill()
        server.wait()
        assert not listens(server.pid, port)


def test_a_kernel_without_ipv6_tells_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no table of IPv6 sockets; those that only are connected do not count."""
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    process = tmp_path / "7"
    (process / "net").mkdir(parents=True)
    (process / "fd").mkdir()
    (process / "net" / "tcp").write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 55 1\n"
        "   1: 0100007F:2385 0100007F:2384 01 00000000:00000000 00:00000000 00000000     0        0 56 1\n"
    )
    for number, inode in enumerate((55, 56)):
        (process / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
    assert listens(7, 0x2384)
    assert not listens(7, 0x2385)
