"""The names of all topics and consumer groups, and what each topic carries."""

from typing import Final, Literal, NamedTuple

from schemas.ids import KINDS, Generation, Kind

POSTS: Final = "posts"
MEMBERS: Final = "members"
ACTIVITY: Final = "activity"
REPUBLISH: Final = "republish"
ACTIVITY_BY_POST: Final = "activity-by-post"
ACTIONS_BY_MEMBER: Final = "actions-by-member"
POST_CONTEXTS: Final = "post-contexts"
MEMBER_CONTEXTS: Final = "member-contexts"
POST_CHANGELOG: Final = "contexts-post-changelog"
MEMBER_CHANGELOG: Final = "contexts-member-changelog"
TRENDING: Final = "trending"
DEAD_LETTERS: Final = "dead-letters"
GENERATIONS: Final = "generations"

INPUTS: Final = (POSTS, MEMBERS, ACTIVITY)
HOPS: Final = (ACTIVITY_BY_POST, ACTIONS_BY_MEMBER)

ORIGIN_HEADER: Final = "origin-ms"
"""Kafka timestamp of the input record that this record comes from, as ASCII decimal milliseconds. Freshness is counted
from it. A publication that was delayed on purpose (counts, a history window) has no such header."""

FLUSH_HEADER: Final = "flush"
"""A record of `republish` with this header and neither key nor value makes the context stage publish everything that
this partition holds back for later."""

CONTEXTS_GROUP: Final = "contexts"
TRENDING_GROUP: Final = "trending"


def post_embeddings(generation: Generation) -> str:
    return f"post-embeddings.{generation}"


def member_embeddings(generation: Generation) -> str:
    return f"member-embeddings.{generation}"


def embeddings(kind: Kind, generation: Generation) -> str:
    return post_embeddings(generation) if kind == "post" else member_embeddings(generation)


ReplayedStage = Literal["encode", "index"]
"""A stage that can be asked to process records again."""
_REPLAY: Final = "replay-"
REPLAYED: Final[tuple[ReplayedStage, ...]] = ("encode", "index")


def replay_requests(stage: ReplayedStage, kind: Kind, generation: Generation) -> str:
    """The topic in which a stage is asked to process records of one kind again (`schemas/replays.py`)."""
    return f"{_REPLAY}{stage}-{kind}s.{generation}"


def asks_to_replay(topic: str) -> bool:
    """Whether it is one of the topics of `replay_requests`."""
    return topic.startswith(_REPLAY)


def encode_group(generation: Generation) -> str:
    return f"encode.{generation}"


def index_group(generation: Generation) -> str:
    return f"index.{generation}"


class TopicSpec(NamedTuple):
    """How a topic is created. `events` and `hops` are kept for a time. `state` is compacted. `lists` are compacted too,
    but often: a few keys are written again and again, and hardly more than the newest should be on disk."""

    name: str
    carries: Literal["events", "hops", "state", "lists"]
    partitions: int | None = None
    """None: as many as `kafka.partitions` says."""


def core_topics() -> tuple[TopicSpec, ...]:
    """The topics that all generations share. All have the same number of partitions, but for that of the generations:
    its records follow on one another."""
    return (
        *(TopicSpec(name, "events") for name in (*INPUTS, REPUBLISH, DEAD_LETTERS)),
        *(TopicSpec(name, "hops") for name in HOPS),
        *(TopicSpec(name, "state") for name in (POST_CONTEXTS, MEMBER_CONTEXTS, POST_CHANGELOG, MEMBER_CHANGELOG)),
        TopicSpec(TRENDING, "lists"),
        TopicSpec(GENERATIONS, "state", partitions=1),
    )


def generation_topics(generation: Generation) -> tuple[TopicSpec, ...]:
    return (
        TopicSpec(post_embeddings(generation), "state"),
        TopicSpec(member_embeddings(generation), "state"),
        *(TopicSpec(replay_requests(stage, kind, generation), "events") for stage in REPLAYED for kind in KINDS),
    )
