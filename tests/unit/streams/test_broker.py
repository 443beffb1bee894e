"""The embedded Kafka without a JVM: decisions, messages and the command's output."""

from __future__ import annotations

import errno
import json
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from streams.cli.kafka import kafka
from streams.core.errors import BrokerUnavailable, UsageError
from streams.kafka import cluster, java, node, processes
from streams.kafka.archive import find_archive, keep_archive
from streams.kafka.broker import EmbeddedKafka
from streams.kafka.cluster import ClusterState, planned, prepare, read_state, write_state
from streams.kafka.java import Java, find_java
from streams.kafka.node import Launch, Node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of 127.0.0.1 that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_first_start_takes_9092_or_says_which_port_instead(taken_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A default port that somebody else has is replaced by a free one, and the person is told."""
    monkeypatch.setattr(cluster, "PORT_DEFAULT", taken_port)
    said: list[str] = []
    state = planned(1, None, None, lambda text, *_: said.append(text))
    assert state.ports != [taken_port]
    assert processes.port_is_free(state.ports[0])
    assert str(taken_port) in said[0]
    assert str(state.ports[0]) in said[0]


def test_the_last_ports_are_used_again() -> None:
    """A restart keeps the address that clients know, and the cluster's id."""
    ports = processes.free_ports(2)
    last = ClusterState(CLUSTER_ID, ports[:1], ports[1:])
    assert planned(1, None, last, processes.silent) == last


def test_port_0_is_any_free_one_and_then_the_last() -> None:
    """Tests that run beside each other never meet at 9092; a restart keeps the address."""
    state = planned(3, 0, None, processes.silent)
    assert cluster.PORT_DEFAULT not in state.ports
    assert len({*state.ports, *state.controller_ports}) == 6
    assert state.ports_are_free
    assert planned(3, 0, state, processes.silent) == state


def test_ports_that_somebody_listens_on_are_not_free(taken_port: int) -> None:
    """Client and controller ports count alike."""
    (free,) = processes.free_ports(1)
    assert not ClusterState(CLUSTER_ID, [taken_port], [free]).ports_are_free
    assert not ClusterState(CLUSTER_ID, [free], [taken_port]).ports_are_free


def test_a_port_that_was_asked_for_is_never_replaced(taken_port: int) -> None:
    """With --port, a taken port is an error that names it."""
    with pytest.raises(UsageError, match=rf"Port {taken_port} of 127.0.0.1 is taken"):
        planned(1, taken_port, None, processes.silent)


def test_ports_of_three_nodes_are_distinct() -> None:
    """Client and controller ports of all nodes differ."""
    state = planned(3, None, None, processes.silent)
    assert len({*state.ports, *state.controller_ports}) == 6


def test_cluster_ids_can_stand_on_a_command_line() -> None:
    """No id starts with a dash; all have Kafka's 22 characters."""
    ids = {planned(1, None, None, processes.silent).cluster_id for _ in range(50)}
    assert all(len(each) == 22 and "-" not in each for each in ids)
    assert len(ids) == 50


def test_the_state_survives_a_round_trip(tmp_path: Path) -> None:
    """What was remembered is read back; an empty folder remembers nothing."""
    state = ClusterState(CLUSTER_ID, [9092], [9093])
    assert read_state(tmp_path) is None
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"cluster_id": 1}', b'{"cluster_id":"a","ports":[1,2],"controller_ports":[3]}']
)
def test_a_damaged_state_is_named(tmp_path: Path, content: bytes) -> None:
    """A state file that cannot be read stops everything and is never guessed around."""
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "cluster.json").write_bytes(content)
    for action in (EmbeddedKafka(tmp_path).start, EmbeddedKafka(tmp_path).status, EmbeddedKafka(tmp_path).stop):
        with pytest.raises(UsageError, match=r"cluster\.json .*start afresh"):
            action()


def test_data_without_its_state_is_not_formatted_over(tmp_path: Path) -> None:
    """When the state file is lost but topics are there, they are left alone."""
    metadata = tmp_path / "node-1" / "data" / "__cluster_metadata-0"
    metadata.mkdir(parents=True)
    state = ClusterState(CLUSTER_ID, [9092], [9093])
    with pytest.raises(UsageError, match="Files of the embedded Kafka are missing"):
        prepare(tmp_path, state, _launch(tmp_path), known=False)
    assert metadata.exists()


def test_one_of_three_data_folders_missing_is_an_error(tmp_path: Path) -> None:
    """A cluster that lost one node's data is not completed with an empty one by guess."""
    (tmp_path / "node-1" / "data").mkdir(parents=True)
    (tmp_path / "node-1" / "data" / "meta.properties").touch()
    state = ClusterState(CLUSTER_ID, [1, 2, 3], [4, 5, 6])
    with pytest.raises(UsageError, match="Files of the embedded Kafka are missing"):
        prepare(tmp_path, state, _launch(tmp_path), known=True)


