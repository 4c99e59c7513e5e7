"""Compares the cold tier of one generation with the newest contexts: by revision, and by vectors made again here.

Says nothing of whether the contexts are right, which all generations share. Call it when everything that was sent is
searchable, so that nothing changes meanwhile.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Final, NamedTuple, TypeVar

from encoders.errors import Outcome
from indexer.tiers import StoredMember, StoredPost
from nearline.ask.connections import Connections
from nearline.chaos.expected_vectors import ExpectedVectors
from nearline.chaos.findings import is_same
from nearline.chaos.pipeline_state import read_cold_posts, read_in_chunks
from schemas import topics
from schemas.contexts import MemberContext, PostContext, decode_member_context, decode_post_context
from schemas.ids import Generation, MemberId
from streams.generations.log import read_generations
from streams.kafka.offsets import OffsetReader
from streams.kafka.reading import scan_topic

_KAFKA_CALL_S: Final = 30.0

_Context = TypeVar("_Context", PostContext, MemberContext)


class Differences(NamedTuple):
    """Ids of posts and members. Every set is empty where all is well."""

    missing: set[str]
    """Have a live context, and are not in the tier."""
    extra: set[str]
    """Are in the tier, and have no live context."""
    stale: set[str]
    """Are in the tier with another revision or vector than the newest context gives."""

    def __bool__(self) -> bool:
        return any(self)

    def __or__(self, other: "Differences") -> "Differences":
        return Differences(*(mine | theirs for mine, theirs in zip(self, other, strict=True)))


def differences(connections: Connections, generation: Generation, vectors: ExpectedVectors) -> Differences:
    """Raises StreamsError, IndexerError, NearlineError where a part does not answer."""
    with closing(OffsetReader(connections.kafka, _KAFKA_CALL_S)) as reader:
        names = topics.context_names(read_generations(connections.kafka).contexts_of(generation))
        post_values = _values(connections, reader, names.post_contexts)
        posts = {str(context.post_id): context for context in map(decode_post_context, post_values)}
        member_values = _values(connections, reader, names.member_contexts)
        members = {str(context.member_id): context for context in map(decode_member_context, member_values)}
    with closing(connections.cold(generation=generation)) as cold:
        cold_posts = read_cold_posts(cold)
        cold_members = read_in_chunks(cold.members, [MemberId(member_id) for member_id in members])
        num_members = cold.count("member")
    live_members = {member_id: member for member_id, member in cold_members.items() if not member.deleted}
    found = _compare(posts, cold_posts, vectors.posts) | _compare(members, live_members, vectors.members)
    if num_members > len(live_members):
        found.extra.add(f"{num_members - len(live_members)} members without a context")
    return found


def _values(connections: Connections, reader: OffsetReader, topic: str) -> list[bytes]:
    values = (message.value() for message in scan_topic(connections.kafka, reader, topic))
    return [value for value in values if value is not None]


def _compare(
    contexts: Mapping[str, _Context],
    stored: Mapping[str, StoredPost | StoredMember],
    encode: Callable[[Sequence[_Context]], list[Outcome]],
) -> Differences:
    live = {entity_id: context for entity_id, context in contexts.items() if not context.deleted}
    both = [entity_id for entity_id in live if entity_id in stored]
    outcomes = encode([live[entity_id] for entity_id in both])
    stale = {
        entity_id
        for entity_id, outcome in zip(both, outcomes, strict=True)
        if stored[entity_id].revision != live[entity_id].revision or not is_same(stored[entity_id].vector, outcome)
    }
    return Differences(live.keys() - stored.keys(), stored.keys() - live.keys(), stale)
