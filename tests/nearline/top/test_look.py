"""What a look asks, and how often."""

import pytest

from nearline.ask import status_sources
from nearline.settings.settings import Settings
from nearline.top import look as top_look
from nearline.top.look import take_look
from schemas.generations import GenerationRecord
from streams.generations.state import Generations
from tests.kit.data.generations import founded
from tests.kit.instances import instance_without_stages


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