def test_another_number_of_brokers_than_formatted_is_refused(tmp_path: Path) -> None:
    """A data directory of one broker does not become one of three."""
    (tmp_path / "kafka").mkdir()
    write_state(tmp_path / "kafka", ClusterState(CLUSTER_ID, [9092], [9093]))
    with pytest.raises(UsageError, match=r"holds the data of 1 broker\(s\), and 3 were asked for"):
        EmbeddedKafka(tmp_path, brokers=3).start()


@pytest.mark.parametrize(("brokers", "port"), [(2, None), (0, None), (1, 80), (3, 65_534)])
def test_numbers_out_of_range_are_refused(tmp_path: Path, brokers: int, port: int | None) -> None:
    """1 or 3 brokers, and ports that leave room for three."""
    with pytest.raises(UsageError):
        EmbeddedKafka(tmp_path, brokers, port)


def test_a_broker_that_never_was_has_no_address(tmp_path: Path) -> None:
    """Asking for the address of a broker that was never started says how to start it, and creates nothing."""
    broker = EmbeddedKafka(tmp_path)
    assert broker.status() is None
    assert broker.stop() is None
    with pytest.raises(UsageError, match="nearstream kafka start"):
        _ = broker.bootstrap
    with pytest.raises(UsageError, match="there is no node 1"):
        broker.kill(1)
    assert list(tmp_path.iterdir()) == []


def test_a_data_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """A folder that cannot be made names the flag to change."""
    (tmp_path / "kafka").touch()
    with pytest.raises(UsageError, match="--data-dir"):
        EmbeddedKafka(tmp_path).start()


def test_a_nearly_full_disk_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka would crash half way; the check comes first and says how much is free."""
    monkeypatch.setattr(processes, "free_bytes", lambda _folder: 123_000_000)
    with pytest.raises(BrokerUnavailable, match="123 MB free"):
        EmbeddedKafka(tmp_path, die_with_owner=True).start()
    assert not (tmp_path / "kafka" / "cluster.json").exists()


def test_no_space_left_is_said_in_words(tmp_path: Path) -> None:
    """ENOSPC becomes an error that names the folder; other errors pass."""
    with pytest.raises(BrokerUnavailable, match="no room for the embedded broker"), processes.full_disk_named(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), processes.full_disk_named(tmp_path):
        raise PermissionError(errno.EACCES, "denied")


def test_a_failing_node_is_quoted(tmp_path: Path) -> None:
    """The error holds the last lines of the log and where the rest is."""
    broken = _node(tmp_path)
    broken.log.write_text("\n".join(f"line {number}" for number in range(100)))
    error = str(node.failure(broken, "ended while it started", broken.last_words()))
    assert "line 99" in error
    assert "line 50" not in error
    assert str(broken.log) in error


def test_a_node_that_failed_for_lack_of_room_says_so(tmp_path: Path) -> None:
    """Java's words for a full disk become ours."""
    error = node.failure(_node(tmp_path), "ended", ["java.io.IOException: No space left on device"])
    assert "no room for the embedded broker" in str(error)


def test_the_configuration_listens_on_this_machine_only(tmp_path: Path) -> None:
    """Every address is 127.0.0.1, and topics are never created by a typing error."""
    one = _node(tmp_path)
    one.configure([one])
    settings = _settings(one)
    assert settings["listeners"] == "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    assert settings["auto.create.topics.enable"] == "false"
    assert settings["transaction.state.log.replication.factor"] == "1"
    assert settings["transaction.state.log.min.isr"] == "1"


def test_three_nodes_replicate(tmp_path: Path) -> None:
    """Three copies of everything, two of which must be written."""
    nodes = ClusterState(CLUSTER_ID, [1, 2, 3], [4, 5, 6]).nodes(tmp_path)
    nodes[2].configure(nodes)
    settings = _settings(nodes[2])
    assert settings["node.id"] == "3"
    assert settings["controller.quorum.voters"] == "1@127.0.0.1:4,2@127.0.0.1:5,3@127.0.0.1:6"
    assert settings["default.replication.factor"] == settings["offsets.topic.replication.factor"] == "3"
    assert settings["min.insync.replicas"] == settings["transaction.state.log.min.isr"] == "2"
    assert settings["broker.session.timeout.ms"] == "3000"


def test_a_long_log_makes_way_for_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a start, a log past its bound is kept once and begun anew."""
    monkeypatch.setattr(processes, "spawn_detached", lambda *_: 1)
    monkeypatch.setattr(node, "LOG_BYTES_MAX", 10)
    one = _node(tmp_path)
    one.log.write_text("a long story\n")
    one.spawn(_launch(tmp_path), 512)
    assert not one.log.exists()
    assert (one.folder / "broker.log.1").read_text() == "a long story\n"


def test_the_first_node_writes_the_class_archive_until_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an archive one node writes it when it ends; with it, every node maps it."""
    commands: list[str] = []
    monkeypatch.setattr(processes, "spawn_detached", lambda command, *_: commands.append(" ".join(command)))
    launch = _launch(tmp_path)
    nodes = ClusterState(CLUSTER_ID, [1, 2, 3], [4, 5, 6]).nodes(tmp_path)
    for each in nodes:
        each.folder.mkdir()
        each.spawn(launch, 256)
    assert ["ArchiveClassesAtExit" in command for command in commands] == [True, False, False]
    for each in nodes:
        each.spawn(replace(launch, archive=tmp_path / "kept.jsa"), 256)
    assert all(f"-XX:SharedArchiveFile={tmp_path / 'kept.jsa'}" in command for command in commands[3:])


