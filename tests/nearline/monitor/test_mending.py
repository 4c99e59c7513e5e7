"""Damaged records of the generations: the monitor mends them, and fences no operator where that would help nobody."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry

from nearline.monitor import mending
from nearline.monitor.mending import LogMender
from schemas.errors import NewerForm
from schemas.topics import FORMS, GENERATIONS
from streams.errors import Fenced
from streams.generations.follower import GenerationsFollower
from streams.generations.log import change_generations, read_generations
from streams.settings import KafkaSettings
from tests.kit.data.generations import founded, next_records, two_live
from tests.kit.kafka.topics import Sender, keys_and_values
from tests.kit.waiting import until

pytestmark = pytest.mark.broker

DAMAGED = [("pointer", b"???")]


class Monitor:
    def __init__(self, kafka: KafkaSettings, follower: GenerationsFollower) -> None:
        self.registry = CollectorRegistry()
        self.mender = LogMender(kafka, follower, self.registry)
        self._follower = follower

    def num_damaged(self) -> float | None:
        return self.registry.get_sample_value("nearline_generations_damaged_records")

    def until_sees(self, num_damaged: int) -> None:
        until(lambda: self.num_damaged() == num_damaged, f"the monitor to see {num_damaged} damaged records")


@pytest.fixture
def monitor(kafka: KafkaSettings) -> Iterator[Monitor]:
    """Of a log in which `a-1` serves."""
    change_generations(kafka, next_records)
    with GenerationsFollower(kafka).running() as follower:
        until(lambda: follower.current() == founded(), "the follower to see what was founded")
        yield Monitor(kafka, follower)


def test_the_last_good_record_is_written_again_once(kafka: KafkaSettings, monitor: Monitor) -> None:
    monitor.mender.look()
    Sender(kafka).send(GENERATIONS, DAMAGED)
    monitor.until_sees(1)
    before = keys_and_values(kafka, GENERATIONS)
    monitor.mender.look()
    assert keys_and_values(kafka, GENERATIONS) == before, "an act may come, which mends it too"
    monitor.mender.look()
    assert read_generations(kafka) == founded()
    monitor.until_sees(0)
    for _ in range(3):
        monitor.mender.look()
    assert [key for key, _ in keys_and_values(kafka, GENERATIONS)[len(before) :]] == [b"pointer"]


def test_an_act_that_came_meanwhile_has_mended_it(kafka: KafkaSettings, monitor: Monitor) -> None:
    Sender(kafka).send(GENERATIONS, DAMAGED)
    monitor.until_sees(1)
    monitor.mender.look()
    change_generations(kafka, next_records)
    before = keys_and_values(kafka, GENERATIONS)
    monitor.until_sees(0)
    monitor.mender.look()
    assert read_generations(kafka) == two_live("ready")
    assert keys_and_values(kafka, GENERATIONS) == before


def test_of_two_monitors_one_mends_it(kafka: KafkaSettings, monitor: Monitor) -> None:
    other = Monitor(kafka, monitor._follower)
    Sender(kafka).send(GENERATIONS, DAMAGED)
    monitor.until_sees(1)

    def look(one: Monitor) -> None:
        one.mender.look()
        with suppress(Fenced):
            one.mender.look()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(look, (monitor, other)))
    assert read_generations(kafka) == founded()


def test_nobody_is_fenced_for_what_only_a_person_can_mend(
    kafka: KafkaSettings, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows a good record of this key."""
    Sender(kafka).send(GENERATIONS, [("stray", b"{}")])
    monitor.until_sees(1)
    monkeypatch.delattr(mending, "change_generations")
    for _ in range(3):
        monitor.mender.look()
    assert monitor.num_damaged() == 1


def test_what_a_newer_version_may_have_written_stays(kafka: KafkaSettings, monitor: Monitor) -> None:
    Sender(kafka).send(FORMS, [("generations", b"1000")])
    Sender(kafka).send(GENERATIONS, DAMAGED)
    monitor.until_sees(1)
    before = keys_and_values(kafka, GENERATIONS)
    monitor.mender.look()
    with pytest.raises(NewerForm, match="generations of form 1000"):
        monitor.mender.look()
    assert keys_and_values(kafka, GENERATIONS) == before
