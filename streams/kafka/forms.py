"""The topic `forms`: the newest form in which each kind of thing was written to this Kafka cluster. A record for each
kind, whose key is the kind and whose value is the number.

Whoever starts processes looks at it first. A cluster without it was last used by a version before there were forms.
"""

from contextlib import closing
from typing import Final

from schemas.forms import IN_KAFKA, Forms, refuse_newer, to_write_down
from schemas.topics import FORMS
from streams.kafka.offsets import OffsetReader
from streams.kafka.reading import scan_topic
from streams.kafka.records import Output
from streams.kafka.sending import send_all
from streams.settings import KafkaSettings

_UNKNOWN: Final = 1_000_000_000
"""Stands for a record that is no number."""


def refuse_newer_forms(kafka: KafkaSettings, known: Forms = IN_KAFKA) -> dict[str, int]:
    """Call it before anything is changed. Returns what was written down before. Raises NewerForm, StreamsError."""
    with closing(OffsetReader(kafka)) as reader:
        stored = _stored(kafka, reader) if reader.places([FORMS]) else {}
    refuse_newer(f"the Kafka cluster {kafka.bootstrap_servers}", stored, known)
    return stored


def write_forms(kafka: KafkaSettings, stored: dict[str, int], known: Forms = IN_KAFKA) -> None:
    """Writes down what this version will write, where that is not `stored` yet. The topic must exist. Raises
    StreamsError."""
    newer = to_write_down(stored, known)
    if newer:
        send_all(kafka, [Output(FORMS, kind.encode(), b"%d" % form) for kind, form in newer.items()])


def _stored(kafka: KafkaSettings, reader: OffsetReader) -> dict[str, int]:
    stored: dict[str, int] = {}
    for record in scan_topic(kafka, reader, FORMS):
        kind, form = record.key() or b"", record.value()
        if form is not None:
            stored[kind.decode(errors="replace")] = int(form) if form.isdigit() else _UNKNOWN
    return stored
