"""What is chosen for a device: pure, of the settings, the shape of the model and the card."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.models.llama.configuration_llama import LlamaConfig

from trainer import device_use as device_use_of
from trainer.device_use import Card, DeviceUse, device_use, this_card
from trainer.errors import BadStart
from trainer.settings import TrainSettings

CPU = Card("cpu", "cpu", 0, has_bf16=False, shards=1, idle=0)
LAYOUTS = {
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
}


def card(gigabytes: float, **options: Any) -> Card:
    return Card("cuda", "a card", int(gigabytes * 1e9), **{"has_bf16": True, "shards": 1, "idle": 0, **options})


def config(layout: str) -> LlamaConfig:
    return LlamaConfig(vocab_size=128_256, num_key_value_heads=8, **LAYOUTS[layout])  # type: ignore[arg-type]


def use(device: Card, layout: str = "1B", **settings: Any) -> DeviceUse:
    return device_use(TrainSettings.model_validate(settings), lambda: config(layout), device)


def test_a_cpu_does_what_it_always_did_and_what_it_is_told() -> None:
    assert use(CPU) == DeviceUse("fp32", 2_048, False, False)
    told = {"precision": "bf16", "pass_tokens": 512, "gradient_checkpointing": True, "cached_gradients": True}
    assert use(CPU, **told) == DeviceUse("bf16", 512, True, True)


def test_weights_are_divided_among_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_use_of, "PartialState", lambda: SimpleNamespace(device=torch.device("cpu")))
    assert this_card() == CPU
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(BadStart, match=r"this process has cpu; take --use_fsdp out"):
        this_card()


def test_nothing_is_computed_twice_where_a_batch_fits() -> None:
    assert use(card(80)) == DeviceUse("bf16", 8_192, False, False)
    assert use(card(80), batch_tokens=4_096).pass_tokens == 4_096, "a batch is one pass"


def test_layers_are_computed_twice_where_a_batch_fits_so_and_passes_where_it_does_not() -> None:
    assert use(card(40)) == DeviceUse("bf16", 8_192, True, False)
    large = use(card(80), batch_tokens=1_000_000)
    assert (large.gradient_checkpointing, large.cached_gradients) == (False, True)
    assert 4_096 <= large.pass_tokens < 40_000
    small = use(card(32), batch_tokens=1_000_000)
    assert (small.gradient_checkpointing, small.cached_gradients) == (True, True)


def test_a_larger_card_never_takes_smaller_passes() -> None:
    passes = [use(card(size), batch_tokens=200_000, gradient_checkpointing=True).pass_tokens for size in range(24, 140)]
    assert passes == sorted(passes)
    assert passes[0] < passes[-1]


def test_what_the_settings_say_is_not_chosen() -> None:
    told = {"gradient_checkpointing": True, "cached_gradients": True, "pass_tokens": 1_024}
    assert use(card(80), **told) == DeviceUse("bf16", 1_024, True, True)
    told = {"gradient_checkpointing": False, "cached_gradients": False, "batch_tokens": 100_000}
    assert use(card(24), **told) == DeviceUse("bf16", 100_000, False, False)
    assert use(card(80), precision="fp32").precision == "fp32"
    assert use(card(80, has_bf16=False)).precision == "fp32"


def test_adapters_leave_room_for_more_and_cards_that_share_a_model_too() -> None:
    with pytest.raises(BadStart, match="120 GB, and a card has 80; set lora_rank, or divide them"):
        use(card(80), "8B")
    assert use(card(80), "8B", lora_rank=16).precision == "bf16"
    assert use(card(80, shards=8), "8B").pass_tokens >= 4_096
    divided = use(card(80, shards=8), "8B", cached_gradients=True, pass_tokens=3_000)
    assert divided.num_passes == 3, "in all batches and on all cards"
    with pytest.raises(BadStart, match="use more cards, or divide"):
        use(card(16), "8B", lora_rank=16)


def test_a_pass_holds_the_longest_prompt() -> None:
    assert use(card(22), batch_tokens=100_000, member_tokens=5_000).pass_tokens >= 5_000
