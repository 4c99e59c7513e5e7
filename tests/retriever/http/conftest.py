"""A retriever with two places and room for one who waits, served over HTTP, whose time limits are short on demand."""

from collections.abc import Iterator

import pytest

from retriever.http import request_limits, server
from tests.kit.retrievers import RetrieverSetup, Served, asking_member, scored_post


@pytest.fixture
def retriever() -> RetrieverSetup:
    retriever = RetrieverSetup(warm=False)
    retriever.in_cold(asking_member("m"), scored_post("a"))
    return retriever


@pytest.fixture
def served(retriever: RetrieverSetup) -> Iterator[Served]:
    with Served(retriever, in_flight=2, queue=1) as served:
        yield served


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.5)
    monkeypatch.setattr(server, "KEEP_ALIVE_S", 1)
    monkeypatch.setattr(server, "UNREAD_S", 2.0)
    monkeypatch.setattr(request_limits, "BODY_S", 0.5)
