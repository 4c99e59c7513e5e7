"""Trending lists (JSON): one record for each partition of `activity`; the key is the number of the partition."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from schemas.errors import BadRecord
from schemas.ids import Micros, PostId


class TrendingEntry(Struct, frozen=True):
    post_id: PostId
    score: float


class TrendingList(Struct, frozen=True):
    """Best first. The scores are those at `as_of_us`; they halve every `half_life_s` seconds."""

    partition: int
    as_of_us: Micros
    half_life_s: Annotated[float, Meta(gt=0)]
    entries: list[TrendingEntry]


_decoder = msgspec.json.Decoder(TrendingList)


def encode_trending(trending: TrendingList) -> bytes:
    return msgspec.json.encode(trending)


def decode_trending(body: bytes) -> TrendingList:
    """Raises BadRecord."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"not a trending list: {error}") from error
