"""One trace goes with an event through all stages, in the headers of the records, and costs nothing when it is off."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from schemas import topics
from schemas.traces import named, sent, trace_with
from streams.operate.event_files import InputEvent
from streams.operate.ingest import EventSender
from tests.kit.data.events import line, post_created
from tests.kit.journal_tier import JournalTier
from tests.kit.kafka.stages import ContextStageSetup, EncodeStageSetup, IndexLoopSetup
from tests.kit.kafka.topics import read_topic
from tests.kit.running import in_thread
from tests.kit.waiting import until

POST = InputEvent(topics.POSTS, b"p1", line(post_created("p1", "a post")))


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace_with(provider.get_tracer("test"))
    yield exporter
    trace_with(None)


def by_name(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans.get_finished_spans()}


def trace_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


def span_ids(span: ReadableSpan) -> tuple[int | None, int]:
    """Of its parent, and its own."""
    assert span.context is not None
    return None if span.parent is None else span.parent.span_id, span.context.span_id


@pytest.mark.broker
def test_from_ingest_until_it_is_searchable(
    contexts: ContextStageSetup, encode: EncodeStageSetup, index: IndexLoopSetup, spans: InMemorySpanExporter
) -> None:
    index.generation = encode.generation
    with EventSender(contexts.kafka) as sender:
        sender.send([POST])
    tier = JournalTier(index.journal)
    with in_thread(contexts.stage().run), in_thread(encode.stage().run), in_thread(index.loop(tier).run):
        # The author's history has the post too, so there is more than one span of a stage, and the author may be first.
        until(lambda: "index" in by_name(spans) and bool(encode.posts()), "the post to be in the cold tier")
    found = by_name(spans)
    of_post = {trace_id(span) for span in spans.get_finished_spans()}
    assert len(of_post) == 1
    assert span_ids(found["ingest"])[0] is None
    parents = {span_ids(span) for span in spans.get_finished_spans()}
    known = {own for _, own in parents}
    assert all(parent in known for parent, _ in parents if parent is not None), "each goes on from another"
    (embedding,) = encode.posts()
    header = dict(embedding.headers() or [])["traceparent"]
    assert isinstance(header, bytes)
    assert header.decode().split("-")[1] == f"{trace_id(found['ingest']):032x}"
    assert named(embedding) == {"trace_id": f"{trace_id(found['ingest']):032x}"}


def test_when_it_is_off_there_is_nothing() -> None:
    class Untouched:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"{name} of a record was asked for")

    assert sent("ingest") is None
    assert named(Untouched()) == {}


@pytest.mark.broker
def test_events_that_are_not_traced_carry_no_header(contexts: ContextStageSetup) -> None:
    with EventSender(contexts.kafka) as sender:
        sender.send([POST])
    (record,) = read_topic(contexts.kafka, topics.POSTS)
    assert record.headers() is None
