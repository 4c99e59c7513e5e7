"""LoRA: small adapters learn beside matrices that stay fixed, and are merged into them at the end (peft)."""

from collections.abc import Sequence
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers.models.llama.modeling_llama import LlamaModel


def with_adapters(model: LlamaModel, rank: int, tokens: Sequence[int], seed: int) -> PeftModel:
    """Puts adapters into the model itself, beside every matrix of its layers. Only they learn, and the embeddings of
    `tokens`: these are the special tokens, which the model may never have seen."""
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", trainable_token_indices={"embed_tokens": [*tokens]}
    )
    return get_peft_model(model, config)


def merge(adapters: PeftModel) -> LlamaModel:
    """Adds what the adapters learned to the matrices; the model has its own layers again."""
    return cast(LlamaModel, adapters.merge_and_unload())
