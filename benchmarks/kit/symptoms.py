"""Five faults that an operator is told of, produced for real in an instance, one after the other: each must make its
alert fire in a real Prometheus, and the alert must resolve after the mend.
"""

import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from benchmarks.kit.background import in_background
from benchmarks.kit.programs import find, how_to_get
from benchmarks.kit.prometheus import Prometheus, running
from benchmarks.kit.stopping import stopped
from benchmarks.kit.table import Figure, shown
from benchmarks.kit.waiting import until
from nearline.errors import NearlineError
from nearline.pipeline import Pipeline
from retriever.errors import RetrieverError
from schemas import topics
from schemas.api import RetrieveRequest
from streams.kafka.records import Output
from streams.kafka.sending import send_all
from streams.settings import KafkaSettings

FACTOR: Final = 60.0
"""The windows of the rules are that much shorter."""
AFTER_ITS_TIME_S: Final = 30.0
"""An alert may come so much later than its rule's own time."""
_DISK: Final = 2**29
"""Of the small disk, in memory: many times what the embedded broker and a nearly empty instance need."""
_GIVE_UP_S: Final = 300.0
_SEND_S: Final = 20.0
_PAUSE_S: Final = 0.1
_until: Final = partial(until, look_every_s=_PAUSE_S, timeout_s=_GIVE_UP_S)


class CannotProduce(RuntimeError):
    """Prometheus or the right to mount a small disk is missing. One sentence."""


class Instance(NamedTuple):
    """One that runs beside a Prometheus, under load."""

    pipeline: Pipeline
    prometheus: Prometheus

    @property
    def kafka(self) -> KafkaSettings:
        return KafkaSettings(bootstrap_servers=self.pipeline.instance.bootstrap_servers)

    def pid(self, process: str) -> int | None:
        return next((each.pid for each in self.pipeline.instance.processes if each.name == process), None)


Fault = Callable[[Instance], AbstractContextManager[None]]
"""It lasts while the block does."""


class Symptom(NamedTuple):
    """`rule_s`: after so long its rule fires, with the shortened windows: what must be exceeded, and for how long."""

    name: str
    fault: Fault
    alert: str
    labels: dict[str, str]
    rule_s: float


def _stopped(process: str) -> Fault:
    return lambda instance: stopped(instance.pipeline, process)


@contextmanager
def _cold_tier_gone(instance: Instance) -> Iterator[None]:
    """It is killed as soon as it is there again, and so is never of use."""

    def kill(stop: threading.Event) -> None:
        while not stop.wait(_PAUSE_S):
            pid = instance.pid("cold-blue")
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    with in_background(kill):
        yield


@contextmanager
def _disk_full(instance: Instance) -> Iterator[None]:
    """Nothing is left for anybody."""
    ballast = instance.pipeline.data_dir / "ballast"
    try:
        with ballast.open("wb") as file:
            for step in (2**20, 2**12):
                with suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)
        yield
    finally:
        ballast.unlink()


@contextmanager
def _poison(instance: Instance) -> Iterator[None]:
    """Records that can never succeed come in, one after the other."""

    def send(stop: threading.Event) -> None:
        for number in itertools.count():
            send_all(instance.kafka, [Output(topics.POSTS, b"poison-%d" % number, b"not json")], _SEND_S)
            if stop.wait(1.0):
                return

    with in_background(send):
        yield


SYMPTOMS: Final = (
    Symptom("encode stopped", _stopped("encode-blue-0"), "NearlineStageStandsStill", {"stage": "encode"}, 10.3),
    Symptom("frozen consumer", _stopped("contexts-0"), "NearlineStageStandsStill", {"stage": "contexts"}, 10.3),
    Symptom("poison records", _poison, "NearlineDeadLetters", {"cause": "not_json"}, 0.0),
    Symptom("cold tier gone", _cold_tier_gone, "NearlineAnswersPartial", {}, 2.0),
    Symptom("disk full", _disk_full, "NearlineDiskFilling", {}, 5.0),
)


def produce(folder: Path, names: Sequence[str] = tuple(symptom.name for symptom in SYMPTOMS)) -> list[Figure]:
    """Seconds from each fault to its alert, and from its mend to the end of the alert. Raises RuntimeError where an
    alert does not come or stays, and CannotProduce."""
    figures: list[Figure] = []
    with _instance(folder) as instance:
        for symptom in SYMPTOMS:
            if symptom.name in names:
                figures += shown(_produced(instance, symptom))
    return figures


def _produced(instance: Instance, symptom: Symptom) -> list[Figure]:
    def fires() -> bool:
        alerts = instance.prometheus.alerts(symptom.alert)
        return any(symptom.labels.items() <= alert.items() for alert in alerts)

    _until(lambda: not fires(), f"{symptom.alert} to be silent before {symptom.name}")
    began = time.monotonic()
    with symptom.fault(instance):
        _until(fires, f"{symptom.alert} to fire for {symptom.name}")
        fired_s = time.monotonic() - began
    mended = time.monotonic()
    _until(lambda: not fires(), f"{symptom.alert} to resolve after {symptom.name}")
    resolved_s = time.monotonic() - mended
    instance.pipeline.wait(_GIVE_UP_S)
    bound = symptom.rule_s + AFTER_ITS_TIME_S
    return [
        Figure(f"{symptom.name}: {symptom.alert} fires, seconds after it began", fired_s, bound, "at_most"),
        Figure(f"{symptom.name}: it resolves, seconds after the mend", resolved_s),
    ]


@contextmanager
def _instance(folder: Path) -> Iterator[Instance]:
    program = find("prometheus")
    if program is None:
        raise CannotProduce(how_to_get("prometheus"))
    environment = {
        # The supervisor would mend what stands still before an operator could.
        "NEARLINE_STALLED_AFTER_S": "600",
        "NEARLINE_MONITOR__CANARY_S": "0",
        # After some seconds of load the hot tier alone is not enough for whole answers.
        "NEARLINE_HOT__CAPACITY": "20",
        "NEARLINE_LOG_LEVEL": "warning",
    }
    with ExitStack() as stack:
        # The log lies beside it, on a disk that stays as it is.
        data_dir = stack.enter_context(_small_disk(folder / "data"))
        pipeline = stack.enter_context(Pipeline(data_dir, environment=environment))
        prometheus = stack.enter_context(running(program, folder / "prometheus", [pipeline.data_dir], FACTOR))
        instance = Instance(pipeline, prometheus)
        stack.enter_context(in_background(lambda stop: _load(instance, stop)))
        _until(lambda: len(prometheus.query("nearline_ready == 1")) > 0, "the first figures")
        yield instance


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own, so that one can fill it and harm nobody."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "nearline", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotProduce(f"no small disk for the instance, which needs root: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _load(instance: Instance, stop: threading.Event) -> None:
    """Five posts and ten questions a second. No two questions are the same: a kept answer would hide the cold tier."""
    for number in itertools.count():
        with suppress(Exception):  # that the instance does not take it is what is measured
            send_all(instance.kafka, [_post(number)], _SEND_S)
        for half in "ab":
            with suppress(RetrieverError, NearlineError), closing(instance.pipeline.client()) as client:
                client.retrieve(RetrieveRequest(text=f"question {number} {half}", k=20, timeout_ms=500))
        if stop.wait(0.2):
            return


def _post(number: int) -> Output:
    post_id = f"load-{number}"
    event = {
        "type": "post.created",
        "post_id": post_id,
        "author_id": "load",
        "text": f"post {number} of a harbor",
        "created_at": datetime.now(UTC),
    }
    return Output(topics.POSTS, post_id.encode(), msgspec.json.encode(event))
