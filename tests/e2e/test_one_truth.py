"""The vector in a tier equals what `nearline encode` gives for the context of the same revision."""

from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from indexer.cold.socket.client import RemoteColdTier
from indexer.tiers import StoredMember, StoredPost
from nearline.pipeline import Pipeline
from retriever.client import RetrieverClient
from schemas import topics
from schemas.api import RetrieveRequest
from schemas.ids import Kind, MemberId, PostId
from streams.settings import KafkaSettings
from tests.e2e.conftest import Running
from tests.kit.kafka.topics import keys_and_values
from tests.kit.waiting import until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

PRECISION = 1e-5
"""1 - cosine, of a package in fp32: the pipeline's batches are others than ours."""


@pytest.mark.parametrize("kind", ["post", "member"])
def test_the_cold_tier_holds_what_encode_gives_for_every_context(running: Running, kind: Kind) -> None:
    contexts, stored = _at_one_moment(running.pipeline, kind)
    body = "".join(msgspec.json.encode(context).decode() + "\n" for context in contexts.values())
    encoded = running.pipeline.lines("encode", f"--{kind}", stdin=body)
    assert [line["id"] for line in encoded] == list(contexts)
    assert len(encoded) >= len(_alive(running, kind))
    wrong = [line["id"] for line in encoded if not _same(line["vector"], stored[line["id"]].vector)]
    assert wrong == []
    assert sum(line["vector"] is not None for line in encoded) >= len(_alive(running, kind))


def _at_one_moment(pipeline: Pipeline, kind: Kind) -> tuple[dict[str, Any], dict[str, StoredPost | StoredMember]]:
    """The newest context of every entity, and what the cold tier holds of it, in the same revisions: a context whose
    publication was put off may come in between."""
    held: dict[str, StoredPost | StoredMember] = {}
    contexts: dict[str, Any] = {}

    def agree() -> bool:
        contexts.update(_contexts(pipeline, kind))
        held.update(_stored(pipeline, kind, list(contexts)))
        return all(
            entity_id in held and held[entity_id].revision == context["revision"]
            for entity_id, context in contexts.items()
        )

    until(agree, "the cold tier to have the newest revision of every context", 60)
    return contexts, held


def _contexts(pipeline: Pipeline, kind: Kind) -> dict[str, Any]:
    kafka = KafkaSettings(bootstrap_servers=pipeline.instance.bootstrap_servers)
    topic = topics.POST_CONTEXTS if kind == "post" else topics.MEMBER_CONTEXTS
    newest = dict(keys_and_values(kafka, topic))
    return {key.decode(): msgspec.json.decode(body) for key, body in newest.items() if key and body}


def _stored(pipeline: Pipeline, kind: Kind, ids: list[str]) -> dict[str, StoredPost | StoredMember]:
    assert pipeline.instance.cold_socket is not None
    with closing(RemoteColdTier(Path(pipeline.instance.cold_socket), timeout_s=30)) as cold:
        posts = cold.posts([PostId(entity_id) for entity_id in ids], with_vectors=True) if kind == "post" else []
        members = cold.members([MemberId(entity_id) for entity_id in ids]) if kind == "member" else []
    return {entity_id: held for entity_id, held in zip(ids, [*posts, *members], strict=True) if held is not None}


def _alive(running: Running, kind: Kind) -> set[str]:
    """Of the world; members that liked a post have a history."""
    truth = running.world.truth
    if kind == "post":
        return set(truth.subject_of) - set(truth.deleted_posts)
    active = {event["member_id"] for event in running.world.events if event.get("action") == "like"}
    return active - set(truth.deleted_members)


def _same(encoded: list[float] | None, stored: Any) -> bool:
    if encoded is None or stored is None:
        return encoded is stored
    return bool(abs(1 - np.dot(encoded, stored)) < PRECISION)


def test_the_hot_tier_holds_the_same_vector(running: Running, client: RetrieverClient) -> None:
    """A post is its own best answer, with a score of one: its text alone is its prompt in the demo's package."""
    pipeline = running.pipeline
    newest = _newest_post(pipeline)
    text = pipeline.ask("get", "post", newest)["context"]["text"]
    answer = client.retrieve(RetrieveRequest(text=text, k=1))
    assert answer.post_ids == [newest]
    assert answer.tiers == ["hot"]
    assert abs(answer.scores[0] - 1) < PRECISION


def _newest_post(pipeline: Pipeline) -> str:
    lines = pipeline.lines("dump", "posts", "--tier", "hot")
    of_world = [line for line in lines if line["post_id"].startswith("p0")]
    return str(max(of_world, key=lambda line: line["created_at"])["post_id"])
