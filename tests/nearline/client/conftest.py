"""Both clients behind one face, and a stand-in for the retriever that they ask."""

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import pytest

from nearline import AsyncClient, Client
from retriever import nearline_pb2 as pb
from tests.kit.certificates import certificate
from tests.kit.grpc_stand_in import StandIn


class Driven:
    """An AsyncClient with the methods of a Client, so that one suite of tests asks both."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._loop = asyncio.new_event_loop()
        try:
            self._client = self._loop.run_until_complete(self._make(*arguments, **settings))
        except BaseException:
            self._loop.close()
            raise

    async def _make(self, *arguments: Any, **settings: Any) -> AsyncClient:
        return AsyncClient(*arguments, **settings)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        assert inspect.iscoroutinefunction(method)
        return lambda *arguments, **named: self._loop.run_until_complete(method(*arguments, **named))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest) -> type[Client]:
    """Either client's class."""
    kind: Literal["sync", "async"] = request.param
    return Client if kind == "sync" else Driven  # type: ignore[return-value]


@pytest.fixture(scope="module")
def _stand_in() -> Iterator[StandIn]:
    with StandIn() as stand_in:
        yield stand_in


@pytest.fixture
def stand_in(_stand_in: StandIn) -> StandIn:
    _stand_in.answer(pb.RetrieveResponse(generation="g"))
    return _stand_in


@pytest.fixture
def client(make: type[Client], stand_in: StandIn) -> Iterator[Client]:
    """With a timeout that a busy machine keeps."""
    with make(stand_in.url, timeout_s=20.0) as client:
        yield client


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StandIn, Path]]:
    """A stand-in that speaks TLS, and the file of its authority."""
    files = certificate(tmp_path_factory.mktemp("tls"), "127.0.0.1")
    with StandIn(files) as stand_in:
        yield stand_in, files.ca_file


@pytest.fixture
def unused_url() -> str:
    with StandIn() as gone:
        pass
    return gone.url
