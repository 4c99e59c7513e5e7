"""Every topic's name, in one place, and which of them carry state."""

from typing import Final, Literal, NamedTuple

from schemas.ids import Generation, Kind

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

INPUTS: Final = (POSTS, MEMBERS, ACTIVITY)
HOPS: Final = (ACTIVITY_BY_POST, ACTIONS_BY_MEMBER)

ORIGIN_HEADER: Final = "origin-ms"
"""Kafka timestamp (ASCII decimal milliseconds) of the input record behind this one; freshness is counted from it.
A publication that was put off on purpose (counts, a history window) carries none."""

FLUSH_HEADER: Final = "flush"
"""A record of `republish` with this header and neither key nor value: the context stage publishes everything that its
partition holds back for later."""

CONTEXTS_GROUP: Final = "contexts"
TRENDING_GROUP: Final = "trending"


def post_embeddings(generation: Generation) -> str:
    return f"post-embeddings.{generation}"


def member_embeddings(generation: Generation) -> str:
    return f"member-embeddings.{generation}"


def embeddings(kind: Kind, generation: Generation) -> str:
    return post_embeddings(generation) if kind == "post" else member_embeddings(generation)


def encode_group(generation: Generation) -> str:
    return f"encode.{generation}"


def index_group(generation: Generation) -> str:
    return f"index.{generation}"


class TopicSpec(NamedTuple):
    """How a topic is created. `events` and `hops` are kept for a time; `state` is compacted, and so are `lists`: a few
    keys written again and again, of which hardly more than the newest should lie on disk."""

    name: str
    carries: Literal["events", "hops", "state", "lists"]


def core_topics() -> tuple[TopicSpec, ...]:
    """Topics that every generation shares. All have the same number of partitions."""
    return (
        *(TopicSpec(name, "events") for name in (*INPUTS, REPUBLISH, DEAD_LETTERS)),
        *(TopicSpec(name, "hops") for name in HOPS),
        *(TopicSpec(name, "state") for name in (POST_CONTEXTS, MEMBER_CONTEXTS, POST_CHANGELOG, MEMBER_CHANGELOG)),
        TopicSpec(TRENDING, "lists"),
    )


def generation_topics(generation: Generation) -> tuple[TopicSpec, ...]:
    return (
        TopicSpec(post_embeddings(generation), "state"),
        TopicSpec(member_embeddings(generation), "state"),
    )
