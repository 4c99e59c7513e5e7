"""Requests to process a record again: what `nearline replay` writes, and the encode and index stages read (JSON).

The key is the id of the entity. A request lies in the partition of the same number as the record that it names: a
context for the encode stage, an embedding for the index stage.
"""

import msgspec
from msgspec import Struct

from schemas.errors import BadRecord
from schemas.ids import Offset


class ReplayRequest(Struct, frozen=True):
    """The record at `offset` was the newest of its entity among all records before `end`."""

    offset: Offset
    end: Offset


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ReplayRequest)


def encode_request(request: ReplayRequest) -> bytes:
    return _encoder.encode(request)


def decode_request(body: bytes | None) -> ReplayRequest:
    """Raises BadRecord."""
    try:
        return _decoder.decode(body or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"not a request to process a record again: {error}") from error
