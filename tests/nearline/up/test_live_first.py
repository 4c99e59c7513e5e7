"""The serving generation goes first: when a generation that is being built is held back."""

import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from encoders.encoder import Encoder
from encoders.errors import Outcome
from encoders.package.model_package import ModelPackage
from indexer.cold.socket.client import RemoteColdTier
from nearline.settings.settings import Settings
from nearline.up import build_place, live_first
from nearline.up.build_place import build_cold, build_encode
from nearline.up.cold_socket import cold_socket
from nearline.up.device_turns import DeviceTurns
from nearline.up.live_first import LiveFirst, OldestWaiting, oldest_waiting
from nearline.up.residence import Resident
from schemas import topics
from schemas.contexts import encode_context
from schemas.embeddings import encode_embedding
from schemas.generations import GenerationRecord
from schemas.ids import Generation, Millis
from schemas.stages import StageReads, live_reads
from streams.errors import KafkaUnavailable
from streams.index import loop as index_loop
from streams.kafka import transactional_loop
from streams.kafka.heartbeat import Heartbeat
from streams.kafka.offsets import OffsetReader
from streams.kafka.topics import ensure_topics
from streams.settings import EncodeSettings, KafkaSettings
from tests.kit.data.contexts import post_context
from tests.kit.data.embeddings import GENERATION, post_embedding, vectors
from tests.kit.data.generations import two_live
from tests.kit.instances import NO_BROKER
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.groups import commit_all, until_workers_share
from tests.kit.kafka.topics import Sender, keys_and_values, make_topics, produce, transaction
from tests.kit.packages import make_tiny_package
from tests.kit.running import RecordedHeartbeat, child, in_thread
from tests.kit.waiting import until

BOUND_S = 2.0


