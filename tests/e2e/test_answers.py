"""What a member gets."""

from collections.abc import Callable

import pytest

from nearline.demo.quality import precision
from nearline.pipeline import Pipeline
from retriever.client import RetrieverClient
from schemas.api import RetrieveRequest
from tests.e2e.conftest import SIZE, Running
from tests.kit.data.events import ago, post_created

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]


def test_members_find_what_they_care_about_far_better_than_chance(running: Running, client: RetrieverClient) -> None:
    share, chance = precision(client, running.world.truth, 60)
    assert share > 0.6, f"{share:.0%} of the best candidates fit their member's interests"
    assert share > 6 * chance


def test_an_answer_says_where_it_comes_from(running: Running) -> None:
    answer = running.pipeline.ask("retrieve", "--member", _somebody(running))
    assert set(answer) >= {"generation", "partial", "reasons", "candidates", "counts", "timings_ms"}
    assert answer["partial"] is False
    assert answer["generation"] == running.pipeline.instance.generation
    assert set(answer["candidates"][0]) == {"post_id", "score", "tier"}
    assert answer["counts"]["hot"] > 0
    assert answer["counts"]["cold"] > 0
    assert len(answer["candidates"]) > SIZE.posts * 0.9


def test_candidates_are_sorted_and_each_comes_once(running: Running, client: RetrieverClient) -> None:
    answer = client.retrieve(RetrieveRequest(member_id=_somebody(running)))
    order = sorted(zip(answer.scores, answer.post_ids, strict=True), key=lambda row: (-row[0], row[1]))
    assert [post_id for _, post_id in order] == answer.post_ids
    assert len(set(answer.post_ids)) == len(answer.post_ids)


def test_own_hidden_and_deleted_posts_are_left_out(running: Running, client: RetrieverClient) -> None:
    events, truth = running.world.events, running.world.truth
    hides = [event for event in events if event.get("action") == "hide"]
    member_id = next(event["member_id"] for event in hides if event["member_id"] not in truth.deleted_members)
    hidden = {event["post_id"] for event in hides if event["member_id"] == member_id}
    own_posts = {event["post_id"] for event in events if event.get("author_id") == member_id}
    answered = set(client.retrieve(RetrieveRequest(member_id=member_id)).post_ids)
    assert not answered & (hidden | own_posts | set(truth.deleted_posts))
    with_own = set(client.retrieve(RetrieveRequest(member_id=member_id, own_posts=True)).post_ids)
    assert with_own >= own_posts - hidden - set(truth.deleted_posts)


def test_what_was_acted_on_is_left_out_when_asked(running: Running, client: RetrieverClient) -> None:
    member_id = _somebody(running)
    liked = {event["post_id"] for event in running.world.events if _likes(event, member_id)}
    assert liked & set(client.retrieve(RetrieveRequest(member_id=member_id)).post_ids)
    request = RetrieveRequest(member_id=member_id, hide_acted=True)
    assert not liked & set(client.retrieve(request).post_ids)


def test_filters_apply_before_scoring(pipeline: Pipeline, unique: Callable[[str], str]) -> None:
    old, new, german, other = (unique("filter") for _ in range(4))
    text = "xylophone concerto under a waterfall"
    pipeline.ingest(
        [
            post_created(old, text, at=ago(days=6), language="en"),
            post_created(new, text, language="en"),
            post_created(german, text, language="de"),
            post_created(other, text, author_id="somebody-else", language="en"),
        ]
    )
    pipeline.wait()
    tried = {
        (): {old, new, german, other},
        ("--language", "de"): {german},
        ("--created-after", ago(hours=1)): {new, german, other},
        ("--exclude-author", "somebody-else"): {old, new, german},
        ("--exclude-post", old, new): {german, other},
    }
    for filters, expected in tried.items():
        answer = pipeline.ask("retrieve", "--text", text, "-k", str(len(expected)), *filters)
        assert {candidate["post_id"] for candidate in answer["candidates"]} == expected, filters


def _somebody(running: Running) -> str:
    """A member with both positive activity and a place in the world at its end."""
    gone = running.world.truth.deleted_members
    return next(
        e["member_id"] for e in running.world.events if e.get("action") == "like" and e["member_id"] not in gone
    )


def _likes(event: dict[str, str], member_id: str) -> bool:
    return event.get("member_id") == member_id and event.get("action") == "like"
