"""Vectors of a generation as its log holds them: of sampled members to ask with, and of all posts to compare with.

Shapes: Q queries, B posts of a block, N posts, K the nearest ones of a query, D dimensions.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from hashlib import blake2b
from heapq import nsmallest
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from nearline.gate.versions import Newest, TopicVersions, Version
from schemas.embeddings import Embedding, Vector, decode_member_embedding, decode_post_embedding, unpack_vector
from schemas.ids import Offset
from streams.kafka.offsets import OffsetReader
from streams.kafka.reading import scan, scanner
from streams.kafka.records import offset_of
from streams.settings import KafkaSettings

_BLOCK: Final = 8192
_ASK_S: Final = 20.0
_TO_THE_END_S: Final = 30.0

Decode = Callable[[bytes], Embedding]
Read = tuple[str, Vector]
"""An entity's id and its vector."""


class Nearest(NamedTuple):
    """Of each query the exact best posts, best first. Shorter rows end with scores of -inf."""

    post_ids: list[list[str]]
    scores_QK: npt.NDArray[np.float32]


def sampled(versions: TopicVersions, number: int) -> list[str]:
    """Live entities by the hash of their ids: the same ones each time, and independent of when they came."""
    live = (entity_id for of_one in versions.newest.values() for entity_id, it in of_one.items() if it.is_live)
    return nsmallest(number, live, key=lambda entity_id: blake2b(entity_id.encode(), digest_size=8).digest())


def member_vectors(kafka: KafkaSettings, versions: TopicVersions, ids: Sequence[str]) -> dict[str, Vector]:
    """Members without profile and history have none, and are left out. Raises StreamsError."""
    wanted = set(ids)
    newest = {
        partition: {entity_id: of_one[entity_id] for entity_id in of_one.keys() & wanted}
        for partition, of_one in versions.newest.items()
    }
    return dict(_read(kafka, versions.topic, newest, decode_member_embedding))


def stacked(vectors: dict[str, Vector], most: int) -> Vector:
    """(Q, D), at most so many of them; (0, 0) where there is none."""
    first = [vectors[entity_id] for entity_id in sorted(vectors)[:most]]
    return np.stack(first) if first else np.zeros((0, 0), np.float32)


def nearest_posts(kafka: KafkaSettings, topic: str, newest: Newest, queries_QD: Vector, k: int) -> Nearest:
    """By comparing each query with each live post. Holds one block of posts at a time. Raises StreamsError."""
    best_ids = np.full((len(queries_QD), 0), "", dtype=object)
    best_QK = np.zeros((len(queries_QD), 0), dtype=np.float32)
    for ids, vectors_BD in _blocks(_read(kafka, topic, newest, decode_post_embedding)):
        scores = np.concatenate([best_QK, queries_QD @ vectors_BD.T], axis=1)
        all_ids = np.concatenate([best_ids, np.broadcast_to(ids, (len(queries_QD), len(ids)))], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best_QK = np.take_along_axis(scores, order, axis=1)
        best_ids = np.take_along_axis(all_ids, order, axis=1)
    return Nearest(best_ids.tolist(), best_QK)


def _blocks(read: Iterator[Read]) -> Iterator[tuple[npt.NDArray[np.object_], Vector]]:
    ids: list[str] = []
    vectors: list[Vector] = []
    for entity_id, vector in read:
        ids.append(entity_id)
        vectors.append(vector)
        if len(ids) == _BLOCK:
            yield np.array(ids, dtype=object), np.stack(vectors)
            ids, vectors = [], []
    if ids:
        yield np.array(ids, dtype=object), np.stack(vectors)


def _read(kafka: KafkaSettings, topic: str, newest: Newest, decode: Decode) -> Iterator[Read]:
    """Reads exactly the records that `newest` names. One that compaction has removed since was replaced: the caller
    finds it among what has changed."""
    wanted: dict[int, dict[int, str]] = {
        partition: {version.offset: entity_id for entity_id, version in of_one.items() if version.is_live}
        for partition, of_one in newest.items()
    }
    with closing(OffsetReader(kafka, _ASK_S)) as reader, closing(scanner(kafka)) as consumer:
        for place in reader.places([topic]):
            offsets = wanted.get(place.partition, {})
            if not offsets:
                continue
            end = Offset(max(offsets) + 1)
            for message in scan(consumer, place, Offset(min(offsets)), end, to_the_end_s=_TO_THE_END_S):
                entity_id, value = offsets.get(offset_of(message)), message.value()
                vector = None if entity_id is None or value is None else unpack_vector(decode(value).vector)
                if entity_id is not None and vector is not None:
                    yield entity_id, vector


def changed_ids(then: Newest, now: Newest) -> set[str]:
    """Entities whose newest record is another one by now."""
    return {
        entity_id
        for partition, of_one in now.items()
        for entity_id, version in of_one.items()
        if _record(then.get(partition, {}).get(entity_id)) != version.offset
    }


def _record(version: Version | None) -> int | None:
    return None if version is None else version.offset
