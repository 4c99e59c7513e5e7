"""Makes the records of the topic `republish`, by which the context stage is asked to publish again. Sends nothing."""

from schemas import topics
from schemas.ids import Partition
from streams.kafka.records import Output


def flush_record(partition: Partition) -> Output:
    """Asks for everything that this partition holds back for later."""
    return Output(topics.REPUBLISH, None, None, [(topics.FLUSH_HEADER, b"1")], partition)


def republish_record(entity_id: bytes) -> Output:
    """Asks for one entity."""
    return Output(topics.REPUBLISH, entity_id, None)
