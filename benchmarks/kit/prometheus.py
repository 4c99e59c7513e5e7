"""A real Prometheus beside an instance, with the project's rules, whose windows may be shortened.

With a factor of 60 an alert that looks at ten minutes looks at ten seconds, and one that must hold for a minute holds
for one second. Bounds stay as they are, also those in seconds: a stage still has to stand still for ten.
"""

import json
import re
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from nearline.alerts.generate import RULES
from nearline.ports import free_ports

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = r"(\d+)(ms|s|m|h|d)"
_SHORTEST_S: Final = 3.0
"""Of a window: two looks lie in it, and more."""
_LOOK_EVERY: Final = "1s"
_READY_S: Final = 60.0
_ANSWER_S: Final = 30.0
_END_S: Final = 30.0


class Series(NamedTuple):
    labels: Mapping[str, str]
    value: float


class Prometheus:
    """One that runs. Any thread may ask."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str) -> list[Series]:
        """Raises RuntimeError if it is refused."""
        result = self._get("query", query=expr)["result"]
        return [Series(each["metric"], float(each["value"][1])) for each in result]

    def alerts(self, name: str) -> list[Mapping[str, str]]:
        """The labels of all that fire now."""
        alerts = self._get("alerts")["alerts"]
        return [each["labels"] for each in alerts if each["state"] == "firing" and each["labels"]["alertname"] == name]

    def targets(self) -> dict[str, str]:
        """By process, `up`, or why it could not be asked."""
        targets = self._get("targets", state="active")["activeTargets"]
        return {each["labels"]["process"]: each["lastError"] or each["health"] for each in targets}

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=_ANSWER_S):
                return True
        except OSError:
            return False

    def _get(self, what: str, **query: str) -> Any:
        try:
            with urllib.request.urlopen(
                f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(query)}", timeout=_ANSWER_S
            ) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"Prometheus refuses {query}: {error.read().decode()}") from error


@contextmanager
def running(program: Path, folder: Path, data_dirs: Sequence[Path], factor: float = 1.0) -> Iterator[Prometheus]:
    """Asks all processes of these data folders each second, within the context. `folder` is for its own files. Raises
    RuntimeError if it does not start."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules.yaml").write_text(yaml.safe_dump(shortened(yaml.safe_load(RULES.read_text()), factor)))
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(_config(data_dirs)))
    (port,) = free_ports(1)
    command = [
        str(program),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        # What is gone is forgotten that much sooner, too.
        f"--query.lookback-delta={max(_SHORTEST_S, 300 / factor):g}s",
        "--log.level=warn",
    ]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        _wait_ready(prometheus, process, log)
        yield prometheus
    finally:
        _end(process)


def shortened(rules: Any, factor: float) -> Any:
    """The content of a file of rules with all windows, and all times for which a rule must hold, divided. Each rule is
    looked at every second."""
    return {"groups": [_shortened_group(group, factor) for group in rules["groups"]]}


def _shortened_group(group: Mapping[str, Any], factor: float) -> dict[str, Any]:
    rules = []
    for rule in group["rules"]:
        changed = {**rule, "expr": _shortened_expr(rule["expr"], factor)}
        if "for" in rule:
            changed["for"] = f"{round(_seconds(rule['for']) / factor * 1000)}ms"
        rules.append(changed)
    return {**group, "interval": _LOOK_EVERY, "rules": rules}


def _shortened_expr(expr: str, factor: float) -> str:
    def shorter(match: re.Match[str]) -> str:
        before, after = match[1], match[4]
        return f"{before}{round(max(_SHORTEST_S, _seconds(match[2] + match[3]) / factor) * 1000)}ms{after}"

    return re.sub(rf"(\[|\boffset ){_DURATION}(\]|\b)", shorter, expr)


def _seconds(duration: str) -> float:
    match = re.fullmatch(_DURATION, duration)
    if match is None:
        raise ValueError(f"{duration} is no duration such as 10m")
    return int(match[1]) * _SECONDS[match[2]]


def _config(data_dirs: Sequence[Path]) -> dict[str, Any]:
    """As deploy/prometheus/prometheus.yaml, but for where and how often."""
    config = yaml.safe_load(RULES.with_name("prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": _LOOK_EVERY, "evaluation_interval": _LOOK_EVERY}
    (job,) = config["scrape_configs"]
    (found,) = job["file_sd_configs"]
    found |= {"files": [str(folder / "metrics" / "*.json") for folder in data_dirs], "refresh_interval": _LOOK_EVERY}
    return dict(config)


def _wait_ready(prometheus: Prometheus, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while not prometheus.is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Prometheus does not start: {log.read_text()[-2000:]}")
        time.sleep(0.1)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
