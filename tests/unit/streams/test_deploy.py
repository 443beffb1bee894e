"""The files for containers name only what exists. No engine runs here, so every name is checked against the program."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, get_args

import click
import pytest
import yaml

from streams.api.access import check_binding
from streams.app import create_app
from streams.cli import cli
from streams.config import Settings, load_settings
from streams.core.observation import ConnectionState
from streams.core.status import IndexTrigger, PartitionState, WorkerState
from streams.dashboard.verdict import GroupVerdict, Verdict
from streams.metrics import DEFINITIONS, Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
PROMETHEUS = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
GRAFANA = ROOT / "deploy/grafana"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))
}
PANELS: list[dict[str, Any]] = [panel for dashboard in DASHBOARDS.values() for panel in dashboard["panels"]]
RUNBOOK = (ROOT / "deploy/runbook.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()

SCRAPE_LABELS = {"job", "instance", "le"}
PROMQL_WORDS = {
    "sum", "max", "min", "count", "by", "or", "vector", "rate", "increase", "deriv", "histogram_quantile", "up"
}  # fmt: skip
CLI_VALUE_OPTIONS = {"--scale"}


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither variables nor a nearstream.toml of whoever runs the tests count."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("NEARSTREAM_")]:
        monkeypatch.delenv(name)


class Instruction(NamedTuple):
    """One instruction of the Dockerfile, continued lines joined."""

    word: str
    rest: str


def instructions() -> list[Instruction]:
    """The Dockerfile without comments."""
    lines = [line for line in (ROOT / "deploy/Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def stages() -> list[list[Instruction]]:
    """The instructions of each build stage, its FROM first."""
    found: list[list[Instruction]] = []
    for instruction in instructions():
        if instruction.word == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def values(stage: list[Instruction], word: str) -> list[str]:
    """What follows a word, in order."""
    return [instruction.rest for instruction in stage if instruction.word == word]


def commands(stage: list[Instruction]) -> list[str]:
    """What a stage runs, one command at a time."""
    return [command.strip() for rest in values(stage, "RUN") for command in rest.split("&&")]


def environment(stage: list[Instruction]) -> dict[str, str]:
    """The variables that a stage sets."""
    return dict(pair.split("=", 1) for rest in values(stage, "ENV") for pair in shlex.split(rest))


def copied_sources() -> list[str]:
    """What the Dockerfile takes from the repository."""
    copies = [shlex.split(rest) for stage in stages() for rest in values(stage, "COPY")]
    return [source.rstrip("/") for copy in copies if not copy[0].startswith("--from") for source in copy[:-1]]


def resolve(arguments: list[str]) -> click.Context:
    """The command and options that the arguments name, parsed as `nearstream` does, without running anything."""
    command: click.Command | None = cli
    context = click.Context(cli, info_name="nearstream")
    while isinstance(command, click.Group):
        name, *arguments = arguments
        command = command.get_command(context, name)
        assert command is not None, f"nearstream has no command {name!r} under {context.command_path!r}"
        if isinstance(command, click.Group):
            context = click.Context(command, parent=context, info_name=name)
    assert command is not None
    return command.make_context(command.name, arguments, parent=context)


def service_environment(name: str) -> dict[str, str]:
    """The variables of one of our services: the image's, then the compose file's."""
    own = SERVICES[name].get("environment", {})
    return {**environment(stages()[-1]), **{key: str(value) for key, value in own.items()}}


def settings_of(name: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that a service's container runs with."""
    for variable, value in service_environment(name).items():
        if variable.startswith("NEARSTREAM_"):
            monkeypatch.setenv(variable, value)
    return load_settings()


def published(name: str) -> list[tuple[str, int, int]]:
    """Host, outer and inner port of each published port of a service."""
    ports = [port.rsplit(":", 2) for port in SERVICES[name].get("ports", [])]
    return [(host, int(outer), int(inner)) for host, outer, inner in ports]


def queries() -> Iterator[tuple[str, str, str]]:
    """Panel title, PromQL and legend of every query of the dashboards."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]


def exported_samples() -> dict[str, set[str]]:
    """Every sample name that a worker exports, with its labels, taken from its own exposition."""
    metrics = Metrics()
    for definition in DEFINITIONS:
        getattr(metrics, definition.kind)(definition.name, **dict.fromkeys(definition.labels, "x"))
    samples: dict[str, set[str]] = {}
    for line in metrics.exposition().decode().splitlines():
        if not line.startswith("#"):
            name, _, labels = line.rpartition(" ")[0].partition("{")
            samples[name] = set(re.findall(r"(\w+)=", labels))
    return samples


def shell_commands(text: str) -> list[list[str]]:
    """The command lines in the bash blocks of a document, as words."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


