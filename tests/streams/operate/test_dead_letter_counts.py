"""Dead letters counted by stage and kind, again and again."""

import pytest

from schemas import topics
from schemas.dead_letters import DeadLetterKind, Headers, mark_headers, read_kind, to_headers
from streams.kafka.offsets import OffsetReader
from streams.operate.dead_letter_counts import DeadLetterCounts
from streams.settings import KafkaSettings
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.dead_letters import cause_of_death, send_to_dead_letters
from tests.kit.kafka.topics import delete_before


def headers(stage: str, kind: DeadLetterKind) -> Headers:
    return to_headers(cause_of_death(topics.POSTS, stage), kind)


def test_there_are_only_a_few_kinds_whatever_a_letter_says() -> None:
    assert read_kind(headers("encode", "unencodable")) == "unencodable"
    assert read_kind([]) == "unknown"
    assert read_kind([("dead-letter-kind", b"one of a million")]) == "unknown"
    forged = [("dead-letter-kind", b"not_json"), *headers("contexts", "post_missing")]
    assert read_kind(forged) == "post_missing", "that of the stage, not that of the record that died"


@pytest.mark.broker
def test_letters_are_counted_until_they_are_marked_or_deleted(
    clean_topics: RunningBroker, kafka: KafkaSettings, reader: OffsetReader
) -> None:
    def send(partition: int, of: Headers, key: bytes = b"p1") -> None:
        send_to_dead_letters(kafka, partition, key, b"v", of)

    counts = DeadLetterCounts(kafka, reader)

    def counted() -> dict[tuple[str, str], int]:
        counts.read_on(30)
        return {(stage, kind): number for (stage, kind), number in counts.counts.items()}

    assert counted() == {}
    send(0, headers("contexts", "bad_record"))
    send(0, headers("contexts", "bad_record"))
    send(1, headers("encode", "unencodable"))
    assert counted() == {("contexts", "bad_record"): 2, ("encode", "unencodable"): 1}
    assert counted() == {("contexts", "bad_record"): 2, ("encode", "unencodable"): 1}, "each once"
    send(0, mark_headers("dropped"), b"0:0")
    send(0, mark_headers("dropped"), b"1:0")
    of_another_program = [(name, value) for name, value in headers("mystery", "unknown") if "kind" not in name]
    send(1, of_another_program)
    assert counted() == {
        ("contexts", "bad_record"): 1,
        ("encode", "unencodable"): 1,
        ("other", "unknown"): 1,
    }, "a mark counts in the partition of its letter"
    delete_before(clean_topics, topics.DEAD_LETTERS, 1, 1)
    assert counted() == {("contexts", "bad_record"): 1, ("other", "unknown"): 1}


@pytest.mark.broker
def test_what_there_is_no_time_for_is_counted_the_next_time(kafka: KafkaSettings, reader: OffsetReader) -> None:
    for partition in (0, 1):
        send_to_dead_letters(kafka, partition, b"p1", b"v", headers("index", "bad_record"))
    counts = DeadLetterCounts(kafka, reader)
    counts.read_on(-1.0)
    assert counts.counts == {}
    counts.read_on(30)
    assert list(counts.counts.values()) == [2]
