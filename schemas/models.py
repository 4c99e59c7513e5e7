"""The records of the topic `models` (JSON): one for each model package that was published, whose key is its generation.

They announce a package to whoever wants to build it. Sending one again changes nothing. Any Kafka client can write and
read them: `schemas/models.schema.json` is their JSON Schema. Fields that this version does not know are ignored.
"""

import msgspec
from msgspec import Struct

from schemas.errors import BadRecord
from schemas.generations import Moment, PackageSource
from schemas.ids import GenerationName


class ModelRecord(Struct, frozen=True):
    """A published model package."""

    generation: GenerationName
    digest: str
    """SHA-256 of the package's nearline.json."""
    package: PackageSource
    published_at: Moment


_model = msgspec.json.Decoder(ModelRecord)


def encode_model(record: ModelRecord) -> bytes:
    return msgspec.json.encode(record)


def decode_model(key: bytes | None, value: bytes | None) -> ModelRecord | None:
    """None for a tombstone, which takes the announcement back. Raises BadRecord."""
    if key is None:
        raise BadRecord("not an announcement of a model: it has no key")
    if value is None:
        return None
    try:
        record = _model.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"not an announcement of a model: {error}") from error
    if record.generation.encode() != key:
        raise BadRecord("not an announcement of a model: its generation is not its key")
    if (record.package.folder is None) == (record.package.registry is None):
        raise BadRecord("not an announcement of a model: its package is in neither a folder nor a registry, or in both")
    return record
