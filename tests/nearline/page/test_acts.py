"""What the page does, done by the code of the commands: on a real broker, and with a real retriever."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

from nearline.ask.connections import Connections, own_connections
from nearline.errors import BadSettings, NearlineError
from nearline.generations.packages import packages_folder
from nearline.page.pages import Build, Promote, Question, ReplayLetters, RollBack
from nearline.settings.settings import Settings
from nearline.up.page_acts import PageActs
from retriever.errors import RequestRefused
from retriever.settings import ServeSettings
from schemas import topics
from schemas.dead_letters import DeadLetterKind, to_headers
from schemas.generations import PackageSource
from schemas.ids import Generation
from streams.errors import ActRefused
from streams.generations.log import change_generations, read_generations
from streams.kafka.offsets import OffsetReader
from streams.operate.dead_letter_box import LetterCount, count
from streams.settings import KafkaSettings
from tests.kit.data.generations import next_records
from tests.kit.instances import InstanceWithoutStages, instance_without_stages
from tests.kit.kafka.dead_letters import cause_of_death, send_to_dead_letters
from tests.kit.kafka.topics import keys_and_values
from tests.kit.packages import make_tiny_package
from tests.kit.retrievers import scored_post
from trainer.errors import BadRegistry
from trainer.publishing.registry import Registry


def on_broker(kafka: KafkaSettings, folder: Path) -> PageActs:
    return PageActs(lambda: own_connections(Settings(data_dir=folder, kafka=kafka)), lambda: True)


@pytest.mark.broker
def test_generations_are_moved_in_the_log(kafka: KafkaSettings, tmp_path: Path) -> None:
    acts = on_broker(kafka, tmp_path)
    for _ in range(2):
        change_generations(kafka, next_records)
    with pytest.raises(ActRefused, match="gate"):
        acts.promote(Promote("b-2"))
    change_generations(kafka, next_records)
    assert acts.roll_back(RollBack("members see old posts")) == "a-1 serves, b-2 is kept"
    act = read_generations(kafka).records[Generation("a-1")].history[-1]
    assert (act.what, act.reason) == ("rollback", "members see old posts")
    assert act.who.startswith("operators' page of ")
    with pytest.raises(BadSettings, match="nothing is no folder"):
        acts.build(Build(str(tmp_path / "nothing")))


@pytest.mark.broker
def test_where_nobody_builds_the_package_is_checked_where_it_lies(kafka: KafkaSettings, tmp_path: Path) -> None:
    """On a cluster the pods of a place fetch it, and the monitor has little memory and disk."""
    package, registry = make_tiny_package(tmp_path / "package", hidden=16, layers=1), tmp_path / "registry"
    Registry(str(registry)).publish(package, {})
    data_dir, weights = tmp_path / "data", registry / "packages" / package.generation / "model.safetensors"
    acts, wanted, whole = on_broker(kafka, data_dir), Build(package.generation, str(registry)), weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(BadRegistry, match="is not the file that was published"):
        acts.build(wanted)
    assert package.generation not in read_generations(kafka).records
    weights.write_bytes(whole)
    change_generations(kafka, next_records)
    assert acts.build(wanted) == f"{package.generation} is being built"
    record = read_generations(kafka).records[package.generation]
    assert (record.state, record.digest) == ("building", package.digest)
    assert record.package == PackageSource(registry=str(registry))
    assert not packages_folder(data_dir).exists()


@pytest.mark.broker
def test_letters_of_one_cause_are_sent_back(kafka: KafkaSettings, tmp_path: Path) -> None:
    def send(key: bytes, kind: DeadLetterKind) -> None:
        send_to_dead_letters(kafka, 0, key, b"v", to_headers(cause_of_death(topics.POSTS), kind))

    send(b"a", "bad_record")
    send(b"b", "not_json")
    send(b"c", "bad_record")
    acts = on_broker(kafka, tmp_path)
    assert acts.replay_letters(ReplayLetters("encode", "bad_record")) == "0 sent back"
    assert acts.replay_letters(ReplayLetters("contexts", "bad_record")) == "2 sent back"
    assert acts.replay_letters(ReplayLetters("contexts", "bad_record")) == "0 sent back", "each once"
    assert keys_and_values(kafka, topics.POSTS) == [(b"a", b"v"), (b"c", b"v")]
    with closing(OffsetReader(kafka)) as reader:
        assert count(kafka, reader) == LetterCount(1, exact=True)


@pytest.fixture(scope="module")
def instance() -> Iterator[InstanceWithoutStages]:
    """Its broker does not answer."""
    with instance_without_stages() as instance:
        instance.retriever.in_hot(scored_post("near", 0.9), scored_post("far", 0.1))
        yield instance


def connections(instance: InstanceWithoutStages, key: str | None = None) -> Connections:
    serve = ServeSettings(api_key=None if key is None else SecretStr(key), url="http://127.0.0.1:1")
    return own_connections(Settings(data_dir=instance.data_dir, serve=serve))


def test_a_question_is_answered_by_the_instance_also_while_the_broker_is_away(instance: InstanceWithoutStages) -> None:
    answer = PageActs(lambda: connections(instance), lambda: False).answer(Question("any", k=1))
    assert [(each.post_id, each.tier, each.text) for each in answer.candidates] == [("near", "hot", None)]
    assert "the texts cannot be shown: the broker does not answer" in answer.notes


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (Question(), "give exactly one of member_id, text, vector and post_ids"),
        (Question("w", "m"), "give exactly one of member_id, text, vector and post_ids"),
        (Question(""), "text: String should have at least 1 character"),
        (Question("w", k=0), "k: Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_question_is_refused(instance: InstanceWithoutStages, question: Question, words: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        PageActs(lambda: connections(instance), lambda: False).answer(question)
    assert str(refused.value) == words


def test_where_nothing_runs_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NearlineError, match="nothing runs on"):
        PageActs(lambda: own_connections(Settings(data_dir=tmp_path)), lambda: True).answer(Question("w"))