# The image


def test_image_copies_only_files_that_exist_and_reach_the_engine() -> None:
    """Each COPY source is in the repository and let through by .dockerignore, which lets nothing else through."""
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line.removeprefix("!") for line in patterns if line.startswith("!")}
    sources = copied_sources()
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert "*" in patterns
    assert set(sources) == let_through


def test_image_takes_every_package_of_the_program() -> None:
    """Packages that pyproject.toml installs, its readme and its licence are copied before the installation."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    needed = packages | {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert needed <= set(copied_sources())


def test_image_installs_the_lock_with_hashes_and_itself_without_dependencies() -> None:
    """Nothing comes into the image that the lock does not name with its hash."""
    installs = [command for command in commands(stages()[0]) if command.startswith("pip install")]
    assert installs == ["pip install --require-hashes -r requirements.lock", "pip install --no-deps ."]


def test_image_leaves_out_only_what_the_embedded_broker_needs() -> None:
    """Packages that are taken out again belong to the extra `local`, which no container uses."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    local = {re.split(r"\W", requirement)[0] for requirement in project["project"]["optional-dependencies"]["local"]}
    (removal,) = [command for command in commands(stages()[0]) if command.startswith("pip uninstall --yes ")]
    assert set(removal.split()[3:]) == local


def test_compiler_stays_in_the_first_stage() -> None:
    """The runtime stage installs no system package and takes only the environment from the build stage."""
    build, runtime = stages()
    assert any("apt-get install" in command and "g++" in command for command in commands(build))
    assert not any("apt-get" in command for command in commands(runtime))
    assert values(runtime, "COPY") == ["--from=build /opt/nearstream /opt/nearstream"]
    assert all("slim" in rest for rest in values(instructions(), "ARG"))
    assert [rest.split()[0] for stage in stages() for rest in values(stage, "FROM")] == ["${PYTHON}"] * 2


def test_hnswlib_is_not_built_for_the_building_machine_only() -> None:
    """Without this variable hnswlib compiles with -march=native and the image dies on older processors."""
    assert environment(stages()[0])["HNSWLIB_NO_NATIVE"] == "1"


def test_image_runs_as_a_user_who_can_write_its_folders() -> None:
    """The last USER is the one that the image makes, and owns the data and the compiler's cache folder."""
    runtime = stages()[-1]
    add_user, make_folders = commands(runtime)
    (user,) = values(runtime, "USER")
    variables = environment(runtime)
    assert user != "root"
    assert add_user.split()[0] == "useradd"
    assert add_user.split()[-1] == user
    install, directory, owner, *folders = make_folders.split()
    assert (install, directory, owner) == ("install", "--directory", f"--owner={user}")
    assert set(folders) == {variables["NEARSTREAM_DATA_DIR"], variables["NUMBA_CACHE_DIR"]}


def test_image_computes_in_one_thread() -> None:
    """Two threads on two busy cores are slower than one."""
    variables = environment(stages()[-1])
    assert (variables["OMP_NUM_THREADS"], variables["NUMBA_NUM_THREADS"]) == ("1", "1")


def test_image_starts_a_real_command() -> None:
    """The entry point is the command that pyproject.toml installs; the default arguments name one of its commands."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (entry_point,) = values(stages()[-1], "ENTRYPOINT")
    (arguments,) = values(stages()[-1], "CMD")
    assert json.loads(entry_point) == list(project["project"]["scripts"])
    assert resolve(json.loads(arguments)).command.name == "worker"


# Health checks


class Answer(BaseHTTPRequestHandler):
    """Answers every path with the status of the test, and remembers the paths."""

    status: ClassVar[int] = 200
    paths: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """One answer without a body."""
        self.paths.append(self.path)
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Says nothing."""


def health_check(service: str) -> list[str]:
    """The health check of a service: its own, or the image's."""
    if "healthcheck" in SERVICES[service]:
        check: list[str] = SERVICES[service]["healthcheck"]["test"]
    else:
        (rest,) = values(stages()[-1], "HEALTHCHECK")
        check = ["CMD", *json.loads(rest[rest.index("[") :])]
    assert check[:2] == ["CMD", "python"]
    return check[2:]


