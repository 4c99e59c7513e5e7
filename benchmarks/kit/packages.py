"""Model packages with random weights in LLaMA's layout, and texts to encode."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch
from transformers import PreTrainedTokenizerFast
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.package.manifest import (
    BaseModel,
    Manifest,
    MeanForm,
    PostTemplate,
    Precision,
    Templates,
    TokenLimits,
    default_special_tokens,
)
from encoders.package_writer import write_package
from nearline.demo.world import WorldSize, make_world
from schemas.events import PostCreated, parse_event
from streams.operate.event_files import open_events

DIMENSION: Final = 128
_HEAD: Final = 64
_MEDIAN_WORDS: Final = 45
"""About 58 tokens."""
_MAX_WORDS: Final = 380
"""About 500 tokens."""
_SIGMA: Final = 0.7
"""Of the log-normal distribution of lengths."""


def layout(hidden: int, layers: int) -> LlamaConfig:
    """LLaMA's proportions at any size."""
    return LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // _HEAD,
        num_key_value_heads=hidden // _HEAD // 2,
        intermediate_size=hidden * 7 // 2,
        max_position_embeddings=2048,
        initializer_range=0.1,
    )


def random_package(
    folder: Path,
    config: LlamaConfig,
    *,
    precision: Precision = "fp32",
    instruction: str = "",
    limit: int = 512,
    device: str = "cpu",
    seed: int = 0,
) -> Path:
    """A package of this layout with the demo's tokenizer. The same layout and seed get the same weights. `limit`:
    tokens of a post; `device`: where the weights are made."""
    demo = Path(__file__).parents[2] / "nearline" / "demo" / "package"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(demo / "tokenizer.json"), **_special_tokens(demo))  # type: ignore[no-untyped-call]
    templates = Templates(PostTemplate(("text",), instruction))
    special_tokens = default_special_tokens(templates, MeanForm())
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(special_tokens.values())}, replace_extra_special_tokens=False
    )
    config.vocab_size = len(tokenizer)
    manifest = Manifest(
        id=f"random-{config.hidden_size}x{config.num_hidden_layers}",
        base_model=BaseModel("random"),
        templates=templates,
        special_tokens=special_tokens,
        dimensions=(DIMENSION, config.hidden_size),
        dimension=DIMENSION,
        precision=precision,
        token_limits=TokenLimits(post=limit, member=limit),
        member_form=MeanForm(),
    )
    write_package(folder, manifest, _random_model(config, device, seed), tokenizer)
    return folder


def _random_model(config: LlamaConfig, device: str, seed: int) -> LlamaModel:
    """On a GPU the weights are made in bf16, because the largest model would not fit otherwise."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if device == "cpu" else torch.bfloat16)
    try:
        torch.manual_seed(seed)
        with torch.device(device):
            return LlamaModel(config).train(False)
    finally:
        torch.set_default_dtype(before)


def texts(events: Path | None, seed: int = 0) -> list[str]:
    """The texts of the posts in a file of events, in an order made by chance. Without a file: generated texts, whose
    lengths are distributed like those of real posts.

    Where posts grow longer over the years, the first thousand in the file's order cost less than the others, and two
    rates of unlike stretches say nothing about each other.
    """
    rng = random.Random(seed)
    if events is not None:
        posts = list(_posts_of(events))
        rng.shuffle(posts)
        return posts
    world = make_world(seed, datetime.now(UTC), WorldSize(2_000, 100, 100))
    words = " ".join(event["text"] for event in world.events if "text" in event).split()
    return [_generated_text(rng, words) for _ in range(20_000)]


def _generated_text(rng: random.Random, words: list[str]) -> str:
    length = min(_MAX_WORDS, max(1, round(rng.lognormvariate(0, _SIGMA) * _MEDIAN_WORDS)))
    start = rng.randrange(len(words) - length)
    return " ".join(words[start : start + length])


def _posts_of(events: Path) -> Iterator[str]:
    with open_events(str(events)) as file:
        for _, line in file.lines():
            event = parse_event(line)
            if isinstance(event, PostCreated):
                yield event.text


def _special_tokens(package: Path) -> dict[str, Any]:
    config = json.loads((package / "tokenizer_config.json").read_text())
    return {name: config[name] for name in ("bos_token", "eos_token", "pad_token") if config.get(name)}
