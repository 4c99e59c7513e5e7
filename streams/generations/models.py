"""The topic `models`, in which published model packages are announced. Knows neither registry nor autopilot."""

from collections.abc import Mapping
from contextlib import closing
from typing import Final, NamedTuple

from schemas.errors import BadRecord
from schemas.ids import Generation
from schemas.models import ModelRecord, decode_model, encode_model
from schemas.topics import MODELS, MODELS_SPEC
from streams.kafka.offsets import OffsetReader
from streams.kafka.reading import scan_topic
from streams.kafka.records import Output, offset_of
from streams.kafka.sending import send_all
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings

_ASK_S: Final = 10.0


class Announced(NamedTuple):
    """What the topic says now."""

    models: Mapping[Generation, ModelRecord]
    problems: list[str]
    """Each names the offset of a record that was refused."""


def announce(kafka: KafkaSettings, model: ModelRecord) -> None:
    """Returns when the broker has it. Makes the topic where it is missing. Can be repeated. Raises StreamsError."""
    ensure_topics(kafka, [MODELS_SPEC], _ASK_S)
    send_all(kafka, [Output(MODELS, model.generation.encode(), encode_model(model))])


def read_models(kafka: KafkaSettings) -> Announced:
    """Nothing where the topic does not exist. A damaged record leaves what its key stood for as it was. Raises
    StreamsError."""
    models: dict[Generation, ModelRecord] = {}
    problems = []
    with closing(OffsetReader(kafka)) as reader:
        for message in scan_topic(kafka, reader, MODELS):
            key = message.key()
            try:
                model = decode_model(key, message.value())
            except BadRecord as error:
                problems.append(f"the record at offset {offset_of(message)} of the topic models is refused: {error}")
                continue
            if model is not None:
                models[model.generation] = model
            elif key is not None:
                models.pop(Generation(key.decode(errors="replace")), None)
    return Announced(models, problems)
