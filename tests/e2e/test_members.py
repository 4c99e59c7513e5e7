"""Members with little, members that leave, and activity that comes at the wrong time."""

from collections.abc import Callable
from typing import Any

import pytest

from nearline.pipeline import Pipeline
from retriever.client import RetrieverClient
from schemas.api import RetrieveRequest
from tests.e2e.conftest import Running
from tests.kit.data.events import activity, member_deleted, member_updated, post_created, post_deleted

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

Unique = Callable[[str], str]


def test_a_stranger_gets_what_is_trending_and_is_told_so(running: Running, client: RetrieverClient) -> None:
    answer = client.retrieve(RetrieveRequest(member_id="nobody-ever-heard-of"))
    assert [reason.code for reason in answer.reasons] == ["member_unknown", "trending"]
    assert answer.partial is False
    assert answer.post_ids
    assert set(answer.tiers) == {"trending"}
    assert not set(answer.post_ids) & set(running.world.truth.deleted_posts)


def test_a_profile_alone_is_enough(running: Running, client: RetrieverClient, unique: Unique) -> None:
    member_id = unique("newcomer")
    skills = ["telescope", "galaxy", "nebula"]
    running.pipeline.ingest([member_updated(member_id, headline="Into astronomy: comets, eclipses", skills=skills)])
    running.pipeline.wait()
    answer = client.retrieve(RetrieveRequest(member_id=member_id, k=20))
    assert answer.reasons == []
    subject_of = running.world.truth.subject_of
    subjects = [subject_of.get(post_id) for post_id in answer.post_ids]
    assert subjects.count("astronomy") > 10, subjects


def test_an_empty_profile_is_answered_with_what_is_trending(
    pipeline: Pipeline, client: RetrieverClient, unique: Unique
) -> None:
    member_id = unique("silent")
    pipeline.ingest([member_updated(member_id)])
    pipeline.wait()
    answer = client.retrieve(RetrieveRequest(member_id=member_id, k=20))
    assert [reason.code for reason in answer.reasons] == ["member_without_vector", "trending"]
    assert answer.post_ids


def test_history_without_a_profile_is_enough(running: Running, client: RetrieverClient, unique: Unique) -> None:
    member_id, subject = unique("reader"), "chess"
    subject_of = running.world.truth.subject_of
    gone = running.world.truth.deleted_posts
    liked = [post_id for post_id, about in subject_of.items() if about == subject and post_id not in gone][:6]
    running.pipeline.ingest([activity(member_id, post_id) for post_id in liked])
    running.pipeline.wait()
    answer = client.retrieve(RetrieveRequest(member_id=member_id, k=20, hide_acted=True))
    assert answer.reasons == []
    assert not set(answer.post_ids) & set(liked)
    assert [subject_of.get(post_id) for post_id in answer.post_ids].count(subject) > 10


def test_activity_before_its_post_becomes_history_when_the_post_comes(pipeline: Pipeline, unique: Unique) -> None:
    member_id, post_id = unique("early"), unique("late")
    pipeline.ingest([member_updated(member_id, headline="early"), activity(member_id, post_id)])
    pipeline.wait()
    assert _context(pipeline, member_id)["history"] == []
    pipeline.ingest([post_created(post_id, "better late than never")])
    pipeline.wait()
    history = _context(pipeline, member_id)["history"]
    assert [(entry["post_id"], entry["text"]) for entry in history] == [(post_id, "better late than never")]


def test_activity_for_a_deleted_post_makes_no_history(pipeline: Pipeline, unique: Unique) -> None:
    member_id, post_id = unique("fan"), unique("gone")
    pipeline.ingest(
        [member_updated(member_id, headline="fan"), post_created(post_id, "soon gone"), activity(member_id, post_id)]
    )
    pipeline.wait()
    assert len(_context(pipeline, member_id)["history"]) == 1
    pipeline.ingest([post_deleted(post_id)])
    pipeline.wait()
    assert _context(pipeline, member_id)["history"] == [], "a deleted post is taken out of the histories that hold it"
    pipeline.ingest([activity(member_id, post_id, "comment")])
    pipeline.wait()
    assert _context(pipeline, member_id)["history"] == []


def test_a_deleted_member_leaves_nothing(pipeline: Pipeline, client: RetrieverClient, unique: Unique) -> None:
    member_id, post_id = unique("leaver"), unique("read")
    pipeline.ingest(
        [member_updated(member_id, headline="leaver"), post_created(post_id, "read once"), activity(member_id, post_id)]
    )
    pipeline.wait()
    assert pipeline.lines("vectors", "member", member_id)
    pipeline.ingest([member_deleted(member_id)])
    pipeline.ingest([activity(member_id, post_id, "share")])
    pipeline.wait()
    shown = pipeline.ask("get", "member", member_id)
    assert shown["vector"]["form"] == "mean", "of the demo's package"
    assert shown["context"]["deleted"] is True
    assert not any(shown["context"].get(name) for name in ("headline", "skills", "history", "acted", "hidden"))
    assert shown["cold"]["deleted"] is True
    assert pipeline.attempt("vectors", "member", member_id).returncode == 1
    answer = client.retrieve(RetrieveRequest(member_id=member_id, k=20))
    assert [reason.code for reason in answer.reasons] == ["member_unknown", "trending"]


def _context(pipeline: Pipeline, member_id: str) -> Any:
    return pipeline.ask("get", "member", member_id)["context"]
