"""One node of the embedded Kafka: its folder, its configuration and its process."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.core.errors import BrokerUnavailable
from streams.kafka import processes
from streams.kafka.archive import archive_key, keep_archive
from streams.kafka.processes import HOST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from streams.kafka.broker_security import BrokerSecurity
    from streams.kafka.java import Java

ANSWER_WAIT_S = 2.0
FORMAT_WAIT_S = 60.0
STOP_GRACE_S = 15.0
LOG_BYTES_MAX = 4_000_000
LOG_TAIL_BYTES = 16_384
LOG_TAIL_LINES = 12

# One node keeps little work in few threads; three share a machine with the tests that kill them.
HEAP_MB = {1: 512, 3: 256}
JVM_FLAGS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")
LOG_FLAGS = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
    "-Dorg.slf4j.simpleLogger.showThreadName=false",
)

# Paths are relative to the node's folder, so that no path needs the escapes of Java's properties.
CONFIGURATION = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners={protocol}://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners={protocol}://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,{protocol}:{protocol}
log.dirs=data

auto.create.topics.enable=false
default.replication.factor={replication}
min.insync.replicas={in_sync_min}
offsets.topic.replication.factor={replication}
offsets.topic.num.partitions=8
transaction.state.log.replication.factor={replication}
transaction.state.log.min.isr={in_sync_min}
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor={replication}
share.coordinator.state.topic.min.isr={in_sync_min}
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
controlled.shutdown.enable={controlled_shutdown}
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500

log.retention.hours=168
log.segment.bytes=134217728
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
background.threads=2
"""


@dataclass(frozen=True, slots=True)
class Launch:
    """What every node of a start shares."""

    java: Java
    jars: Sequence[Path]
    archive: Path | None = None

    @property
    def class_path(self) -> str:
        """In a fixed order: a class-data archive holds for one order only."""
        return os.pathsep.join(map(str, self.jars))

    @property
    def archive_key(self) -> str:
        """Names the class-data archive of this Java and these jars."""
        return archive_key(self.java, self.jars)

    def command(self, flags: Sequence[str], main: str, *arguments: str) -> list[str]:
        """A command line; the locale makes Java read paths as UTF-8 wherever it runs."""
        java = ["env", "LC_ALL=C.UTF-8", str(self.java.path), *JVM_FLAGS, *LOG_FLAGS]
        return [*java, *flags, "-cp", self.class_path, main, *arguments]


