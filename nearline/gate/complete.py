"""Check 1: a generation is complete both ways. Each live context has a vector of its revision or a newer one, and no
vector is without a live context.

Both are read whole, never sampled, and compared by counts and digests of (id, revision) for each partition; only where
these differ, by entity. Events go on coming in meanwhile: compared is the state of the contexts at the beginning, and
what differs is looked at again until it agrees with the contexts of then or of now, or a time is over.
"""

import time
from collections.abc import Collection, Mapping
from typing import Final, Literal, NamedTuple

from indexer.tiers import ColdReader
from nearline.gate.figures import at_most, examples
from nearline.gate.holders import ColdHolder, Holder, LogHolder
from nearline.gate.names import IN_COLD, IN_LOG
from nearline.gate.versions import (
    Newest,
    TopicVersions,
    Version,
    context_head,
    embedding_head,
    find,
    live_ids,
    summary,
)
from schemas import topics
from schemas.generations import GateFigure
from schemas.ids import KINDS, ContextVersion, Generation, Kind
from streams.settings import KafkaSettings

_PAUSE_S: Final = 0.2
_MENDS: Final = {
    IN_LOG: "look for dead letters of encode with: nearline dead-letters list; else retire it and build it again",
    IN_COLD: "retire it and build it again",
}

Wrong = Literal["missing", "stale", "extra"]


class Population(NamedTuple):
    """What the log holds of one kind of entity: its contexts, and its vectors of the generation."""

    kind: Kind
    contexts: TopicVersions
    vectors: TopicVersions


class Finding(NamedTuple):
    """Of one kind in one holder."""

    wrong: Mapping[str, Wrong]
    num_live: int
    digest: int
    num_uncounted: int = 0
    """Entities that the holder counts, and of which nobody knows an id."""
    num_moving: int = 0
    """So many that are uncounted could not be seen, because as many changed meanwhile."""


def populations(
    kafka: KafkaSettings, generation: Generation, version: ContextVersion = topics.FIRST_CONTEXTS
) -> list[Population]:
    """`version`: that of the contexts that it reads. Nothing is read yet."""
    names = topics.context_names(version)
    return [
        Population(
            kind,
            TopicVersions(kafka, names.of_kind(kind), context_head),
            TopicVersions(kafka, topics.embeddings(kind, generation), embedding_head),
        )
        for kind in KINDS
    ]


def in_log(both: Collection[Population], settle_s: float) -> GateFigure:
    """`settle_s`: how long a change may be under way. Raises StreamsError."""
    return _row(IN_LOG, {each.kind: _compare(each.contexts, LogHolder(each.vectors), settle_s) for each in both})


def in_cold(both: Collection[Population], tier: ColdReader, settle_s: float) -> GateFigure:
    """Raises StreamsError, IndexerError."""
    findings: dict[Kind, Finding] = {}
    for kind, contexts, _ in both:
        contexts.read_on()
        holder = ColdHolder(tier, kind, len(contexts.newest))
        findings[kind] = _compare(contexts, holder, settle_s)
        if kind == "member":
            findings[kind] = _with_uncounted(findings[kind], contexts, holder, settle_s)
    return _row(IN_COLD, findings)


def judge(context: Version | None, vector: Version | None) -> Wrong | None:
    """What is wrong with an entity's vector; None if nothing is."""
    wants_vector = context is not None and context.is_live
    has_vector = vector is not None and vector.is_live
    if wants_vector != has_vector:
        return "missing" if wants_vector else "extra"
    if context is not None and vector is not None and has_vector and vector.revision < context.revision:
        return "stale"
    return None


def _compare(contexts: TopicVersions, holder: Holder, settle_s: float) -> Finding:
    # 1. The contexts as of now, and after that all that the holder has.
    contexts.read_on()
    then = contexts.snapshot()
    held = holder.all([entity_id for versions in then.values() for entity_id in versions])
    wrong = _differing(then, held)
    # 2. What differs may be under way, or may have changed since. The contexts are read after the holder, so that they
    #    know of everything that it has.
    deadline = time.monotonic() + settle_s
    while wrong:
        again = holder.again(wrong)
        contexts.read_on()
        now = contexts.pick(wrong)
        wrong = {
            entity_id: new_wrong
            for entity_id in wrong
            if (new_wrong := judge(find(then, entity_id), again.get(entity_id))) is not None
            and judge(now.get(entity_id), again.get(entity_id)) is not None
        }
        if time.monotonic() > deadline:
            break
        if wrong:
            time.sleep(_PAUSE_S)
    counts = [summary(versions) for versions in held.values()]
    return Finding(wrong, sum(count.num_live for count in counts), sum(count.digest for count in counts))


def _differing(then: Newest, held: Newest) -> dict[str, Wrong]:
    wrong: dict[str, Wrong] = {}
    for partition in then.keys() | held.keys():
        contexts, vectors = then.get(partition, {}), held.get(partition, {})
        if summary(contexts) == summary(vectors):
            continue
        for entity_id in contexts.keys() | vectors.keys():
            judgement = judge(contexts.get(entity_id), vectors.get(entity_id))
            if judgement is not None:
                wrong[entity_id] = judgement
    return wrong


def _with_uncounted(finding: Finding, contexts: TopicVersions, holder: ColdHolder, settle_s: float) -> Finding:
    """Looks for a moment in which the holder counts exactly the live members that have a context. If members change all
    the time, those that may be under way are taken off."""
    deadline = time.monotonic() + settle_s
    while True:
        before = live_ids(contexts.newest)
        count = holder.count()
        live = {entity_id for entity_id, version in holder.again(_ids(contexts.newest)).items() if version.is_live}
        contexts.read_on()
        moving = ((before ^ live) | (live_ids(contexts.newest) ^ live)) - finding.wrong.keys()
        num_uncounted = max(0, count - len(live))
        if num_uncounted == 0 and not moving:
            return finding
        if time.monotonic() > deadline:
            return finding._replace(num_uncounted=max(0, num_uncounted - len(moving)), num_moving=len(moving))
        time.sleep(_PAUSE_S)


def _ids(newest: Newest) -> list[str]:
    return [entity_id for versions in newest.values() for entity_id in versions]


def _row(name: str, findings: Mapping[Kind, Finding]) -> GateFigure:
    num_wrong = sum(len(finding.wrong) + finding.num_uncounted for finding in findings.values())
    words = [_words(kind, finding) for kind, finding in findings.items()]
    mend = f"; {_MENDS[name]}" if num_wrong else ""
    return at_most(name, num_wrong, 0, "; ".join(words) + mend)


def _words(kind: Kind, finding: Finding) -> str:
    words = [f"{finding.num_live} {kind}s with the digest {finding.digest % (1 << 32):08x}"]
    for what in ("missing", "stale", "extra"):
        ids = [entity_id for entity_id, wrong in finding.wrong.items() if wrong == what]
        words += [f"{len(ids)} {what} such as {examples(ids)}"] if ids else []
    words += [f"{finding.num_uncounted} extra without a context"] if finding.num_uncounted else []
    words += [f"{finding.num_moving} changed all the time"] if finding.num_moving else []
    return ", ".join(words)
