"""`serve` on a real broker with real packages of different dimensions: the pointer moves while questions are asked, and
while the process is away."""

import urllib.request
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

import pytest

from encoders.package.model_package import ModelPackage
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import HotSettings
from nearline.generations.local_files import hot_folder
from nearline.generations.room import Free
from nearline.ports import free_ports
from nearline.settings.settings import Settings
from nearline.up import room_beside
from nearline.up.build import build_serve
from retriever.answer import online_recall
from retriever.answer.exact_search import TierRecall
from retriever.answer.online_recall import OnlineRecall, RecallCounts
from retriever.client import RetrieverClient
from retriever.errors import RequestRefused, RetrieverUnavailable
from retriever.generations import keeper
from retriever.settings import ServeSettings
from schemas.api import Readiness, RetrieveRequest, RetrieveResponse
from schemas.embeddings import encode_embedding
from schemas.generations import Act, PackageSource
from schemas.ids import Generation
from schemas.topics import core_topics, generation_topics, member_embeddings, post_embeddings
from streams.generations import acts
from streams.generations.log import Decide, change_generations, read_generations
from streams.kafka.topics import ensure_topics
from streams.settings import EncodeSettings, KafkaSettings
from tests.kit.data.embeddings import member_embedding, post_embedding, vectors
from tests.kit.data.generations import AT
from tests.kit.instances import START_S
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import Sender
from tests.kit.packages import make_tiny_package
from tests.kit.retrievers import LONG_S
from tests.kit.running import in_thread
from tests.kit.waiting import until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

BY = acts.By("test", AT, "to see")
NUM_POSTS = 20


class Two(NamedTuple):
    first: ModelPackage
    second: ModelPackage


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Two:
    folder = tmp_path_factory.mktemp("models")
    return Two(
        make_tiny_package(folder / "a", hidden=16, layers=1),
        make_tiny_package(folder / "b", hidden=32, layers=1, seed=1),
    )


def posts_of(generation: str) -> set[str]:
    """In the log of no other generation is one of them."""
    return {f"{generation}-{number}" for number in range(NUM_POSTS)}


