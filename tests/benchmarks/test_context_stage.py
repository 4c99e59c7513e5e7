"""What the benchmark of the context stage divides by."""

from collections import Counter
from types import SimpleNamespace
from typing import cast

from confluent_kafka import Message

from benchmarks.context_stage import EmptyApply, Recorded
from schemas import topics
from streams.kafka.records import Output


def test_the_empty_apply_sends_the_bytes_of_the_real_one_as_often() -> None:
    """Random bytes, which do not compress, would cost it more than the stage itself."""
    recorded = Recorded()
    sent = [_output(topics.POST_CONTEXTS, b"context %d" % number) for number in range(3)]
    hops = [_output(topics.ACTIONS_BY_MEMBER, b"hop %d" % number) for number in range(2)]
    recorded.num_read.update({topics.ACTIVITY: 100, topics.ACTIVITY_BY_POST: 100})
    for _ in range(50):
        recorded.add(sent)
        recorded.add(hops)
    empty = EmptyApply(recorded)
    records = [_record(topics.ACTIVITY), _record(topics.ACTIVITY_BY_POST)] * 200
    outputs = [output for at in range(0, 400, 8) for output in empty.process(records[at : at + 8], {}).outputs]
    assert Counter(output.topic for output in outputs) == {topics.POST_CONTEXTS: 300, topics.ACTIONS_BY_MEMBER: 200}
    assert {output.value for output in outputs} == {output.value for output in (*sent, *hops)}


def _output(topic: str, value: bytes) -> Output:
    return Output(topic, b"key", value)


def _record(topic: str) -> Message:
    return cast(Message, SimpleNamespace(topic=lambda: topic))
