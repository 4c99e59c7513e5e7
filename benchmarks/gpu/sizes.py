"""How large everything is: on a GPU, and for a look on a CPU that takes seconds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from transformers.models.llama.configuration_llama import LlamaConfig


class Layout(NamedTuple):
    shape: Mapping[str, Any]
    """Of LlamaConfig."""
    num_posts: int
    num_members: int
    share: float | None = None
    """The aim: this share of the floor, for posts."""
    needs_s: float = 0.0
    """About how long its part of the encoder takes."""

    def config(self) -> LlamaConfig:
        common: dict[str, Any] = {"num_key_value_heads": 8, "max_position_embeddings": 16_384, "rope_theta": 500_000.0}
        return LlamaConfig(**{**common, **self.shape})


@dataclass(frozen=True)
class Sizes:
    has_aims: bool
    """False: they show that everything works, and no figure of theirs has a bound but those of correctness."""
    layouts: Mapping[str, Layout]
    """Of the encoder. The first is the one of all other parts."""
    variants: Mapping[str, Layout]
    """Small ones with other heads, whose vectors alone are checked."""
    words: tuple[int, ...]
    """Of the texts whose vectors are checked. A word has about 1.3 tokens."""
    most_tokens: int
    """Longer texts are cut."""
    member_tokens: int
    prefixes: tuple[int, ...]
    """Tokens of the instructions that all texts begin with."""
    stock_batches: tuple[int, ...]
    """Of sentence-transformers; the better one counts."""
    turns: int
    """Of a measurement; the median counts."""
    product: int
    """Rows and columns of the product whose rate is the floor's."""
    copied_bytes: int
    """Of the copy whose rate is the floor's."""
    scans: tuple[int, ...]
    """Posts that are searched. The first comes early, the others when time is left."""
    filled_rows: int
    """Rows that are made at a time."""
    k: int
    batches: tuple[int, ...]
    """Queries that are answered at once; the last one's queries per second count."""
    tier_posts: int
    """Of the whole hot tier, with its ids and its log's order."""
    rate: int
    """Upserts a second."""
    searches: int
    neighbour_s: float
    """How long another process has the card."""
    train_tokens: int
    world: tuple[int, int, int]
    """Posts, members and attempts to act that the trainer learns from."""
    curve_steps: int
    curve_batch_tokens: int
    small: Mapping[str, Any]
    """The shape of the model whose loss curve is compared, and which is killed and resumed."""


_SMALL_HEADS: Final = {"hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 2}
FULL: Final = Sizes(
    has_aims=True,
    layouts={
        "1B": Layout(
            {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
            8_192,
            256,
            0.6,
            60,
        ),
        "3B": Layout(
            {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24},
            4_096,
            128,
            None,
            80,
        ),
        "8B": Layout(
            {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
            2_048,
            64,
            0.7,
            120,
        ),
    },
    variants={
        "no groups, heads of 64": Layout({**_SMALL_HEADS, "num_attention_heads": 16, "num_key_value_heads": 16}, 0, 0),
        "one head of keys, heads of 128": Layout(
            {**_SMALL_HEADS, "num_attention_heads": 8, "num_key_value_heads": 1}, 0, 0
        ),
    },
    words=(1, 2, 7, 13, 24, 25, 50, 100, 100, 250, 400, 800, 1_600, 3_200, 8_192),
    most_tokens=8_192,
    member_tokens=2_048,
    prefixes=(32, 150),
    stock_batches=(32, 256),
    turns=3,
    product=8_192,
    copied_bytes=1 << 31,
    scans=(10_000_000, 100_000_000),
    filled_rows=1 << 19,
    k=2_000,
    batches=(1, 8, 64),
    tier_posts=300_000,
    rate=10_000,
    searches=100,
    neighbour_s=3.0,
    train_tokens=60_000,
    world=(4_000, 400, 30_000),
    curve_steps=50,
    curve_batch_tokens=2_048,
    small={"hidden_size": 256, "intermediate_size": 896, "num_hidden_layers": 4, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "initializer_range": 0.1},
)

_TINY: Final = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
_TINY_GROUPS: Final = {**_TINY, "num_key_value_heads": 1, "initializer_range": 0.1}
QUICK: Final = Sizes(
    has_aims=False,
    layouts={"tiny": Layout(_TINY_GROUPS, 24, 2)},
    variants={"no groups": Layout({**_TINY, "num_key_value_heads": 2, "initializer_range": 0.1}, 0, 0)},
    words=(1, 2, 13, 13, 60),
    most_tokens=64,
    member_tokens=32,
    prefixes=(12,),
    stock_batches=(16,),
    turns=1,
    product=64,
    copied_bytes=1 << 16,
    scans=(1_024,),
    filled_rows=1 << 9,
    k=20,
    batches=(1, 4),
    tier_posts=500,
    rate=1_000,
    searches=2,
    neighbour_s=0.1,
    train_tokens=800,
    world=(60, 12, 600),
    curve_steps=3,
    curve_batch_tokens=256,
    small={**_TINY_GROUPS, "num_hidden_layers": 1},
)