def run_health_check(service: str, port: int) -> int:
    """The exit status of a health check that asks `port` instead of the service's own."""
    own = {"worker": 6066, "dashboard": 8686}[service]
    arguments = [argument.replace(str(own), str(port)) for argument in health_check(service)]
    return subprocess.run([sys.executable, *arguments], check=False, capture_output=True, timeout=20).returncode


@pytest.mark.parametrize(("service", "path"), [("worker", "/healthz"), ("dashboard", "/healthz")])
def test_health_check_tells_a_good_answer_from_a_bad_one_and_from_none(
    service: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run for real: 200 is healthy, 503 is not, no answer is not; a configured proxy is not asked."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(Answer, "paths", [])
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        good = run_health_check(service, server.server_port)
        monkeypatch.setattr(Answer, "status", 503)
        bad = run_health_check(service, server.server_port)
        server.shutdown()
    assert (good, bad, run_health_check(service, server.server_port)) == (0, 1, 1)
    assert Answer.paths == [path, path]


def test_health_checks_ask_the_ports_that_the_programs_listen_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ports in the checks are those of the settings, and the addresses can be reached in the container."""
    worker, dashboard = settings_of("worker", monkeypatch), settings_of("dashboard", monkeypatch)
    assert str(worker.web_port) in " ".join(health_check("worker"))
    assert str(dashboard.dashboard_port) in " ".join(health_check("dashboard"))
    assert values(stages()[-1], "EXPOSE") == [f"{worker.web_port} {dashboard.dashboard_port}"]
    assert (worker.web_host, dashboard.dashboard_host) == ("0.0.0.0", "0.0.0.0")


# The services


@pytest.mark.parametrize("service", OURS)
def test_service_runs_a_real_command_with_real_options(service: str) -> None:
    """Click accepts the command line of the service."""
    resolve(SERVICES[service]["command"])


@pytest.mark.parametrize("service", OURS)
def test_service_sets_only_known_settings_to_valid_values(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each NEARSTREAM_* variable is a setting, and the settings load."""
    given = {
        name.removeprefix("NEARSTREAM_").lower()
        for name in service_environment(service)
        if name.startswith("NEARSTREAM_")
    }
    assert given <= set(Settings.model_fields)
    loaded = settings_of(service, monkeypatch)
    assert loaded.bootstrap == SERVICES[service]["environment"]["NEARSTREAM_BOOTSTRAP"]


@pytest.mark.parametrize("service", OURS)
def test_service_is_built_from_our_dockerfile(service: str) -> None:
    """All of our services share one image."""
    assert SERVICES[service]["build"] == {"context": ".", "dockerfile": "deploy/Dockerfile"}
    assert SERVICES[service]["image"] == "nearstream:local"


def test_every_mount_exists_and_every_volume_is_declared_and_used() -> None:
    """Mounted files are in the repository, read-only; named volumes are declared once and used."""
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service.get("volumes", [])]
    files = [mount for mount in mounts if mount[0].startswith(".")]
    assert [mount[0] for mount in files if not (ROOT / mount[0]).exists()] == []
    assert all(mount[2:] == ["ro"] for mount in files)
    assert {mount[0] for mount in mounts if not mount[0].startswith(".")} == set(COMPOSE["volumes"])


def test_every_published_port_is_for_this_machine_only() -> None:
    """No service has a login, so none may listen to the network; and no port is taken twice."""
    ports = [port for name in SERVICES for port in published(name)]
    assert {host for host, _, _ in ports} == {"127.0.0.1"}
    outer = [number for _, number, _ in ports]
    assert len(outer) == len(set(outer))


