"""Which revision of each entity a topic or a tier holds, and whether it is live there.

Of one entity the highest revision counts, and of one revision the later record. Knows no texts and no vectors.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from schemas.ids import Offset, Partition, Revision
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.reading import scan_all, scanner
from streams.kafka.records import offset_of, place_of
from streams.settings import KafkaSettings

_ASK_S: Final = 20.0
_TO_THE_END_S: Final = 30.0
_DIGEST_BYTES: Final = 16
_MODULUS: Final = 1 << (8 * _DIGEST_BYTES)


class Head(Struct, frozen=True):
    """What contexts and embeddings have in common. All other fields are skipped."""

    revision: Revision
    deleted: bool = False


DecodeHead = Callable[[bytes], Head]
context_head: DecodeHead = msgspec.json.Decoder(Head).decode
embedding_head: DecodeHead = msgspec.msgpack.Decoder(Head).decode


class Version(NamedTuple):
    revision: int
    is_live: bool
    offset: int = -1
    """Of the record that says so; -1 where it comes from a tier."""


Versions = dict[str, Version]
"""By the entity's id."""
Newest = Mapping[Partition, Versions]
"""By the partition to which the entity belongs in every topic."""


class Summary(NamedTuple):
    """Of the live entities. Two that are equal hold the same ids with the same revisions."""

    num_live: int
    digest: int
    """The sum of a hash of each id with its revision, so that their order is of no account."""


def summary(versions: Versions) -> Summary:
    live = [(entity_id, version) for entity_id, version in versions.items() if version.is_live]
    return Summary(len(live), sum(_hash(entity_id, version.revision) for entity_id, version in live) % _MODULUS)


def _hash(entity_id: str, revision: int) -> int:
    body = b"%d %s" % (revision, entity_id.encode())
    return int.from_bytes(blake2b(body, digest_size=_DIGEST_BYTES).digest(), "big")


class TopicVersions:
    """What a compacted topic holds, read on from time to time. Used by one thread."""

    def __init__(self, kafka: KafkaSettings, topic: str, decode: DecodeHead) -> None:
        self.topic = topic
        self.newest: dict[Partition, Versions] = {}
        self._kafka = kafka
        self._decode = decode
        self._next: Offsets = {}

    def read_on(self) -> None:
        """Up to everything that is committed now. A record that cannot be read changes nothing: the stages make a dead
        letter of it. Raises StreamsError."""
        with closing(OffsetReader(self._kafka, _ASK_S)) as reader, closing(scanner(self._kafka)) as consumer:
            places = reader.places([self.topic])
            starts, ends = reader.starts(places), reader.stable_ends(places)
            begins = {place: max(starts[place], self._next.get(place, Offset(0))) for place in places}
            for place in places:
                self.newest.setdefault(place.partition, {})
            for message in scan_all(consumer, begins, ends, to_the_end_s=_TO_THE_END_S):
                self._apply(place_of(message).partition, message.key(), message.value(), offset_of(message))
            self._next = {place: max(begins[place], ends[place]) for place in places}

    def snapshot(self) -> Newest:
        """As of now. Reading on does not change it."""
        return {partition: dict(versions) for partition, versions in self.newest.items()}

    def pick(self, ids: Iterable[str]) -> Versions:
        """Ids that the topic does not hold are left out."""
        return {entity_id: version for entity_id in ids if (version := find(self.newest, entity_id)) is not None}

    def _apply(self, partition: Partition, key: bytes | None, value: bytes | None, offset: Offset) -> None:
        if key is None or value is None:
            return
        try:
            entity_id, head = key.decode(), self._decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        versions = self.newest[partition]
        known = versions.get(entity_id)
        if known is None or head.revision >= known.revision:
            versions[entity_id] = Version(head.revision, not head.deleted, offset)


def find(newest: Newest, entity_id: str) -> Version | None:
    return next((versions[entity_id] for versions in newest.values() if entity_id in versions), None)


def live_ids(newest: Newest) -> set[str]:
    return {entity_id for versions in newest.values() for entity_id, version in versions.items() if version.is_live}
