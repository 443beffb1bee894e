"""The nodes of an embedded Kafka as one: what is remembered of them, their ports, their data folders."""

from __future__ import annotations

import base64
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from streams.core.errors import UsageError
from streams.kafka import processes
from streams.kafka.node import HEAP_MB, Node
from streams.kafka.processes import HOST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from streams.kafka.broker_security import BrokerSecurity
    from streams.kafka.node import Launch
    from streams.kafka.processes import OnProgress

PORT_DEFAULT = 9092


class ClusterState(msgspec.Struct, frozen=True):
    """What is remembered between starts, in `cluster.json`; written once all nodes are formatted."""

    cluster_id: str
    ports: list[int]
    controller_ports: list[int]

    @property
    def ports_are_free(self) -> bool:
        """Whether nobody listens on any of them now."""
        return all(map(processes.port_is_free, (*self.ports, *self.controller_ports)))

    def nodes(self, folder: Path, security: BrokerSecurity | None = None) -> list[Node]:
        """The nodes, each in its subfolder."""
        ports = enumerate(zip(self.ports, self.controller_ports, strict=True), start=1)
        return [
            Node(number, folder / f"node-{number}", port, controller, security) for number, (port, controller) in ports
        ]


def read_state(folder: Path) -> ClusterState | None:
    """What was remembered; None when nothing was.

    Raises:
        UsageError: the file is damaged.
    """
    path = folder / "cluster.json"
    try:
        state = msgspec.json.decode(path.read_bytes(), type=ClusterState)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise _damaged(folder, f"{path} is not readable ({error})") from error
    if len(state.ports) != len(state.controller_ports) or len(state.ports) not in HEAP_MB:
        raise _damaged(folder, f"{path} does not name 1 or 3 nodes")
    return state


def write_state(folder: Path, state: ClusterState) -> None:
    """Remembers; a kill leaves the old or the new file, never half of one."""
    new = folder / "cluster.tmp"
    new.write_bytes(msgspec.json.encode(state))
    new.replace(folder / "cluster.json")


def planned(size: int, port: int | None, last: ClusterState | None, on_progress: OnProgress) -> ClusterState:
    """The state of the next start: ports that are free now, as before where that is possible.

    Of a `port` of 0 any will do.

    Raises:
        UsageError: `port` was asked for, and somebody else has it or one of those that follow.
    """
    ports = _client_ports(size, port, last, on_progress)
    return ClusterState(
        cluster_id=_new_cluster_id() if last is None else last.cluster_id,
        ports=ports,
        controller_ports=_controller_ports(size, ports, last),
    )


def _client_ports(size: int, port: int | None, last: ClusterState | None, on_progress: OnProgress) -> list[int]:
    if port:
        wanted = [port + node for node in range(size)]
    elif last is not None:
        wanted = last.ports
    elif port is None:
        wanted = [PORT_DEFAULT + node for node in range(size)]
    else:
        return processes.free_ports(size)
    taken = [each for each in wanted if not processes.port_is_free(each)]
    if taken and port:
        raise UsageError(
            f"Port {', '.join(map(str, taken))} of {HOST} is taken by another program. Choose another --port, or leave "
            "it out to have a free one chosen."
        )
    substitutes = dict(zip(taken, processes.free_ports(len(taken)), strict=True))
    for each, substitute in substitutes.items():
        on_progress(f"port {each} is taken by another program: using {substitute} from now on")
    return [substitutes.get(each, each) for each in wanted]


def _controller_ports(size: int, taken: Sequence[int], last: ClusterState | None) -> list[int]:
    if last is not None and all(processes.port_is_free(port) and port not in taken for port in last.controller_ports):
        return last.controller_ports
    return [port for port in processes.free_ports(size + len(taken)) if port not in taken][:size]


def prepare(
    folder: Path, state: ClusterState, launch: Launch, *, known: bool, security: BrokerSecurity | None = None
) -> list[Node]:
    """Writes the configurations and formats the data folders, unless that was done before; `known` says so.

    Raises:
        UsageError: some of what belongs together is missing; nothing was changed.
        BrokerUnavailable: formatting failed.
    """
    nodes = state.nodes(folder, security)
    formatted = [node.is_formatted for node in nodes]
    if (known and any(formatted) and not all(formatted)) or (not known and any(node.has_data for node in nodes)):
        raise _damaged(folder, "Files of the embedded Kafka are missing")
    for node in nodes:
        node.configure(nodes)
    if not (known and all(formatted)):
        for node in nodes:  # what an interrupted attempt left
            shutil.rmtree(node.folder / "data", ignore_errors=True)
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(lambda node: node.format(launch, state.cluster_id), nodes))
    return nodes


def _damaged(folder: Path, what: str) -> UsageError:
    return UsageError(
        f"{what}. Put the files of {folder} back from a copy, choose another --data-dir, or remove that folder to "
        "start afresh without the topics that were in it."
    )


def _new_cluster_id() -> str:
    """22 characters as Kafka makes them; none is a dash, which a command line could take for an option."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
