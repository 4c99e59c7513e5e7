"""Generations that a retriever opens in a test: each over plain tiers of its own, which share the table of ids."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Any, Never

from indexer.id_table import IdTable
from retriever.answer.question import Answer, Question
from retriever.errors import RequestRefused, RetrieverUnavailable
from retriever.feed.hot_feed import HotFeed
from retriever.generations.canary_watch import CanaryBounds
from retriever.generations.roles import Roles
from retriever.generations.served import ServedGenerations
from retriever.reasons import Code, Reason
from schemas.generations import Canary
from schemas.ids import Generation, MemberId
from tests.kit.data.embeddings import member_embedding
from tests.kit.retrievers import LONG_S, QUERY, WINDOW_S, RetrieverSetup, scored_post
from tests.kit.waiting import until

A, B, C = Generation("a-1"), Generation("b-2"), Generation("c-3")
NUM_POSTS = 40
MEMBERS = [f"m{number}" for number in range(200)]
BOUNDS = CanaryBounds(errors=0.01, p99_ratio=1e9, window_s=600.0)
"""No canary is too slow on a busy machine."""
CATCHING_UP = Reason(Code.HOT_CATCHING_UP, "5 records to go")


def posts_of(generation: str) -> set[str]:
    """Those that it answers with. No other generation has one of them."""
    return {f"{generation}-{number}" for number in range(NUM_POSTS)}


class Opened:
    """Implements `OpenGeneration`, and `OneRetriever` too, so that a test can hold or break the answers."""

    def __init__(self, generation: str, ids: IdTable, *, is_whole: bool) -> None:
        self.setup = RetrieverSetup(generation=Generation(generation), ids=ids, real_hot_tier=True)
        self.setup.feed_problem = None if is_whole else CATCHING_UP
        posts = [scored_post(post, score=0.5) for post in sorted(posts_of(generation))]
        self.setup.in_hot(*posts[::2])
        self.setup.in_cold(*posts[1::2])
        self.setup.in_member_feed(*(member_embedding(member, vector=QUERY) for member in MEMBERS))
        self.retriever = self
        self.feed = HotFeed(
            _no_consumer, Generation(generation), self.setup.hot, self.setup.trending, window_s=WINDOW_S
        )
        self.may_answer = Event()
        self.may_answer.set()
        self.fails = False
        self.num_failures = 0
        self.num_asking = 0
        self.num_answers = 0
        self.ends: list[str] = []
        """What was done to it at its end."""

    def answer_batch(self, questions: Sequence[Question]) -> list[Answer]:
        assert not self.ends, "a closed generation is asked"
        self.num_asking += 1
        self.may_answer.wait()
        self.num_asking -= 1
        if self.fails:
            self.num_failures += 1
            raise RetrieverUnavailable("it fails for this test")
        self.num_answers += len(questions)
        answers = self.setup.under_test.answer_batch(questions)
        assert not self.ends, "it is closed while it answers"
        return answers

    def become_whole(self) -> None:
        self.setup.feed_problem = None

    def __getattr__(self, name: str) -> Any:
        """The rest of the retriever."""
        return getattr(self.setup.under_test, name)

    def stop(self) -> None:
        self.ends.append("stop")

    def close(self) -> None:
        self.setup.close()
        self.ends.append("close")

    def remove_files(self) -> None:
        self.ends.append("remove files")


class Openings:
    """Opens generations, and remembers each that it has opened. `not_whole`: these are filled only when the test says
    so. `broken`: these cannot be opened."""

    def __init__(self, *, not_whole: Sequence[str] = (), broken: Sequence[str] = ()) -> None:
        self.not_whole = set(not_whole)
        self.broken = set(broken)
        self.opened: dict[str, Opened] = {}
        self.num_tries = 0
        self._ids = IdTable()

    def __call__(self, generation: Generation) -> Opened:
        self.num_tries += 1
        if generation in self.broken:
            raise OSError(f"/secret/path/of/{generation} is gone")
        opened = self.opened[generation] = Opened(generation, self._ids, is_whole=generation not in self.not_whole)
        return opened

    def __getitem__(self, generation: str) -> Opened:
        until(lambda: generation in self.opened, f"{generation} to be opened")
        return self.opened[generation]


@contextmanager
def answering_held(opened: Opened) -> Iterator[None]:
    """Whoever asks it waits until the block is left."""
    opened.may_answer.clear()
    try:
        yield
    finally:
        opened.may_answer.set()


class Running:
    """Generations over plain tiers, which open as the test says."""

    def __init__(self, openings: Openings) -> None:
        self.openings = openings
        self.served = ServedGenerations(openings, BOUNDS)

    def serves(self, generation: Generation) -> bool:
        try:
            return self.served.generation == generation
        except RetrieverUnavailable:
            return False

    def take(self, serving: Generation, canary: Canary | None = None, *others: Generation) -> None:
        beside = (*others, canary.generation) if canary is not None else others
        self.served.take(Roles(serving, canary, dict.fromkeys(beside, "ready")))

    def until_serves(self, generation: Generation) -> None:
        until(lambda: self.serves(generation), f"{generation} to serve")

    def until_open(self, generation: Generation) -> Opened:
        """And whole, so that it may be asked."""
        until(lambda: self._may_be_asked(generation), f"{generation} to be whole")
        return self.openings[generation]

    def _may_be_asked(self, generation: Generation) -> bool:
        try:
            self.served.check_generation(generation)
        except (RequestRefused, RetrieverUnavailable):
            return False
        return True

    def ask(self, member: str = MEMBERS[0], **fields: Any) -> Answer:
        return self.served.answer(Question(**{"member_id": MemberId(member), "timeout_s": LONG_S, **fields}))


@contextmanager
def running_generations(openings: Openings) -> Iterator[Running]:
    running = Running(openings)
    with running.served.running():
        yield running


Start = Callable[[Openings], Running]
"""As `running_generations`, to the end of the test."""


def check_one_generation(answer: Answer) -> None:
    """Its candidates are exactly those of the generation that it names."""
    assert set(answer.post_ids) == posts_of(answer.generation)
    assert not answer.partial


def question_of_member(member: str) -> Question:
    return Question(member_id=MemberId(member), timeout_s=LONG_S)


def _no_consumer() -> Never:
    raise AssertionError("the feed is not started in this test")
