"""The encoders that ours is compared with: sentence-transformers as it is installed, and a plain loop over batches with
AutoModel."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel

from schemas.embeddings import Vector

Encode = Callable[[Sequence[str]], Any]

_BATCH: Final = 32
"""The default of sentence-transformers."""
_MAX_TOKENS: Final = 512


def sentence_transformers(
    package: Path,
    threads: int,
    *,
    device: str = "cpu",
    most_tokens: int = _MAX_TOKENS,
    batch: int = _BATCH,
    unpadded: bool = False,
) -> Encode:
    """With its default settings. Texts are rendered prompts. `unpadded`: needs a GPU and the package flash-attn."""
    attention = {"model_kwargs": {"attn_implementation": "flash_attention_2"}} if unpadded else {}
    stock = SentenceTransformer(str(package), device=device, **attention)
    stock.max_seq_length = most_tokens
    if unpadded:
        stock[0].unpad_inputs = True

    def encode(prompts: Sequence[str]) -> Any:
        torch.set_num_threads(threads)
        return stock.encode(list(prompts), batch_size=batch, show_progress_bar=False)

    return encode


def auto_model(package: Path, threads: int) -> Encode:
    """Batches in the order of the prompts, each padded to its longest text."""
    tokenizer = AutoTokenizer.from_pretrained(str(package))  # type: ignore[no-untyped-call]
    model = AutoModel.from_pretrained(str(package)).eval()

    @torch.inference_mode()
    def encode(prompts: Sequence[str]) -> Any:
        torch.set_num_threads(threads)
        vectors = []
        for start in range(0, len(prompts), _BATCH):
            batch = list(prompts[start : start + _BATCH])
            inputs = tokenizer(batch, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt")
            hidden = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            vectors.append(F.normalize((hidden.float() * mask).sum(1) / mask.sum(1), dim=-1))
        return torch.cat(vectors).numpy()

    return encode


@torch.inference_mode()
def one_by_one(
    package: Path, prompts: Sequence[list[int]], dimension: int, dtype: torch.dtype, device: str = "cpu"
) -> Vector:
    """The vectors that all encoders must reproduce: transformers' eager attention, one prompt at a time, mean
    pooling."""
    config = LlamaConfig.from_json_file(package / "config.json")
    config._attn_implementation = "eager"
    model = LlamaModel.from_pretrained(package, config=config, dtype=dtype).eval().to(device)
    torch.set_num_threads(2)
    rows = []
    for prompt in prompts:
        hidden = model(input_ids=torch.tensor([prompt], device=device), use_cache=False).last_hidden_state[0]
        rows.append(F.normalize(hidden.double().mean(0)[:dimension], dim=-1).cpu().numpy())
    return np.stack(rows)
