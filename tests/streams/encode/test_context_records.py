"""From a member's context to what the retriever holds of the member: one record, with one vector or several."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from encoders.encoder import Encoder
from encoders.errors import SeveralVectors
from encoders.package.manifest import MemberVectorsForm
from indexer.records import read_embedding
from indexer.tiers import IndexRecord
from retriever.feed.member_store import MemberStore
from schemas.contexts import MemberContext, encode_context
from schemas.embeddings import MemberEmbedding, unpack_interests, unpack_vector
from schemas.ids import Generation, MemberId, Offset, Partition
from streams.encode.context_records import ContextRecords
from streams.encode.metrics import EncodeMetrics
from streams.encode.turns import EncodeTurns
from tests.kit.data.contexts import history_entry, member_context
from tests.kit.packages import make_tiny_package

BREAD = "how to bake bread with a sourdough starter and a hot oven"
BUILD = "the build of the network card failed again after the patch"


class StubMessage(NamedTuple):
    context: MemberContext

    def key(self) -> bytes:
        return self.context.member_id.encode()

    def value(self) -> bytes:
        return encode_context(self.context)

    def headers(self) -> Any:
        return None


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder: Path = tmp_path_factory.mktemp("packages") / "tiny"
    several = MemberVectorsForm(distance=1.0)
    return Encoder.load(make_tiny_package(folder, layers=1, member_vectors=several).folder, device="cpu")


def encoded(encoder: Encoder, *contexts: MemberContext) -> list[MemberEmbedding]:
    metrics = EncodeMetrics(CollectorRegistry())
    with ThreadPoolExecutor(1) as device:
        turns = EncodeTurns("member", encoder, device, Event(), metrics=metrics, turn_s=1.0)
        records: Any = [StubMessage(context) for context in contexts]
        outputs = ContextRecords(Generation("test-0"), turns, metrics).encode(records)
    embeddings = [read_embedding("member", output.value) for output in outputs]
    return [embedding for embedding in embeddings if isinstance(embedding, MemberEmbedding)]


def test_a_record_holds_the_one_vector_and_those_of_the_interests(encoder: Encoder) -> None:
    both, one = (
        member_context(history_entry(BREAD), history_entry(BUILD), member_id="both"),
        member_context(history_entry(BREAD), member_id="one"),
    )
    records = encoded(encoder, both, one)
    store = MemberStore(10, encoder.package.dimension, indexed=dict, feed_problem=lambda: None)
    store.begin({Partition(0): Offset(0)})
    store.apply([IndexRecord(record, Partition(0), Offset(at)) for at, record in enumerate(records)])
    (outcome,) = encoder.encode_members([both])
    assert isinstance(outcome, SeveralVectors)
    held = store.find(MemberId("both")).member
    assert held is not None
    assert held.vector == pytest.approx(outcome.vector_D, abs=1e-6)
    for interest, expected in zip(held.interests, outcome.interests, strict=True):
        assert interest.weight == expected.weight
        assert interest.vector_D == pytest.approx(expected.vector_D, abs=1e-6)
    alone = store.find(MemberId("one")).member
    assert alone is not None
    assert alone.interests == []


def test_the_next_record_is_without_a_deleted_post(encoder: Encoder) -> None:
    """One publication later nothing of it is in the vectors: its own vector is gone, and the rest is one interest."""
    (first,) = encoded(encoder, member_context(history_entry(BREAD), history_entry(BUILD)))
    (build,) = encoder.encode_texts([BUILD])
    assert isinstance(build, np.ndarray)
    assert any(np.allclose(vector_D, build, atol=1e-6) for vector_D, _ in unpack_interests(first.interests))
    (second,) = encoded(encoder, member_context(history_entry(BREAD), revision=2))
    assert (second.revision, second.interests) == (2, b"")
    assert unpack_vector(second.vector) == pytest.approx(encoder.encode_texts([BREAD])[0], abs=1e-6)
