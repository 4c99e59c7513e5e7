"""An operator has the running pipeline encode and index again: the same posts are found, by new records."""

from collections.abc import Callable

import pytest

from nearline.pipeline import Pipeline
from retriever.client import RetrieverClient
from schemas import topics
from schemas.api import RetrieveRequest
from schemas.embeddings import decode_post_embedding
from schemas.ids import Generation
from streams.settings import KafkaSettings
from tests.kit.data.events import post_created, post_deleted
from tests.kit.kafka.topics import read_topic

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

TEXT = "an otter teaches the cello to a retired lighthouse keeper"


def test_posts_are_encoded_and_indexed_again(
    pipeline: Pipeline, client: RetrieverClient, unique: Callable[[str], str]
) -> None:
    live, gone = unique("again"), unique("again")
    pipeline.ingest([post_created(live, TEXT), post_created(gone, "another"), post_deleted(gone)])
    pipeline.wait()
    asked = pipeline.run("replay", "encode", "--ids", "-", "--wait", stdin=f"{live}\n{gone}\n")
    assert asked.startswith("2 posts and 0 members will be encoded again\nall of it is searchable, after ")
    asked = pipeline.run("replay", "index", "--ids", "-", "--wait", stdin=f"{live}\n{gone}\n")
    assert asked.startswith("2 posts and 0 members will be indexed again\n")
    kafka = KafkaSettings(bootstrap_servers=pipeline.instance.bootstrap_servers)
    topic = topics.post_embeddings(Generation(pipeline.instance.generation))
    for post_id, is_deleted in ((live, False), (gone, True)):
        records = [message for message in read_topic(kafka, topic) if message.key() == post_id.encode()]
        *_, before, after = (decode_post_embedding(record.value() or b"") for record in records)
        assert before == after, "the encoder is the same, and so is the vector"
        assert after.deleted == is_deleted
        answer = pipeline.ask("get", "post", post_id)
        for tier in (answer["cold"], answer["hot"]):
            assert (tier["present"], tier["revision"], tier["deleted"]) == (True, after.revision, is_deleted)
    assert client.retrieve(RetrieveRequest(text=TEXT, k=1)).post_ids == [live]


def test_what_is_left_shows_in_status_and_is_waited_for(pipeline: Pipeline) -> None:
    asked = pipeline.run("replay", "encode", "--only", "members")
    number = int(asked.split()[0])
    assert number > 0
    generation = Generation(pipeline.instance.generation)
    requests = topics.replay_requests("encode", "member", generation)
    assert {row["stage"] for row in pipeline.ask("status")["stages"] if row["topic"] == requests} == {"encode"}
    pipeline.wait()
    rows = pipeline.ask("status")["stages"]
    assert [row["lag"] for row in rows if row["topic"].startswith("replay-")] == [0] * 4
