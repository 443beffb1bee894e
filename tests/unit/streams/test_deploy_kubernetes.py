"""The chart and the plain manifests name only what exists, keep secrets in Secrets, move no partition on an update."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from streams.app import create_app
from streams.config import Settings, load_settings
from tests.unit.streams.test_deploy import exported_samples, resolve

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "deploy/helm/nearstream"
MANIFESTS = ROOT / "deploy/kubernetes/nearstream.yaml"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
KUBE_VERSION = "1.31.0"
EVERYTHING = {
    "kafka": {
        "bootstrap": "k1:9093,k2:9093",
        "securityProtocol": "SASL_SSL",
        "sasl": {"username": "worker", "password": "open-sesame"},
        "tls": {"existingSecret": "kafka-tls", "clientCertificate": True},
    },
    "settings": {"freshness_target_ms": 300, "repeats": True, "type_weights": {"view": 0.5}},
    "rules": "[[rule]]\nname = 'x'",
    "model": {"existingClaim": "models"},
    "autoscaling": {"enabled": True, "maxReplicas": 8},
    "metrics": {"serviceMonitor": {"enabled": True}, "alerts": {"enabled": True}},
}
Objects = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither variables nor a nearstream.toml of whoever runs the tests count."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("NEARSTREAM_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def helm() -> str:
    """The program that renders charts."""
    found = shutil.which("helm")
    if found is None:
        pytest.skip("needs the program helm on PATH to render the chart")
    return found


def render(helm: str, values: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """What the chart makes of the values."""
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    command = [helm, "template", "nearstream", str(CHART), "--namespace", "nearstream", "--kube-version", KUBE_VERSION]
    return subprocess.run([*command, "--values", str(path)], check=False, capture_output=True, text=True, timeout=60)


def objects(text: str) -> Objects:
    """Manifests by kind and name."""
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text) if each}


def pod_templates(found: Objects) -> list[dict[str, Any]]:
    """What the pods of each workload are made from."""
    return [each["spec"]["template"] for (kind, _), each in found.items() if kind in {"StatefulSet", "Deployment"}]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """All containers of a pod."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def variables(found: Objects, container: dict[str, Any]) -> dict[str, str]:
    """The plain variables of a container."""
    settings: dict[str, str] = found["ConfigMap", container["envFrom"][0]["configMapRef"]["name"]]["data"]
    return settings | {each["name"]: each["value"] for each in container["env"] if "value" in each}


