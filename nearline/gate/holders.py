"""Who holds vectors of a generation, as the check of completeness asks them: the log, and the cold tier."""

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Final, Protocol

from indexer.tiers import ColdReader, StoredMember, StoredPost
from nearline.gate.versions import Newest, TopicVersions, Version, Versions
from schemas.ids import Kind, MemberId, PostId
from streams.kafka.partitions import partition_of

_IDS_AT_ONCE: Final = 500


class Holder(Protocol):
    """Holds vectors of one kind of entity. Any method may block, and raises StreamsError or IndexerError."""

    def all(self, context_ids: Collection[str]) -> Newest:
        """Everything that it holds now. `context_ids`: the entities that have a context, live or deleted."""
        ...

    def again(self, ids: Collection[str]) -> Versions:
        """What it holds of these entities now."""
        ...


class LogHolder:
    """The topic of embeddings."""

    def __init__(self, topic: TopicVersions) -> None:
        self._topic = topic

    def all(self, context_ids: Collection[str]) -> Newest:
        self._topic.read_on()
        return self._topic.snapshot()

    def again(self, ids: Collection[str]) -> Versions:
        self._topic.read_on()
        return self._topic.pick(ids)


class ColdHolder:
    """The cold tier. It gives out all its posts, but only those members whose ids it is asked for: members without a
    context are found by its count."""

    def __init__(self, tier: ColdReader, kind: Kind, num_partitions: int) -> None:
        self._tier = tier
        self._kind = kind
        self._num_partitions = num_partitions

    def all(self, context_ids: Collection[str]) -> Newest:
        if self._kind == "member":
            return self._by_partition(self.again(context_ids))
        return self._by_partition({str(post.post_id): _version(post) for post in self._tier.scroll_posts()})

    def again(self, ids: Collection[str]) -> Versions:
        versions: Versions = {}
        waiting = iter(ids)
        while part := list(islice(waiting, _IDS_AT_ONCE)):
            stored = self._stored(part)
            versions |= {entity_id: version for entity_id, version in zip(part, stored, strict=True) if version}
        return versions

    def count(self) -> int:
        return self._tier.count(self._kind)

    def _stored(self, ids: Sequence[str]) -> Iterator[Version | None]:
        stored: Sequence[StoredPost | StoredMember | None] = (
            self._tier.posts([PostId(post_id) for post_id in ids])
            if self._kind == "post"
            else self._tier.members([MemberId(member_id) for member_id in ids])
        )
        return (None if entity is None else _version(entity) for entity in stored)

    def _by_partition(self, versions: Versions) -> Newest:
        newest: dict[int, Versions] = {}
        for entity_id, version in versions.items():
            newest.setdefault(partition_of(entity_id.encode(), self._num_partitions), {})[entity_id] = version
        return newest  # type: ignore[return-value]


def _version(entity: StoredPost | StoredMember) -> Version:
    return Version(entity.revision, not entity.deleted)