class Serving:
    """The first generation serves and the second one is ready. Both have their posts, and a member `m`."""

    def __init__(self, broker: RunningBroker, packages: Two, data_dir: Path) -> None:
        port, grpc_port = free_ports(2)
        self.packages = packages
        self.settings = Settings(
            data_dir=data_dir,
            kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers, partitions=1),
            encode=EncodeSettings(device="cpu"),
            # There is no cold tier, which is not asked where the hot tier holds all. A busy machine is no failure.
            hot=HotSettings(
                window_s=float("inf"), capacity=1000, device="cpu", snapshot_every_s=1, stale_after_s=LONG_S
            ),
            serve=ServeSettings(port=port, grpc_port=grpc_port),
        )
        self.url = f"http://127.0.0.1:{port}"
        ensure_topics(self.settings.kafka, core_topics())
        for package in packages:
            self._fill(package)
        first, second = (
            acts.Package(each.generation, PackageSource(folder=str(each.folder)), each.digest) for each in packages
        )
        self.act(lambda state: acts.found(state, first, BY))
        self.act(lambda state: acts.build(state, second, {}, BY))
        self.act(lambda state: acts.ready(state, second.id, BY))

    def _fill(self, package: ModelPackage) -> None:
        generation, dimension, sender = package.generation, package.dimension, Sender(self.settings.kafka)
        ensure_topics(self.settings.kafka, generation_topics(generation))
        drawn = vectors(NUM_POSTS + 1, dimension=dimension)
        posts = [
            post_embedding(post_id, vector=vector)
            for post_id, vector in zip(sorted(posts_of(generation)), drawn[1:], strict=True)
        ]
        sender.send(post_embeddings(generation), [(post.post_id, encode_embedding(post)) for post in posts])
        member = member_embedding("m", vector=drawn[0])
        sender.send(member_embeddings(generation), [("m", encode_embedding(member))])

    def act(self, decide: Decide) -> None:
        change_generations(self.settings.kafka, decide)

    def history(self, generation: Generation) -> Sequence[Act]:
        return read_generations(self.settings.kafka).records[generation].history

    def promote(self, generation: Generation) -> None:
        self.act(lambda state: acts.promote(state, generation, BY, force=True))

    def rollback(self) -> None:
        self.act(lambda state: acts.rollback(state, BY))

    def retire(self, generation: Generation) -> None:
        self.act(lambda state: acts.retire(state, generation, BY, force=True))

    @contextmanager
    def running(self) -> Iterator[None]:
        with in_thread(build_serve(self.settings, "serve", lambda: None)):
            yield

    def ask(self, generation: str | None = None, *, text: str | None = None) -> RetrieveResponse:
        """By the member, or by a text, which the model of the generation encodes."""
        who = {"member_id": "m"} if text is None else {"text": text}
        with RetrieverClient(self.url) as client:
            return client.retrieve(RetrieveRequest.model_validate({**who, "k": 100, "generation": generation}))

    def readiness(self) -> Readiness | None:
        try:
            with RetrieverClient(self.url) as client:
                return client.ready()
        except RetrieverUnavailable:
            return None

    def until_ready(self, *beside: Generation) -> None:
        """With exactly these beside the serving one."""

        def is_ready() -> bool:
            readiness = self.readiness()
            if readiness is None or not readiness.ready:
                return False
            return {name for name, each in readiness.beside.items() if each.ready} == set(beside)

        until(is_ready, f"the retriever to be ready, with {beside} beside", START_S, 0.1)

    def until_serves(self, generation: Generation) -> None:
        until(lambda: self.ask().generation == generation, f"{generation} to serve", START_S)

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=60) as answer:
            return str(answer.read().decode())


@pytest.fixture
def serving(clean_topics: RunningBroker, packages: Two, tmp_path: Path) -> Serving:
    return Serving(clean_topics, packages, tmp_path)


