"""What the embedded broker asks of the operating system: its processes, locks, ports and disk space."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from streams.core.errors import BrokerUnavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

HOST = "127.0.0.1"
POLL_S = 0.02
LOCK_WAIT_S = 300.0
KILL_WAIT_S = 5.0
WATCHDOG_GRACE_S = 10
# Below the ports that kernels give to outgoing connections: a client that keeps asking for a dead broker's port
# would else sooner or later be given that very port, connect to itself and block the broker's return.
FREE_PORTS = range(20_000, 32_000)

_PROC = Path("/proc")
_STATE_LISTEN = "0A"

# The shell ends at once, so the process belongs to init: nobody here has to reap it, and nobody takes it along.
_DETACH = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo "$!"'

# `read` returns when the owner's end of the pipe closes, which the kernel does however the owner dies. The command
# line is compared before each signal, because by then the number may belong to somebody else's process.
_WATCH = r"""
ours() {
    case "$(tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null || ps -ww -o command= -p "$1")" in *"$2"*) ;; *) false ;; esac
}
read -r _
ours "$1" "$2" && kill -TERM "$1"
left=$3
while [ "$left" -gt 0 ] && ours "$1" "$2"; do sleep 1; left=$((left - 1)); done
ours "$1" "$2" && kill -KILL "$1"
"""


class OnProgress(Protocol):
    """Told what happens now; `done` and `total` are bytes, `total` is 0 where nothing is counted."""

    def __call__(self, text: str, done: int = 0, total: int = 0, /) -> None:
        """May be called from one thread at a time."""


def silent(_text: str, _done: int = 0, _total: int = 0, /) -> None:
    """Progress that nobody wants to see."""


@contextmanager
def exclusive(path: Path, on_progress: OnProgress) -> Iterator[None]:
    """Holds a lock between processes on the file; the kernel frees it when this process dies.

    Raises:
        BrokerUnavailable: another process held it for five minutes.
    """
    with path.open("a") as file:
        deadline = time.monotonic() + LOCK_WAIT_S
        if not _locked(file.fileno()):
            on_progress("waiting for another nearstream process that starts or stops this broker")
            while not _locked(file.fileno()):
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(
                        f"Another nearstream process has held {path} for {LOCK_WAIT_S:.0f} s. End it, then try again."
                    )
                time.sleep(POLL_S)
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Turns "no space left" into BrokerUnavailable that names the folder and what is free."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise BrokerUnavailable(full_disk_message(folder)) from error


def full_disk_message(folder: Path) -> str:
    """The sentences for a disk without room."""
    return (
        f"There is no room for the embedded broker in {folder} ({free_bytes(folder) / 1e6:,.0f} MB free). Make room "
        "there, or choose a folder on another disk with --data-dir or NEARSTREAM_DATA_DIR."
    )


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written to the folder's disk; the folder need not exist yet."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(existing).free


def spawn_detached(command: Sequence[str], folder: Path, log: Path) -> int:
    """Starts a process in `folder` and in a session of its own, its output appended to `log`; returns its pid.

    A signal for the terminal's processes (Ctrl-C, hang-up) does not reach it.
    """
    shell = ["/bin/sh", "-c", _DETACH, "detach", str(log), *command]
    started = subprocess.run(shell, check=True, capture_output=True, text=True, start_new_session=True, cwd=folder)
    return int(started.stdout)


def spawn_watchdog(pid: int, mark: str) -> int:
    """Ends process `pid`, whose command line holds `mark`, as soon as this process is gone.

    Returns the descriptor that keeps the watchdog quiet; closing it means "end the process now". A pipe works for
    kill -9, when the thread that started the broker ends early, on Linux and on macOS; PR_SET_PDEATHSIG does not.
    """
    read_end, write_end = os.pipe()
    try:
        # The shell hands its standard input on by another descriptor: a background command's own is /dev/null.
        shell = ["/bin/sh", "-c", f"exec 3<&0; ({_WATCH}) <&3 3<&- >/dev/null 2>&1 &", "watchdog"]
        # Without its dash, the mark on the watchdog's own command line is not taken for the process.
        arguments = [str(pid), mark.removeprefix("-"), str(WATCHDOG_GRACE_S)]
        subprocess.run([*shell, *arguments], check=True, stdin=read_end, start_new_session=True)
    finally:
        os.close(read_end)
    return write_end


def find_process(mark: str) -> int | None:
    """Pid of the process with `mark` on its command line, whoever started it and when.

    Asking the kernel replaces pid files: nothing is stale after a crash, and a recycled pid is never mistaken,
    because it is the command line that is compared.
    """
    return next((pid for pid, command in _commands() if mark in command), None)


def has_ended(pid: int, mark: str) -> bool:
    """Whether the process is gone with all its threads, so that its files and ports are free again."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's, so the number was given anew
        return True
    command = _command(pid)
    return mark not in command if command else _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """An ending process has no command line any more, but holds its files until only the zombie is left."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return True
    fields = stat.rpartition(")")[2].split()
    state, threads = fields[0], int(fields[17])
    return state == "Z" and threads <= 1


def _command(pid: int) -> str:
    """Command line of the process, its arguments separated by blanks; empty when it is gone."""
    if _PROC.exists():
        try:
            return (_PROC / str(pid) / "cmdline").read_text(errors="replace").replace("\0", " ")
        except OSError:
            return ""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], check=False, capture_output=True, text=True
    )
    return listed.stdout


def _commands() -> Iterable[tuple[int, str]]:
    if _PROC.exists():
        pids = (int(folder.name) for folder in _PROC.iterdir() if folder.name.isdigit())
        return ((pid, _command(pid)) for pid in pids)
    listed = subprocess.run(["ps", "-axww", "-o", "pid=,command="], check=True, capture_output=True, text=True)
    lines = (line.strip().partition(" ") for line in listed.stdout.splitlines())
    return ((int(pid), command) for pid, _, command in lines)


def listens(pid: int, port: int) -> bool:
    """Whether the process itself listens on the port of this machine, and not another program.

    True where the kernel does not tell: of another user's process.
    """
    if not _PROC.exists():
        command = ["lsof", "-nP", "-t", "-a", "-p", str(pid), f"-iTCP:{port}", "-sTCP:LISTEN"]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        sockets = _listening_sockets(pid, port)
        return bool(sockets) and any(_target(each) in sockets for each in (_PROC / str(pid) / "fd").iterdir())
    except PermissionError:
        return True
    except OSError:  # it has ended
        return False


def _listening_sockets(pid: int, port: int) -> set[str]:
    """What descriptors of sockets that listen on the port point to; Java's are IPv6 ones that take IPv4 as well."""
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / str(pid) / "net" / table).read_text().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for fields in map(str.split, lines):
            if fields[3] == _STATE_LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:  # closed just now
        return ""


