"""What `nearline run` passes on of the work of `trending` and `autopilot`, on the real broker."""

import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from urllib.error import URLError

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nearline.autopilot.acts import switch
from nearline.ports import free_ports
from schemas import topics
from schemas.generations import PackageSource
from schemas.ids import Generation
from schemas.models import ModelRecord
from streams.errors import Fenced
from streams.generations.acts import By
from streams.generations.log import change_generations
from streams.generations.models import announce
from streams.settings import KafkaSettings
from tests.kit.data import events
from tests.kit.data.generations import AT, next_records
from tests.kit.kafka.topics import Sender
from tests.kit.programs import check_metrics
from tests.kit.run_stage import running_stage
from tests.kit.waiting import until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

START_S = 120.0
BY = By("test", AT)
NO_MORE: Mapping[str, str] = MappingProxyType({})
Page = Callable[[], str]


@contextmanager
def run(stage: str, kafka: KafkaSettings, folder: Path, environment: Mapping[str, str] = NO_MORE) -> Iterator[Page]:
    """Gives what it says at `/metrics`; empty before it listens."""
    (port,) = free_ports(1)
    named = {
        "NEARLINE_KAFKA__BOOTSTRAP_SERVERS": str(kafka.bootstrap_servers),
        "NEARLINE_KAFKA__PARTITIONS": str(kafka.partitions),
        "NEARLINE_RUN__PORT": str(port),
    }

    def page() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                return str(answer.read().decode())
        except URLError as error:
            if isinstance(error.reason, ConnectionRefusedError):
                return ""
            raise

    with running_stage(stage, folder / "data", {**named, **environment}):
        yield page


def values(page: str, name: str) -> dict[tuple[str, ...], float]:
    """By the values of its labels, without the process and those that are 0."""
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    of_name = [sample for sample in samples if sample.name == name and sample.value]
    assert all("process" in sample.labels for sample in of_name)
    return {
        tuple(value for label, value in sorted(sample.labels.items()) if label != "process"): sample.value
        for sample in of_name
    }


def switched_off(kafka: KafkaSettings) -> bool:
    """False where the autopilot came meanwhile."""
    try:
        change_generations(kafka, lambda state: switch(state, BY, on=False))
    except Fenced:
        return False
    return True


def test_trending_says_what_became_of_records_and_how_many_lists_it_wrote(kafka: KafkaSettings, tmp_path: Path) -> None:
    lines = [events.line(events.activity("m", "p", action)) for action in ("like", "share", "impression")]
    Sender(kafka).send(topics.ACTIVITY, [("m", line) for line in [*lines, b"garbage"]])
    records = {("counted",): 2, ("weightless",): 1, ("unreadable",): 1}
    with run("trending", kafka, tmp_path, {"NEARLINE_TRENDING__INTERVAL_S": "0.2"}) as page:
        until(lambda: values(page(), "nearline_trending_records_total") == records, "all to be counted", START_S, 0.2)
        until(lambda: bool(values(page(), "nearline_trending_lists_total")), "a list to be written", START_S, 0.2)
        said = page()
    assert values(said, "nearline_trending_ranking_seconds_count").keys() == {()}
    assert values(said, "process_resident_memory_bytes")
    assert check_metrics(said) == (0, "")


def test_the_autopilot_says_what_came_of_its_acts(kafka: KafkaSettings, tmp_path: Path) -> None:
    change_generations(kafka, next_records)
    change_generations(kafka, lambda state: switch(state, BY, on=True))
    source = PackageSource(registry=str(tmp_path / "away"))
    announce(kafka, ModelRecord(Generation("b-2"), "its digest", source, AT))
    acts = "nearline_autopilot_acts_total"
    with run("autopilot", kafka, tmp_path) as page:
        until(lambda: ("build", "hindered") in values(page(), acts), "it to try a build", START_S, 0.2)
        said = page()
        assert 'act="promote",outcome="done"' in said, "a series that begins with its first act has no increase"
        assert check_metrics(said) == (0, "")
        until(lambda: switched_off(kafka), "the log to take the switch")
        until(lambda: acts not in page(), "what is gone to say no more", START_S, 0.2)
