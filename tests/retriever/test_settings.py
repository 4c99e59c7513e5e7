"""Where the retriever listens, and how many questions each of its workers takes."""

import pytest

from retriever.settings import ServeSettings


@pytest.mark.parametrize(
    ("settings", "port"),
    [
        ({}, 8081),
        ({"port": 9000}, 9001),
        ({"port": 9000, "grpc_port": 7000}, 7000),
        ({"port": 0}, 0),
        ({"port": 0, "grpc_port": 7000}, 7000),
        ({"port": 9000, "grpc_port": 0}, 0),
        ({"port": 65_535}, 0),
    ],
)
def test_grpc_is_next_to_http_unless_told_otherwise(settings: dict[str, int], port: int) -> None:
    assert ServeSettings(**settings).port_of_grpc == port


@pytest.mark.parametrize(
    ("settings", "ports"),
    [
        ({}, [None]),
        ({"worker_port": 9100}, [None]),
        ({"workers": 2}, [0, 0]),
        ({"workers": 2, "worker_port": 9100}, [9100, 9101]),
    ],
)
def test_each_of_several_workers_has_a_port_of_its_own(settings: dict[str, int], ports: list[int | None]) -> None:
    serve = ServeSettings(**settings)
    assert [serve.own_port(worker) for worker in range(serve.workers)] == ports


@pytest.mark.parametrize(
    ("cores", "settings", "in_flight"),
    [
        (2, {}, 8),
        (16, {}, 64),
        (32, {}, 64),
        (16, {"workers": 4}, 16),
        (2, {"workers": 16}, 1),
        (2, {"workers": 2, "in_flight": 7}, 7),
    ],
)
def test_workers_share_the_cores(
    cores: int, settings: dict[str, int], in_flight: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retriever.settings.os.sched_getaffinity", lambda _: set(range(cores)))
    assert ServeSettings(**settings).in_flight == in_flight
