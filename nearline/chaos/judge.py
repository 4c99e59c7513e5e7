"""Compares both tiers with what must be there."""

from collections.abc import Iterable
from contextlib import closing
from typing import Final, NamedTuple

from nearline.chaos.feed import End
from nearline.demo.pipeline import Pipeline
from schemas import topics
from schemas.contexts import decode_post_context
from schemas.embeddings import decode_post_embedding
from schemas.ids import Generation
from streams import dead_letter_box
from streams.lag import OffsetReader
from streams.scan import scan, scanner
from streams.settings import KafkaSettings

_MAX_COUNTED: Final = 10_000

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

    @property
    def is_good(self) -> bool:
        return not any(self)


class Judge:
    """Remembers the revisions it has seen."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._seen: Revisions = {}

    def judge(self, end: End) -> Verdict:
        """After `nearline wait`."""
        instance = self._pipeline.instance
        kafka = KafkaSettings(bootstrap_servers=instance.bootstrap_servers)
        contexts = {
            str(context.post_id): context
            for _, value in _records(kafka, topics.POST_CONTEXTS)
            for context in [decode_post_context(value)]
        }
        tiers = [self._dump("cold"), self._dump("hot")]
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
        repeated = _repeated(kafka, Generation(instance.generation))
        return Verdict(lost, resurrected, older, backwards, repeated, self._dead_letters(kafka))

    def _dead_letters(self, kafka: KafkaSettings) -> int:
        with closing(OffsetReader(kafka, 30.0)) as reader:
            return dead_letter_box.count(kafka, reader, _MAX_COUNTED)

    def _dump(self, tier: str) -> Revisions:
        return {one["post_id"]: one["revision"] for one in self._pipeline.lines("dump", "posts", "--tier", tier)}


def _repeated(kafka: KafkaSettings, generation: Generation) -> set[str]:
    seen: set[tuple[str, int]] = set()
    repeated: set[str] = set()
    for _, value in _records(kafka, topics.post_embeddings(generation)):
        one = decode_post_embedding(value)
        if (one.post_id, one.revision) in seen:
            repeated.add(one.post_id)
        seen.add((one.post_id, one.revision))
    return repeated


def _records(kafka: KafkaSettings, topic: str) -> Iterable[tuple[bytes, bytes]]:
    """All committed ones, each partition in order."""
    with closing(OffsetReader(kafka, 30.0)) as reader, closing(scanner(kafka)) as consumer:
        places = reader.places([topic])
        starts, ends = reader.starts(places), reader.ends(places)
        for place in places:
            for message in scan(consumer, place, starts[place], ends[place]):
                key, value = message.key(), message.value()
                if key is not None and value is not None:
                    yield key, value
