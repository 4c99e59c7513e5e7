"""What a look asks, and how often."""

from pathlib import Path

import pytest

from nearline.ask import status_sources
from nearline.settings.settings import Settings
from nearline.top import look as top_look
from nearline.top.look import Look, take_look
from schemas.generations import GenerationRecord
from streams.generations.state import Generations
from tests.kit.data.generations import founded
from tests.kit.instances import NO_BROKER, instance_without_stages
from tests.kit.monitors import monitor_without_broker


def test_the_log_of_the_generations_is_read_once_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []

    def read_generations(kafka: object) -> Generations:
        read.append(kafka)
        return founded()

    def progress(_reader: object, _record: GenerationRecord, _now: object) -> None:
        """It is complete."""

    monkeypatch.setattr(status_sources, "read_generations", read_generations)
    monkeypatch.setattr(top_look, "read_progress", progress)
    with instance_without_stages() as place:
        for times in (1, 2):
            look = take_look(Settings(data_dir=place.data_dir), None)
            assert [str(living.record.id) for living in look.generations] == ["a-1"]
            assert len(read) == times, "each look reads it anew, once"


def test_on_a_cluster_it_shows_what_the_monitor_that_the_settings_name_says(tmp_path: Path) -> None:
    def look(monitor: str) -> Look:
        nobody = {"url": "http://127.0.0.1:1"}
        others = {"serve": nobody, "cold": nobody, "kafka": {"bootstrap_servers": NO_BROKER}}
        return take_look(Settings.model_validate({"data_dir": tmp_path, "monitor": {"url": monitor}, **others}), None)

    with monitor_without_broker(tmp_path) as url:
        seen = look(url)
    assert seen.status is not None
    (sentence,) = seen.status.standing_still
    assert sentence.startswith("broker has stood still for 31 s")
    assert seen.series is not None

    missing = look(url)
    assert missing.status is not None
    assert len([problem for problem in missing.status.problems if problem.startswith("monitor: ")]) == 1
    assert missing.series is None
