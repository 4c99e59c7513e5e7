"""The images and the compose file: what can be checked without building or running them."""

import importlib.util
import json
import os
import re
import threading
import tomllib
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from nearline.settings.loading import load_settings
from nearline.settings.settings import Settings
from tests.kit.command_lines import parse_command_line

ROOT: Final = Path(__file__).parent.parent.parent
DEPLOY: Final = ROOT / "deploy"
DOCKERFILES: Final = ("Dockerfile", "Dockerfile.cuda")
PYPROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE: Final = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


class Instruction(NamedTuple):
    name: str
    rest: str


def instructions(file: str) -> list[Instruction]:
    text = re.sub(r"^#.*\n", "", (DEPLOY / file).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [Instruction(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


@pytest.fixture(params=DOCKERFILES)
def image(request: pytest.FixtureRequest) -> list[Instruction]:
    return instructions(request.param)


def rests(image: list[Instruction], name: str) -> list[str]:
    return [each.rest for each in image if each.name == name]


def final_stage(image: list[Instruction]) -> list[Instruction]:
    last = max(number for number, each in enumerate(image) if each.name == "FROM")
    return image[last:]


def sources(image: list[Instruction]) -> list[str]:
    """What is copied from the project."""
    copies = [rest.split()[:-1] for rest in rests(image, "COPY") if not rest.startswith("--from")]
    return [name for names in copies for name in names]


def test_everything_that_is_copied_is_there_and_not_ignored(image: list[Instruction]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    for name in sources(image):
        assert (ROOT / name).exists(), name
        assert not [pattern for pattern in ignored if fnmatch(name, pattern) or name.startswith(pattern + "/")]


def test_what_the_wheel_is_made_of_is_copied(image: list[Instruction]) -> None:
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], "pyproject.toml", PYPROJECT["project"]["readme"]}
    assert needed <= set(sources(image))


def test_its_python_is_one_that_the_project_supports(image: list[Instruction]) -> None:
    versions = [re.fullmatch(r"python:([\d.]+)-slim-bookworm(?: AS build)?", rest) for rest in rests(image, "FROM")]
    assert len(versions) == 2
    for match in versions:
        assert match is not None, "pinned by a whole version"
        assert match[1] in SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert len({match[1] for match in versions if match}) == 1, "the environment is used by the Python that made it"


def test_it_installs_with_the_same_tool_and_versions_as_make_setup(image: list[Instruction]) -> None:
    runs = " ".join(rests(image, "RUN"))
    (uv,) = re.findall(r"^UV := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert uv in runs
    assert re.search(r"-c constraints\.txt\s+'\.\[server\]'", runs)


def test_it_is_not_root_and_starts_a_command_that_exists(image: list[Instruction]) -> None:
    stage = final_stage(image)
    user = rests(stage, "USER")[-1]
    assert int(user.partition(":")[0]) >= 10_000, "Kubernetes believes only a number"
    assert stage.index(Instruction("USER", user)) > max(stage.index(each) for each in stage if each.name == "RUN")
    assert json.loads(rests(stage, "ENTRYPOINT")[0]) == [*PYPROJECT["project"]["scripts"]]
    assert parse_command_line(json.loads(rests(stage, "CMD")[0]))[0] == "up"


def variables(image: list[Instruction]) -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in rests(final_stage(image), "ENV") for pair in rest.split())


def test_its_variables_are_settings_and_it_exposes_what_they_say(
    image: list[Instruction], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings(monkeypatch, variables(image))
    assert settings.data_dir == Path(rests(final_stage(image), "VOLUME")[0])
    exposed = {int(port) for port in rests(final_stage(image), "EXPOSE")[0].split()}
    assert {settings.serve.port, settings.serve.port_of_grpc, settings.run.port} <= exposed
    config = (DEPLOY / "kubernetes" / "base" / "nearline.toml").read_text()
    assert set(map(int, re.findall(r"port = (\d+)", config))) == exposed


def test_the_package_in_it_is_the_one_that_kubernetes_begins_with(image: list[Instruction]) -> None:
    config = tomllib.loads((DEPLOY / "kubernetes" / "base" / "nearline.toml").read_text())
    copies = dict(rest.split() for rest in rests(final_stage(image), "COPY") if not rest.startswith("--from"))
    assert copies["nearline/demo/package"] == config["package"]


def test_both_images_are_one_but_for_cuda() -> None:
    """So that what holds for one holds for the other."""
    plain, cuda = (instructions(file) for file in DOCKERFILES)
    more = [each for each in cuda if each not in plain]
    assert [each.name for each in more] == ["RUN", "RUN", "ENV"]
    assert not [each for each in plain if each not in cuda and each.name not in ("RUN", "ENV")]


def test_every_image_is_pinned() -> None:
    for service in COMPOSE["services"].values():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"])


def test_the_variables_of_compose_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    service = COMPOSE["services"]["nearline"]
    settings = _settings(monkeypatch, {**variables(instructions("Dockerfile")), **service["environment"]})
    assert settings.kafka.bootstrap_servers == "kafka:9092"
    assert service["environment"]["NEARLINE_MONITOR__API_KEY"] is None, "it comes from the shell of who starts it"
    assert settings.monitor.api_key is None
    published = {int(port.rpartition(":")[2]) for port in service["ports"]}
    assert published == {settings.serve.port, settings.serve.port_of_grpc, settings.monitor.port}
    assert all(port.startswith("127.0.0.1:") for each in COMPOSE["services"].values() for port in each.get("ports", []))
    assert (service["read_only"], service["tmpfs"], service["cap_drop"]) == (True, ["/tmp"], ["ALL"])


def test_prometheus_of_compose_reaches_every_process_that_has_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    service = COMPOSE["services"]["nearline"]
    settings = _settings(monkeypatch, {**variables(instructions("Dockerfile")), **service["environment"]})
    hosts = {f"{name}.metrics_host": group.metrics_host for name, group in settings if hasattr(group, "metrics_host")}
    assert len(hosts) >= 3
    hosts |= {"serve.host": settings.serve.host, "monitor.host": settings.monitor.host}
    assert hosts == dict.fromkeys(hosts, "0.0.0.0"), "the others are reached from within the container alone"
    assert service["hostname"] == "nearline", "by this name they announce themselves"


def test_compose_builds_and_mounts_what_is_there() -> None:
    for service in COMPOSE["services"].values():
        if "build" in service:
            context = (DEPLOY / service["build"]["context"]).resolve()
            assert (context / service["build"]["dockerfile"]).is_file()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (source.startswith("./") and (DEPLOY / source).exists())
        assert set(service.get("depends_on", [])) <= COMPOSE["services"].keys()


def test_prometheus_looks_where_processes_say_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    (found,) = job["file_sd_configs"]
    data = _settings(monkeypatch, variables(instructions("Dockerfile"))).data_dir
    assert found["files"] == [f"{data}/metrics/*.json"]
    assert f"nearline:{data}:ro" in COMPOSE["services"]["prometheus"]["volumes"]


def _health() -> ModuleType:
    spec = importlib.util.spec_from_file_location("health", DEPLOY / "health.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_health_check_asks_the_ports_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(monkeypatch, variables(instructions("Dockerfile")))
    ports = {int(re.findall(r":(\d+)/livez$", url)[0]) for url in _health().URLS}
    assert ports == {settings.run.port, settings.serve.port}


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
def test_the_health_check_goes_by_the_answer(status: int, expected: int) -> None:
    class Livez(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Livez) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/livez"
        assert _health().main([url]) == expected
        server.shutdown()
        thread.join()
    assert _health().main([url]) == 1, "nobody listens there any more"


def _settings(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str | None]) -> Settings:
    """None: a variable of Compose that nobody has set in the shell."""
    for name in [name for name in os.environ if name.startswith("NEARLINE_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        if name.startswith("NEARLINE_") and value is not None:
            monkeypatch.setenv(name, value)
    return load_settings()
