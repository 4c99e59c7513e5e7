"""The names of all topics and consumer groups, and what each topic carries."""

from typing import Final, Literal, NamedTuple

from schemas.ids import KINDS, ContextVersion, Generation, Kind

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
MODELS: Final = "models"
FORMS: Final = "forms"
"""In which form the others are written: `schemas/forms.py`."""
POST_VECTORS: Final = "post-vectors"
"""Vectors of posts for other teams. Its records are `schemas/post_vectors.py`."""
POST_VECTORS_SWITCH: Final = "post-vectors-switch"
"""From when on the vectors of which generation count."""

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
POST_VECTORS_GROUP: Final = "post-vectors"
"""One for all generations: so a partition of `post-vectors` has one writer at any time."""

FIRST_CONTEXTS: Final = ContextVersion(1)
"""The version of the contexts with which every instance begins."""


class ContextNames(NamedTuple):
    """What one version of the contexts has in Kafka. The inputs and `republish` are shared by all versions."""

    group: str
    activity_by_post: str
    actions_by_member: str
    post_contexts: str
    member_contexts: str
    post_changelog: str
    member_changelog: str

    @property
    def hops(self) -> tuple[str, str]:
        return self.activity_by_post, self.actions_by_member

    @property
    def contexts(self) -> tuple[str, str]:
        return self.post_contexts, self.member_contexts

    @property
    def changelogs(self) -> tuple[str, str]:
        return self.post_changelog, self.member_changelog

    def of_kind(self, kind: Kind) -> str:
        """The topic of the contexts."""
        return self.post_contexts if kind == "post" else self.member_contexts


FIRST_NAMES: Final = ContextNames(
    CONTEXTS_GROUP,
    ACTIVITY_BY_POST,
    ACTIONS_BY_MEMBER,
    POST_CONTEXTS,
    MEMBER_CONTEXTS,
    POST_CHANGELOG,
    MEMBER_CHANGELOG,
)


def context_names(version: ContextVersion = FIRST_CONTEXTS) -> ContextNames:
    """The first version has names without a number."""
    if version == FIRST_CONTEXTS:
        return FIRST_NAMES
    return ContextNames(*(f"{name}.{version}" for name in FIRST_NAMES))


def recorded_inputs(version: ContextVersion) -> dict[str, str]:
    """The topics into which a rebuild writes the events of exported files, by the input that they come from."""
    return {name: f"{name}.{version}" for name in INPUTS}


def first_name(name: str) -> str:
    """The name of a topic or group of the contexts without the number of its version."""
    first, dot, number = name.rpartition(".")
    return first if dot and number.isdecimal() and first in _NUMBERED else name


_NUMBERED: Final = frozenset((*FIRST_NAMES, *INPUTS))


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
    but often: a few keys are written again and again, and hardly more than the newest should be on disk. `recorded`
    events have the times at which they were sent first, so they are kept until somebody deletes them."""

    name: str
    carries: Literal["events", "hops", "state", "lists", "recorded"]
    partitions: int | None = None
    """None: as many as `kafka.partitions` says."""


MODELS_SPEC: Final = TopicSpec(MODELS, "state", partitions=1)
POST_VECTOR_SPECS: Final = (TopicSpec(POST_VECTORS, "state"), TopicSpec(POST_VECTORS_SWITCH, "state", partitions=1))
"""Made when they are switched on."""


def core_topics() -> tuple[TopicSpec, ...]:
    """The topics with which every instance begins: those that all generations share, and the first contexts."""
    return (*shared_topics(), *context_topics(FIRST_CONTEXTS))


def shared_topics() -> tuple[TopicSpec, ...]:
    """All have the same number of partitions, but for those of the generations, of the models and of the forms: their
    records follow on one another."""
    return (
        *(TopicSpec(name, "events") for name in (*INPUTS, REPUBLISH, DEAD_LETTERS)),
        TopicSpec(TRENDING, "lists"),
        TopicSpec(GENERATIONS, "state", partitions=1),
        MODELS_SPEC,
        TopicSpec(FORMS, "state", partitions=1),
    )


def context_topics(version: ContextVersion) -> tuple[TopicSpec, ...]:
    """What one version of the contexts has for itself."""
    names = context_names(version)
    recorded = () if version == FIRST_CONTEXTS else recorded_inputs(version).values()
    return (
        *(TopicSpec(name, "hops") for name in names.hops),
        *(TopicSpec(name, "state") for name in (*names.contexts, *names.changelogs)),
        *(TopicSpec(name, "recorded") for name in recorded),
    )


def generation_topics(generation: Generation) -> tuple[TopicSpec, ...]:
    return (
        TopicSpec(post_embeddings(generation), "state"),
        TopicSpec(member_embeddings(generation), "state"),
        *(TopicSpec(replay_requests(stage, kind, generation), "events") for stage in REPLAYED for kind in KINDS),
    )
