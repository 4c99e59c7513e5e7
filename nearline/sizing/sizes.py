"""What a load needs: pure formulas over `figures.py` and the default settings. Nothing is asked or measured here.

Every worker is planned for half of its measured rate, because freshness stays small there and another one may fail.
"""

from dataclasses import dataclass
from math import ceil
from typing import Final, NamedTuple

from contexts.count_buckets import bucket
from contexts.settings import ContextRules
from nearline.sizing import figures
from retriever.settings import ServeSettings
from schemas.contexts import HistoryEntry, MemberContext, PostContext, encode_context
from schemas.embeddings import PostEmbedding, encode_embedding
from schemas.ids import MemberId, Micros, PostId, Revision
from streams.settings import KafkaSettings

PARTITIONS: Final = (4, 12, 24, 48, 96, 192, 384, 768, 1024)
"""Numbers that many others divide. `kafka.partitions` takes no more than the last."""
SEARCH_S: Final = 0.5
"""A cold search shall take no longer. A question waits for one only if no answer is kept."""
NODE_BYTES: Final = 64e9
"""Memory of a node of the cold tier."""
SPARE: Final = 2.0
"""How much more than its load a worker could do."""
_ROOM: Final = 2
"""So many times as many partitions as workers, because partitions cannot be added later."""
_EVENT_BYTES: Final = 110
"""Of an activity as JSON. A post has its text more."""
DAY_S: Final = 86_400.0
HOT_WINDOW_S: Final = 48 * 3600.0
_HOPS_S: Final = 0.75
"""Of `kafka.erase_within_s`."""
_REPLICAS: Final = 3
_ID: Final = "p" + "0" * 11


@dataclass(frozen=True)
class Load:
    posts_per_s: float
    members: int
    activity_per_post: float = 100.0
    positive_share: float = 0.1
    """Of the activity: likes, clicks and other actions that make history."""
    text_chars: int = 310
    tokens_per_context: float = 63.0
    """The demo's package makes 63 tokens of 310 characters."""
    counts_in_prompt: bool = True
    """Whether the package's template has counts: then a post is encoded again when one of them has grown by half."""
    tokens_per_s: float | None = None
    """Of one encode worker: a GPU, or a core. None: a core with the demo's package."""
    dimension: int = 128
    corpus_days: float = 30.0
    """How long a post is to be found."""
    hot_gb: float = 32.0
    """Memory for the hot tier of one retriever."""
    questions_per_s: float = 0.0
    answers_per_s: float | None = None
    """Of one retriever process. None: not measured."""

    @property
    def activity_per_s(self) -> float:
        return self.posts_per_s * self.activity_per_post

    @property
    def events_per_s(self) -> float:
        return self.posts_per_s + self.activity_per_s

    @property
    def positive_per_s(self) -> float:
        return self.activity_per_s * self.positive_share


class Sizes(NamedTuple):
    """Bytes where nothing else is said. Workers of encode are cores or GPUs, as `tokens_per_s` is meant."""

    partitions: int | None
    """None: more than one instance can have."""
    contexts_workers: int
    contexts_disk: int
    """Rows of all workers."""
    trending_workers: int
    post_contexts_per_s: float
    member_contexts_per_s: float
    tokens_per_s: float
    encode_workers: int
    encode_memory: int
    """Of one, beside the weights."""
    index_workers: int
    points: int
    cold_nodes: int
    cold_memory: int
    cold_disk: int
    cold_search_s: float
    """On one node that held all of it, with two threads."""
    hot_capacity: int
    hot_window_s: float
    serve_memory: int
    """Of one process."""
    serve_processes: int | None
    """None: `answers_per_s` was not given."""
    kafka_mb_per_s: float
    kafka_disk: int
    """Of all brokers, with three replicas."""


def size(load: Load) -> Sizes:
    posts, members = _published(load)
    tokens_per_s = (posts if load.counts_in_prompt else load.posts_per_s) * load.tokens_per_context
    tokens_per_s += members * load.tokens_per_context
    contexts = _workers(load.events_per_s, contexts_rate())
    trending = _workers(load.activity_per_s, figures.TRENDING_EVENTS_PER_S.value)
    encode = _workers(tokens_per_s, worker_tokens(load))
    index = _workers(posts + members, figures.QDRANT_POINTS_PER_S.value)
    points = _corpus(load) + load.members
    memory = int(points * cold_point_bytes(load))
    search_s = points * scan_s(load)
    capacity = min(int(load.posts_per_s * HOT_WINDOW_S), int(load.hot_gb * 1e9 / hot_post_bytes(load)))
    state = _state_bytes(load)
    return Sizes(
        partitions=_partitions(max(contexts, trending, encode, index)),
        contexts_workers=contexts,
        contexts_disk=state,
        trending_workers=trending,
        post_contexts_per_s=posts,
        member_contexts_per_s=members,
        tokens_per_s=tokens_per_s,
        encode_workers=encode,
        encode_memory=int(figures.ENCODE_BYTES.value),
        index_workers=index,
        points=points,
        cold_nodes=max(1, ceil(memory / NODE_BYTES), ceil(search_s / SEARCH_S)),
        cold_memory=memory,
        cold_disk=int(points * (figures.POINT_BYTES.value + 5 * load.dimension)),
        cold_search_s=search_s,
        hot_capacity=capacity,
        hot_window_s=capacity / load.posts_per_s,
        serve_memory=_serve_bytes(load, capacity),
        serve_processes=None
        if load.answers_per_s is None
        else ceil(SPARE * load.questions_per_s / load.answers_per_s) + 1,
        kafka_mb_per_s=_written_bytes_per_s(load, posts, members) / 1e6,
        kafka_disk=_kafka_bytes(load, state),
    )


