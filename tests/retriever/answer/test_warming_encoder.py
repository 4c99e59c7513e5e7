"""The query encoder says why it cannot be asked."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Never

import numpy as np
import pytest
from structlog.testing import capture_logs

from encoders.errors import DeviceFull, EncodingFailed
from retriever.answer import warming_encoder
from retriever.answer.warming_encoder import QueryEncoder, WarmingEncoder
from retriever.errors import RetrieverUnavailable
from schemas.embeddings import Vector
from tests.kit.waiting import until


class _Forgetful:
    def forget_unused(self, age_s: float) -> None: ...


class _BrokenDevice(_Forgetful):
    def encode_text(self, text: str) -> Vector:
        raise EncodingFailed("the device is gone")


def _no_package() -> Never:
    raise OSError("no such folder")


def warmed(encoder: WarmingEncoder) -> WarmingEncoder:
    encoder.start()
    encoder.join(10)
    return encoder


def test_why_a_package_cannot_be_loaded_is_for_the_log_alone() -> None:
    with capture_logs() as logs:
        encoder = warmed(WarmingEncoder(_no_package))
    assert encoder.problem == "the model cannot be loaded; the log of the retriever says why"
    with pytest.raises(RetrieverUnavailable, match=encoder.problem):
        encoder.encode_text("a", timeout_s=30)
    assert [(entry["event"], entry["error"]) for entry in logs] == [("model not loaded", "no such folder")]


def test_a_device_that_fails_is_an_outage() -> None:
    def load() -> QueryEncoder:
        return _BrokenDevice()

    encoder = warmed(WarmingEncoder(load))
    assert encoder.problem is None
    with pytest.raises(RetrieverUnavailable, match="the device is gone"):
        encoder.encode_text("a", timeout_s=30)


def test_a_text_waits_for_a_busy_model_no_longer_than_it_may() -> None:
    begun, may_go_on = Event(), Event()

    class Slow(_Forgetful):
        def encode_text(self, text: str) -> Vector:
            begun.set()
            may_go_on.wait(30)
            return np.ones(1, np.float32)

    encoder = warmed(WarmingEncoder(Slow))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(encoder.encode_text, "a", 30)
        begun.wait(30)
        with pytest.raises(RetrieverUnavailable, match="busy"):
            encoder.encode_text("b", timeout_s=0.01)
        may_go_on.set()
        assert first.result(30) == [1.0]
    assert encoder.encode_text("b", timeout_s=0.01) == [1.0]


def test_a_model_that_finds_no_memory_is_loaded_when_there_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming_encoder, "_TRY_AGAIN_S", 0.01)
    others_leave, tried = Event(), Event()

    def load() -> QueryEncoder:
        if not others_leave.is_set():
            tried.set()
            raise DeviceFull("the memory of cuda is full now")
        return _BrokenDevice()

    with capture_logs():
        encoder = WarmingEncoder(load)
        encoder.start()
        assert tried.wait(30)
        until(lambda: encoder.problem != "the model is still warming up", "the failure")
        assert encoder.problem == "the device has no memory for the model now; it is tried again"
        others_leave.set()
        encoder.join(30)
    assert encoder.problem is None


def test_who_waits_for_memory_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Event()

    def load() -> Never:
        tried.set()
        raise DeviceFull("the memory of cuda is full now")

    monkeypatch.setattr(warming_encoder, "_TRY_AGAIN_S", 3600)
    with capture_logs():
        encoder = WarmingEncoder(load)
        encoder.start()
        assert tried.wait(30)
        encoder.stop()
        encoder.join(30)
    assert not encoder._thread.is_alive()
