"""The context stage, the encode stage and the index loop on a real broker: each with its topics, what a test sends to
it, and what comes out. `in_thread` runs them beside the test; `worker` and `child` are processes to kill."""

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, cast

from confluent_kafka import Message
from prometheus_client import CollectorRegistry

from contexts.settings import ContextRules
from schemas import stages, topics
from schemas.contexts import (
    MemberContext,
    PostContext,
    decode_member_context,
    decode_post_context,
    encode_context,
)
from schemas.dead_letters import from_headers
from schemas.embeddings import encode_embedding
from schemas.ids import KINDS, ContextVersion, Generation, Kind, Offset, Partition
from schemas.topics import TopicSpec
from streams.contexts.role import ONLY_VERSION, Role
from streams.contexts.stage import ContextStage
from streams.encode.metrics import EncodeMetrics
from streams.encode.post_vectors.writer import PostVectorsOf
from streams.encode.stage import EncodeStage
from streams.index.loop import IndexLoop
from streams.kafka.heartbeat import NO_HEARTBEAT, Heartbeat
from streams.kafka.offsets import OffsetReader
from streams.kafka.pace import FULL_PACE, Pace
from streams.kafka.sending import send_all
from streams.kafka.topics import ensure_topics
from streams.operate.replay import Asked, ReplayRequests, ReplaySelection
from streams.operate.republish import flush_record, republish_record
from streams.settings import ContextsSettings, EncodeSettings, IndexSettings, KafkaSettings
from tests.kit.children.context_stage import SESSION
from tests.kit.data.embeddings import post_embedding
from tests.kit.data.events import Event, key_of, line, topic_of
from tests.kit.data.shuffled_events import Sent, ShuffledEvents
from tests.kit.encoders import HashEncoder
from tests.kit.journal_tier import JournalTier
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.groups import until_no_lag
from tests.kit.kafka.topics import Headers, Sender, all_places, new_generation, read_topic
from tests.kit.running import child

SOURCES = (topics.POST_CONTEXTS, topics.MEMBER_CONTEXTS)
ALL = ReplaySelection()


class ContextStageSetup:
    """A context stage with its topics."""

    def __init__(self, broker: RunningBroker, folder: Path) -> None:
        self.broker = broker
        self.folder = folder
        self.kafka = KafkaSettings.model_validate({"bootstrap_servers": broker.bootstrap_servers, "options": SESSION})
        ensure_topics(self.kafka, topics.core_topics())
        self.sender = Sender(self.kafka)

    def stage(
        self,
        rules: ContextRules | None = None,
        batch_records: int = 100,
        heartbeat: Heartbeat = NO_HEARTBEAT,
        role: Role = ONLY_VERSION,
    ) -> ContextStage:
        settings = ContextsSettings(batch_records=batch_records, interval_s=0.01)
        rules = rules or ContextRules()
        return ContextStage(self.kafka, settings, rules, self.folder, "0", heartbeat=heartbeat, role=role)

    @contextmanager
    def worker(self, slot: str = "0", crash: str = "") -> Iterator[subprocess.Popen[str]]:
        arguments = self.broker.bootstrap_servers, str(self.folder), slot, crash
        with child("tests.kit.children.context_stage", *arguments) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            yield process

    def send(self, *events: Event) -> None:
        for event in events:
            self.sender.send(topic_of(event), [(key_of(event), line(event))])

    def send_all(self, sent: list[Sent]) -> None:
        for input_topic in topics.INPUTS:
            self.sender.send(input_topic, [(key, value) for topic, key, value in sent if topic == input_topic])

    def until_done(self, timeout_s: float = 60, version: ContextVersion = topics.FIRST_CONTEXTS) -> None:
        """Waits until the stage has no lag, control records included."""
        reads = stages.contexts_reads(version)
        until_no_lag(self.kafka, reads.group, reads.topics, timeout_s)

    def flush(self) -> None:
        """Makes the stage publish everything that it holds back."""
        self.until_done()
        send_all(self.kafka, [flush_record(Partition(number)) for number in range(self.kafka.partitions)])
        self.until_done()

    def posts(self) -> dict[str, list[PostContext]]:
        return _by_key((decode_post_context(m.value() or b""), m) for m in read_topic(self.kafka, topics.POST_CONTEXTS))

    def members(self) -> dict[str, list[MemberContext]]:
        records = read_topic(self.kafka, topics.MEMBER_CONTEXTS)
        return _by_key((decode_member_context(m.value() or b""), m) for m in records)

    def check(self, events: ShuffledEvents) -> None:
        """Checks the newest contexts against the events, and that no revision is missing or there twice.

        A worker must run: counts that stay within their bucket are published only when every entity is republished.
        """
        self.until_done()
        send_all(self.kafka, [republish_record(entity_id.encode()) for entity_id in events.entity_ids()])
        self.until_done()
        posts, members = self.posts(), self.members()
        _check_revisions(posts)
        _check_revisions(members)
        events.check({k: v[-1] for k, v in posts.items()}, {k: v[-1] for k, v in members.items()})
        assert read_topic(self.kafka, topics.DEAD_LETTERS) == []


