"""The Kubernetes files: what they say of nearline is what its code says, and Kubernetes would take them. Offline."""

import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Final

import click
import kubernetes_validate
import pytest
import yaml

from nearline.cli import cli
from nearline.page.access import access
from nearline.settings.loading import load_settings
from nearline.settings.settings import Settings
from nearline.up.stages import COLD_GRACE_S, STAGES_GRACE_S
from tests.kit.command_lines import parse_command_line
from tests.kit.kustomize import Manifest, build
from tests.kit.metric_names import defined_metrics, labels_in, names_in

FOLDER: Final = Path(__file__).parent.parent.parent / "deploy" / "kubernetes"
BUILDS: Final = ("base", "overlays/small", "overlays/gpu")
KUBERNETES: Final = "1.36"
OF_KEDA: Final = "keda.sh/v1alpha1"
COMPONENT: Final = "app.kubernetes.io/component"
STAGES: Final = {
    *("contexts", "trending", "encode-blue", "encode-green", "index-blue", "index-green"),
    *("serve", "monitor", "autopilot"),
}


@cache
def objects(name: str) -> list[Manifest]:
    return build(FOLDER / name)


@pytest.fixture(params=BUILDS)
def built(request: pytest.FixtureRequest) -> list[Manifest]:
    return objects(request.param)


def of_kind(built: list[Manifest], *kinds: str) -> list[Manifest]:
    return [each for each in built if each["kind"] in kinds]


def workloads(built: list[Manifest]) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in of_kind(built, "StatefulSet", "Deployment")}


def pods(built: list[Manifest]) -> dict[str, Manifest]:
    """By their workload's name."""
    return {name: each["spec"]["template"] for name, each in workloads(built).items()}


def container(pod: Manifest) -> Manifest:
    (only,) = pod["spec"]["containers"]
    return dict(only)


def matching(built: list[Manifest], selector: dict[str, str]) -> list[str]:
    return [name for name, pod in pods(built).items() if selector.items() <= pod["metadata"]["labels"].items()]


def reaches(built: list[Manifest], source: str, target: str, port: str) -> bool:
    """Whether the policies let a pod of `source` connect to this port of one of `target`, by its name."""
    policies = [each["spec"] for each in of_kind(built, "NetworkPolicy")]
    (number,) = {each["containerPort"] for each in container(pods(built)[target])["ports"] if each["name"] == port}

    def lets(of: str, kind: str, peers: str, peer: str) -> bool:
        rules = [
            rule
            for policy in policies
            if kind in policy["policyTypes"] and of in matching(built, policy["podSelector"]["matchLabels"])
            for rule in policy[kind.lower()]
        ]
        return any(
            {port, number} & {each["port"] for each in rule["ports"]}
            and (peers not in rule or any(_is_peer(built, each, peer) for each in rule[peers]))
            for rule in rules
        )

    return lets(source, "Egress", "to", target) and lets(target, "Ingress", "from", source)


def _is_peer(built: list[Manifest], peer: Manifest, name: str) -> bool:
    """A namespace that is named is another one."""
    other_namespace = bool(peer.get("namespaceSelector"))
    return not other_namespace and name in matching(built, peer["podSelector"]["matchLabels"])


