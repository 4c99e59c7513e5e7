"""Where the retriever listens for gRPC."""

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
