"""What a look asks, and how often."""

import pytest

from nearline.settings.settings import Settings
from nearline.top.look import take_look
from streams.generations import log
from streams.generations.state import Generations
from tests.kit.instances import instance_without_stages


def test_the_log_of_the_generations_is_read_once_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []

    def read_generations(kafka: object) -> Generations:
        read.append(kafka)
        return Generations()

    monkeypatch.setattr(log, "read_generations", read_generations)
    with instance_without_stages() as place:
        look = take_look(Settings(data_dir=place.data_dir), None)
        assert look.problem == ""
        assert len(read) == 1
        take_look(Settings(data_dir=place.data_dir), look)
    assert len(read) == 2, "it may have changed"