class Building:
    """`b-2` is built beside `a-1`. The age of its oldest record, the clock and the log are set by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, package: ModelPackage) -> None:
        self.state = two_live("building")
        self.age_s: float | KafkaUnavailable = 0.0
        self.is_certain = True
        self.now_s = 0.0
        self.looks = 0
        self.yields: list[bool] = []
        self.device_is_taken = False
        monkeypatch.setattr(live_first, "_LOOK_EVERY_S", 0.01)
        monkeypatch.setattr(live_first, "oldest_waiting", self._oldest)
        resident = Resident(self.record, package, lambda: self.state)
        kafka = KafkaSettings(bootstrap_servers=NO_BROKER)
        self.pace = LiveFirst(
            kafka,
            resident,
            BOUND_S,
            self.yields.append,
            lambda: self.now_s,
            device_is_taken=lambda: self.device_is_taken,
        )

    @property
    def record(self) -> GenerationRecord:
        return next(record for record in self.state.records.values() if record.place == "green")

    def look(self) -> None:
        self.pace._look(cast(Any, None))

    def change(self, record: GenerationRecord) -> None:
        self.state = self.state.with_records([record])

    def _oldest(self, _: object, reads: Iterable[StageReads]) -> OldestWaiting:
        assert [read.group for read in reads] == ["encode.a-1", "index.a-1"], "it looks at the serving one"
        self.looks += 1
        if isinstance(self.age_s, KafkaUnavailable):
            raise self.age_s
        return OldestWaiting(Millis(round((time.time() - self.age_s) * 1000)), self.is_certain)


@pytest.fixture
def building(monkeypatch: pytest.MonkeyPatch) -> Building:
    return Building(monkeypatch, None)  # type: ignore[arg-type]  # nobody opens it


def test_it_stands_back_while_live_records_wait_for_too_long(building: Building) -> None:
    pace = building.pace
    assert pace.may_read()
    with pace.running():
        building.age_s, building.now_s = BOUND_S + 0.1, BOUND_S
        until(lambda: not pace.may_read(), "it to stand back")
        building.age_s, before = KafkaUnavailable("away"), building.looks
        until(lambda: building.looks > before + 1, "it to ask a broker that is away")
        assert not pace.may_read(), "as before"
        building.age_s = BOUND_S - 0.5
        until(pace.may_read, "it to go on")


def test_it_looks_only_when_a_record_can_have_waited_for_too_long(building: Building) -> None:
    building.age_s = 0.5
    for now_s, looks in ((0.0, 1), (BOUND_S - 0.6, 1), (BOUND_S - 0.4, 2)):
        building.now_s = now_s
        building.look()
        assert building.looks == looks


def test_what_waits_unseen_changes_nothing_and_is_looked_for_again_at_once(building: Building) -> None:
    """Behind an open transaction, or where there was no time to read it."""
    building.age_s, building.is_certain = BOUND_S + 1, False
    building.look()
    assert not building.pace.may_read(), "what can be read has waited for too long"
    building.age_s = 0.0
    building.look()
    assert not building.pace.may_read(), "as before"
    building.is_certain = True
    building.look()
    assert building.pace.may_read()


def test_it_stands_back_while_the_serving_one_wants_the_device(building: Building) -> None:
    building.device_is_taken = True
    assert not building.pace.may_read()
    building.device_is_taken = False
    assert building.pace.may_read()
    building.device_is_taken = True
    building.change(replace(building.record, state="ready"))
    assert building.pace.may_read(), "it is complete"


def test_what_is_complete_is_held_back_no_more_and_takes_its_share_of_the_cores(building: Building) -> None:
    pace = building.pace
    building.age_s = 100.0
    with pace.running():
        until(lambda: not pace.may_read(), "it to stand back")
        assert building.yields == [True]
        building.change(replace(building.record, state="ready", rate=1.0))
        assert pace.may_read()
        pace.has_read(1_000)
        assert pace.may_read()
        until(lambda: building.yields == [True, False], "it not to yield any more")


def test_a_serving_generation_never_looks(building: Building, monkeypatch: pytest.MonkeyPatch) -> None:
    serving = building.state.serving
    assert serving is not None
    yields: list[bool] = []
    pace = LiveFirst(
        KafkaSettings(),
        Resident(serving, None, lambda: building.state),  # type: ignore[arg-type]
        BOUND_S,
        yields.append,
    )
    monkeypatch.delattr(live_first, "OffsetReader")
    with pace.running():
        assert pace.may_read()
    assert yields == []


def test_it_keeps_to_its_rate_however_large_its_batches_are(building: Building) -> None:
    building.change(replace(building.record, rate=10.0))
    pace, num_read = building.pace, 0
    for _ in range(1_000):
        building.now_s += 0.1
        if pace.may_read():
            pace.has_read(7)
            num_read += 7
    assert 1_000 <= num_read <= 1_000 + 10 + 7, "in 100 s"


def test_the_rate_does_not_hold_who_never_says_what_it_has_read(building: Building) -> None:
    """The index stage, which reads what several encode processes write."""
    building.change(replace(building.record, rate=0.001))
    for _ in range(100):
        assert building.pace.may_read()


def test_the_rate_may_change_while_it_is_built(building: Building) -> None:
    pace = building.pace
    pace.has_read(10_000)
    assert pace.may_read(), "no rate"
    building.change(replace(building.record, rate=1_000.0))
    assert not pace.may_read()
    building.now_s += 10.1
    assert pace.may_read()


@pytest.mark.broker
class TestTheAgeOfTheOldestRecord:
    @pytest.fixture
    def kafka(self, clean_topics: RunningBroker) -> KafkaSettings:
        return make_topics(clean_topics)

    @pytest.fixture
    def reader(self, kafka: KafkaSettings) -> Iterator[OffsetReader]:
        with closing(OffsetReader(kafka, 30)) as reader:
            yield reader

    @pytest.mark.parametrize("topic", [topics.MEMBER_CONTEXTS, topics.post_embeddings(GENERATION)])
    def test_what_is_not_encoded_or_not_indexed_waits(
        self, clean_topics: RunningBroker, kafka: KafkaSettings, reader: OffsetReader, topic: str
    ) -> None:
        assert oldest(reader) == (0.0, True)
        produce(kafka, topic, 1, timestamp_ms=int(time.time() * 1000) - 60_000)
        age_s, is_certain = oldest(reader)
        assert 60 <= age_s < 600
        assert is_certain
        for group in (topics.encode_group(GENERATION), topics.index_group(GENERATION)):
            names = (topics.POST_CONTEXTS, topics.MEMBER_CONTEXTS)
            outputs = tuple(spec.name for spec in topics.generation_topics(GENERATION))
            commit_all(clean_topics, kafka, group, *(outputs if group.startswith("index") else names))
        assert oldest(reader) == (0.0, True)
        transaction(kafka, topic, 0, commit=None)
        assert oldest(reader) == (0.0, False), "an open transaction holds it back"


def oldest(reader: OffsetReader) -> tuple[float, bool]:
    """Its age in seconds."""
    waiting = oldest_waiting(reader, live_reads(GENERATION, topics.FIRST_CONTEXTS))
    return waiting.age_s(), waiting.is_certain


@pytest.mark.broker
def test_the_index_stage_of_a_building_place_stands_back_too(
    clean_topics: RunningBroker,
    building: Building,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a cold process is put together: the records of `b-2` stay where they are while `a-1` is behind."""
    monkeypatch.setattr(index_loop, "POLL_HELD_BACK_S", 0.0)
    package = make_tiny_package(tmp_path / "package", hidden=16, layers=1)
    generation, building.age_s = building.record.id, BOUND_S + 0.1
    kafka = make_topics(clean_topics)
    ensure_topics(kafka, topics.generation_topics(generation))
    resident = Resident(building.record, package, lambda: building.state)
    embedding = encode_embedding(post_embedding("p1", vector=vectors(1, dimension=16)[0]))
    Sender(kafka).send(topics.post_embeddings(generation), [("p1", embedding)])
    heartbeat = RecordedHeartbeat()
    run = build_cold(Settings(data_dir=tmp_path, kafka=kafka), "cold-green", resident, heartbeat)
    with in_thread(run):
        until_workers_share(kafka, topics.index_group(generation), 1)
        heartbeat.until_turned()
        with closing(RemoteColdTier(cold_socket(tmp_path, generation), 30)) as cold:
            assert cold.count("post") == 0
            building.age_s = 0.0
            until(lambda: cold.count("post") == 1, "it to go on")