def end_process(pid: int, mark: str, grace_s: float) -> bool:
    """SIGTERM, then SIGKILL after `grace_s`. The process has ended afterwards; True when the first was enough."""
    send_signal(pid, signal.SIGTERM)
    if wait_ended(pid, mark, grace_s):
        return True
    kill_process(pid, mark)
    return False


def kill_process(pid: int, mark: str) -> None:
    """SIGKILL. The process has ended afterwards.

    Raises:
        BrokerUnavailable: the kernel does not let it go.
    """
    send_signal(pid, signal.SIGKILL)
    if not wait_ended(pid, mark, KILL_WAIT_S):
        raise BrokerUnavailable(f"Process {pid} is there {KILL_WAIT_S:.0f} s after SIGKILL; does its disk hang?")


def wait_ended(pid: int, mark: str, limit_s: float) -> bool:
    """Waits at most `limit_s` for the process to end; returns whether it has."""
    deadline = time.monotonic() + limit_s
    while not has_ended(pid, mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def send_signal(pid: int, number: signal.Signals) -> None:
    """Sends the signal; a process that has ended already is no error.

    Raises:
        UsageError: the process belongs to another user.
    """
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise UsageError(
            f"The broker with this data runs as another user (process {pid}). Stop it as that user, or choose another "
            "--data-dir."
        ) from error


def port_is_free(port: int) -> bool:
    """Whether a server can listen on the port of 127.0.0.1 now."""
    with socket.socket() as probe:
        return _binds(probe, port)


def free_ports(count: int) -> list[int]:
    """Distinct ports of 127.0.0.1 that are free now.

    Raises:
        BrokerUnavailable: there are not that many.
    """
    found: list[int] = []
    with ExitStack() as probes:
        for port in random.sample(FREE_PORTS, len(FREE_PORTS)):
            if len(found) == count:
                return found
            if _binds(probes.enter_context(socket.socket()), port):
                found.append(port)
    raise BrokerUnavailable(f"Of the ports {FREE_PORTS} of {HOST} {len(found)} are free, {count} are needed.")


def _binds(probe: socket.socket, port: int) -> bool:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((HOST, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    return True
