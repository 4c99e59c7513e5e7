"""Whether the lag that is shown is the lag that is there: the monitor's figures against records that are counted one by
one, while posts come in and the encode stage is stopped.
"""

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.kit.background import in_background
from benchmarks.kit.operators.asking import fetch, monitor_of
from benchmarks.kit.pipeline_load import write_posts
from benchmarks.kit.stopping import stopped
from benchmarks.kit.table import Figure
from benchmarks.kit.waiting import until
from nearline.pipeline import CommandFailed, Pipeline
from schemas.ids import Generation, Offset, Partition
from schemas.stages import encode_reads
from schemas.topics import POST_CONTEXTS
from streams.kafka.offsets import OffsetReader
from streams.kafka.reading import scan, scanner
from streams.kafka.records import Place
from streams.settings import KafkaSettings

_LOOKS: Final = 5
_BETWEEN_LOOKS_S: Final = 2.0
_TOLERANCE: Final = 0.05


class LagSizes(NamedTuple):
    """`least`: so many records wait in each partition before the first look. The monitor's look may be a second old, so
    they must be many more than come in meanwhile."""

    rate: float
    least: int


def lag(pipeline: Pipeline, folder: Path, sizes: LagSizes, posts: list[str]) -> list[Figure]:
    events = folder / "more.jsonl"
    seconds = 2 * (sizes.least * 4 / sizes.rate + _LOOKS * 2 * _BETWEEN_LOOKS_S)
    write_posts(events, posts, range(1_000_000, 1_000_000 + round(seconds * sizes.rate)))

    def send(_: Event) -> None:
        try:
            pipeline.run("ingest", events, "--rate", str(sizes.rate), timeout_s=seconds + 600)
        except CommandFailed as error:
            print(f"ingest: {error}", flush=True)

    with in_background(send), stopped(pipeline, "encode-blue-0"):
        until(lambda: min(_shown(pipeline).values(), default=0) >= sizes.least, "records to wait", 1.0)
        ratios = []
        for _ in range(_LOOKS):
            time.sleep(_BETWEEN_LOOKS_S)
            ratios += _ratios(pipeline)
    pipeline.wait()
    return [
        Figure("lag shown / true lag, lowest of any partition and look", min(ratios), 1 - _TOLERANCE),
        Figure("lag shown / true lag, highest of any partition and look", max(ratios), 1 + _TOLERANCE, "at_most"),
    ]


def _ratios(pipeline: Pipeline) -> list[float]:
    shown, true = _shown(pipeline), _true(pipeline)
    return [shown[partition] / number for partition, number in true.items() if number]


def _shown(pipeline: Pipeline) -> Mapping[Partition, float]:
    """Of the contexts of posts, by partition."""
    group, text = _group(pipeline), fetch(f"{monitor_of(pipeline)}/metrics").decode()
    return {
        Partition(int(sample.labels["partition"])): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "kafka_consumergroup_lag"
        and (sample.labels["consumergroup"], sample.labels["topic"]) == (group, POST_CONTEXTS)
    }


def _true(pipeline: Pipeline) -> Mapping[Partition, int]:
    """Records from what the group has committed to the end, counted by reading them."""
    kafka = KafkaSettings(bootstrap_servers=pipeline.instance.bootstrap_servers)
    with closing(OffsetReader(kafka)) as reader:
        places = reader.places([POST_CONTEXTS])
        committed, ends = reader.committed(_group(pipeline), places), reader.ends(places)
    return {place.partition: _count(kafka, place, committed[place] or Offset(0), ends[place]) for place in places}


def _count(kafka: KafkaSettings, place: Place, start: Offset, end: Offset) -> int:
    with closing(scanner(kafka)) as consumer:
        return sum(1 for _ in scan(consumer, place, start, end))


def _group(pipeline: Pipeline) -> str:
    return encode_reads(Generation(pipeline.instance.generation)).group
