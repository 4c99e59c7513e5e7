"""The records of the topic `republish`: the context stage publishes one entity again, or everything that a partition
holds back for later."""

from schemas import topics
from schemas.ids import Partition
from streams.kafka.records import Output


def flush_record(partition: Partition) -> Output:
    return Output(topics.REPUBLISH, None, None, [(topics.FLUSH_HEADER, b"1")], partition)


def republish_record(entity_id: bytes) -> Output:
    return Output(topics.REPUBLISH, entity_id, None)