def test_a_kept_archive_is_found_and_replaces_older_ones(tmp_path: Path) -> None:
    """One archive is kept, for one Java and one set of jar files."""
    launch = _launch(tmp_path)
    (tmp_path / "classes-0123-4567.jsa").touch()
    written = tmp_path / "node" / f"{launch.archive_key}.jsa"
    written.parent.mkdir()
    written.write_bytes(b"classes")
    keep_archive(written, tmp_path)
    (kept,) = tmp_path.glob("*.jsa")
    assert find_archive(tmp_path, launch.archive_key) == kept
    assert kept.read_bytes() == b"classes"
    launch.jars[0].write_bytes(b"another jar")
    assert find_archive(tmp_path, launch.archive_key) is None


def test_a_damaged_archive_is_never_used(tmp_path: Path) -> None:
    """Java would crash on it, so it is removed and the broker starts without."""
    launch = _launch(tmp_path)
    written = tmp_path / f"{launch.archive_key}.jsa"
    written.write_bytes(b"classes")
    keep_archive(written, tmp_path)
    (kept,) = tmp_path.glob("*.jsa")
    kept.write_bytes(b"clas")
    assert find_archive(tmp_path, launch.archive_key) is None
    assert not kept.exists()


def test_an_archive_that_cannot_be_kept_costs_nothing_else(tmp_path: Path) -> None:
    """A stop never fails for the archive's sake; no half file stays."""
    written = tmp_path / "classes-1.jsa"
    written.write_bytes(b"classes")
    keep_archive(written, tmp_path / "missing")
    assert not written.exists()


def test_a_new_enough_system_java_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Java on the PATH comes before the packaged one."""
    path = _fake_java(tmp_path, "17.0.15")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert find_java() == Java(path, "17.0.15")


def test_an_old_system_java_gives_way_to_the_packaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Java 8 and 11 cannot run Kafka 4; the package's runtime does."""
    _fake_java(tmp_path, "1.8.0_292")
    packaged = _fake_java(tmp_path / "packaged", "25.0.2")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(java, "_packaged", lambda: str(packaged))
    assert find_java() == Java(packaged, "25.0.2")


def test_no_java_at_all_names_both_ways_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stub that does not answer counts as none; the error says package or system."""
    stub = tmp_path / "java"
    stub.write_text("#!/bin/sh\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java, "_packaged", lambda: None)
    with pytest.raises(UsageError, match=r"nearstream\[local\].*package manager"):
        find_java()


@pytest.mark.parametrize(("version", "major"), [("17.0.15", 17), ("25", 25), ("1.8.0_292", 8), ("21-ea", 21)])
def test_java_versions_are_understood(tmp_path: Path, version: str, major: int) -> None:
    """Old and new ways to count."""
    assert Java(tmp_path, version).major == major


def test_status_of_nothing_as_json(tmp_path: Path) -> None:
    """Scripts can ask before the first start."""
    result = CliRunner().invoke(kafka, ["status", "--json", "--data-dir", str(tmp_path)])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["running"] is False


def test_status_of_a_stopped_broker_as_json(tmp_path: Path) -> None:
    """The remembered address is told although nothing runs."""
    (tmp_path / "kafka").mkdir()
    write_state(tmp_path / "kafka", ClusterState(CLUSTER_ID, [9092], [9093]))
    result = CliRunner().invoke(kafka, ["status", "--json", "--data-dir", str(tmp_path)])
    assert json.loads(result.stdout) == {
        "running": False,
        "bootstrap": "127.0.0.1:9092",
        "brokers": 1,
        "pids": [],
        "ports": [9092],
        "data_dir": str(tmp_path),
        "version": "4.3.1",
    }


def test_two_brokers_are_a_misuse(tmp_path: Path) -> None:
    """The command line offers 1 and 3."""
    result = CliRunner().invoke(kafka, ["start", "--brokers", "2", "--data-dir", str(tmp_path)])
    assert result.exit_code == 2


def _node(folder: Path) -> Node:
    (folder / "node-1").mkdir(exist_ok=True)
    return Node(1, folder / "node-1", 9092, 9093)


def _launch(folder: Path) -> Launch:
    jars = [folder / "a.jar", folder / "b.jar"]
    for jar in jars:
        jar.touch()
    return Launch(Java(folder / "java", "17.0.15"), jars)


def _settings(of: Node) -> dict[str, str]:
    lines = (of.folder / "server.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line)


def _fake_java(folder: Path, version: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "java"
    path.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    path.chmod(0o755)
    return path