def check(found: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands, settings, volumes, labels and hardening of every pod."""
    assert len(pod_templates(found)) == 2
    for pod in (template["spec"] for template in pod_templates(found)):
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"]
        for container in containers(pod):
            resolve([str(word) for word in container["args"]])
            assert {mount["name"] for mount in container["volumeMounts"]} <= volume_names(found, pod)
            assert container["securityContext"]["readOnlyRootFilesystem"]
            check_settings(found, container, monkeypatch)


def volume_names(found: Objects, pod: dict[str, Any]) -> set[str]:
    """Volumes of the pod, and of its set's claims."""
    claims = {
        claim["metadata"]["name"]
        for each in found.values()
        if each["kind"] == "StatefulSet"
        for claim in each["spec"].get("volumeClaimTemplates", [])
    }
    return {volume["name"] for volume in pod["volumes"]} | claims


def check_settings(found: Objects, container: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable is a setting, and together they load."""
    plain = variables(found, container)
    named = {*plain, *(each["name"] for each in container["env"])}
    assert {name.removeprefix("NEARSTREAM_").lower() for name in named} <= set(Settings.model_fields)
    with monkeypatch.context() as inside:
        for name in named:
            inside.setenv(name, plain.get(name, "from-elsewhere"))
        settings = load_settings()
    assert settings.web_port == 6066


def test_plain_manifests_hold_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Helm at hand: commands, settings and volumes of the committed file."""
    check(objects(MANIFESTS.read_text()), monkeypatch)


def test_a_pod_is_one_static_member_of_the_group() -> None:
    """Its name is its membership, its session outlives its grace, and disruptions take one at a time."""
    found = objects(MANIFESTS.read_text())
    worker = found["StatefulSet", "nearstream-worker"]["spec"]
    (container,) = worker["template"]["spec"]["containers"]
    (member,) = (each for each in container["env"] if each["name"] == "NEARSTREAM_GROUP_INSTANCE_ID")
    assert member["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    session_s = int(variables(found, container)["NEARSTREAM_SESSION_TIMEOUT_MS"]) / 1000
    assert session_s > worker["template"]["spec"]["terminationGracePeriodSeconds"] > 5
    budget = found["PodDisruptionBudget", "nearstream-worker"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= worker["template"]["metadata"]["labels"].items()


def test_probes_ask_pages_that_the_worker_serves() -> None:
    """Alive is /healthz, ready is /readyz, on the port of the web server."""
    worker = objects(MANIFESTS.read_text())["StatefulSet", "nearstream-worker"]["spec"]["template"]["spec"]
    (container,) = worker["containers"]
    asked = {kind: container[kind]["httpGet"]["path"] for kind in ("livenessProbe", "readinessProbe", "startupProbe")}
    assert asked == {"livenessProbe": "/healthz", "readinessProbe": "/readyz", "startupProbe": "/healthz"}
    settings = load_settings()
    assert container["ports"] == [{"name": "web", "containerPort": settings.web_port}]
    web: Any = create_app(settings)[0].web
    web.init_server()
    pages = {route.resource.canonical for route in web.web_app.router.routes()}
    assert set(asked.values()) <= pages


def test_services_select_pods() -> None:
    """Each Service's selector and ports are those of a workload."""
    found = objects(MANIFESTS.read_text())
    templates = pod_templates(found)
    for (kind, _), service in found.items():
        if kind == "Service":
            wanted = service["spec"]["selector"].items()
            (template,) = (each for each in templates if wanted <= each["metadata"]["labels"].items())
            ports = {port["name"] for each in template["spec"]["containers"] for port in each["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_default_values_are_valid_and_described_by_the_schema() -> None:
    """The schema accepts them and knows each of them."""
    jsonschema.validate(VALUES, SCHEMA)
    assert set(VALUES) <= set(SCHEMA["properties"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"kafka": {"bootstrap": "kafka"}},
        {"kafka": {"bootstrap": "k:1", "securityProtocol": "TLS"}},
        {"kafka": {"bootstrap": "k:1", "sasl": {"mechanism": "GSSAPI"}}},
        {"worker": {"replicas": 0}},
        {"worker": {"sessionTimeoutMs": 100}},
        {"wokrer": {}},
    ],
    ids=json.dumps,
)
def test_the_schema_refuses_what_cannot_work(wrong: dict[str, Any]) -> None:
    """Wrong addresses, words, numbers and names."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**VALUES, **wrong}, SCHEMA)


def test_the_schema_takes_the_words_of_the_settings() -> None:
    """A protocol or mechanism that settings learn is taken by the chart too."""
    properties = Settings.model_json_schema()["properties"]
    kafka = SCHEMA["properties"]["kafka"]["properties"]
    assert kafka["securityProtocol"]["enum"] == properties["security_protocol"]["enum"]
    assert kafka["sasl"]["properties"]["mechanism"]["enum"] == properties["sasl_mechanism"]["enum"]


def test_plain_manifests_are_the_charts(helm: str, tmp_path: Path) -> None:
    """The first lines of the file say how to write it anew."""
    rendered = render(helm, {}, tmp_path)
    assert rendered.returncode == 0, rendered.stderr
    assert objects(rendered.stdout) == objects(MANIFESTS.read_text())


def test_everything_switched_on_holds_together(helm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS, a login, rules, a model, KEDA, monitor and alerts; settings arrive as the program reads them."""
    rendered = render(helm, EVERYTHING, tmp_path)
    assert rendered.returncode == 0, rendered.stderr
    found = objects(rendered.stdout)
    check(found, monkeypatch)
    settings = found["ConfigMap", "nearstream-settings"]["data"]
    assert settings["NEARSTREAM_FRESHNESS_TARGET_MS"] == "300"
    assert json.loads(settings["NEARSTREAM_TYPE_WEIGHTS"]) == {"view": 0.5}
    assert found["ConfigMap", "nearstream-rules"]["data"]["rules.toml"] == EVERYTHING["rules"]
    alerts = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    assert found["PrometheusRule", "nearstream"]["spec"] == alerts


def test_a_password_is_in_a_secret_only(helm: str, tmp_path: Path) -> None:
    """Pods refer to it; a Secret of one's own is used instead where it is named."""
    found = objects(render(helm, EVERYTHING, tmp_path).stdout)
    holders = [key for key, each in found.items() if "open-sesame" in json.dumps(each)]
    assert holders == [("Secret", "nearstream-kafka-login")]
    kafka = {**EVERYTHING["kafka"], "sasl": {"existingSecret": "mine"}}
    own = objects(render(helm, {**EVERYTHING, "kafka": kafka}, tmp_path).stdout)
    assert not any(kind == "Secret" for kind, _ in own)
    (worker,) = own["StatefulSet", "nearstream-worker"]["spec"]["template"]["spec"]["containers"]
    references = [each["valueFrom"]["secretKeyRef"] for each in worker["env"] if "secretKeyRef" in str(each)]
    assert {each["name"] for each in references} == {"mine"}


def test_workers_and_page_have_the_same_tokens(helm: str, tmp_path: Path) -> None:
    """So that the page may ask a worker what a list would be, at the name that the pod has in its service."""
    found = objects(render(helm, {"dashboard": {"tokensSecret": "tokens"}}, tmp_path).stdout)
    for pod in (template["spec"] for template in pod_templates(found)):
        (container,) = pod["containers"]
        assert {"secretRef": {"name": "tokens"}} in container["envFrom"]
    (worker,) = found["StatefulSet", "nearstream-worker"]["spec"]["template"]["spec"]["containers"]
    urls = [each["value"] for each in worker["env"] if each["name"] == "NEARSTREAM_WEB_URL"]
    service = found["StatefulSet", "nearstream-worker"]["spec"]["serviceName"]
    assert urls == [f"http://$(NEARSTREAM_WORKER_ID).{service}:6066"]
    assert found["Service", service]["spec"]["clusterIP"] == "None"


def test_keda_scales_on_lag_within_the_partitions(helm: str, tmp_path: Path) -> None:
    """The query is an exported metric with the labels that a ServiceMonitor gives; the set's count is left to KEDA."""
    found = objects(render(helm, EVERYTHING, tmp_path).stdout)
    scaled = found["ScaledObject", "nearstream-worker"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == "nearstream-worker"
    assert scaled["maxReplicaCount"] <= VALUES["topics"]["partitions"]
    (trigger,) = scaled["triggers"]
    words = set(re.findall(r"[a-z_]+(?=[{=(])", trigger["metadata"]["query"]))
    assert words == {"max", "nearstream_lag_seconds", "namespace", "service"}
    assert "nearstream_lag_seconds" in exported_samples()
    assert "replicas" not in found["StatefulSet", "nearstream-worker"]["spec"]
    (endpoint,) = found["ServiceMonitor", "nearstream-worker"]["spec"]["endpoints"]
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "nearstream"}]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"autoscaling": {"enabled": True, "maxReplicas": 9}}, "autoscaling.maxReplicas: expected at most"),
        ({"autoscaling": {"enabled": True, "minReplicas": 9}}, "autoscaling.minReplicas: expected at most"),
        ({"worker": {"replicas": 9}}, "worker.replicas: expected at most"),
        ({"kafka": {"securityProtocol": "SASL_SSL"}}, "kafka.sasl: SASL_SSL needs existingSecret"),
        ({"kafka": {"tls": {"existingSecret": "x"}}}, "kafka.tls.existingSecret: expected securityProtocol"),
        ({"settings": {"bootstrap": "k:1"}}, "settings.bootstrap: the chart sets it itself"),
        ({"worker": {"replica": 1}}, "replica"),
    ],
    ids=json.dumps,
)
def test_values_that_cannot_work_are_refused_before_pods_run(
    helm: str, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    """With what was expected and what came."""
    rendered = render(helm, wrong, tmp_path)
    assert rendered.returncode != 0
    assert message in rendered.stderr
