"""The query encoder says why it cannot be asked."""

from typing import Never

import pytest

from encoders.errors import EncodingFailed
from retriever.encoder import QueryEncoder, WarmingEncoder
from retriever.errors import RetrieverUnavailable
from schemas.embeddings import Vector


class _BrokenDevice:
    def encode_text(self, text: str) -> Vector:
        raise EncodingFailed("the device is gone")


def _no_package() -> Never:
    raise OSError("no such folder")


def warmed(encoder: WarmingEncoder) -> WarmingEncoder:
    encoder.start()
    encoder.join(10)
    return encoder


def test_a_package_that_cannot_be_loaded_is_named() -> None:
    encoder = warmed(WarmingEncoder(_no_package))
    assert encoder.problem == "the model cannot be loaded: no such folder"
    with pytest.raises(RetrieverUnavailable, match="no such folder"):
        encoder.encode_text("a")


def test_a_device_that_fails_is_an_outage() -> None:
    def load() -> QueryEncoder:
        return _BrokenDevice()

    encoder = warmed(WarmingEncoder(load))
    assert encoder.problem is None
    with pytest.raises(RetrieverUnavailable, match="the device is gone"):
        encoder.encode_text("a")
