"""The embedded Kafka: real Apache Kafka on this machine, from packages only, for one person and for tests.

A broker belongs to its data directory. Whoever starts one from the same directory finds it, whatever became of
the process that started it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from streams.core.errors import BrokerUnavailable, UsageError
from streams.kafka import processes
from streams.kafka.archive import archive_key, find_archive
from streams.kafka.cluster import planned, prepare, read_state, write_state
from streams.kafka.jars import KAFKA_VERSION, ensure_jars
from streams.kafka.java import find_java
from streams.kafka.node import HEAP_MB, Launch, Node, wait_until_answering
from streams.kafka.processes import HOST, silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from streams.kafka.broker_security import BrokerSecurity
    from streams.kafka.cluster import ClusterState
    from streams.kafka.processes import OnProgress

PORT_MIN = 1024
PORT_MAX = 65_533  # three brokers take three ports
START_WAIT_S = 90.0
TAKE_OVER_WAIT_S = 20.0
STARTS_MAX = 3
"""With other ports each time: somebody may take a port between our look at it and Kafka's."""
FREE_BYTES_MIN = 200_000_000


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One node now; `pid` is None when it does not run."""

    number: int
    port: int
    pid: int | None


@dataclass(frozen=True, slots=True)
class BrokerInfo:
    """The embedded Kafka now. `started` says whether the object that was asked started it, or found it running."""

    nodes: tuple[NodeInfo, ...]
    data_dir: Path
    version: str
    started: bool

    @property
    def bootstrap(self) -> str:
        """Its address, for clients."""
        return ",".join(f"{HOST}:{port}" for port in self.ports)

    @property
    def running(self) -> bool:
        """Whether every node runs."""
        return all(node.pid is not None for node in self.nodes)

    @property
    def pids(self) -> tuple[int, ...]:
        """Pids of the nodes that run."""
        return tuple(node.pid for node in self.nodes if node.pid is not None)

    @property
    def ports(self) -> tuple[int, ...]:
        """Client ports of all nodes."""
        return tuple(node.port for node in self.nodes)


class EmbeddedKafka:
    """Starts, finds and stops the Kafka of one data directory. Synchronous; safe between processes, not threads.

    As a context manager it starts on entry and stops on exit what it started: a broker that it found running is
    left running.
    """

    def __init__(
        self,
        data_dir: Path,
        brokers: int | None = None,
        port: int | None = None,
        *,
        die_with_owner: bool = False,
        jars_dir: Path | None = None,
        security: BrokerSecurity | None = None,
    ) -> None:
        """Nothing happens before `start`.

        Args:
            data_dir: its subfolder `kafka` holds jars, configuration, logs and data of the nodes.
            brokers: 1, or 3 for a replicated one; by default as many as the directory was made for, else 1.
            port: client port of the first node, those of the others follow it. By default the one used last, else
                9092, else any that is free; with 0 the one used last, else any that is free.
            die_with_owner: nodes that this object starts end soon after this process does, however it ends. A child
                forked without exec shares the ownership.
            jars_dir: where the jars are, to share them between data directories.
            security: TLS and logins, the same at each start; its users are made when the data directory is.

        Raises:
            UsageError: a number out of range.
        """
        if brokers not in {None, *HEAP_MB}:
            raise UsageError(f"The embedded Kafka has 1 or 3 brokers, not {brokers}. Choose --brokers 1 or 3.")
        if port and not PORT_MIN <= port <= PORT_MAX:
            raise UsageError(f"Expected a port from {PORT_MIN} to {PORT_MAX}, got {port}. Choose another --port.")
        self._folder = data_dir.expanduser().resolve() / "kafka"
        self._jars_dir = (self._folder / "jars" if jars_dir is None else jars_dir.expanduser()).resolve()
        self._security = security
        self._brokers = brokers
        self._port = port
        self._die_with_owner = die_with_owner
        self._watchdogs: list[int] = []
        self._started = False

    @property
    def bootstrap(self) -> str:
        """Address for clients.

        Raises:
            UsageError: no broker was started from this data directory yet.
        """
        info = self.status()
        if info is None:
            raise UsageError(f"No broker was started from {self._folder} yet. Start one with `nearstream kafka start`.")
        return info.bootstrap

    def start(self, on_progress: OnProgress = silent) -> BrokerInfo:
        """Returns once every node answers. Nodes that run already are taken over as they are.

        Raises:
            UsageError: no Java, a port that is taken, another number of brokers than the data has, a wrong jar.
            BrokerUnavailable: jars cannot be fetched, the disk is full, or Kafka failed; with what it said.
        """
        with self._exclusive(on_progress):
            state = read_state(self._folder)
            nodes = state.nodes(self._folder, self._security) if state else []
            self._check_size(nodes)
            if not self._take_over(nodes, on_progress):
                nodes = self._start_all(state, on_progress)
            return self._info(nodes)

    def stop(self) -> BrokerInfo | None:
        """Ends all nodes, whoever started them, and returns what is left; None when there never were any.

        A node that does not end within fifteen seconds is killed, which costs no more than a log recovery.
        """
        if not self._folder.exists():
            return None
        with self._exclusive(silent):
            nodes = self._nodes()
            self._end(nodes)
            return self._info(nodes) if nodes else None

    def status(self) -> BrokerInfo | None:
        """The nodes now, None when there never were any. Changes nothing and waits for nobody."""
        nodes = self._nodes()
        return self._info(nodes) if nodes else None

    def kill(self, number: int) -> None:
        """Ends node `number` (from 1) at once, as a crash would; it is gone when this returns."""
        self._node(number).kill()

    def start_node(self, number: int, on_progress: OnProgress = silent) -> None:
        """Starts node `number` again on its data and returns once it answers.

        Raises:
            UsageError, BrokerUnavailable: as `start`.
        """
        with self._exclusive(on_progress):
            node = self._node(number)
            if node.pid() is None:
                self._launch([node], self._prepared(on_progress))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._started:
            self.stop()

    def _take_over(self, nodes: Sequence[Node], on_progress: OnProgress) -> bool:
        """Completes a cluster of which a node runs; false when none does, or none that is of use."""
        running = [node for node in nodes if node.pid() is not None]
        if not running:
            return False
        if self._port and self._port != nodes[0].port:
            raise UsageError(
                f"The broker of {self._folder} runs on port {nodes[0].port}, not {self._port}. Stop it first with "
                "`nearstream kafka stop`, or leave out --port."
            )
        try:
            wait_until_answering(running, TAKE_OVER_WAIT_S)
        except BrokerUnavailable:
            on_progress("replacing a broker that runs but does not answer")
            self._end(nodes)
            return False
        absent = [node for node in nodes if node.pid() is None]
        if absent:
            self._launch(absent, self._prepared(on_progress))
        return True

    def _start_all(self, last: ClusterState | None, on_progress: OnProgress) -> list[Node]:
        """Starts all nodes, none of which runs."""
        size = len(last.ports) if last else self._brokers or 1
        launch = self._prepared(on_progress)
        for attempt in range(1, STARTS_MAX + 1):
            state = planned(size, self._port, last, on_progress)
            nodes = prepare(self._folder, state, launch, known=last is not None, security=self._security)
            write_state(self._folder, state)
            ports = ", ".join(map(str, state.ports))
            on_progress(f"starting Apache Kafka {KAFKA_VERSION} on port {ports} with Java {launch.java.version}")
            try:
                self._launch(nodes, launch)
                break
            except BrokerUnavailable:
                if attempt == STARTS_MAX or state.ports_are_free:
                    raise
                last = state
        self._started = True
        return nodes

    def _prepared(self, on_progress: OnProgress) -> Launch:
        """Java, the checked jars, and a disk with room."""
        if processes.free_bytes(self._folder) < FREE_BYTES_MIN:
            raise BrokerUnavailable(processes.full_disk_message(self._folder))
        java, jars = find_java(), ensure_jars(self._jars_dir, on_progress)
        return Launch(java, jars, find_archive(self._jars_dir, archive_key(java, jars)))

    def _launch(self, nodes: Sequence[Node], launch: Launch) -> None:
        """Starts these nodes and waits for them; after a failure none of them runs."""
        heap_mb = HEAP_MB[len(self._nodes())]
        with ExitStack() as undo:
            for node in nodes:
                undo.callback(node.kill)
                pid = node.spawn(launch, heap_mb)
                if self._die_with_owner:
                    self._watchdogs.append(processes.spawn_watchdog(pid, node.mark))
            wait_until_answering(nodes, START_WAIT_S)
            undo.pop_all()

    def _end(self, nodes: Sequence[Node]) -> None:
        if nodes:
            with ThreadPoolExecutor(len(nodes)) as pool:
                list(pool.map(lambda node: node.stop(self._jars_dir), nodes))
        while self._watchdogs:
            os.close(self._watchdogs.pop())
        self._started = False

    def _nodes(self) -> list[Node]:
        state = read_state(self._folder)
        return state.nodes(self._folder, self._security) if state else []

    def _node(self, number: int) -> Node:
        nodes = self._nodes()
        if not 1 <= number <= len(nodes):
            raise UsageError(f"The embedded Kafka of {self._folder} has {len(nodes)} nodes; there is no node {number}.")
        return nodes[number - 1]

    def _info(self, nodes: Sequence[Node]) -> BrokerInfo:
        infos = tuple(NodeInfo(node.number, node.port, node.pid()) for node in nodes)
        return BrokerInfo(infos, self._folder.parent, KAFKA_VERSION, self._started)

    def _check_size(self, nodes: Sequence[Node]) -> None:
        if nodes and self._brokers not in {None, len(nodes)}:
            raise UsageError(
                f"{self._folder} holds the data of {len(nodes)} broker(s), and {self._brokers} were asked for. Use "
                f"--brokers {len(nodes)}, another --data-dir, or remove that folder and the topics in it."
            )

    @contextmanager
    def _exclusive(self, on_progress: OnProgress) -> Iterator[None]:
        """One process at a time starts or stops the broker of a data directory."""
        with processes.full_disk_named(self._folder):
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except (PermissionError, FileExistsError, NotADirectoryError) as error:
                raise UsageError(
                    f"The folder {self._folder} cannot be used ({error.strerror}). Choose one that you may write with "
                    "--data-dir or NEARSTREAM_DATA_DIR."
                ) from error
            with processes.exclusive(self._folder / ".lock", on_progress):
                yield