def _check_revisions(contexts: Mapping[str, Sequence[PostContext | MemberContext]]) -> None:
    for entity_id, published in contexts.items():
        assert [context.revision for context in published] == list(range(1, len(published) + 1)), entity_id


def _by_key(decoded: Iterator[tuple[Any, Message]]) -> dict[str, list[Any]]:
    contexts: dict[str, list[Any]] = {}
    for context, message in decoded:
        contexts.setdefault((message.key() or b"").decode(), []).append(context)
    return contexts


class EncodeStageSetup:
    """An encode stage with empty context topics and a generation of its own."""

    def __init__(self, broker: RunningBroker) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        self.generation = new_generation()
        self.encoder = HashEncoder()
        self.registry = CollectorRegistry()
        specs = [*(TopicSpec(name, "state") for name in SOURCES), TopicSpec(topics.DEAD_LETTERS, "events")]
        ensure_topics(self.kafka, [*specs, *topics.generation_topics(self.generation)])

    def stage(
        self,
        make_heartbeat: Callable[[str], Heartbeat] = lambda _: NO_HEARTBEAT,
        pace: Pace = FULL_PACE,
        contexts: ContextVersion = topics.FIRST_CONTEXTS,
        post_vectors: PostVectorsOf | None = None,
    ) -> EncodeStage:
        self.registry = CollectorRegistry()
        metrics = EncodeMetrics(self.registry)
        return EncodeStage(
            self.kafka,
            EncodeSettings(),
            self.encoder,
            self.generation,
            "test-0",
            metrics=metrics,
            make_heartbeat=make_heartbeat,
            pace=pace,
            contexts=contexts,
            post_vectors=post_vectors,
        )

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"nearline_encode_{name}", labels)

    def send(self, *contexts: PostContext | MemberContext, headers: Headers | None = None) -> None:
        for topic, kind in zip(SOURCES, (PostContext, MemberContext), strict=True):
            records = [(entity(context), encode_context(context)) for context in contexts if isinstance(context, kind)]
            Sender(self.kafka).send(topic, records, headers)

    def until_no_lag(self) -> None:
        """Nor requests."""
        reads = stages.encode_reads(self.generation)
        until_no_lag(self.kafka, reads.group, reads.topics)

    def replay(self, *kinds: Kind, selection: ReplaySelection = ALL) -> Asked:
        """As `nearline replay encode` does."""
        return ReplayRequests(self.kafka, "encode", self.generation, selection).send(kinds or KINDS)

    def posts(self) -> list[Message]:
        return read_topic(self.kafka, topics.post_embeddings(self.generation))

    def members(self) -> list[Message]:
        return read_topic(self.kafka, topics.member_embeddings(self.generation))


def entity(context: PostContext | MemberContext) -> str:
    return context.post_id if isinstance(context, PostContext) else context.member_id


class IndexLoopSetup:
    """An index loop with the topics of a generation of its own, and a tier that is a journal file."""

    def __init__(self, broker: RunningBroker, folder: Path) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        self.generation: Generation = new_generation()
        self.posts = topics.post_embeddings(self.generation)
        self.members = topics.member_embeddings(self.generation)
        folder.mkdir(exist_ok=True)
        self.journal = folder / "journal"
        dead_letters = TopicSpec(topics.DEAD_LETTERS, "events")
        ensure_topics(self.kafka, (*topics.generation_topics(self.generation), dead_letters))

    def loop(self, tier: JournalTier, **over: Any) -> IndexLoop:
        settings = IndexSettings(batch_records=50, linger_s=0.02)
        return IndexLoop(self.kafka, settings, cast(Any, tier), self.generation, 3600, **over)

    def send_posts(self, numbers: range, transactional_id: str | None = None) -> None:
        records = [(f"p{n}", encode_embedding(post_embedding(f"p{n}"))) for n in numbers]
        Sender(self.kafka, transactional_id).send(self.posts, records)

    def child(self, crash: str = "") -> AbstractContextManager[subprocess.Popen[str]]:
        servers = str(self.kafka.bootstrap_servers)
        return child("tests.kit.children.index_loop", servers, self.generation, str(self.journal), crash)

    def until_no_lag(self) -> None:
        """Nor requests."""
        reads = stages.index_reads(self.generation)
        until_no_lag(self.kafka, reads.group, reads.topics)

    def replay(self, *kinds: Kind, selection: ReplaySelection = ALL) -> Asked:
        """As `nearline replay index` does."""
        return ReplayRequests(self.kafka, "index", self.generation, selection).send(kinds or KINDS)

    def ends_of_posts(self) -> dict[Partition, Offset]:
        with closing(OffsetReader(self.kafka, 30)) as reader:
            return {place.partition: end for place, end in reader.ends(all_places(self.kafka, self.posts)).items()}

    def own_dead_letters(self) -> list[tuple[bytes | None, str]]:
        letters = [
            (message, from_headers(message.headers())) for message in read_topic(self.kafka, topics.DEAD_LETTERS)
        ]
        return sorted(
            (message.key(), cause.cause) for message, cause in letters if cause.topic in {self.posts, self.members}
        )

    def durable(self) -> dict[str, tuple[int, bool]]:
        return JournalTier(self.journal).revisions
