"""Which generation answers a question, and when that changes."""

from threading import Event, Thread
from typing import Any

import pytest
from structlog.testing import capture_logs

from retriever.answer.question import Answer
from retriever.errors import RequestRefused, RetrieverUnavailable
from retriever.generations import keeper
from retriever.service.metrics import ServeMetrics
from schemas.api import GenerationReadiness, ProblemCode
from schemas.generations import State
from schemas.ids import Generation, PostId
from tests.kit.open_generations import (
    MEMBERS,
    NUM_POSTS,
    A,
    B,
    C,
    Opened,
    Openings,
    Start,
    answering_held,
    check_one_generation,
    posts_of,
    question_of_member,
    running_generations,
)
from tests.kit.retrievers import LONG_S
from tests.kit.waiting import until


def beside(state: State, *problems: str) -> GenerationReadiness:
    return GenerationReadiness(state=state, ready=not problems, problems=list(problems))


def test_the_serving_generation_answers(start: Start) -> None:
    running = start(Openings())
    running.take(A)
    running.until_serves(A)
    answer = running.ask()
    assert answer.generation == A
    check_one_generation(answer)


def test_without_a_generation_there_is_no_answer(start: Start) -> None:
    running = start(Openings())
    with pytest.raises(RetrieverUnavailable, match="no generation is open here yet"):
        running.ask()
    assert running.served.problems() == ["no generation is open here yet"]
    assert running.served.figures() == []


def test_at_the_start_the_serving_one_answers_before_it_is_whole_and_says_so(start: Start) -> None:
    """As a single generation always did: the answer is partial, and the retriever is not ready."""
    running = start(Openings(not_whole=[A]))
    running.take(A)
    running.until_serves(A)
    assert running.served.problems() == ["5 records to go"]
    assert running.ask().partial


def test_the_pointer_moves_when_the_new_one_is_whole(start: Start) -> None:
    running = start(Openings(not_whole=[B]))
    running.take(A)
    running.until_serves(A)
    running.take(B, None, A)
    opened = running.openings[B]
    assert running.ask().generation == A
    assert running.served.problems() == []
    assert running.served.beside() == {B: beside("serving", "5 records to go")}
    opened.become_whole()
    running.until_serves(B)
    check_one_generation(running.ask())
    assert (running.ask().generation, opened.num_answers > 0) == (B, True)


def test_a_generation_that_is_open_takes_over_at_once_and_gives_back_at_once(start: Start) -> None:
    running = start(Openings())
    running.take(A, None, B)
    running.until_serves(A)
    running.until_open(B)
    for generation, other in ((B, A), (A, B)) * 5:
        running.take(generation, None, other)
        assert running.ask().generation == generation