def test_page_is_published_where_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page keeps its usual port outside."""
    port = settings_of("dashboard", monkeypatch).dashboard_port
    assert published("dashboard") == [("127.0.0.1", port, port)]


def test_two_workers_run_and_can_be_scaled() -> None:
    """Replicas need an automatic name and no published port."""
    worker = SERVICES["worker"]
    assert worker["deploy"]["replicas"] == 2
    assert "ports" not in worker
    assert "container_name" not in worker


def test_programs_wait_for_kafka_and_its_topics() -> None:
    """Topics are made once Kafka is healthy; workers and page start when they are there."""
    assert SERVICES["topics"]["depends_on"]["kafka"]["condition"] == "service_healthy"
    for service in ("worker", "dashboard"):
        assert SERVICES[service]["depends_on"]["topics"]["condition"] == "service_completed_successfully"
    named = [name for service in SERVICES.values() for name in service.get("depends_on", [])]
    assert set(named) <= set(SERVICES)


def test_no_secret_is_in_the_compose_file() -> None:
    """No variable is a password or a token, and Grafana makes no admin whose default password would hold."""
    variables = {name: value for service in SERVICES.values() for name, value in service.get("environment", {}).items()}
    assert [name for name in variables if re.search("PASSWORD|SECRET|TOKEN|API_?KEY|CREDENTIAL", name)] == []
    assert variables["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert variables["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_images_of_others_are_pinned_to_a_version() -> None:
    """No `latest`: the same files give the same system tomorrow."""
    foreign = [service["image"] for name, service in SERVICES.items() if name not in OURS]
    assert [image for image in foreign if not re.search(r":v?\d+\.\d+\.\d+$", image)] == []


# Kafka


def listeners(variable: str) -> dict[str, str]:
    """Name to address of a listener list of the Kafka service."""
    return dict(item.split("://") for item in SERVICES["kafka"]["environment"][variable].split(","))


def test_kafka_is_reached_by_containers_and_by_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The advertised addresses are the workers' bootstrap and the default bootstrap, published on its port."""
    inside = settings_of("worker", monkeypatch).bootstrap
    outside = Settings.model_fields["bootstrap"].default
    advertised = listeners("KAFKA_ADVERTISED_LISTENERS")
    assert set(advertised.values()) == {inside, outside}
    assert inside.split(":")[0] == "kafka" == SERVICES["kafka"]["hostname"]
    (port,) = published("kafka")
    assert f"{port[0]}:{port[1]}" == outside
    bound = {name: address.rpartition(":")[2] for name, address in listeners("KAFKA_LISTENERS").items()}
    assert bound | {name: address.rpartition(":")[2] for name, address in advertised.items()} == bound
    assert str(port[2]) in bound.values()
    assert inside in SERVICES["kafka"]["healthcheck"]["test"]