def contexts_rate() -> float:
    """Events/s of one worker, which uses one core."""
    return 1e6 / figures.EVENT_US.value


def worker_tokens(load: Load) -> float:
    return figures.DEMO_TOKENS_PER_S.value if load.tokens_per_s is None else load.tokens_per_s


def cold_point_bytes(load: Load) -> float:
    return figures.POINT_BYTES.value + figures.POINT_BYTES_A_NUMBER.value * load.dimension


def scan_s(load: Load) -> float:
    """Of one point."""
    return figures.SCAN_NS.value * 1e-9 * load.dimension / 128


def hot_post_bytes(load: Load) -> float:
    return figures.HOT_POST_BYTES.value + 4 * load.dimension


def _published(load: Load) -> tuple[float, float]:
    """Contexts of posts and of members a second. A post is published when it is made, and when a count of it enters a
    new bucket: here for one count of views and one of positive actions. A member at most once in the history window."""
    positive = load.activity_per_post * load.positive_share
    changes = bucket(int(load.activity_per_post - positive)) + bucket(int(positive))
    window_s = ContextRules().history_window_s
    return load.posts_per_s * (1 + changes), min(load.positive_per_s, load.members / window_s)


def _corpus(load: Load) -> int:
    return int(load.posts_per_s * DAY_S * load.corpus_days)


def _workers(rate: float, of_one: float) -> int:
    return max(1, ceil(SPARE * rate / of_one))


def _partitions(workers: int) -> int | None:
    """Room to grow where there can be; None if there are more workers than partitions can be."""
    if workers > PARTITIONS[-1]:
        return None
    return next((number for number in PARTITIONS if number >= _ROOM * workers), PARTITIONS[-1])


def _serve_bytes(load: Load, capacity: int) -> int:
    settings = ServeSettings()
    members = min(load.members, settings.members) * (4 * load.dimension + figures.MEMBER_LIST_BYTES.value)
    kept = settings.kept_mb * 1e6
    return int(figures.SERVE_BYTES.value + capacity * hot_post_bytes(load) + members + kept)


def _context_bytes(load: Load) -> tuple[int, int]:
    """Of a post, and of a member with a full history, as they are written."""
    text, rules = "x" * load.text_chars, ContextRules()
    post = PostContext(PostId(_ID), Revision(10**6), Micros(10**15), text=text, author_id=MemberId(_ID), language="en")
    entry = HistoryEntry(PostId(_ID), "like", Micros(10**15), text[: rules.history_text_chars])
    member = MemberContext(MemberId(_ID), Revision(10**6), Micros(10**15), history=[entry] * rules.history_entries)
    return len(encode_context(post)), len(encode_context(member))


def _embedding_bytes(load: Load) -> int:
    vector = b"\0" * (4 * load.dimension)
    made = PostEmbedding(PostId(_ID), Revision(10**6), False, MemberId(_ID), "en", Micros(10**15), vector)
    return len(encode_embedding(made))


def _state_bytes(load: Load) -> int:
    post, member = _context_bytes(load)
    return _corpus(load) * post + load.members * member


def _written_bytes_per_s(load: Load, posts: float, members: float) -> float:
    """To Kafka, before replication and compression: inputs, hops, contexts and changelogs, embeddings."""
    post, member = _context_bytes(load)
    inputs = load.posts_per_s * (_EVENT_BYTES + load.text_chars) + load.activity_per_s * _EVENT_BYTES
    return (
        inputs
        + _hop_bytes_per_s(load)
        + 2 * (posts * post + members * member)
        + (posts + members) * (_embedding_bytes(load))
    )


def _hop_bytes_per_s(load: Load) -> float:
    """Every activity goes to its post; a positive one on to its member, with a snippet."""
    snippet = min(load.text_chars, ContextRules().history_text_chars)
    return load.activity_per_s * _EVENT_BYTES + load.positive_per_s * (_EVENT_BYTES + snippet)


def _kafka_bytes(load: Load, state: int) -> int:
    """Inputs and hops for as long as they are kept; contexts, changelogs and embeddings twice, before and after their
    compaction."""
    kafka = KafkaSettings()
    inputs = load.posts_per_s * (_EVENT_BYTES + load.text_chars) + load.activity_per_s * _EVENT_BYTES
    events = inputs * kafka.inputs_retention_s + _hop_bytes_per_s(load) * kafka.erase_within_s * _HOPS_S
    embeddings = (_corpus(load) + load.members) * _embedding_bytes(load)
    return int(_REPLICAS * (events + 2 * (2 * state + embeddings)))
