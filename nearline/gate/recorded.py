"""The events of posts, members and activity as the input topics hold them now, for the trainer's evaluation."""

from collections.abc import Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

from contexts.settings import ContextRules
from schemas import topics
from schemas.errors import BadRecord
from schemas.events import parse_event
from streams.kafka.offsets import OffsetReader
from streams.kafka.reading import scan_topic
from streams.settings import KafkaSettings
from trainer.data.feed import Feed, timed_event

if TYPE_CHECKING:
    from trainer.data.feed import TimedEvent

_ASK_S: Final = 20.0


def recorded_feed(kafka: KafkaSettings, rules: ContextRules) -> Feed:
    """Records that are no events are left out: in the pipeline they became dead letters. Raises StreamsError."""
    return Feed(_events(kafka), rules)


def _events(kafka: KafkaSettings) -> "Iterator[TimedEvent]":
    with closing(OffsetReader(kafka, _ASK_S)) as reader:
        for topic in topics.INPUTS:
            for message in scan_topic(kafka, reader, topic):
                body = message.value()
                if body is not None:
                    with suppress(BadRecord):
                        yield timed_event(parse_event(body), body)
