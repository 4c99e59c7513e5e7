"""Questions as messages and answers back: nothing is lost, and what is unknown does no harm."""

from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearline import Question, RequestRefused
from nearline.client.messages import (
    MAX_REQUEST_BYTES,
    answer_of,
    batch_request,
    retrieve_request,
    similar_request,
    status_of,
    vectors_of,
    vectors_request,
)
from nearline.client.question import QuestionFields, SimilarFields
from retriever import nearline_pb2 as pb
from retriever.grpc.server import MAX_MESSAGE_BYTES

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
FULL: dict[str, Any] = {
    "member_id": "m",
    "text": "t",
    "vector": [0.6, 0.8],
    "post_ids": ["p"],
    "k": 7,
    "generation": "g",
    "columns": ["author", "created_at", "revision", "language"],
    "languages": ["en"],
    "created_after": NOON,
    "created_before": NOON + timedelta(hours=1),
    "exclude_authors": ["a"],
    "exclude_posts": ["x"],
    "only_authors": ["b"],
    "only_posts": [],
    "hide_acted": True,
    "hide_seen": True,
    "own_posts": True,
}
UNKNOWN_FIELD = b"\xf2\x7f\x03new"
"""Field 2046 with the text `new`."""


def test_keyword_arguments_are_the_fields_of_a_question() -> None:
    """They are written down twice, because Python cannot make one of the other for a type checker."""
    names = [field.name for field in fields(Question)]
    assert get_type_hints(QuestionFields).keys() == set(names)
    hints, ours = get_type_hints(QuestionFields), get_type_hints(Question)
    assert {name: hints[name] for name in names if name != "k"} == {name: ours[name] for name in names if name != "k"}


def test_every_field_of_the_message_can_be_asked() -> None:
    sent = retrieve_request(Question(**FULL))
    set_names = {field.name for field, _ in sent.ListFields()}
    unset = [field.name for field in sent.DESCRIPTOR.fields if field.name not in set_names]
    assert unset == ["timeout_ms"], "the call sets it"
    assert sent.vector == pytest.approx([0.6, 0.8])
    assert (sent.created_after_us, sent.created_before_us) == (1767614400_000_000, 1767618000_000_000)
    assert list(sent.columns) == [1, 2, 3, 4]
    assert sent.HasField("only_posts"), "no post at all is not the same as any post"
    assert not sent.only_posts.ids


@pytest.mark.parametrize("too_large", [retrieve_request, similar_request, lambda question: batch_request([question])])
def test_a_request_that_the_retriever_would_not_take(too_large: Callable[[Question], Any]) -> None:
    assert MAX_REQUEST_BYTES == MAX_MESSAGE_BYTES
    ids = ["x" * 1000] * 9000
    with pytest.raises(RequestRefused, match=r"^the request is larger than 8,388,608 bytes; send fewer ids") as refused:
        too_large(Question(post_ids=["a"], exclude_posts=ids))
    assert refused.value.code == "too_large"
    assert too_large(Question(post_ids=["a"], exclude_posts=ids[:8000]))


def test_too_many_vectors_at_once() -> None:
    with pytest.raises(RequestRefused, match=r"^the request is larger than 8,388,608 bytes"):
        vectors_request(["x" * 1000] * 9000, None, None)


def test_nothing_is_sent_that_was_not_asked() -> None:
    assert retrieve_request(Question()).SerializeToString() == b""


def test_similar_posts_take_the_same_filters() -> None:
    asked = {name: value for name, value in FULL.items() if name == "post_ids" or name in get_type_hints(SimilarFields)}
    sent = similar_request(Question(**asked))
    whole = retrieve_request(Question(**asked))
    names = {field.name for field, _ in sent.ListFields()}
    assert names == {field.name for field in sent.DESCRIPTOR.fields} - {"timeout_ms"}
    assert all(getattr(sent, name) == getattr(whole, name) for name in names)


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])))
def test_a_time_comes_back_to_the_microsecond(moment: datetime) -> None:
    micros = retrieve_request(Question(created_after=moment)).created_after_us
    answer = answer_of(pb.RetrieveResponse(post_ids=["p"], created_at_us=[micros]), ["created_at"], None)
    assert answer.created_at == (moment,)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"k": -1}, "cannot be sent"),
        ({"k": 2**32}, "cannot be sent"),
        ({"text": "\ud800"}, "cannot be sent"),
        ({"created_after": datetime(2026, 1, 5)}, "created_after: give a time with a zone"),
        ({"columns": ["colour"]}, "columns: there is no column 'colour'; there are author, created_at"),
        ({"languages": "en"}, "languages: give a list of strings"),
        ({"post_ids": "p1"}, "post_ids: give a list of strings"),
        ({"only_authors": "a"}, "only_authors: give a list of strings"),
    ],
)
def test_what_no_message_can_hold_is_refused_before_it_is_sent(question: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestRefused, match=words):
        retrieve_request(Question(**question))


