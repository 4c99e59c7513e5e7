"""The log of the generations on a real broker: one operator at a time, all of an act or nothing."""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from schemas import topics
from schemas.errors import BadRecord
from schemas.generations import POINTER_KEY, Record, decode_record, encode_record, key_of
from streams.errors import ActRefused, Fenced, FixedTopicMismatch, GenerationsDamaged
from streams.generations.log import change_generations, read_generations
from streams.generations.state import Generations
from streams.kafka.closing_segments import close_segments
from streams.kafka.crash_points import EXIT_STATUS
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.data.generations import founded, generation_record, next_records, two_live
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import Sender, keys_and_values, transaction
from tests.kit.running import child

pytestmark = pytest.mark.broker


def nothing(_: Generations) -> list[Record]:
    return []


def as_sent(records: Iterable[Record]) -> list[tuple[str, bytes | None]]:
    return [(key_of(record).decode(), encode_record(record)) for record in records]


def test_without_the_topic_nothing_was_ever_founded(clean_topics: RunningBroker) -> None:
    assert read_generations(KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers)) == Generations()


def test_it_has_one_partition_whatever_the_others_have(kafka: KafkaSettings) -> None:
    generations = topics.TopicSpec(topics.GENERATIONS, "state", partitions=1)
    assert generations in topics.core_topics()
    ensure_topics(kafka, [generations])
    with pytest.raises(FixedTopicMismatch, match="generations has 1 partitions and must have 3; another program"):
        ensure_topics(kafka, [generations._replace(partitions=3)])


def test_what_was_decided_is_read_by_all(kafka: KafkaSettings) -> None:
    assert change_generations(kafka, next_records) == founded() == read_generations(kafka)
    assert change_generations(kafka, next_records) == two_live("ready") == read_generations(kafka)
    promoted = change_generations(kafka, next_records)
    assert read_generations(kafka) == promoted
    assert promoted.serving == generation_record("b-2", "serving", "green")
    # Any client can read it, the pointer last.
    records = keys_and_values(kafka, topics.GENERATIONS)
    assert [key for key, _ in records] == [b"a-1", b"pointer", b"b-2", b"a-1", b"b-2", b"pointer"]
    assert json.loads(records[-1][1] or b"") == {"serving": "b-2", "kept": "a-1", "canary": None, "rolled_back": False}


def test_an_act_that_changes_nothing_writes_nothing_and_one_that_is_refused_neither(kafka: KafkaSettings) -> None:
    def refuse(_: Generations) -> list[Record]:
        raise ActRefused("no")

    change_generations(kafka, next_records)
    before = keys_and_values(kafka, topics.GENERATIONS)
    assert change_generations(kafka, nothing) == founded()
    with pytest.raises(ActRefused, match="no"):
        change_generations(kafka, refuse)
    assert keys_and_values(kafka, topics.GENERATIONS) == before


def test_of_two_operators_one_is_fenced(kafka: KafkaSettings) -> None:
    change_generations(kafka, next_records)

    def interrupted(state: Generations) -> Sequence[Record]:
        assert change_generations(kafka, next_records) == two_live("ready")
        return [generation_record("c-3", "ready", "green")]

    with pytest.raises(
        Fenced, match=r"another operator changed the generations at the same time.*run the command again"
    ):
        change_generations(kafka, interrupted)
    assert read_generations(kafka) == two_live("ready")


@pytest.mark.parametrize(
    ("point", "is_written"),
    [("generations.begun", False), ("generations.records-sent", False), ("generations.committed", True)],
)
def test_an_operator_that_crashes_leaves_all_or_nothing(kafka: KafkaSettings, point: str, is_written: bool) -> None:
    """Twice at each point. Then the same command goes on from there, at once: it ends what was left open."""
    expected = [Generations(), founded(), two_live("ready")]
    for number in range(2):
        with child("tests.kit.children.operator", str(kafka.bootstrap_servers), point) as operator:
            assert operator.wait(120) == EXIT_STATUS
        if not is_written:
            assert change_generations(kafka, next_records) == expected[number + 1]
        assert read_generations(kafka) == expected[number + 1]


def test_it_is_read_past_a_transaction_of_another_topic_cleaner(kafka: KafkaSettings) -> None:
    """The records by which segments are closed are never seen, and do not hide the end."""
    change_generations(kafka, next_records)
    close_segments(kafka, topics.core_topics(), "closing")
    assert read_generations(kafka) == founded()
    transaction(kafka, topics.GENERATIONS, 0, commit=False)
    assert change_generations(kafka, next_records) == two_live("ready")


def test_what_lies_behind_an_open_transaction_is_waited_for(kafka: KafkaSettings) -> None:
    """Somebody may have been told already that it is committed."""
    hanging = transaction(kafka, topics.GENERATIONS, 0, commit=None)
    Sender(kafka, "beside it").send(topics.GENERATIONS, as_sent(next_records(Generations())))
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(read_generations, kafka)
        # Not yet: a reader of committed records gets nothing so far.
        with pytest.raises(TimeoutError):
            read.result(1)
        hanging.abort_transaction(20)
        assert read.result(60) == founded()


def test_a_damaged_record_is_refused_and_the_next_act_mends_it(kafka: KafkaSettings) -> None:
    change_generations(kafka, next_records)
    Sender(kafka).send(topics.GENERATIONS, [("pointer", b"???"), ("a-1", None), ("stray", b"{}")])
    damaged = read_generations(kafka)
    assert (damaged.records, damaged.pointer) == (founded().records, founded().pointer)
    assert len(damaged.damages) == 3
    assert change_generations(kafka, next_records).records == two_live("ready").records
    compacted = dict(keys_and_values(kafka, topics.GENERATIONS))
    assert compacted[POINTER_KEY] == encode_record(
        next(r for r in next_records(Generations()) if key_of(r) == POINTER_KEY)
    )
    assert decode_record(b"a-1", compacted[b"a-1"]) == generation_record("a-1")
    with pytest.raises(BadRecord):
        decode_record(b"stray", compacted[b"stray"])
    assert [damage.key for damage in read_generations(kafka).damages] == [b"stray"]
    Sender(kafka).send(topics.GENERATIONS, [("a-1", b"")])
    change_generations(kafka, nothing)
    assert [damage.key for damage in read_generations(kafka).damages] == [b"stray"], "a repeated act mends too"


def test_where_the_last_good_state_is_gone_it_says_what_to_send(kafka: KafkaSettings) -> None:
    """As compaction leaves it: the damaged record alone."""
    Sender(kafka).send(topics.GENERATIONS, [("a-1", encode_record(generation_record("a-1"))), ("pointer", b"???")])
    for attempt in (read_generations, lambda kafka: change_generations(kafka, next_records)):
        with pytest.raises(GenerationsDamaged, match=r"no pointer; the record at offset 1 .* DATA/generations\.jsonl$"):
            attempt(kafka)
    assert len(keys_and_values(kafka, topics.GENERATIONS)) == 2
