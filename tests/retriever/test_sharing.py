"""Several workers at the same two ports, on real sockets: who gets the questions, and what a worker alone says."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from typing import Any

import httpx
import pytest

from nearline.ports import free_ports
from retriever.errors import CannotListen
from retriever.reasons import Code, Reason
from tests.kit.data.embeddings import GENERATION
from tests.kit.retrievers import RetrieverSetup, Served, asking_member, scored_post
from tests.kit.waiting import until
from tests.kit.ways_in import GrpcWay, HttpWay

LONG_MS = 30_000
CONNECTIONS = 30
"""The kernel gives each to one of two workers by chance: all to the same one once in 500 million times."""
BEHIND = Reason(Code.HOT_CATCHING_UP, "it reads the newest posts")


class Workers:
    """Each of them gives out one post of its own, `worker-0` and so on, so that an answer tells who gave it."""

    def __init__(self) -> None:
        self.port, self.grpc_port = free_ports(2)
        self._stack = ExitStack()
        self._number = 0

    def start(self, *, ready: bool = True) -> Served:
        retriever = RetrieverSetup()
        retriever.feed_problem = None if ready else BEHIND
        retriever.in_cold(asking_member("m"), scored_post(f"worker-{self._number}"))
        self._number += 1
        served = Served(retriever, self.port, grpc_port=self.grpc_port, own_port=0, workers=2)
        return self._stack.enter_context(served)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers()
    yield workers
    workers.close()


def answering(served: Served, way: type[HttpWay | GrpcWay]) -> set[str]:
    """Who answers, on many connections."""
    return {post_id for _ in range(CONNECTIONS) for post_id in answer(served, way)["post_ids"]}


def answer(served: Served, way: type[HttpWay | GrpcWay]) -> dict[str, Any]:
    """On a connection of its own."""
    with closing(way(served)) as connection:
        return connection.ask("Retrieve", member_id="m", timeout_ms=LONG_MS).body


def refused(port: int) -> AbstractContextManager[Any]:
    return pytest.raises(CannotListen, match=f"127.0.0.1 port {port}.*: Address already in use; choose another")


def listens(served: Served) -> bool:
    return served.url != ""


@pytest.mark.parametrize("way", [HttpWay, GrpcWay])
def test_questions_reach_all_workers(workers: Workers, way: type[HttpWay | GrpcWay]) -> None:
    first, second = workers.start(), workers.start()
    until(lambda: listens(first) and listens(second), "both to listen")
    assert (first.url, first.grpc) == (second.url, second.grpc)
    assert answering(first, way) == {"worker-0", "worker-1"}


def test_a_worker_that_is_not_ready_leaves_the_questions_to_others(workers: Workers) -> None:
    first = workers.start()
    until(lambda: listens(first), "the first one to listen")
    second = workers.start(ready=False)
    for way in (HttpWay, GrpcWay):
        assert answering(first, way) == {"worker-0"}
    ready = httpx.get(f"{second.own_url}/readyz", trust_env=False)
    assert (ready.status_code, ready.json()["problems"]) == (503, [BEHIND.detail])
    second.retriever.feed_problem = None
    until(lambda: listens(second), "the second one to listen when it is ready")
    assert answering(first, GrpcWay) == {"worker-0", "worker-1"}


def test_a_worker_that_is_not_ready_answers_where_nobody_else_does(workers: Workers) -> None:
    served = workers.start(ready=False)
    until(lambda: listens(served), "it to listen")
    body = answer(served, GrpcWay)
    assert (body["post_ids"], body["partial"]) == (["worker-0"], True)


def test_others_go_on_when_one_ends(workers: Workers) -> None:
    first, second = workers.start(), workers.start()
    until(lambda: listens(first) and listens(second), "both to listen")
    first.stop()
    for way in (HttpWay, GrpcWay):
        assert answering(second, way) == {"worker-1"}


def test_a_worker_that_waits_can_be_stopped(workers: Workers) -> None:
    first = workers.start()
    until(lambda: listens(first), "the first one to listen")
    second = workers.start(ready=False)
    second.stop()
    assert not listens(second)


def test_alone_and_on_its_own_port_it_says_the_same(workers: Workers) -> None:
    served = workers.start()
    own = httpx.get(f"{served.own_url}/metrics", trust_env=False).text
    assert f'nearline_ready{{generation="{GENERATION}"}} 1.0' in own.splitlines()


@pytest.mark.parametrize("port", ["port", "grpc_port"])
def test_a_port_of_workers_is_refused_to_whoever_shares_none(workers: Workers, port: str) -> None:
    first = workers.start()
    until(lambda: listens(first), "the first one to listen")
    taken = getattr(workers, port)
    with refused(taken), closing(RetrieverSetup(warm=False)) as retriever:
        Served(retriever, **{"port": 0, port: taken}).serve()


@pytest.mark.parametrize("port", ["port", "grpc_port"])
def test_a_port_that_is_not_shared_is_refused_to_a_worker(port: str) -> None:
    with Served(RetrieverSetup(warm=False)) as alone:
        taken = int((alone.url if port == "port" else alone.grpc).rpartition(":")[2])
        with refused(taken), closing(RetrieverSetup()) as retriever:
            Served(retriever, **{"port": free_ports(1)[0], port: taken}, own_port=0).serve()
