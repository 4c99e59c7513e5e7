"""Which partition a key belongs to: murmur2, as `partitioner=murmur2_random` and Kafka's Java clients compute it."""

from schemas.ids import Partition


def partition_of(key: bytes, num_partitions: int) -> Partition:
    # Imported here because it loads all of aiokafka, which most commands do not need.
    from aiokafka.partitioner import murmur2

    return Partition((murmur2(key) & 0x7FFFFFFF) % num_partitions)