@pytest.fixture
def settings_of(built: list[Manifest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Loads what a pod would: its file, its variables, and something for each secret."""
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(built, "ConfigMap")}
    secrets = {"kafka-options": '{"sasl.password": "x"}', "serve-api-key": "a-key", "qdrant-api-key": "b"}
    secrets["monitor-api-key"] = "c"

    def load(name: str) -> Settings:
        for variable in [variable for variable in os.environ if variable.startswith("NEARLINE_")]:
            monkeypatch.delenv(variable)
        own = container(pods(built)[name])
        for source in own["envFrom"]:
            for variable, value in maps[source["configMapRef"]["name"]].items():
                monkeypatch.setenv(variable, value)
        for each in own["env"]:
            source = each.get("valueFrom", {})
            value = each.get("value", name + "-0" if "fieldRef" in source else None)
            monkeypatch.setenv(each["name"], value or secrets[source["secretKeyRef"]["key"]])
        config = tmp_path / Path(os.environ["NEARLINE_CONFIG"]).name
        config.write_text(maps["nearline-config"][config.name])
        return load_settings(config)

    return load


def test_every_stage_has_a_workload(built: list[Manifest]) -> None:
    assert workloads(built).keys() == STAGES
    run = cli.get_command(click.Context(cli), "run")
    assert run is not None
    (stage,) = (parameter for parameter in run.params if parameter.name == "stage")
    assert isinstance(stage.type, click.Choice)
    assert {name.partition("-")[0] for name in STAGES} == set(stage.type.choices)


def test_kubernetes_would_take_all_of_it(built: list[Manifest]) -> None:
    for manifest in built:
        if manifest["apiVersion"] != OF_KEDA:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_schemas_refuse_a_field_that_is_none() -> None:
    wrong = json.loads(json.dumps(workloads(objects("base"))["serve"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_every_command_line_is_one_that_the_parser_takes(built: list[Manifest]) -> None:
    for name, pod in pods(built).items():
        command, parsed = parse_command_line(container(pod)["args"])
        assert command == "run"
        assert "-".join(filter(None, (parsed["stage"], parsed["place"]))) == name


def test_every_setting_exists_and_ports_are_those_of_the_containers(built: list[Manifest], settings_of: Any) -> None:
    for name, pod in pods(built).items():
        settings = settings_of(name)
        ports = {port["name"]: port["containerPort"] for port in container(pod)["ports"]}
        expected = {"run": settings.run.port}
        if name == "serve":
            expected |= {"http": settings.serve.port, "grpc": settings.serve.port_of_grpc}
        if name == "monitor":
            expected |= {"http": settings.monitor.port}
        assert ports == expected
        listening = {settings.run.host, settings.serve.host, settings.monitor.host}
        assert listening == {"0.0.0.0"}, "a pod that listens on loopback is reached by nobody"
        assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(settings.run.port)
        mounts = {mount["mountPath"] for mount in container(pod)["volumeMounts"]}
        assert str(settings.data_dir) in mounts
        assert settings.kafka.bootstrap_servers
        assert settings.cold.url, "the embedded cold tier needs a data folder that pods do not share"


@pytest.mark.parametrize("name", ["autopilot", "monitor"])
def test_who_asks_the_retriever_knows_it_and_is_let_through_and_in(
    settings_of: Any, built: list[Manifest], name: str
) -> None:
    """The monitor's pod over gRPC too: operators run their commands in it."""
    services = {each["metadata"]["name"]: each["spec"] for each in of_kind(built, "Service")}
    retriever, settings = settings_of("serve"), settings_of(name)
    ports = {port["name"]: port["port"] for port in services["serve"]["ports"]}
    assert settings.serve.url == f"http://serve:{ports['http']}"
    assert settings.serve.grpc_url == f"serve:{ports['grpc']}"
    assert {port for port in ports if reaches(built, name, "serve", port)} == {"http", "grpc"}
    assert not reaches(built, name, "serve", "run"), "metrics are for Prometheus"
    assert settings.serve.api_key == retriever.serve.api_key
    assert settings.cold.api_key == retriever.cold.api_key, "it counts what the cold tier holds"


def test_nobody_else_here_reaches_the_retriever_or_the_monitor(built: list[Manifest]) -> None:
    others = STAGES - {"autopilot", "monitor"}
    assert not [name for name in others for port in ("http", "grpc") if reaches(built, name, "serve", port)]
    assert not [name for name in STAGES if reaches(built, name, "monitor", "http")]


def test_a_status_in_the_monitors_pod_asks_the_monitor(settings_of: Any) -> None:
    """Over loopback, which no policy stands between; operators run their commands there."""
    monitor = settings_of("monitor").monitor
    assert monitor.url == monitor.own_url == f"http://127.0.0.1:{monitor.port}"


def test_operators_have_a_key_of_their_own(settings_of: Any, built: list[Manifest]) -> None:
    """A monitor that listens beyond loopback takes no other; without one there are no acts, but the page is there."""
    settings = settings_of("monitor")
    assert access(settings.monitor, settings.serve.api_key).key == settings.monitor.api_key
    assert settings.monitor.api_key not in (None, settings.serve.api_key)
    assert [name for name in pods(built) if settings_of(name).monitor.api_key is not None] == ["monitor"]
    (variable,) = (each for each in container(pods(built)["monitor"])["env"] if "MONITOR" in each["name"])
    assert variable["valueFrom"]["secretKeyRef"]["optional"] is True


def test_probes_ask_for_pages_that_are_there(built: list[Manifest]) -> None:
    for name, pod in pods(built).items():
        own = container(pod)
        ports = {port["name"] for port in own["ports"]}
        probes = {probe: own[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert {probe["port"] for probe in probes.values()} <= ports
        assert {kind: probe["path"] for kind, probe in probes.items()} == {
            "startupProbe": "/livez",
            "livenessProbe": "/livez",
            "readinessProbe": "/readyz",
        }
        assert probes["livenessProbe"]["port"] == "run", "the retriever listens only when it has a model"
        assert probes["readinessProbe"]["port"] == ("http" if name == "serve" else "run")


def test_selectors_match_labels(built: list[Manifest]) -> None:
    for name, each in workloads(built).items():
        assert matching(built, each["spec"]["selector"]["matchLabels"]) == [name]
    for service in of_kind(built, "Service"):
        names = matching(built, service["spec"]["selector"])
        assert names, service["metadata"]["name"]
        wanted = {port["targetPort"] for port in service["spec"]["ports"]}
        for name in names:
            assert wanted <= {port["name"] for port in container(pods(built)[name])["ports"]}
    for budget in of_kind(built, "PodDisruptionBudget"):
        assert len(matching(built, budget["spec"]["selector"]["matchLabels"])) == 1
    for policy in of_kind(built, "NetworkPolicy"):
        assert matching(built, policy["spec"]["podSelector"]["matchLabels"])
    (stateful,) = of_kind(built, "StatefulSet")
    assert stateful["spec"]["serviceName"] in {each["metadata"]["name"] for each in of_kind(built, "Service")}


def test_policies_let_through_what_the_settings_use(built: list[Manifest], settings_of: Any) -> None:
    settings = settings_of("serve")
    (rule,) = (each["spec"] for each in of_kind(built, "NetworkPolicy") if each["metadata"]["name"] == "all")
    open_ports = {port["port"] for egress in rule["egress"] for port in egress["ports"]}
    assert settings.cold.grpc_port in open_ports
    assert int(settings.kafka.bootstrap_servers.rpartition(":")[2]) in open_ports
    assert matching(built, rule["podSelector"]["matchLabels"]) == list(workloads(built)), "nobody is left out"


def test_no_pod_is_root_or_writes_its_image(built: list[Manifest]) -> None:
    for pod in pods(built).values():
        of_pod, own = pod["spec"]["securityContext"], container(pod)["securityContext"]
        assert of_pod["runAsNonRoot"]
        assert of_pod["runAsUser"] >= 10_000
        assert of_pod["seccompProfile"]["type"] == "RuntimeDefault"
        assert own == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert "/tmp" in {mount["mountPath"] for mount in container(pod)["volumeMounts"]}


def test_a_service_of_kubernetes_is_no_setting(built: list[Manifest]) -> None:
    """Kubernetes puts NAME_SERVICE_HOST of every service into the environment, and we refuse unknown NEARLINE_*."""
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in pods(built).values())


def test_every_volume_that_is_mounted_is_there(built: list[Manifest]) -> None:
    for name, pod in pods(built).items():
        claims = workloads(built)[name]["spec"].get("volumeClaimTemplates", [])
        volumes = {each["name"] for each in pod["spec"]["volumes"]} | {each["metadata"]["name"] for each in claims}
        assert {mount["name"] for mount in container(pod)["volumeMounts"]} == volumes
    assert workloads(built)["contexts"]["spec"]["volumeClaimTemplates"], "rows lie on a volume that stays"


def test_secrets_are_named_and_never_written(built: list[Manifest]) -> None:
    assert of_kind(built, "Secret") == []
    secret = {
        *("NEARLINE_SERVE__API_KEY", "NEARLINE_MONITOR__API_KEY", "NEARLINE_COLD__API_KEY"),
        "NEARLINE_KAFKA__OPTIONS",
    }
    for pod in pods(built).values():
        for variable in container(pod)["env"]:
            assert (variable["name"] in secret) == ("secretKeyRef" in variable.get("valueFrom", {}))
    assert not secret & {name for each in of_kind(built, "ConfigMap") for name in each["data"]}


def test_a_pod_has_the_time_to_drain(built: list[Manifest]) -> None:
    for pod in pods(built).values():
        words = container(pod).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        needed_s = float(words[-1]) + STAGES_GRACE_S + COLD_GRACE_S
        assert pod["spec"]["terminationGracePeriodSeconds"] >= needed_s + 5


def test_every_pod_says_what_it_needs_and_may_take(built: list[Manifest]) -> None:
    for pod in pods(built).values():
        resources = container(pod)["resources"]
        assert resources["requests"].keys() >= {"cpu", "memory"}
        assert _bytes(resources["requests"]["memory"]) <= _bytes(resources["limits"]["memory"])


def test_pods_of_a_stage_are_spread(built: list[Manifest]) -> None:
    for pod in pods(built).values():
        spread = pod["spec"]["topologySpreadConstraints"]
        assert {each["topologyKey"] for each in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        assert all(each["matchLabelKeys"] == [COMPONENT] for each in spread)


def test_only_one_thing_says_how_many_pods_there_are(built: list[Manifest]) -> None:
    scaled = [
        each["spec"]["scaleTargetRef"]["name"] for each in of_kind(built, "ScaledObject", "HorizontalPodAutoscaler")
    ]
    assert len(set(scaled)) == len(scaled)
    for name, each in workloads(built).items():
        assert ("replicas" in each["spec"]) == (name not in scaled), name


def test_nothing_scales_the_small_one() -> None:
    assert of_kind(objects("overlays/small"), "ScaledObject", "HorizontalPodAutoscaler") == []
    assert all(each["spec"]["replicas"] == 1 for each in workloads(objects("overlays/small")).values())


def test_keda_asks_for_metrics_that_there_are_and_never_takes_silence_for_nothing_to_do() -> None:
    """Its schema is not in kubernetes-validate, so the form is checked by hand."""
    scaled = of_kind(objects("base"), "ScaledObject")
    assert {each["metadata"]["name"] for each in scaled} == {name for name in STAGES if re.match("encode|index", name)}
    for each in scaled:
        assert each["spec"].keys() == {
            *("scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod"),
            *("advanced", "triggers"),
        }
        name = each["spec"]["scaleTargetRef"]["name"]
        stage, place = name.split("-")
        assert each["spec"]["minReplicaCount"] == 0
        for trigger in each["spec"]["triggers"]:
            metadata = trigger["metadata"]
            assert (trigger["type"], metadata["ignoreNullValues"]) == ("prometheus", "false")
            assert names_in(metadata["query"]) <= defined_metrics().keys()
            for metric, labels in labels_in(metadata["query"]).items():
                assert labels <= defined_metrics()[metric]
            assert f'place="{place}"' in metadata["query"]
        assert f'stage="{stage}"' in each["spec"]["triggers"][1]["metadata"]["query"]


def test_no_more_pods_encode_than_there_are_partitions(settings_of: Any, built: list[Manifest]) -> None:
    partitions = settings_of("contexts").kafka.partitions
    assert all(each["spec"]["maxReplicaCount"] <= partitions for each in of_kind(built, "ScaledObject"))


def test_gpus_are_asked_for_where_the_settings_want_one(built: list[Manifest], settings_of: Any) -> None:
    for name, pod in pods(built).items():
        wants = name.startswith(("encode", "serve")) and settings_of(name).encode.device == "cuda"
        assert ("nvidia.com/gpu" in container(pod)["resources"]["limits"]) == wants
        assert container(pod)["image"].startswith("nearline-cuda:" if wants else "nearline:")


@pytest.mark.parametrize("name", BUILDS)
def test_kustomize_builds_what_was_checked_here(name: str) -> None:
    program = shutil.which("kustomize") or shutil.which("kubectl")
    if program is None:
        pytest.skip("neither kustomize nor kubectl is here: install one of them from kubernetes.io")
    verb = "build" if program.endswith("kustomize") else "kustomize"
    done = subprocess.run([program, verb, str(FOLDER / name)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    theirs = re.sub(r"(nearline-(?:config|environment))-[a-z0-9]{10}\b", r"\1", done.stdout)
    assert _sorted(yaml.safe_load_all(theirs)) == _sorted(objects(name))


def _sorted(manifests: Any) -> list[Any]:
    return sorted((_plain(each) for each in manifests), key=lambda each: (each["kind"], each["metadata"]["name"]))


def _plain(value: Any) -> Any:
    """The order of named entries means nothing, and kustomize names the namespace of what has none itself."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted((_plain(each) for each in value), key=lambda each: json.dumps(each, sort_keys=True))
    return value


def _bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([MG])i", quantity).groups()  # type: ignore[union-attr]
    return int(number) * {"M": 2**20, "G": 2**30}[unit]