class Asking:
    """Asks all the time, in a thread."""

    def __init__(self, serving: Serving) -> None:
        self.answers: list[RetrieveResponse] = []
        self.errors: list[Exception] = []
        self._serving = serving
        self._stop = Event()
        self._thread = Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            for text in (None, "a walk in the harbor"):
                try:
                    self.answers.append(self._serving.ask(text=text))
                except Exception as error:
                    self.errors.append(error)

    @contextmanager
    def running(self) -> Iterator["Asking"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    def check(self, generations: Sequence[str]) -> None:
        assert self.errors == []
        assert {answer.generation for answer in self.answers} == set(generations)
        for answer in self.answers:
            check_one_generation(answer)


def check_one_generation(answer: RetrieveResponse) -> None:
    assert set(answer.post_ids) == posts_of(answer.generation)
    assert not answer.partial


@pytest.fixture
def hot_tiers(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[MatrixHotTier]]:
    """All that are made, also those that are gone."""
    made: list[weakref.ref[MatrixHotTier]] = []

    def make(dimension: int, settings: HotSettings, ids: IdTable) -> MatrixHotTier:
        tier = MatrixHotTier(dimension, settings, ids)
        made.append(weakref.ref(tier))
        return tier

    monkeypatch.setattr("nearline.up.open_generation.MatrixHotTier", make)
    return made


def test_the_pointer_moves_under_questions_and_what_is_retired_is_closed(
    serving: Serving, hot_tiers: list[weakref.ref[MatrixHotTier]]
) -> None:
    first, second = (package.generation for package in serving.packages)
    with serving.running():
        serving.until_ready(second)
        with Asking(serving).running() as asking:
            for _ in range(2):
                serving.promote(second)
                serving.until_serves(second)
                serving.rollback()
                serving.until_serves(first)
            serving.promote(second)
            serving.until_serves(second)
            check_one_generation(serving.ask(first))
            until(lambda: (hot_folder(serving.settings.data_dir, first)).exists(), "a snapshot of the first one")
            assert f'generation="{first}"' in serving.metrics()
            serving.retire(first)
            until(lambda: not (hot_folder(serving.settings.data_dir, first)).exists(), "its files to be gone", START_S)
        asking.check([first, second])
        serving.until_ready()
        assert f'generation="{first}"' not in serving.metrics()
        with pytest.raises(RequestRefused, match=f"{first} is not served; {second} is"):
            serving.ask(first)
        assert len(hot_tiers) == 2
        until(
            lambda: [tier() is None for tier in hot_tiers] == [True, False], "the memory of the closed one to be free"
        )


def test_a_process_that_was_away_learns_everything_from_the_log(serving: Serving) -> None:
    """It is restarted in the middle of a promotion, of a rollback, and of a retirement."""
    first, second = (package.generation for package in serving.packages)
    old_snapshot = serving.settings.data_dir / "hot" / "topic-id" / "snapshot"
    old_snapshot.parent.mkdir(parents=True)
    old_snapshot.touch()
    with serving.running():
        serving.until_ready(second)
        serving.promote(second)
    with serving.running():
        serving.until_ready(first)
        assert serving.ask().generation == second
        assert not old_snapshot.parent.exists()
        serving.rollback()
    with serving.running():
        serving.until_ready(second)
        assert serving.ask().generation == first
        serving.retire(second)
    with serving.running():
        serving.until_ready()
        check_one_generation(serving.ask(text="a walk in the harbor"))
        readiness = serving.readiness()
        assert readiness is not None
        assert readiness.beside == {}


def test_a_canary_that_finds_less_than_an_exact_search_ends(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real answers of both are measured; what is found is as the test says."""
    first, second = (package.generation for package in serving.packages)

    class SecondFindsHalf(OnlineRecall):
        def __init__(self, _: float) -> None:
            super().__init__(budget=0.9)

        def offer(self, generation: Generation, counts: RecallCounts, _: object) -> None:
            num_found = 1 if generation == second else 2
            super().offer(generation, counts, lambda: {"hot": TierRecall(num_found, 2)})

    monkeypatch.setattr(online_recall, "OnlineRecall", SecondFindsHalf)

    def has_ended() -> bool:
        for generation in (None, first, second):
            serving.ask(generation)
        return serving.history(second)[-1].what == acts.CANARY_ENDED

    with serving.running():
        serving.until_ready(second)
        serving.act(lambda state: acts.promote(state, second, BY, share=0.5, force=True))
        until(has_ended, "the canary to end", START_S)
    assert "the recall of" in serving.history(second)[-1].reason


def test_a_retriever_without_room_serves_on_alone_until_the_build_is_repeated_by_force(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine of a cluster, where no command could ask. Without memory the one that serves would be killed."""
    first, second = (package.generation for package in serving.packages)
    full = Free(lambda: 0, lambda: 0, lambda _: 0)
    monkeypatch.setattr(room_beside, "free_here", lambda _: full)
    monkeypatch.setattr(keeper, "_AGAIN_S", 0.1)
    with serving.running():
        until(lambda: _is_ready_without(serving, second), "it to say that the other one is not open", START_S, 0.1)
        check_one_generation(serving.ask())
        source = PackageSource(folder=str(serving.packages.second.folder))
        again = acts.Package(second, source, serving.packages.second.digest)
        serving.act(lambda state: acts.build(state, again, {}, BY, force=True))
        serving.until_ready(second)
        assert serving.ask().generation == first


def _is_ready_without(serving: Serving, generation: Generation) -> bool:
    readiness = serving.readiness()
    if readiness is None or not readiness.ready or generation not in readiness.beside:
        return False
    return "cannot be opened here" in readiness.beside[generation].problems[0]
