"""Which partition a key is in: Kafka's murmur2, as `partitioner=murmur2_random` and the Java clients compute it."""

from struct import unpack_from
from typing import Final

from schemas.ids import Partition

_SEED: Final = 0x9747B28C
_MULTIPLIER: Final = 0x5BD1E995
_WORD: Final = 0xFFFFFFFF


def partition_of(key: bytes, num_partitions: int) -> Partition:
    return Partition((_murmur2(key) & 0x7FFFFFFF) % num_partitions)


def _murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, little-endian (org.apache.kafka.common.utils.Utils.murmur2)."""
    value = (_SEED ^ len(data)) & _WORD
    whole = len(data) & ~3
    for word in unpack_from(f"<{whole // 4}I", data):
        mixed = word * _MULTIPLIER & _WORD
        # value * m ^ (mixed ^ mixed >> 24) * m, each of 32 bits: the upper bits fall away together.
        value = (value * _MULTIPLIER ^ (mixed ^ (mixed >> 24)) * _MULTIPLIER) & _WORD
    if tail := data[whole:]:
        value = (value ^ int.from_bytes(tail, "little")) * _MULTIPLIER & _WORD
    value = (value ^ (value >> 13)) * _MULTIPLIER & _WORD
    return value ^ (value >> 15)
