"""What an operator sees of a context stage that has lost its offsets, or records: `contexts rebuild`, `status`
and `acknowledge`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from contexts.settings import ContextRules
from nearline.settings.instance import locked
from schemas import topics
from streams.contexts.stage import ContextStage
from streams.kafka.partitions import partition_of
from streams.settings import ContextsSettings, KafkaSettings
from tests.kit.commands import Commands
from tests.kit.instances import InstanceWithoutStages, instance_without_stages
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.groups import commit, until_no_lag
from tests.kit.kafka.topics import delete_before, make_topics, produce
from tests.kit.running import in_thread

pytestmark = pytest.mark.broker

SENTENCE = (
    "activity: up to 3 records (3 of partition 1) were deleted before the group contexts had read them; counts and "
    "histories may be wrong; rebuild them from your own record of those events: nearline ingest FILE; then, or to let "
    "it be, stop the workers and run: nearline acknowledge"
)


@pytest.fixture
def place(kafka: KafkaSettings) -> Iterator[InstanceWithoutStages]:
    with instance_without_stages(str(kafka.bootstrap_servers)) as place:
        yield place


@pytest.fixture
def run() -> Commands:
    return Commands()


def work_off(kafka: KafkaSettings, folder: Path) -> None:
    with in_thread(ContextStage(kafka, ContextsSettings(interval_s=0), ContextRules(), folder, "0").run):
        until_no_lag(kafka, topics.CONTEXTS_GROUP, topics.INPUTS)


def test_the_offsets_of_a_lost_group_come_back(
    run: Commands, place: InstanceWithoutStages, kafka: KafkaSettings, clean_topics: RunningBroker, tmp_path: Path
) -> None:
    produce(kafka, topics.POSTS, partition_of(b"k", kafka.partitions), 3)
    produce(kafka, topics.MEMBERS, partition_of(b"k", kafka.partitions), 2)
    work_off(kafka, tmp_path)
    group = topics.CONTEXTS_GROUP
    clean_topics.admin.delete_consumer_groups([group])[group].result(20)
    rebuild = "contexts", "rebuild", "--data-dir", place.data_dir
    ran = run(*rebuild)
    assert (ran.status, ran.out) == (0, "2 offsets brought back\n")
    assert run(*rebuild).out == "no offset was lost\n"
    work_off(kafka, tmp_path)


def test_records_that_were_deleted_unread_are_named(
    run: Commands, place: InstanceWithoutStages, kafka: KafkaSettings, clean_topics: RunningBroker, tmp_path: Path
) -> None:
    produce(kafka, topics.ACTIVITY, 1, 2)
    work_off(kafka, tmp_path)
    produce(kafka, topics.ACTIVITY, 1, 5)
    delete_before(clean_topics, topics.ACTIVITY, 1, 5)
    work_off(kafka, tmp_path)
    assert run("contexts", "rebuild", "--data-dir", place.data_dir).out == f"no offset was lost\n{SENTENCE}\n"
    status = "status", "--data-dir", place.data_dir
    answer = run(*status, "--json").json
    assert SENTENCE in answer["problems"]
    by_stage = {(stage["stage"], stage["topic"]): stage["deleted_unread"] for stage in answer["stages"]}
    assert by_stage["contexts", topics.ACTIVITY] == {"1": 3}
    assert by_stage["contexts", topics.POSTS] == by_stage["trending", topics.ACTIVITY] == {}
    printed = run(*status).out
    assert f"problem: {SENTENCE}" in printed
    first_columns = ["contexts", topics.CONTEXTS_GROUP, topics.ACTIVITY]
    (row,) = (line.split() for line in printed.splitlines() if line.split()[:3] == first_columns)
    assert row[-1] == "3"


def test_an_operator_acknowledges_it_and_it_is_said_no_more(
    run: Commands, place: InstanceWithoutStages, kafka: KafkaSettings, clean_topics: RunningBroker, tmp_path: Path
) -> None:
    produce(kafka, topics.ACTIVITY, 1, 2)
    work_off(kafka, tmp_path)
    produce(kafka, topics.ACTIVITY, 1, 5)
    commit(clean_topics, topics.TRENDING_GROUP, {(topics.ACTIVITY, 1): 4})
    delete_before(clean_topics, topics.ACTIVITY, 1, 5)
    work_off(kafka, tmp_path)
    acknowledge = "acknowledge", "--data-dir", clean_topics.data_dir
    assert run(*acknowledge).out.splitlines() == [
        "activity: 3 records that the group contexts never read are acknowledged",
        "activity: 1 records that the group trending never read are acknowledged",
    ]
    assert run(*acknowledge).out == "no stage has missed a record\n"
    answer = run("status", "--data-dir", place.data_dir, "--json").json
    assert answer["problems"] == []
    assert all(stage["deleted_unread"] == {} for stage in answer["stages"])
    produce(kafka, topics.ACTIVITY, 1, 1)
    work_off(kafka, tmp_path)
    assert run("contexts", "rebuild", "--data-dir", place.data_dir).out == "no offset was lost\n"


def test_an_embedded_broker_runs_only_to_acknowledge(run: Commands, fresh_broker: RunningBroker) -> None:
    make_topics(fresh_broker)
    acknowledge = "acknowledge", "--data-dir", fresh_broker.data_dir
    with locked(fresh_broker.data_dir):
        assert run(*acknowledge).err.startswith("nearline: another nearline up runs on")
    assert run(*acknowledge).status == 0
    assert fresh_broker.embedded.serves(), "it was running before"
    fresh_broker.stop()
    ran = run(*acknowledge)
    assert (ran.status, ran.out, ran.err) == (0, "no stage has missed a record\n", "")
    assert fresh_broker.embedded.running() is None