@dataclass(frozen=True, slots=True)
class Node:
    """A broker that is also a controller, alone in its folder. `number` counts from 1."""

    number: int
    folder: Path
    port: int
    controller_port: int
    security: BrokerSecurity | None = None

    @property
    def mark(self) -> str:
        """The argument by which its process is known, and no other."""
        return f"-Dnearstream.node={self.folder}"

    @property
    def log(self) -> Path:
        """What the broker last said."""
        return self.folder / "broker.log"

    @property
    def is_formatted(self) -> bool:
        """Whether the data folder was prepared, by the last file that formatting writes."""
        return (self.folder / "data" / "meta.properties").exists()

    @property
    def has_data(self) -> bool:
        """Whether a broker ever ran on the data folder."""
        return (self.folder / "data" / "__cluster_metadata-0").exists()

    def pid(self) -> int | None:
        """Pid of its process, None when there is none."""
        return processes.find_process(f"{self.mark} ")

    def answers(self) -> bool:
        """Whether its own process answers requests on its port: asked for the API versions (key 18, version 0).

        Another Kafka may have taken the port in the seconds that ours needs to get there, and would answer as well.
        """
        pid = self.pid()
        if pid is None or not processes.listens(pid, self.port):
            return False
        request = struct.pack(">ihhih", 10, 18, 0, 1, -1)
        try:
            with self._connected() as connection:
                connection.sendall(request)
                return len(connection.recv(8)) == 8
        except OSError:
            return False

    def _connected(self) -> socket.socket:
        connection = socket.create_connection((HOST, self.port), ANSWER_WAIT_S)
        context = None if self.security is None else self.security.probe_context()
        return connection if context is None else context.wrap_socket(connection)

    def configure(self, cluster: Sequence[Node]) -> None:
        """Writes its configuration as a member of the cluster."""
        nodes = len(cluster)
        text = CONFIGURATION.format(
            node=self.number,
            protocol="PLAINTEXT" if self.security is None else self.security.protocol,
            host=HOST,
            port=self.port,
            controller_port=self.controller_port,
            voters=",".join(f"{node.number}@{HOST}:{node.controller_port}" for node in cluster),
            replication=nodes,
            in_sync_min=2 if nodes > 1 else 1,
            # The last of several nodes has no quorum left to sign off at, and would wait for one for minutes. One that
            # does not sign off cannot come back before its session is over.
            controlled_shutdown="false" if nodes > 1 else "true",
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "server.properties"
        path.touch(mode=0o600)  # it may hold passwords
        path.write_text(text + ("" if self.security is None else self.security.properties()), encoding="ascii")

    def format(self, launch: Launch, cluster_id: str) -> None:
        """Prepares the data folder.

        Raises:
            BrokerUnavailable: Kafka refused, with its words.
        """
        tool = ("kafka.tools.StorageTool", "format", "--config", "server.properties", "--cluster-id", cluster_id)
        command = launch.command((), *tool, *(() if self.security is None else self.security.format_arguments()))
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=FORMAT_WAIT_S
        )
        if done.returncode != 0:
            raise failure(self, "could not prepare its data folder", (done.stdout + done.stderr).splitlines())

    def spawn(self, launch: Launch, heap_mb: int) -> int:
        """Starts its process, which does not answer yet, and returns the pid."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        for unfinished in self.folder.glob("*.jsa"):
            unfinished.unlink()
        flags = (f"-Xmx{heap_mb}m", "-Xlog:disable", *self._archive_flags(launch), self.mark)
        command = launch.command(flags, "kafka.Kafka", "server.properties")
        return processes.spawn_detached(command, self.folder, self.log)

    def _archive_flags(self, launch: Launch) -> tuple[str, ...]:
        """Uses the class-data archive; without one, the first node writes one when it ends."""
        if launch.archive is not None:
            return (f"-XX:SharedArchiveFile={launch.archive}",)
        return (f"-XX:ArchiveClassesAtExit={launch.archive_key}.jsa",) if self.number == 1 else ()

    def stop(self, jars_dir: Path) -> None:
        """Ends its process if there is one, by force after the grace; keeps the archive that a clean end wrote."""
        pid = self.pid()
        if pid is not None and processes.end_process(pid, self.mark, STOP_GRACE_S):
            for written in self.folder.glob("*.jsa"):
                keep_archive(written, jars_dir)

    def kill(self) -> None:
        """Ends its process at once, as a crash would."""
        pid = self.pid()
        if pid is not None:
            processes.kill_process(pid, self.mark)

    def last_words(self) -> list[str]:
        """The last lines of its log."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]


def wait_until_answering(nodes: Sequence[Node], limit_s: float) -> None:
    """Returns when all the nodes answer.

    Raises:
        BrokerUnavailable: one ended or was silent for too long; with the last lines of its log.
    """
    deadline = time.monotonic() + limit_s
    silent = list(nodes)
    while silent := [node for node in silent if not node.answers()]:
        for node in silent:
            if node.pid() is None:
                raise failure(node, "ended while it started", node.last_words())
        if time.monotonic() > deadline:
            raise failure(silent[0], f"did not answer within {limit_s:.0f} s", silent[0].last_words())
        time.sleep(processes.POLL_S)


def failure(node: Node, what: str, said: Sequence[str]) -> BrokerUnavailable:
    """The error of a node that failed, with what it said."""
    text = "\n".join(f"  {line}" for line in said[-LOG_TAIL_LINES:]) or "  (nothing)"
    if "No space left on device" in text or processes.free_bytes(node.folder) == 0:
        return BrokerUnavailable(processes.full_disk_message(node.folder))
    return BrokerUnavailable(
        f"Kafka node {node.number} {what}. It said:\n{text}\nThe whole log is {node.log}. If its data is damaged, "
        f"removing the folder {node.folder.parent} starts afresh without the topics that were in it."
    )
