"""All bad input at once, beside good records, through the real context stage: nothing of it stops or is lost."""

from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from confluent_kafka import KafkaError, Message, Producer

from schemas import topics
from schemas.ids import Offset, Partition
from streams.kafka.clients import producer_config
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import MAX_RECORD_BYTES
from streams.operate.dead_letter_box import letters
from streams.settings import KafkaSettings
from tests.kit.data.bad_events import ACCEPTED, Case, bodies, raw, records
from tests.kit.data.events import post_created
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.stages import ContextStageSetup
from tests.kit.kafka.topics import read_topic
from tests.kit.running import in_thread

pytestmark = pytest.mark.broker

CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
MB: Final = 1024 * 1024


class _Sent(NamedTuple):
    case: Case
    topic: str
    partition: int
    offset: int


def send(kafka: KafkaSettings, cases: list[Case], **over: Any) -> list[_Sent]:
    """With what the broker says of where each one went. A stranger's producer: no limit of ours binds it."""
    sent: list[_Sent] = []
    producer = Producer(producer_config(kafka, **{"message.max.bytes": 100 * MB, **over}))

    def took(case: Case, error: KafkaError | None, message: Message) -> None:
        assert error is None, f"{case.name}: {error}"
        sent.append(_Sent(case, str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)))

    for case in cases:
        headers: list[tuple[str, Any]] = [("own", b"1"), ("own", None), ("dead-letter-cause", b"forged")]
        producer.produce(
            case.topic,
            case.value,
            case.key,
            headers=headers,
            on_delivery=lambda error, message, case=case: took(case, error, message),  # type: ignore[misc]
        )
    assert producer.flush(60) == 0
    return sent


def of_codec(codec: str) -> list[Case]:
    return [
        Case(f"good, by {codec}", ACCEPTED, raw(post_created(f"good-{codec}")), f"good-{codec}".encode()),
        Case(f"bad, by {codec}", "not valid JSON", b"{" * 1000, f"bad-{codec}".encode()),
    ]


LARGE: Final = (
    Case("a good record of 1 MB", ACCEPTED, raw(post_created("large", unknown="x" * MB)), b"large"),
    Case("a bad record of 1 MB", "not valid JSON", b"x" * MB, b"large-and-bad"),
    Case("as large as the topic takes", "only the first", b"x" * MAX_RECORD_BYTES, b"largest"),
)
BOMB: Final = Case("of no size when compressed", "only the first", b" " * (20 * MB), b"bomb")


def test_bad_input_is_a_dead_letter_with_its_place_and_the_stage_goes_on(
    clean_topics: RunningBroker, tmp_path: Path
) -> None:
    contexts = ContextStageSetup(clean_topics, tmp_path)
    kafka = contexts.kafka
    neighbours = [f"neighbour-{number}" for number in range(len(bodies()))]
    mixed = [
        mixed_case
        for case, name in zip(bodies(), neighbours, strict=True)
        for mixed_case in (case, Case(name, ACCEPTED, raw(post_created(name)), name.encode()))
    ]
    with in_thread(contexts.stage().run):
        sent = send(kafka, [*mixed, *records()])
        sent += send(kafka, list(LARGE), **{"compression.type": "none", "linger.ms": 0})
        sent += send(kafka, [BOMB], **{"compression.type": "zstd"})
        for codec in CODECS:
            sent += send(kafka, of_codec(codec), **{"compression.type": codec, "compression.level": -1})
        contexts.until_done()
        contexts.send(post_created("after-all-of-it"))
        contexts.flush()

    dead_letters = {letter.cause[1:4]: letter for letter in letters(kafka, OffsetReader(kafka))}
    for case, *place in sent:
        letter = dead_letters.pop((place[0], Partition(place[1]), Offset(place[2])), None)
        assert (letter is None) == (case.cause == ACCEPTED), f"{case.name}: {letter}"
        if letter is not None:
            assert (letter.cause.stage, case.cause in letter.cause.cause) == ("contexts", True), (
                f"{case.name}: {letter}"
            )
            assert "\n" not in letter.cause.cause
            assert len(letter.cause.cause) < 600, case.name
            assert letter.key == case.key
            whole = len(case.value or b"") <= MB
            assert letter.value == (case.value if whole else (case.value or b"")[:MB]), case.name
            assert letter.headers == ([("own", b"1")] if whole else []), case.name
    assert dead_letters == {}, "a letter that nobody expects"
    accepted = {case.key for case, topic, *_ in sent if case.cause == ACCEPTED and topic == topics.POSTS}
    published = {message.key() for message in read_topic(kafka, topics.POST_CONTEXTS)}
    assert published == accepted | {b"after-all-of-it"}
    assert contexts.posts()[_key_of("a field twice: the last one counts")][-1].text == "the last"


def _key_of(name: str) -> str:
    (key,) = (case.key for case in bodies() if case.name == name)
    return (key or b"").decode()
