"""Embeddings that no vector can be made of are left out and counted, and the rest goes on."""

from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from confluent_kafka import Message
from prometheus_client import CollectorRegistry

from schemas.embeddings import encode_embedding
from schemas.ids import Generation
from schemas.topics import POST_VECTORS
from streams.encode.metrics import EncodeMetrics
from streams.encode.post_vectors.records import PostVectorRecords
from streams.encode.post_vectors.reign import Reign
from tests.kit.data.embeddings import post_embedding


def _embedding(*numbers: float) -> bytes:
    return encode_embedding(post_embedding("p0", vector=np.array(numbers, np.float32)))


GOOD = _embedding(0.6, 0.8, 0.0)
NOT_FLOATS = encode_embedding(msgspec.structs.replace(post_embedding("p0"), vector=b"seven b"))


def _record(key: bytes | None, value: bytes | None, offset: int) -> Message:
    return Message(topic="post-embeddings.a", partition=1, offset=offset, key=key, value=value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, GOOD),
        (b"p0", None),
        (b"p0", b"\xc1"),
        (b"p0", _embedding(float("inf"), 1.0, 0.0)),
        (b"p0", _embedding(float("nan"), 1.0, 0.0)),
        (b"p0", _embedding(3e38, 3e38, 0.0)),  # its length is no float32
        (b"p0", _embedding(1.0)),
        (b"p0", NOT_FLOATS),
    ],
)
def test_a_record_without_a_vector_ends_nothing(key: bytes | None, value: bytes | None) -> None:
    registry = CollectorRegistry()
    reign = Reign(Generation("a"), datetime(2026, 1, 5, tzinfo=UTC), 2, is_text=True)
    records = PostVectorRecords(reign, EncodeMetrics(registry).post_vectors)
    outputs = records.process([_record(key, value, 0), _record(b"p1", GOOD, 1)], {}).outputs
    assert [(output.topic, output.key, output.partition) for output in outputs] == [(POST_VECTORS, b"p1", 1)]
    outcomes = {outcome: registry.get_sample_value("nearline_post_vectors_total", {"outcome": outcome})
                for outcome in ("written", "skipped")}  # fmt: skip
    assert outcomes == {"written": 1, "skipped": 1}
