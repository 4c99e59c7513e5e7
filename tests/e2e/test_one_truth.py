"""The vector in a tier equals what `nearline encode` gives for the context of the same revision."""

import json

import numpy as np
import pytest

from nearline.demo.pipeline import Pipeline
from retriever.client import RetrieverClient
from schemas.api import RetrieveRequest
from tests.e2e.conftest import Running

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

PRECISION = 1e-5
"""1 - cosine, of a package in fp32: the pipeline's batches are others than ours."""


@pytest.mark.parametrize("kind", ["post", "member"])
def test_tiers_hold_what_encode_gives(running: Running, kind: str) -> None:
    truth, pipeline = running.world.truth, running.pipeline
    ids = sorted(set(truth.subject_of) - set(truth.deleted_posts)) if kind == "post" else _members(running)
    chosen = ids[:: len(ids) // 6]
    contexts = [pipeline.ask("get", kind, entity_id)["context"] for entity_id in chosen]
    given = "".join(json.dumps(context) + "\n" for context in contexts)
    encoded = pipeline.lines("encode", f"--{kind}", given=given)
    stored = pipeline.lines("vectors", kind, *chosen)
    assert [line["id"] for line in stored] == [line["id"] for line in encoded] == chosen
    assert [line["revision"] for line in stored] == [line["revision"] for line in encoded]
    for ours, theirs in zip(encoded, stored, strict=True):
        assert 1 - np.dot(ours["vector"], theirs["vector"]) < PRECISION, ours["id"]


def test_the_hot_tier_holds_the_same_vector(running: Running, client: RetrieverClient) -> None:
    """A post is its own best answer, with a score of one: its text alone is its prompt in the demo's package."""
    pipeline = running.pipeline
    newest = _newest_post(pipeline)
    text = pipeline.ask("get", "post", newest)["context"]["text"]
    answer = client.retrieve(RetrieveRequest(text=text, k=1))
    assert answer.post_ids == [newest]
    assert answer.tiers == ["hot"]
    assert abs(answer.scores[0] - 1) < PRECISION


def _members(running: Running) -> list[str]:
    """With activity, and still there."""
    active = {event["member_id"] for event in running.world.events if event.get("action") == "like"}
    return sorted(active - set(running.world.truth.deleted_members))


def _newest_post(pipeline: Pipeline) -> str:
    lines = pipeline.lines("dump", "posts", "--tier", "hot")
    of_world = [line for line in lines if line["post_id"].startswith("p0")]
    return str(max(of_world, key=lambda line: line["created_at"])["post_id"])
