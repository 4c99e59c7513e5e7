"""What each stage reads, and in which consumer group. The stages take it from here, and so do lag, wait and status."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from schemas.generations import GenerationRecord
from schemas.ids import KINDS, ContextVersion, Generation
from schemas.post_vectors import REIGN_PREFIX, beginning_of_tag
from schemas.topics import (
    ACTIVITY,
    FIRST_CONTEXTS,
    INPUTS,
    POST_VECTORS,
    POST_VECTORS_GROUP,
    REPUBLISH,
    TRENDING_GROUP,
    ReplayedStage,
    asks_to_replay,
    context_names,
    encode_group,
    index_group,
    member_embeddings,
    post_embeddings,
    recorded_inputs,
    replay_requests,
)

NO_GROUP: Final = ""
"""The hot feed has no group. It is asked itself how far it is."""


class CommittedUnder(NamedTuple):
    """Where a group says how far it is that commits nothing under the topic it reads: under the partition of the same
    number of another topic, with metadata that begins with `tag`. With other metadata it has not begun."""

    topic: str
    tag: str


class StageReads(NamedTuple):
    """A stage, its consumer group and the topics it reads. `under`: None where the group commits as all others do."""

    stage: str
    group: str
    topics: tuple[str, ...]
    under: CommittedUnder | None = None


def contexts_reads(version: ContextVersion = FIRST_CONTEXTS) -> StageReads:
    names = context_names(version)
    recorded = () if version == FIRST_CONTEXTS else tuple(recorded_inputs(version).values())
    return StageReads("contexts", names.group, (*INPUTS, *recorded, *names.hops, REPUBLISH))


CONTEXTS: Final = contexts_reads()
"""Of the first version."""
TRENDING: Final = StageReads("trending", TRENDING_GROUP, (ACTIVITY,))


def encode_reads(generation: Generation, contexts: ContextVersion = FIRST_CONTEXTS) -> StageReads:
    """`contexts`: the version that the generation reads."""
    topics = (*context_names(contexts).contexts, *_requests("encode", generation))
    return StageReads("encode", encode_group(generation), topics)


def index_reads(generation: Generation) -> StageReads:
    topics = (post_embeddings(generation), member_embeddings(generation), *_requests("index", generation))
    return StageReads("index", index_group(generation), topics)


def _requests(stage: ReplayedStage, generation: Generation) -> Iterator[str]:
    return (replay_requests(stage, kind, generation) for kind in KINDS)


def live_reads(generation: Generation, contexts: ContextVersion = FIRST_CONTEXTS) -> list[StageReads]:
    """What encode and index read, without the requests to process records again: those are the last that a stage does,
    so nobody else has to stand back for them."""
    return [
        read._replace(topics=tuple(topic for topic in read.topics if not asks_to_replay(topic)))
        for read in (encode_reads(generation, contexts), index_reads(generation))
    ]


def hot_feed_reads(generation: Generation) -> StageReads:
    return StageReads("hot-feed", NO_GROUP, (post_embeddings(generation),))


def post_vectors_reads(serving: GenerationRecord) -> StageReads:
    """Of the loop that writes `post-vectors` while this generation serves."""
    tag = f"{REIGN_PREFIX}{beginning_of_tag(serving.id, serving.since)}"
    topics = (post_embeddings(serving.id),)
    return StageReads(POST_VECTORS, POST_VECTORS_GROUP, topics, CommittedUnder(POST_VECTORS, tag))


def post_vectors_stages(serving: GenerationRecord | None, *, written: bool) -> list[StageReads]:
    """The stage of `post-vectors` where there is one: where they are written (`encode.post_vectors`), and a generation
    serves, which writes them."""
    return [post_vectors_reads(serving)] if written and serving is not None else []


def all_stages(
    generation: Generation | None,
    others: Iterable[Generation] = (),
    contexts: Mapping[Generation, ContextVersion] | None = None,
    versions: Iterable[ContextVersion] = (FIRST_CONTEXTS,),
) -> list[StageReads]:
    """In the order in which an event passes them. `generation`: the serving one; None: only the stages that all
    generations share. `others`: those that live beside it. How far their hot feeds are is not known here. `contexts`:
    the version that each generation reads, if it is not the first. `versions`: those whose stages run."""
    shared = [*map(contexts_reads, versions), TRENDING]
    if generation is None:
        return shared
    read = contexts or {}
    serving = [
        encode_reads(generation, read.get(generation, FIRST_CONTEXTS)),
        index_reads(generation),
        hot_feed_reads(generation),
    ]
    beside = [
        reads
        for other in others
        for reads in (encode_reads(other, read.get(other, FIRST_CONTEXTS)), index_reads(other))
    ]
    return [*shared, *serving, *beside]
