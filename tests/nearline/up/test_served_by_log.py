"""Which generations the retriever opens, by the log, and how a bad canary ends. Generations over plain tiers."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from nearline.up.served_by_log import ServedByLog, roles_of
from retriever.answer.question import Answer, Question
from retriever.errors import RetrieverUnavailable
from retriever.generations.roles import Roles, is_in_share
from schemas.generations import Canary, Pointer, Record, State
from schemas.ids import Generation, MemberId
from schemas.topics import core_topics
from streams.errors import Fenced
from streams.generations import acts
from streams.generations.last_state import remember, remembered
from streams.generations.log import change_generations, read_generations
from streams.generations.state import Generations
from streams.kafka.topics import ensure_topics
from streams.settings import GenerationsSettings, KafkaSettings
from tests.kit.data.generations import AT, founded, generation_record, two_live
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.open_generations import MEMBERS, A, B, Openings
from tests.kit.retrievers import LONG_S
from tests.kit.waiting import until

CANARY = Canary(B, 0.5, AT)
LIVED = replace(generation_record(A), begun=AT)
READY = replace(generation_record(B, "ready", "green"), begun=AT)
BY = acts.By("test", AT, "to see")
_AWAY_AFTER_S: Final = 0.5


def test_what_was_founded_serves_and_before_that_nothing_does() -> None:
    assert roles_of(Generations()) is None
    assert roles_of(founded()) == Roles(A)


@pytest.mark.parametrize("state", ["ready", "kept"])
def test_what_is_complete_is_open_beside_the_serving_one(state: State) -> None:
    assert roles_of(two_live(state)) == Roles(A, None, {B: state})


@pytest.mark.parametrize("state", ["building", "retired"])
def test_what_is_not_complete_is_not_open(state: State) -> None:
    assert roles_of(two_live(state)) == Roles(A)


def test_the_canary_answers_its_share() -> None:
    roles = roles_of(two_live("ready", canary=CANARY))
    assert roles == Roles(A, CANARY, {B: "ready"})


def test_a_canary_that_is_not_complete_answers_nobody() -> None:
    """No act leads there, but somebody else may write the log."""
    assert roles_of(two_live("building", canary=CANARY)) == Roles(A)


def test_what_is_open_from_an_earlier_life_is_closed_first_unless_it_serves() -> None:
    assert roles_of(two_live("ready", canary=CANARY), lambda _: True) == Roles(A)


class Process:
    """One process of the retriever."""

    def __init__(self, kafka: KafkaSettings, openings: Openings, last_state: Path) -> None:
        self.openings = openings
        # Answers are timed by a clock that only the test moves, so a busy machine makes no canary slow.
        bounds = GenerationsSettings(canary_errors=0.01, canary_p99_ratio=2.0, canary_window_s=600.0)
        self.by_log = ServedByLog(kafka, bounds, lambda _, record: openings(record.id), last_state, _AWAY_AFTER_S)
        self.served = self.by_log.served
        self.now_s = 0.0
        self.served._clock = lambda: self.now_s

    def answer_slowly(self, generation: Generation) -> None:
        """From now on each of its answers takes a second."""
        opened = self.openings[generation]
        answer_batch = opened.answer_batch

        def slowly(questions: Sequence[Question]) -> list[Answer]:
            self.now_s += 1.0
            return answer_batch(questions)

        opened.answer_batch = slowly  # type: ignore[method-assign]

    def miss_half(self, generation: Generation) -> None:
        """As the thread that measures recall tells it."""
        for _ in range(100):
            self.served.missed(A, 0.0)
            self.served.missed(generation, 0.5)

    def answers_from(self, member: str = MEMBERS[0], generation: Generation | None = None) -> str | None:
        try:
            question = Question(member_id=MemberId(member), generation=generation, timeout_s=LONG_S)
            return str(self.served.answer(question).generation)
        except RetrieverUnavailable:
            return None

    def until_serves(self, generation: Generation) -> None:
        until(lambda: self.answers_from() == generation, f"{generation} to serve")

    def until_open_beside(self, generation: Generation) -> None:
        until(lambda: generation in self.served.beside(), f"{generation} to be open")
        until(lambda: self.served.beside()[generation].ready, f"{generation} to be whole")


@contextmanager
def running(
    kafka: KafkaSettings, openings: Openings | None = None, last_state: Path | None = None
) -> Iterator[Process]:
    with tempfile.TemporaryDirectory(prefix="nearline-test-") as folder:
        process = Process(kafka, openings or Openings(), last_state or Path(folder) / "generations.jsonl")
        with process.by_log.running():
            yield process


def test_while_the_broker_is_away_it_goes_by_what_the_log_said_last(tmp_path: Path) -> None:
    file = tmp_path / "generations.jsonl"
    remember(file, two_live("kept"))
    with running(KafkaSettings(bootstrap_servers="127.0.0.1:1"), last_state=file) as process:
        process.until_serves(A)
        process.until_open_beside(B)
        assert process.served.beside()[B].state == "kept"


@pytest.fixture
def kafka(clean_topics: RunningBroker) -> KafkaSettings:
    """`a-1` serves, and `b-2` is ready."""
    kafka = KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers, partitions=1)
    ensure_topics(kafka, core_topics())
    write(kafka, LIVED, READY, Pointer(A))
    return kafka


def write(kafka: KafkaSettings, *records: Record) -> None:
    change_generations(kafka, lambda _: records)


@pytest.mark.broker
def test_the_pointer_is_followed_and_what_is_retired_is_closed(kafka: KafkaSettings) -> None:
    with running(kafka) as process:
        process.until_serves(A)
        process.until_open_beside(B)
        change_generations(kafka, lambda state: acts.promote(state, B, BY, force=True))
        process.until_serves(B)
        assert process.served.beside()[A].state == "kept"
        change_generations(kafka, lambda state: acts.rollback(state, BY))
        process.until_serves(A)
        change_generations(kafka, lambda state: acts.retire(state, B, BY, force=True))
        until(lambda: "remove files" in process.openings[B].ends, "the retired one to be closed")
        assert process.answers_from() == A
    with running(kafka) as restarted:
        restarted.until_serves(A)
        assert set(restarted.openings.opened) == {A}


@pytest.mark.broker
def test_what_the_log_says_counts_as_soon_as_it_is_read(kafka: KafkaSettings, tmp_path: Path) -> None:
    file = tmp_path / "generations.jsonl"
    remember(file, founded().with_records([replace(LIVED, id=B), Pointer(B)]))
    with running(kafka, last_state=file) as process:
        process.until_serves(A)
        until(lambda: remembered(file) == read_generations(kafka), "the newest state to be kept")
        change_generations(kafka, lambda state: acts.promote(state, B, BY, force=True))
        until(lambda: remembered(file) == read_generations(kafka), "the newest state to be kept")


@pytest.mark.broker
def test_a_generation_that_was_built_again_unheard_is_opened_anew(kafka: KafkaSettings) -> None:
    """This process was cut off while it was retired and built again: what it has open is of topics that are gone."""
    with running(kafka) as process:
        process.until_open_beside(B)
        before = process.openings[B]
        write(kafka, replace(READY, begun=AT + timedelta(seconds=1)))
        until(lambda: process.openings[B] is not before, "it to be opened again")
        assert before.ends == ["stop", "close", "remove files"]
        process.until_open_beside(B)
        assert process.openings.num_tries == 3


@pytest.mark.broker
def test_a_canary_that_fails_ends_once_whoever_sees_it(kafka: KafkaSettings) -> None:
    """Two processes see it at the same time, and their acts may meet."""
    in_share = [member for member in MEMBERS if is_in_share(MemberId(member), B, CANARY.share)]
    with ExitStack() as stack:
        processes = [stack.enter_context(running(kafka)) for _ in range(2)]
        for process in processes:
            process.until_serves(A)
            process.until_open_beside(B)
            process.openings[B].fails = True
        write(kafka, Pointer(A, canary=CANARY))
        until(lambda: all(_has_canary(process, in_share[0]) for process in processes), "the canary to be asked")
        for process in processes:
            assert {process.answers_from(member) for member in MEMBERS} == {A}, "the serving one answers in its place"
        until(lambda: _pointer(kafka) == Pointer(A, rolled_back=True), "the canary to end", every_s=0.2)
        until(lambda: not any(process.served.verdict() for process in processes), "both to hear of it")
        ends = [act for act in read_generations(kafka).records[B].history if act.what == "end of the canary"]
        assert len(ends) == 1
        assert "answers failed or were partial" in ends[0].reason
        second = Pointer(A, canary=replace(CANARY, share=0.4))
        until(lambda: _is_written(kafka, second), "the other's act to be over, which had nothing left to do")
        until(lambda: _has_canary(processes[0], in_share[0]), "the next canary to be asked")
        assert processes[0].served.verdict() is None, "it has a chance of its own"


@pytest.mark.broker
@pytest.mark.parametrize(("do_badly", "reason"), [(Process.answer_slowly, "p99"), (Process.miss_half, "recall")])
def test_a_canary_that_is_slow_or_finds_less_ends(
    kafka: KafkaSettings, do_badly: Callable[[Process, Generation], None], reason: str
) -> None:
    with running(kafka) as process:
        process.until_serves(A)
        process.until_open_beside(B)
        do_badly(process, B)
        write(kafka, Pointer(A, canary=CANARY))

        def has_ended() -> bool:
            for member in MEMBERS:
                process.answers_from(member)
            return _pointer(kafka) == Pointer(A, rolled_back=True)

        until(has_ended, "the canary to end", every_s=0.2)
        (end,) = (act for act in read_generations(kafka).records[B].history if act.what == "end of the canary")
        assert reason in end.reason


def _has_canary(process: Process, member: str) -> bool:
    """Whether the canary was asked for this member's answer, which it fails to give."""
    before = process.openings[B].num_failures
    process.answers_from(member)
    return process.openings[B].num_failures > before


def _is_written(kafka: KafkaSettings, pointer: Pointer) -> bool:
    """Not where somebody else acted at the same time."""
    try:
        write(kafka, pointer)
    except Fenced:
        return False
    return True


def _pointer(kafka: KafkaSettings) -> Pointer | None:
    return read_generations(kafka).pointer
