"""Compares both tiers with what must be there."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Final, NamedTuple

import psutil

from nearline.chaos.feed import End
from nearline.demo.pipeline import Pipeline
from schemas import topics
from schemas.contexts import decode_post_context
from schemas.embeddings import decode_post_embedding
from schemas.ids import Generation
from streams import dead_letter_box
from streams.lag import OffsetReader
from streams.scan import scan_topic
from streams.settings import KafkaSettings

_KAFKA_CALL_S: Final = 30.0
_MAX_COUNTED: Final = 10_000
_MORE_HANDLES: Final = 100
"""Connections come and go, segments and shards are added; a leak in each fault would be more."""

Revisions = dict[str, int]


class Verdict(NamedTuple):
    """Ids of posts, none where all is well."""

    lost: set[str]
    """That should be in both tiers and are not."""
    resurrected: set[str]
    """That are deleted and in a tier."""
    older: set[str]
    """Whose context is not that of the newest event, or whose vector is not that of the newest context."""
    backwards: set[str]
    """Whose revision is below one seen before."""
    repeated: set[str]
    """Of which a revision was embedded twice."""
    dead_letters: int
    handles: set[str]
    """Processes that hold many more open files than at first."""

    @property
    def is_good(self) -> bool:
        return not any(self)


class Judge:
    """Remembers the revisions it has seen."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._seen: Revisions = {}
        self._handles: dict[str, int] = {}

    def judge(self, end: End) -> Verdict:
        """After `nearline wait`."""
        instance = self._pipeline.instance
        kafka = KafkaSettings(bootstrap_servers=instance.bootstrap_servers)
        with closing(OffsetReader(kafka, _KAFKA_CALL_S)) as reader:
            found = map(decode_post_context, _values(reader, kafka, topics.POST_CONTEXTS))
            contexts = {str(context.post_id): context for context in found}
            repeated = _repeated(reader, kafka, Generation(instance.generation))
            dead_letters = dead_letter_box.count(kafka, reader, _MAX_COUNTED)
        with ThreadPoolExecutor(2) as pool:
            tiers = list(pool.map(self._dump, ("cold", "hot")))
        lost, resurrected, older, backwards = (set[str]() for _ in range(4))
        for post_id, event in end.live.items():
            context = contexts.get(post_id)
            if context is None or any(post_id not in tier for tier in tiers):
                lost.add(post_id)
            elif (context.deleted, context.text) != (False, event["text"]) or any(
                tier[post_id] != context.revision for tier in tiers
            ):
                older.add(post_id)
        for tier in tiers:
            resurrected |= end.deleted & tier.keys()
            backwards |= {post_id for post_id, revision in tier.items() if revision < self._seen.get(post_id, 0)}
            self._seen.update(tier)
        return Verdict(lost, resurrected, older, backwards, repeated, dead_letters, self._too_many_handles())

    def _too_many_handles(self) -> set[str]:
        found: set[str] = set()
        for one in self._pipeline.instance.processes:
            with suppress(psutil.Error):
                handles = psutil.Process(one.pid).num_fds()
                if handles > self._handles.setdefault(one.name, handles) + _MORE_HANDLES:
                    found.add(one.name)
        return found

    def _dump(self, tier: str) -> Revisions:
        return {one["post_id"]: one["revision"] for one in self._pipeline.lines("dump", "posts", "--tier", tier)}


def _repeated(reader: OffsetReader, kafka: KafkaSettings, generation: Generation) -> set[str]:
    seen: set[tuple[str, int]] = set()
    repeated: set[str] = set()
    for value in _values(reader, kafka, topics.post_embeddings(generation)):
        one = decode_post_embedding(value)
        if (one.post_id, one.revision) in seen:
            repeated.add(one.post_id)
        seen.add((one.post_id, one.revision))
    return repeated


def _values(reader: OffsetReader, kafka: KafkaSettings, topic: str) -> Iterator[bytes]:
    """Of all committed records, each partition in order."""
    return (value for message in scan_topic(kafka, reader, topic) if (value := message.value()) is not None)