def test_kafka_listeners_fit_together() -> None:
    """Every listener has a protocol; the controller's is the one of the quorum; brokers talk on an advertised one."""
    variables = SERVICES["kafka"]["environment"]
    bound = listeners("KAFKA_LISTENERS")
    protocols = dict(item.split(":") for item in variables["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    controller = variables["KAFKA_CONTROLLER_LISTENER_NAMES"]
    assert set(protocols) == set(bound)
    assert variables["KAFKA_CONTROLLER_QUORUM_VOTERS"] == f"{variables['KAFKA_NODE_ID']}@kafka{bound[controller]}"
    assert variables["KAFKA_INTER_BROKER_LISTENER_NAME"] in listeners("KAFKA_ADVERTISED_LISTENERS")


def test_one_kafka_node_asks_for_no_second_copy_and_keeps_its_data() -> None:
    """Replication factors are one, the log folder is the volume, and topics are made by us alone."""
    variables = SERVICES["kafka"]["environment"]
    copies = {name: value for name, value in variables.items() if name.endswith(("REPLICATION_FACTOR", "MIN_ISR"))}
    assert set(copies.values()) == {1}
    assert {"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR"} <= set(copies)
    assert SERVICES["kafka"]["volumes"] == [f"kafka-data:{variables['KAFKA_LOG_DIRS']}"]
    assert variables["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


# Prometheus and Grafana


def test_prometheus_scrapes_a_page_that_the_worker_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target is the worker's service, its web port, and one of its pages; so is the health check's page."""
    job, page_job = PROMETHEUS["scrape_configs"]
    (target,) = job["dns_sd_configs"]
    page = settings_of("dashboard", monkeypatch)
    assert page_job["static_configs"] == [{"targets": [f"dashboard:{page.dashboard_port}"]}]
    check_binding(page)
    assert target["names"] == ["worker"]
    settings = settings_of("worker", monkeypatch)
    assert target["port"] == settings.web_port
    web: Any = create_app(settings)[0].web
    web.init_server()
    pages = {route.resource.canonical for route in web.web_app.router.routes()}
    assert {job.get("metrics_path", "/metrics"), "/healthz", "/readyz"} <= pages


def test_grafana_finds_its_data_and_its_dashboard() -> None:
    """The data source is the Prometheus service, the provider's folder is mounted and holds the home dashboard."""
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", f"http://prometheus:{published('prometheus')[0][2]}")
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/nearstream.yml").read_text())["providers"]
    mounts = dict(mount.split(":")[1::-1] for mount in SERVICES["grafana"]["volumes"])
    assert mounts["/etc/grafana/provisioning"] == "./deploy/grafana/provisioning"
    folder = provider["options"]["path"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(folder + "/")
    assert (ROOT / mounts[folder] / home.removeprefix(folder + "/")).is_file()
    used = {item["datasource"]["uid"] for panel in PANELS for item in (panel, *panel["targets"])}
    assert used == {source["uid"]}


@pytest.mark.parametrize(("title", "expression", "legend"), list(queries()))
def test_panel_asks_for_exported_samples_and_labels(title: str, expression: str, legend: str) -> None:
    """Each word of a query is a sample of the worker's exposition, one of its labels, or PromQL."""
    samples = exported_samples()
    query = re.sub(r'"[^"]*"|\[[^\]]*\]', "", expression)
    words = set(re.findall(r"[a-zA-Z_]\w*", query))
    named = words & set(samples)
    labels = {label for name in named for label in samples[name]}
    assert words - named - labels - SCRAPE_LABELS - PROMQL_WORDS == set(), title
    assert named or "up" in words
    shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
    kept = re.search(r"by \(([\w, ]+)\)", query)
    assert shown <= (set(kept[1].split(", ")) if kept else {"instance"}), title


def test_query_of_up_names_the_scrape_job() -> None:
    """The count of workers selects the job that Prometheus runs."""
    jobs = {job for _, expression, _ in queries() for job in re.findall(r'job="([^"]*)"', expression)}
    assert jobs == {PROMETHEUS["scrape_configs"][0]["job_name"]}


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.name)
def test_every_declared_metric_is_shown(definition: Any) -> None:
    """A new metric needs a panel."""
    shown = " ".join(expression for _, expression, _ in queries())
    assert re.search(rf"\b{definition.name}(_bucket|_sum|_count)?\b", shown)


def test_dashboards_are_told_apart_and_link_to_each_other() -> None:
    """One each for lag, freshness, index and quality beside the overview; a link by tag leads from each to all."""
    assert {"nearstream", "lag", "freshness", "index", "quality"} <= set(DASHBOARDS)
    for key in ("uid", "title"):
        assert len({dashboard[key] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)
    for dashboard in DASHBOARDS.values():
        (link,) = dashboard["links"]
        assert link["type"] == "dashboards"
        assert set(link["tags"]) <= set(dashboard["tags"])


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_panels_are_described_and_do_not_overlap(dashboard: str) -> None:
    """Each panel has a title, a description and a unit of its own, and its own place in the 24 columns."""
    panels: list[dict[str, Any]] = DASHBOARDS[dashboard]["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


# The documents


@pytest.mark.parametrize("words", shell_commands(RUNBOOK), ids=" ".join)
def test_runbook_gives_commands_that_work(words: list[str]) -> None:
    """Each line is docker compose with services of the file, and what they run is a nearstream command."""
    assert words[:2] == ["docker", "compose"]
    verb, *rest = words[2:]
    assert verb in {"up", "run", "logs", "stop", "down"}
    services = []
    while rest:
        word = rest.pop(0)
        if word in CLI_VALUE_OPTIONS:
            services.append(rest.pop(0).split("=")[0])
        elif not word.startswith("-"):
            services.append(word)
            if verb == "run":
                resolve(rest)
                break
    assert set(services) <= set(SERVICES)


@pytest.mark.parametrize(
    "word",
    [
        *Verdict,
        *GroupVerdict,
        *get_args(WorkerState),
        *get_args(PartitionState),
        *get_args(ConnectionState),
        *get_args(IndexTrigger),
    ],
)
def test_runbook_says_what_every_word_on_the_page_means(word: str) -> None:
    """Each verdict, state and warning is explained; a new one needs a line."""
    assert f"`{word}`" in RUNBOOK


def test_runbook_names_only_settings_that_exist() -> None:
    """Each NEARSTREAM_* variable in the runbook is a setting."""
    named = {name.lower() for name in re.findall(r"NEARSTREAM_(\w+)", RUNBOOK)}
    assert named
    assert named <= set(Settings.model_fields)


def test_contributing_lists_the_words_of_the_makefile() -> None:
    """The table and `make help` agree, so a new word reaches newcomers."""
    words = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z]+)", CONTRIBUTING)) == set(words)


def test_contributing_names_only_files_that_exist() -> None:
    """Each path in backticks is in the repository."""
    paths = re.findall(r"`((?:\w+/)+[\w.-]*|[A-Z]+\.md)`", CONTRIBUTING)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
