"""What each stage reads, and in which consumer group. The stages take it from here, and so do lag, wait and status."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from schemas.ids import KINDS, Generation
from schemas.topics import (
    ACTIVITY,
    CONTEXTS_GROUP,
    HOPS,
    INPUTS,
    MEMBER_CONTEXTS,
    POST_CONTEXTS,
    REPUBLISH,
    TRENDING_GROUP,
    ReplayedStage,
    asks_to_replay,
    encode_group,
    index_group,
    member_embeddings,
    post_embeddings,
    replay_requests,
)

NO_GROUP: Final = ""
"""The hot feed has no group. It is asked itself how far it is."""


class StageReads(NamedTuple):
    """A stage, its consumer group and the topics it reads."""

    stage: str
    group: str
    topics: tuple[str, ...]


CONTEXTS: Final = StageReads("contexts", CONTEXTS_GROUP, (*INPUTS, *HOPS, REPUBLISH))
TRENDING: Final = StageReads("trending", TRENDING_GROUP, (ACTIVITY,))


def encode_reads(generation: Generation) -> StageReads:
    topics = (POST_CONTEXTS, MEMBER_CONTEXTS, *_requests("encode", generation))
    return StageReads("encode", encode_group(generation), topics)


def index_reads(generation: Generation) -> StageReads:
    topics = (post_embeddings(generation), member_embeddings(generation), *_requests("index", generation))
    return StageReads("index", index_group(generation), topics)


def _requests(stage: ReplayedStage, generation: Generation) -> Iterator[str]:
    return (replay_requests(stage, kind, generation) for kind in KINDS)


def live_reads(generation: Generation) -> list[StageReads]:
    """What encode and index read, without the requests to process records again: those are the last that a stage does,
    so nobody else has to stand back for them."""
    return [
        read._replace(topics=tuple(topic for topic in read.topics if not asks_to_replay(topic)))
        for read in (encode_reads(generation), index_reads(generation))
    ]


def hot_feed_reads(generation: Generation) -> StageReads:
    return StageReads("hot-feed", NO_GROUP, (post_embeddings(generation),))


def all_stages(generation: Generation | None, others: Iterable[Generation] = ()) -> list[StageReads]:
    """In the order in which an event passes them. `generation`: the serving one; None: only the stages that all
    generations share. `others`: those that live beside it. How far their hot feeds are is not known here."""
    if generation is None:
        return [CONTEXTS, TRENDING]
    serving = [encode_reads(generation), index_reads(generation), hot_feed_reads(generation)]
    beside = [read for other in others for read in (encode_reads(other), index_reads(other))]
    return [CONTEXTS, TRENDING, *serving, *beside]
