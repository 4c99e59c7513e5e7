"""Contexts, embeddings, lists, dead letters and times survive encoding and decoding; garbage is a BadRecord."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import structs

from schemas import contexts, dead_letters, embeddings, post_vectors, trending
from schemas.errors import BadRecord
from schemas.ids import Generation, MemberId, Micros, Offset, Partition, PostId, Revision
from schemas.json_schema import SCHEMAS, Described, render
from schemas.times import from_rfc3339, to_rfc3339


def test_contexts_round_trip() -> None:
    post = contexts.PostContext(PostId("p"), Revision(3), Micros(5), text="é", counts={"like": 2})
    entry = contexts.HistoryEntry(PostId("p"), "like", Micros(1), "é")
    member = contexts.MemberContext(MemberId("m"), Revision(1), Micros(2), skills=["a"], history=[entry])
    assert contexts.decode_post_context(contexts.encode_context(post)) == post
    assert contexts.decode_member_context(contexts.encode_context(member)) == member


def test_embeddings_round_trip_to_the_bit() -> None:
    vector = np.random.default_rng(0).standard_normal(16).astype(np.float32)
    post = embeddings.PostEmbedding(
        PostId("p"), Revision(2), False, MemberId("m"), None, Micros(9), embeddings.pack_vector(vector)
    )
    read = embeddings.decode_post_embedding(embeddings.encode_embedding(post))
    assert read == post
    np.testing.assert_array_equal(embeddings.unpack_vector(read.vector), vector)
    assert embeddings.unpack_vector(b"") is None
    assert b"text_vector" not in embeddings.encode_embedding(post), "records are as they were where nobody asked for it"
    with_text = structs.replace(post, text_vector=embeddings.pack_vector(vector[:4]))
    assert embeddings.decode_post_embedding(embeddings.encode_embedding(with_text)) == with_text


def test_post_vectors_and_their_switch_round_trip() -> None:
    at = datetime(2026, 1, 5, 10, tzinfo=UTC)
    vector = post_vectors.PostVector(
        PostId("p"), Generation("g-1"), 2, Revision(3), MemberId("m"), None, at, embeddings.pack_vector(np.ones(2))
    )
    assert post_vectors.decode_post_vector(post_vectors.encode_post_vector(vector)) == vector
    switch = post_vectors.PostVectorsSwitch(Generation("g-1"), 2, at, {Partition(0): Offset(7)})
    assert post_vectors.decode_switch(post_vectors.encode_switch(switch)) == switch


def test_interests_round_trip_and_older_readers_and_records_do_without() -> None:
    vectors = np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)
    interests = [embeddings.Interest(vector, weight) for vector, weight in zip(vectors, (2.0, 0.5), strict=True)]
    packed = embeddings.pack_interests(interests)
    member = embeddings.MemberEmbedding(
        MemberId("m"), Revision(2), False, [], [], None, embeddings.pack_vector(vectors[0]), interests=packed
    )
    body = embeddings.encode_embedding(member)
    read = embeddings.decode_member_embedding(body)
    assert read == member
    for interest, again in zip(interests, embeddings.unpack_interests(read.interests), strict=True):
        assert again.weight == interest.weight
        np.testing.assert_array_equal(again.vector_D, interest.vector_D)
    # Before there were interests.
    fields = msgspec.msgpack.decode(body)
    del fields["interests"]
    old = embeddings.decode_member_embedding(msgspec.msgpack.encode(fields))
    assert (old.vector, embeddings.unpack_interests(old.interests)) == (member.vector, [])
    # Of a later version.
    assert embeddings.unpack_interests(msgspec.msgpack.encode([2, [1.0], b"", "more"])) == []
    assert embeddings.pack_interests([]) == b""


@pytest.mark.parametrize(
    "packed",
    [
        b"{",
        [],
        [1, [], b""],
        [1, [1.0], b"123"],
        [1, [0.0], bytes(4)],
        [1, [float("nan")], bytes(4)],
        [1, [1.0] * 17, bytes(4 * 17)],
    ],
)
def test_damaged_interests_are_a_bad_record(packed: Any) -> None:
    body = packed if isinstance(packed, bytes) else msgspec.msgpack.encode(packed)
    with pytest.raises(BadRecord, match="interests"):
        embeddings.unpack_interests(body)


@pytest.mark.parametrize(
    "decode",
    [
        contexts.decode_post_context,
        contexts.decode_member_context,
        embeddings.decode_post_embedding,
        embeddings.decode_member_embedding,
        trending.decode_trending,
        post_vectors.decode_post_vector,
        post_vectors.decode_switch,
    ],
)
@pytest.mark.parametrize("raw", [b"", b"{}", b"\x00", b"\xff", b"[" * 50_000, b"\x81\xa1a"])
def test_rubbish_is_a_bad_record(decode: Callable[[bytes], Any], raw: bytes) -> None:
    with pytest.raises(BadRecord, match="not a"):
        decode(raw)


def test_dead_letter_headers_round_trip() -> None:
    cause = dead_letters.DeadLetterCause("contexts", "posts", Partition(3), Offset(17), "text: bad \ud800")
    read = dead_letters.from_headers(dead_letters.to_headers(cause))
    assert read == cause._replace(cause="text: bad ?")
    assert dead_letters.from_headers(None).offset == -1


@pytest.mark.parametrize("half_life_s", [0, -1.0])
def test_trending_scores_have_a_half_life(half_life_s: float) -> None:
    """Without one the ranking of all lists would fail, and with it every question that trending posts answer."""
    body = f'{{"partition":0,"as_of_us":1,"half_life_s":{half_life_s},"entries":[]}}'.encode()
    with pytest.raises(BadRecord, match="half_life_s"):
        trending.decode_trending(body)


def test_trending_round_trips() -> None:
    entries = [trending.TrendingEntry(PostId("p"), 1.5)]
    trends = trending.TrendingList(2, Micros(7), 3600.0, entries)
    assert trending.decode_trending(trending.encode_trending(trends)) == trends


@pytest.mark.parametrize("text", ["2026-01-05T10:00:00Z", "2026-01-05T10:00:00.000001Z", "1970-01-01T00:00:00Z"])
def test_times_round_trip(text: str) -> None:
    assert to_rfc3339(from_rfc3339(text)) == text


@pytest.mark.parametrize("text", ["", "2026-01-05", "2026-01-05T10:00:00", "soon"])
def test_times_without_a_zone_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|zone"):
        from_rfc3339(text)


@pytest.mark.parametrize(("file", "described"), SCHEMAS.items(), ids=lambda value: getattr(value, "name", ""))
def test_the_committed_json_schemas_are_the_codes(file: Path, described: Described) -> None:
    assert file.read_bytes() == render(described), "run: python -m schemas.json_schema"
