"""Counts how many contexts the encode stage encoded twice because of a kill: its own counters, minus what it has
committed."""

import re
import urllib.request
from contextlib import closing
from typing import Final

from nearline.pipeline import Pipeline
from nearline.up.metrics import addresses
from schemas import topics
from schemas.ids import Generation
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.reading import scan_all, scanner
from streams.settings import KafkaSettings

_CALL_S: Final = 30.0
_ENCODED: Final = re.compile(r'^nearline_encode_contexts_total\{.*outcome="encoded".*\} (\S+)$', re.MULTILINE)


class EncodedTwice:
    """For one kill. Make it while the pipeline has nothing to do, call `before_kill` directly before the kill, and
    `count` when the pipeline has nothing to do again."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._generation = Generation(pipeline.instance.generation)
        self._kafka = KafkaSettings(bootstrap_servers=pipeline.instance.bootstrap_servers)
        self._ends = self._read_ends()
        self._encoded = -self._counter()

    def before_kill(self) -> None:
        self._encoded += self._counter()

    def count(self) -> int:
        return round(self._encoded + self._counter()) - self._committed()

    def _counter(self) -> float:
        """The sum over all running encode processes. A batch that is being encoded is not counted yet."""
        total = 0.0
        for address in addresses("encode", self._pipeline.data_dir):
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=_CALL_S) as answer:
                total += sum(map(float, _ENCODED.findall(answer.read().decode())))
        return total

    def _committed(self) -> int:
        """Embeddings committed since this object was made."""
        with closing(scanner(self._kafka)) as consumer:
            return sum(1 for _ in scan_all(consumer, self._ends, self._read_ends()))

    def _read_ends(self) -> Offsets:
        names = (topics.post_embeddings(self._generation), topics.member_embeddings(self._generation))
        with closing(OffsetReader(self._kafka, _CALL_S)) as reader:
            return reader.ends(reader.places(names))
