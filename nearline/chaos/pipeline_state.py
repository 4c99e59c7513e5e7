"""Reads everything that a pipeline holds in its serving generation: contexts, embeddings, both tiers, and its answers.

Judges nothing. Call it when everything that was sent is searchable, so that nothing changes meanwhile.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Final, NamedTuple, TypeVar

from indexer.tiers import ColdReader, StoredMember, StoredPost
from nearline.ask.connections import Connections
from nearline.errors import NearlineError
from retriever.client import RetrieverClient
from retriever.errors import RetrieverUnavailable
from schemas import topics
from schemas.api import MAX_FILTER_IDS, MAX_K, RetrieveRequest
from schemas.contexts import MemberContext, PostContext, decode_member_context, decode_post_context
from schemas.embeddings import decode_member_embedding, decode_post_embedding
from schemas.ids import Generation, Kind, MemberId
from streams.errors import KafkaUnavailable
from streams.kafka.offsets import OffsetReader
from streams.kafka.reading import scan_topic
from streams.operate import dead_letter_box

QUESTIONS: Final = ("harbor winter violin", "copper ledger kettle tunnel pepper")
"""The hot tier gives out no vectors. Two different vectors hardly have the same scores for two questions."""
_KAFKA_CALL_S: Final = 30.0
_COUNT_S: Final = 60.0
_IDS_AT_ONCE: Final = 500

_Id = TypeVar("_Id", bound=str)
_Stored = TypeVar("_Stored", StoredPost, StoredMember)

Scores = dict[str, float]
"""The score of each live post, by its id."""


class PipelineState(NamedTuple):
    """Everything is keyed by entity id. Deleted posts are left out of the tiers; `members` has tombstones too."""

    post_contexts: dict[str, PostContext]
    member_contexts: dict[str, MemberContext]
    embedded: dict[Kind, Counter[tuple[str, int]]]
    """How often each revision of an entity was embedded."""
    cold_posts: dict[str, StoredPost]
    hot_posts: dict[str, int]
    """The revision of each post."""
    answers: list[Scores]
    """For each question all posts that can be found."""
    members: dict[str, StoredMember]
    """The members in the cold tier that have a context or an embedding."""
    num_members: int
    """How many live members the cold tier counts."""
    dead_letters: int


def read_pipeline_state(connections: Connections) -> PipelineState:
    """Raises StreamsError, IndexerError, RetrieverError, NearlineError where a part does not answer."""
    with closing(OffsetReader(connections.kafka, _KAFKA_CALL_S)) as reader:
        log = _Log(connections, reader)
        names = topics.context_names(connections.context_version)
        post_contexts = {
            str(context.post_id): context for context in map(decode_post_context, log.values(names.post_contexts))
        }
        member_contexts = {
            str(context.member_id): context for context in map(decode_member_context, log.values(names.member_contexts))
        }
        embedded = log.embedded()
        dead_letters = _count_dead_letters(connections, reader)
    member_ids = sorted(member_contexts.keys() | {member_id for member_id, _ in embedded["member"]})
    # The pool ends first: if the cold tier fails, the thread may still ask with the client.
    with closing(connections.cold()) as cold, connections.retriever() as client, ThreadPoolExecutor(1) as pool:
        generation = connections.generation
        answers = pool.submit(lambda: [_answer(client, generation, question) for question in QUESTIONS])
        cold_posts = read_cold_posts(cold)
        stored_members = read_in_chunks(cold.members, [MemberId(member_id) for member_id in member_ids])
        num_members = cold.count("member")
        scores = answers.result()
        hot_posts = {post.post_id: post.revision for post in client.hot_posts()}
    return PipelineState(
        post_contexts,
        member_contexts,
        embedded,
        cold_posts,
        hot_posts,
        scores,
        stored_members,
        num_members,
        dead_letters,
    )


def _count_dead_letters(connections: Connections, reader: OffsetReader) -> int:
    letters = dead_letter_box.count(connections.kafka, reader, _COUNT_S)
    if not letters.exact:
        raise KafkaUnavailable(f"the dead letters could not be counted within {_COUNT_S:.0f} s")
    return letters.number


class _Log:
    """The topics of an instance, read from their start."""

    def __init__(self, connections: Connections, reader: OffsetReader) -> None:
        self._connections = connections
        self._reader = reader

    def values(self, topic: str) -> Iterator[bytes]:
        """The values of all committed records, each partition in order."""
        messages = scan_topic(self._connections.kafka, self._reader, topic)
        return (value for message in messages if (value := message.value()) is not None)

    def embedded(self) -> dict[Kind, Counter[tuple[str, int]]]:
        generation = self._connections.generation
        posts = map(decode_post_embedding, self.values(topics.post_embeddings(generation)))
        members = map(decode_member_embedding, self.values(topics.member_embeddings(generation)))
        return {
            "post": Counter((str(record.post_id), int(record.revision)) for record in posts),
            "member": Counter((str(record.member_id), int(record.revision)) for record in members),
        }


def read_cold_posts(cold: ColdReader) -> dict[str, StoredPost]:
    """All live posts, with their vectors."""
    ids = list({post.post_id: None for post in cold.scroll_posts()})
    stored = read_in_chunks(lambda chunk: cold.posts(chunk, with_vectors=True), ids)
    return {post_id: post for post_id, post in stored.items() if not post.deleted}


def read_in_chunks(ask: Callable[[Sequence[_Id]], "list[_Stored | None]"], ids: Sequence[_Id]) -> dict[str, _Stored]:
    """The stored entities among these, by id."""
    stored: dict[str, _Stored] = {}
    for start in range(0, len(ids), _IDS_AT_ONCE):
        chunk = ids[start : start + _IDS_AT_ONCE]
        stored |= {entity_id: entity for entity_id, entity in zip(chunk, ask(chunk), strict=True) if entity is not None}
    return stored


def _answer(client: RetrieverClient, generation: Generation, question: str) -> Scores:
    """The scores of all posts, page after page. Raises RetrieverUnavailable where an answer is still partial, or comes
    from a generation that serves no more."""
    scores: Scores = {}
    while len(scores) <= MAX_FILTER_IDS:
        answer = client.retrieve(RetrieveRequest(text=question, k=MAX_K, exclude_posts=list(scores)))
        if answer.generation != generation:
            raise RetrieverUnavailable(f"an answer comes from {answer.generation}, and {generation} serves")
        if answer.reasons:
            raise RetrieverUnavailable(f"an answer is not whole: {', '.join(map(str, answer.reasons))}")
        scores |= zip(answer.post_ids, answer.scores, strict=True)
        if len(answer.post_ids) < MAX_K:
            return scores
    raise NearlineError(f"more than {MAX_FILTER_IDS:,} posts cannot be looked at; send fewer events")
