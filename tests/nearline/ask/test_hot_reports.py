"""What is said of a retriever of several processes holds for all of them."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Never

import pytest

from nearline.ask.connections import Connections
from nearline.ask.hot_reports import SlowestFeed, ask_all, slowest
from nearline.ask.status_sources import sources_of_serve
from nearline.errors import NotReady
from nearline.settings.instance import Instance, locked, write_instance
from nearline.settings.settings import Settings
from retriever.errors import NotAllowed, RetrieverUnavailable
from retriever.reasons import Code, Reason
from retriever.settings import ServeSettings
from schemas.api import FreshnessStatus, HotPositions
from schemas.ids import Generation
from tests.kit.data.embeddings import GENERATION
from tests.kit.retrievers import RetrieverSetup, Served, scored_post

OTHER = Generation("other-1")
BEHIND = Reason(Code.HOT_CATCHING_UP, "it reads the newest posts")


@pytest.fixture
def workers() -> Iterator[list[Served]]:
    """The first one holds two posts, the second one."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Served(RetrieverSetup())) for _ in range(2)]
        workers[0].retriever.in_hot(scored_post("a"), scored_post("b"))
        workers[1].retriever.in_hot(scored_post("a"))
        yield workers


def connections(workers: list[Served], **serve: str) -> Connections:
    instance = Instance(
        *(os.getpid(), "", GENERATION, "", None, workers[0].url, True, [], "2026-01-05T10:00:00Z"),
        workers={f"serve-{number}": worker.own_url for number, worker in enumerate(workers)},
    )
    return Connections(Settings(serve=ServeSettings.model_validate(serve)), lambda: instance)


def positions(
    offsets: dict[int, int], *, caught_up: bool = True, posts: int = 0, p50: float | None = None
) -> HotPositions:
    return HotPositions(
        generation=GENERATION,
        topic="posts",
        caught_up=caught_up,
        positions=offsets,
        posts=posts,
        freshness_s=FreshnessStatus(p50=p50, p99=None),
    )


def test_the_slowest_counts_in_each_partition() -> None:
    first = positions({0: 5, 1: 9}, posts=3)
    second = positions({0: 7, 1: 8}, posts=2, p50=0.5)
    assert slowest([first, second]) == positions({0: 5, 1: 8}, posts=2, p50=0.5)


def test_one_that_has_read_nothing_yet_has_reached_nothing() -> None:
    first, second = positions({0: 5, 1: 9}), positions({1: 2}, caught_up=False)
    assert slowest([first, second]) == positions({1: 2}, caught_up=False)


def test_all_are_ready(workers: list[Served]) -> None:
    report = ask_all(connections(workers).retrievers())
    assert (report.readiness.ready, report.readiness.problems) == (True, [])
    assert report.positions.posts == 1


def test_one_that_is_not_ready_is_named(workers: list[Served]) -> None:
    workers[1].retriever.feed_problem = BEHIND
    readiness = ask_all(connections(workers).retrievers()).readiness
    assert (readiness.ready, readiness.problems) == (False, [f"serve-1: {BEHIND.detail}"])


def test_one_that_does_not_answer_is_named_and_the_others_are_reported(workers: list[Served]) -> None:
    workers[1].stop()
    report = ask_all(connections(workers).retrievers())
    assert not report.readiness.ready
    assert report.positions.posts == 2
    (problem,) = report.readiness.problems
    assert problem.startswith(f"serve-1: the retriever at {workers[1].own_url} does not answer")


def test_the_status_that_a_process_gives_is_about_all_of_them(workers: list[Served], tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, serve=ServeSettings(workers=2, url="http://127.0.0.1:1"))
    workers[1].retriever.feed_problem = BEHIND
    asked = workers[0]
    sources = sources_of_serve(settings, asked.retriever.under_test, asked.feed, _no_cold_tier)
    with locked(tmp_path):
        write_instance(tmp_path, connections(workers).instance())
        assert sources.hot().readiness.problems == [f"serve-1: {BEHIND.detail}"]


def test_where_nobody_answers_there_is_no_report(workers: list[Served]) -> None:
    for worker in workers:
        worker.stop()
    with pytest.raises(RetrieverUnavailable, match=f"the retriever at {workers[0].own_url} does not answer"):
        ask_all(connections(workers).retrievers())


def test_of_a_retriever_elsewhere_only_its_address_is_known(workers: list[Served]) -> None:
    (client,) = connections(workers, url=workers[1].url).retrievers().values()
    with client:
        assert client.hot_positions().posts == 1


def test_a_retriever_that_does_not_listen_yet_is_waited_for() -> None:
    instance = Instance(os.getpid(), "", GENERATION, "", None, None, True, [], "2026-01-05T10:00:00Z")
    with pytest.raises(NotReady, match="does not listen yet"):
        Connections(Settings(), lambda: instance).retrievers()


def test_how_far_they_are_is_known_only_while_all_of_them_answer(workers: list[Served]) -> None:
    feed = SlowestFeed(connections(workers), GENERATION)
    assert feed.positions() == {}, "they have read nothing"
    workers[1].stop()
    assert feed.positions() is None
    assert feed.positions() is None, "it connects again, and still one of them is away"
    feed.close()


def test_a_generation_that_is_not_open_is_waited_for(workers: list[Served]) -> None:
    """Never are the positions of another one taken for its own: they belong to another topic."""
    feed = SlowestFeed(connections(workers), OTHER)
    assert feed.positions() is None
    feed.close()


def test_a_wrong_key_is_no_reason_to_wait() -> None:
    with Served(RetrieverSetup(), api_key="right") as worker:
        feed = SlowestFeed(connections([worker], api_key="wrong"), GENERATION)
        with pytest.raises(NotAllowed):
            feed.positions()
        feed.close()


def test_while_the_pointer_moves_the_positions_of_two_generations_are_not_mixed() -> None:
    with ExitStack() as stack:
        setups = [RetrieverSetup(), RetrieverSetup(generation=OTHER)]
        both = [stack.enter_context(Served(setup)) for setup in setups]
        setups[0].in_hot(scored_post("a"), scored_post("b"))
        report = ask_all(connections(both).retrievers(), GENERATION)
        assert (report.readiness.ready, report.positions.generation, report.positions.posts) == (True, GENERATION, 2)
        said = f"serve-1: it answers from {OTHER}, and does not know {GENERATION} yet"
        assert report.readiness.problems == [said]
        moved = ask_all(connections(both[:1]).retrievers(), OTHER)
        assert (moved.positions.generation, len(moved.readiness.problems)) == (GENERATION, 1)


def _no_cold_tier(_: Generation) -> Never:
    raise AssertionError("the cold tier is not asked here")
