"""What may come in by an embedding topic: one check for both tiers."""

import msgspec
import numpy as np
import pytest

from indexer.records import check_vector, read_embedding
from schemas.embeddings import Embedding, Vector, encode_embedding, pack_vector
from schemas.errors import BadRecord
from tests.kit.data.embeddings import DIMENSION, member_embedding, post_embedding, vectors

UNIT: Vector = vectors(1)[0]
IMPOSSIBLE = {
    "not a number": UNIT + np.float32(np.nan),
    "infinite": UNIT + np.float32(np.inf),
    "too long": 1.01 * UNIT,
    "too short": 0.99 * UNIT,
    "zero": 0 * UNIT,
}


@pytest.mark.parametrize("vector", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
@pytest.mark.parametrize("live", [post_embedding("p1"), member_embedding("m1")], ids=["post", "member"])
def test_a_vector_that_no_search_can_compare_is_a_bad_record(live: Embedding, vector: Vector) -> None:
    kind = "post" if live.entity_id == "p1" else "member"
    assert read_embedding(kind, encode_embedding(live)) == live
    bad = msgspec.structs.replace(live, vector=pack_vector(vector))
    with pytest.raises(BadRecord, match="vector: it is not of length one"):
        read_embedding(kind, encode_embedding(bad))


@pytest.mark.parametrize("vector", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_nor_may_a_vector_of_an_interest_be_one(vector: Vector) -> None:
    good, bad = (member_embedding("m1", interests=[(UNIT, 3.0), (second, 1.0)]) for second in (UNIT, vector))
    assert read_embedding("member", encode_embedding(good)) == good
    with pytest.raises(BadRecord, match="interests: a vector is not of length one"):
        read_embedding("member", encode_embedding(bad))


def test_half_a_number_and_no_value_at_all_are_bad_records() -> None:
    cut = msgspec.structs.replace(post_embedding("p1"), vector=post_embedding("p1").vector[:-3])
    with pytest.raises(BadRecord, match="vector: 61 bytes are not a whole number of float32"):
        read_embedding("post", encode_embedding(cut))
    with pytest.raises(BadRecord, match="the value is null"):
        read_embedding("post", None)


def test_a_vector_in_half_precision_is_of_length_one() -> None:
    rounded = UNIT.astype(np.float16).astype(np.float32)
    assert read_embedding("post", encode_embedding(post_embedding("p1", vector=rounded))) == post_embedding(
        "p1", vector=rounded
    )


@pytest.mark.parametrize(
    "deleted", [post_embedding("p1", 2, deleted=True), member_embedding("m1", 2, deleted=True)], ids=["post", "member"]
)
def test_a_delete_never_fails_for_its_vector(deleted: Embedding) -> None:
    kind = "post" if deleted.entity_id == "p1" else "member"
    strange = msgspec.structs.replace(deleted, vector=pack_vector(2 * UNIT)[:-3])
    assert read_embedding(kind, encode_embedding(strange)) == strange
    check_vector(strange, DIMENSION)
