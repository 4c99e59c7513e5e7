"""The processes of a place as they are put together: what they say to Prometheus."""

import time
from pathlib import Path

import pytest
from prometheus_client.samples import Sample

from nearline.settings.settings import Settings
from nearline.up.build_place import build_cold
from nearline.up.residence import Resident
from nearline.up.scraping import Scraper
from retriever.settings import ServeSettings
from schemas import topics
from schemas.embeddings import encode_embedding
from schemas.generations import Pointer
from streams.generations.state import Generations
from streams.kafka.heartbeat import NO_HEARTBEAT
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.data.embeddings import post_embedding, vectors
from tests.kit.data.generations import generation_record
from tests.kit.kafka.topics import Sender
from tests.kit.packages import make_tiny_package
from tests.kit.qdrant_server import QdrantServer
from tests.kit.running import in_thread
from tests.kit.waiting import until

pytestmark = pytest.mark.broker


def resident_of(folder: Path, kafka: KafkaSettings) -> Resident:
    """A generation that serves, with its topics."""
    package = make_tiny_package(folder, hidden=16, layers=1)
    record = generation_record(package.generation)
    ensure_topics(kafka, topics.generation_topics(record.id))
    return Resident(record, package, lambda: Generations({record.id: record}, Pointer(record.id)))


def send_embedding(kafka: KafkaSettings, resident: Resident) -> None:
    """Of a post whose event is as old as a moment ago."""
    embedding = post_embedding("p1", vector=vectors(1, dimension=16)[0])
    headers = [(topics.ORIGIN_HEADER, str(int(time.time() * 1000)).encode())]
    Sender(kafka).send(topics.post_embeddings(resident.record.id), [("p1", encode_embedding(embedding))], headers)


@pytest.mark.parametrize("embedded", [True, False])
def test_the_index_stage_says_how_fresh_its_tier_is_whichever_it_is(
    kafka: KafkaSettings, tmp_path: Path, embedded: bool
) -> None:
    resident, scraper = resident_of(tmp_path / "package", kafka), Scraper(tmp_path, ServeSettings())
    send_embedding(kafka, resident)
    fresh = {"tier": "cold", "kind": "post", "generation": str(resident.record.id)}

    def samples() -> list[Sample]:
        return [sample for metric in scraper.metrics_of("cold-blue") for sample in metric.samples]

    def num_indexed() -> float:
        counts = [each for each in samples() if each.name == "nearline_freshness_seconds_count"]
        return sum(each.value for each in counts if each.labels == fresh)

    with QdrantServer() as server:
        settings = Settings(data_dir=tmp_path, kafka=kafka)
        if not embedded:
            settings = settings.model_copy(update={"cold": server.settings()})
        with in_thread(build_cold(settings, "cold-blue", resident, NO_HEARTBEAT)):
            until(lambda: num_indexed() == 1, "the post to be counted as indexed", every_s=0.1)
            names = {sample.name for sample in samples()}
    assert {"process_resident_memory_bytes", "nearline_index_records_total"} <= names
    of_embedded = {f"nearline_cold_{what}" for what in ("entities", "tombstones", "oldest_erasure_seconds")}
    assert names & of_embedded == (of_embedded if embedded else set())
    assert scraper.names() == [], "a process that has ended is asked no more"