class Encoding:
    """A topic with one context, for an encode process as it is put together, as if its device were a GPU."""

    def __init__(self, kafka: KafkaSettings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.package = make_tiny_package(folder / "package", hidden=16, layers=1)
        self.settings = Settings(data_dir=folder, kafka=kafka, encode=EncodeSettings(device="cpu"))
        self.turns_seen: list[bool] = []
        """At each run of the model."""
        monkeypatch.setattr(transactional_loop, "_POLL_HELD_BACK_S", 0.0)
        monkeypatch.setattr(build_place, "encode_gpu", lambda *_: "cuda:0")
        turns, run = DeviceTurns(folder, "cuda:0"), Encoder.run

        def run_and_look(encoder: Encoder, prepared: Any) -> list[Outcome]:
            self.turns_seen.append(turns.is_taken())
            return run(encoder, prepared)

        monkeypatch.setattr(Encoder, "run", run_and_look)
        Sender(kafka).send(topics.POST_CONTEXTS, [("p1", encode_context(post_context()))])

    @contextmanager
    def running(self, record: GenerationRecord, heartbeat: Heartbeat) -> Iterator[None]:
        state = two_live("building").with_records([record])
        resident = Resident(record, self.package, lambda: state)
        ensure_topics(self.settings.kafka, topics.generation_topics(record.id))
        with in_thread(build_encode(self.settings, "encode-green-0", resident, lambda _: heartbeat)):
            until_workers_share(self.settings.kafka, topics.encode_group(record.id), 3)
            yield

    def has_encoded(self, generation: Generation) -> bool:
        return bool(keys_and_values(self.settings.kafka, topics.post_embeddings(generation)))


@pytest.fixture
def encoding(
    clean_topics: RunningBroker, building: Building, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Encoding:
    assert building.age_s == 0.0, "no live record waits"
    return Encoding(make_topics(clean_topics), tmp_path, monkeypatch)


@pytest.mark.broker
def test_encode_of_a_building_place_stands_back_while_the_serving_one_has_a_turn_on_its_device(
    encoding: Encoding, building: Building, tmp_path: Path
) -> None:
    record, heartbeat = replace(building.record, ignores_room=True), RecordedHeartbeat()
    with child("tests.kit.children.device_turn", str(tmp_path), "cuda:0") as serving:
        assert serving.stdout is not None
        assert serving.stdout.readline() == "has a turn\n"
        with encoding.running(record, heartbeat):
            for _ in range(10):
                assert heartbeat.beats.acquire(timeout=60), "a loop says that it is held back"
            assert not encoding.has_encoded(record.id)
            encoding.turns_seen.clear()
            serving.kill()
            serving.wait(60)
            until(lambda: encoding.has_encoded(record.id), "it to go on")
    assert set(encoding.turns_seen) == {False}, "nobody stands back for it"


@pytest.mark.broker
def test_the_turns_of_encode_of_a_serving_generation_are_seen(encoding: Encoding, building: Building) -> None:
    record = building.state.serving
    assert record is not None
    with encoding.running(record, RecordedHeartbeat()):
        until(lambda: encoding.has_encoded(record.id), "its context to be encoded")
    assert True in encoding.turns_seen
