"""The query encoder of a process that also holds a hot tier."""

from pathlib import Path

import pytest
import torch

from encoders.errors import DeviceFull
from encoders.model.packed_forward import PackedForward
from nearline.settings.loading import load_settings
from nearline.up.open_generation import _query_encoder
from retriever.answer.warming_encoder import WarmingEncoder
from retriever.errors import RetrieverUnavailable
from tests.kit.packages import make_tiny_package


def no_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_card_that_the_hot_tier_fills_is_an_outage_while_the_model_loads_and_for_each_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the model nor the question is at fault: of what the process itself holds, a search gives some back."""
    package = make_tiny_package(tmp_path / "p", hidden=16, layers=1)
    settings = load_settings(None, tmp_path / "data", encode__device="cpu")
    with monkeypatch.context() as full:
        full.setattr(PackedForward, "vectors", no_memory)
        with pytest.raises(DeviceFull):
            _query_encoder(settings, package)
    encoder = WarmingEncoder(lambda: _query_encoder(settings, package))
    encoder.start()
    encoder.join(30)
    with monkeypatch.context() as full:
        full.setattr(PackedForward, "vectors", no_memory)
        with pytest.raises(RetrieverUnavailable, match="is full now"):
            encoder.encode_text("bread", timeout_s=30)
    assert encoder.encode_text("bread", timeout_s=30).shape == (package.dimension,)