def test_promotions_and_rollbacks_under_questions_fail_none_and_mix_none(start: Start) -> None:
    running = start(Openings())
    running.take(A, None, B)
    running.until_serves(A)
    running.until_open(B)
    stop = Event()
    answers: list[Answer] = []
    errors: list[Exception] = []

    def ask() -> None:
        while not stop.is_set():
            for member in MEMBERS[:20]:
                try:
                    answers.append(running.ask(member))
                    answers.extend(
                        running.served.answer_batch([question_of_member(member), question_of_member(MEMBERS[21])])
                    )
                except Exception as error:
                    errors.append(error)

    threads = [Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for generation, other in ((B, A), (A, B)) * 10:
        number = len(answers)
        running.take(generation, None, other)
        until(lambda number=number: len(answers) > number + 20, "some answers")
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {answer.generation for answer in answers} == {A, B}
    for answer in answers:
        check_one_generation(answer)


def test_a_generation_is_closed_when_its_last_question_is_answered(start: Start) -> None:
    running = start(Openings())
    running.take(A, None, B)
    running.until_serves(A)
    running.until_open(B)
    opened, answers = running.openings[A], []
    thread = Thread(target=lambda: answers.append(running.ask()))
    with answering_held(opened):
        thread.start()
        until(lambda: opened.num_asking == 1, "the question to be asked")
        running.take(B)
        until(lambda: A not in running.served.beside(), "the old one to be taken out")
        assert running.ask().generation == B
        assert opened.ends == []
    thread.join()
    check_one_generation(answers[0])
    assert answers[0].generation == A
    until(lambda: opened.ends == ["stop", "close", "remove files"], "the old one to be closed")
    with pytest.raises(RequestRefused, match="generation: a-1 is not served; b-2 is"):
        running.ask(generation=A)


def test_what_serves_stays_open_until_the_next_one_is_whole(start: Start) -> None:
    """Also if the log says meanwhile that it is retired."""
    running = start(Openings(not_whole=[B]))
    running.take(A)
    running.until_serves(A)
    running.take(B)
    opened = running.openings[B]
    until(lambda: running.openings.num_tries == 2, "the next one to be opened")
    assert running.ask().generation == A
    opened.become_whole()
    until(lambda: running.openings[A].ends != [], "the old one to be closed")
    assert running.ask().generation == B


def test_a_retired_generation_may_be_opened_again(start: Start) -> None:
    running = start(Openings())
    running.take(A, None, B)
    running.until_serves(A)
    first = running.until_open(B)
    running.take(A)
    until(lambda: "remove files" in first.ends, "it to be closed")
    running.take(A, None, B)
    until(lambda: running.openings[B] is not first, "it to be opened again")
    running.until_open(B)
    assert running.ask(generation=B).generation == B


def test_a_named_generation_answers_if_it_is_whole(start: Start) -> None:
    running = start(Openings(not_whole=[C]))
    running.take(A, None, B, C)
    running.until_serves(A)
    running.until_open(B)
    running.openings[C]
    for generation in (A, B):
        answer = running.ask(generation=generation)
        assert answer.generation == generation
        check_one_generation(answer)
        assert running.served.vectors([PostId("x")], LONG_S, generation).generation == generation
        assert {post.post_id for post in running.served.hot_posts(generation)} <= posts_of(generation)
        assert running.served.feeds.progress(generation).generation == generation
    with pytest.raises(RetrieverUnavailable, match="the generation c-3 is not complete here yet; try again"):
        running.ask(generation=C)
    with pytest.raises(RequestRefused, match="generation: d-4 is not served; a-1 and b-2 are") as caught:
        running.ask(generation="d-4")
    assert caught.value.code == ProblemCode.UNKNOWN_GENERATION


def _failures(logs: list[Any]) -> list[Any]:
    return [each for each in logs if each["event"] == "a generation cannot be opened"]


def test_one_that_cannot_be_opened_is_a_problem_beside_and_is_tried_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_AGAIN_S", 0.1)
    openings = Openings(broken=[B])
    with capture_logs() as logs:
        running = start(openings)
        running.take(A, None, B)
        running.until_serves(A)
        until(lambda: len(_failures(logs)) >= 3, "three tries")
    assert [each["exc_info"] for each in _failures(logs)][:3] == [True, False, False], "one traceback for each reason"
    said = "it cannot be opened here; the log of the retriever says why"
    assert running.served.beside() == {B: beside("ready", said)}
    assert running.served.problems() == []
    openings.broken.clear()
    until(lambda: B in openings.opened, "another try")
    running.until_open(B)
    assert running.served.beside() == {B: beside("ready")}


def test_the_end_closes_all_that_is_open_and_keeps_its_files(start: Start) -> None:
    openings = Openings()
    with running_generations(openings) as running:
        running.take(A, None, B)
        running.until_serves(A)
        running.until_open(B)
    assert [openings[generation].ends for generation in (A, B)] == [["stop", "close"]] * 2


class SlowOpenings(Openings):
    """The second one takes as long to open as the test says, as when its package is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.may_open = Event()

    def __call__(self, generation: Generation) -> Opened:
        opened = super().__call__(generation)
        if generation == B:
            self.may_open.wait()
        return opened


def test_the_end_does_not_wait_for_one_that_is_being_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the process would be killed before the others have written their snapshots."""
    monkeypatch.setattr(keeper, "_JOIN_S", 0.1)
    openings = SlowOpenings()
    with running_generations(openings) as running:
        running.take(A, None, B)
        running.until_serves(A)
        openings[B]
    assert openings[A].ends == ["stop", "close"]
    assert openings[B].ends == []
    openings.may_open.set()
    until(lambda: openings[B].ends == ["stop", "close"], "it to be closed as soon as it is open")


def test_metrics_name_the_generation_and_forget_a_closed_one(start: Start) -> None:
    running = start(Openings())
    running.take(A, None, B)
    running.until_serves(A)
    running.until_open(B)
    metrics = ServeMetrics(running.served, running.served.feeds)
    for generation in (A, B):
        metrics.measure(running.ask(generation=generation))
        metrics.count("whole", generation)
    metrics.count("unavailable", B)
    both = metrics.render().decode()
    for line in (
        'nearline_retrieve_answers_total{generation="a-1",outcome="whole"} 1.0',
        'nearline_retrieve_answers_total{generation="b-2",outcome="unavailable"} 1.0',
        f'nearline_hot_posts{{generation="b-2"}} {NUM_POSTS / 2}',
        f'nearline_held_members{{generation="a-1"}} {len(MEMBERS)}.0',
        'nearline_ready{generation="a-1"} 1.0',
        'nearline_hot_skipped_records_total{generation="b-2"} 0.0',
    ):
        assert line in both
    running.take(A)
    until(lambda: B not in running.served.beside(), "the other one to be taken out")
    metrics.count("unavailable", B)
    assert 'generation="b-2"' not in metrics.render().decode()
    assert 'nearline_retrieve_answers_total{generation="a-1",outcome="whole"} 1.0' in metrics.render().decode()


def test_an_error_says_which_generation_was_asked(start: Start) -> None:
    running = start(Openings())
    running.take(A)
    running.until_serves(A)
    running.openings[A].fails = True
    with pytest.raises(RetrieverUnavailable) as caught:
        running.ask()
    assert caught.value.generation == A