def test_an_answer_has_all_that_the_message_has() -> None:
    message = pb.RetrieveResponse(
        generation="g",
        partial=True,
        reasons=[pb.Reason(code="cold_late", detail="It was late.")],
        post_ids=["a", "b"],
        scores=[0.5, 0.25],
        tiers=[pb.TIER_HOT, pb.TIER_TRENDING],
        timings_ms={"total": 1.5},
        authors=["x", "y"],
        created_at_us=[0, 1],
        revisions=[3, 4],
        languages=["en", ""],
    )
    answer = answer_of(message, ["author", "created_at", "revision", "language"], "r")
    assert answer.reasons == (("cold_late", "It was late."),)
    assert answer.reasons[0].code == "cold_late"
    assert (answer.post_ids, answer.scores, answer.tiers) == (("a", "b"), (0.5, 0.25), ("hot", "trending"))
    assert (answer.authors, answer.revisions, answer.languages) == (("x", "y"), (3, 4), ("en", None))
    assert answer.created_at == (datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, 0, 0, 0, 1, UTC))
    assert (answer.generation, answer.partial, answer.request_id) == ("g", True, "r")
    assert answer.timings_ms == {"total": 1.5}
    assert answer.counts == {"hot": 1, "cold": 0, "trending": 1}


def test_columns_that_were_not_asked_for_are_none_and_those_that_were_may_be_empty() -> None:
    empty = pb.RetrieveResponse()
    assert answer_of(empty, [], None).authors is None
    assert answer_of(empty, ["author"], None).authors == ()


def test_what_only_a_newer_retriever_says_is_left_out() -> None:
    message = pb.RetrieveResponse(post_ids=["a"], scores=[0.5], tiers=[77])
    newer = pb.RetrieveResponse.FromString(message.SerializeToString() + UNKNOWN_FIELD)
    assert answer_of(newer, [], None).tiers == ("unknown",)


def test_vectors_come_in_the_order_of_the_ids_and_are_none_where_there_is_none() -> None:
    message = pb.VectorsResponse(
        generation="g", post_ids=["a", "gone", "b"], revisions=[1, 0, 2], dimension=2, vectors=[1, 0, 0, 0, 0, 1]
    )
    vectors = vectors_of(message, None)
    assert vectors.posts == (("a", 1, (1.0, 0.0)), None, ("b", 2, (0.0, 1.0)))
    assert (vectors.partial, vectors.reasons) == (False, ())


def test_vectors_that_may_be_outdated_say_so() -> None:
    message = pb.VectorsResponse(partial=True, reasons=[pb.Reason(code="hot_behind", detail="It is behind.")])
    vectors = vectors_of(message, None)
    assert (vectors.partial, vectors.reasons) == (True, (("hot_behind", "It is behind."),))


def test_a_status_tells_what_is_unknown_from_zero() -> None:
    message = pb.StatusResponse(
        ready=True,
        problems=["p"],
        hot_posts=0,
        standing_still=["encode has stood still for 4 s"],
        processes=[pb.ProcessStatus(name="serve", restarts=1)],
        stages=[pb.StageStatus(stage="index", group="g", topic="t", lag=0, deleted_unread={0: 2})],
    )
    status = status_of(message)
    assert (status.ready, status.problems, status.hot_posts, status.cold_posts) == (True, ("p",), 0, None)
    assert status.standing_still == ("encode has stood still for 4 s",)
    assert status.processes == (("serve", None, 1),)
    assert status.stages == (("index", "g", "t", 0, None, {0: 2}),)
