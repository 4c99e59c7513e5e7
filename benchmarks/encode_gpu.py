"""The encoder on an NVIDIA GPU, compared with stock sentence-transformers and with the floor of its matrix products.

`python -m benchmarks.encode_gpu [--layouts 1B,3B,8B] [--events F] [--json F]`. The layouts of LLaMA-3.2-1B, 3.2-3B and
3.1-8B with random weights in bf16; posts, and members of 2,048 tokens. Needs 40 GB of disk for the largest, and no
model from anywhere.
"""

import argparse
import gc
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from transformers.models.llama.configuration_llama import LlamaConfig

from benchmarks.kit.other_encoders import one_by_one, sentence_transformers
from benchmarks.kit.packages import random_package, texts
from benchmarks.kit.table import Figure, report
from encoders.encoder import Encoder

_MEMBER_TOKENS: Final = 2_048
_CHARS_PER_TOKEN: Final = 12
"""More than the tokens of any text have."""
_TURNS: Final = 3
_CHECKED: Final = 16
_PRODUCT: Final = 8_192
"""Rows and columns of the product whose rate is the floor's."""


class Layout(NamedTuple):
    sizes: dict[str, Any]
    num_posts: int
    num_members: int
    share: float | None
    """The bound of the share of the floor, for posts; None: no bound."""


class _Case(NamedTuple):
    """The inputs of all encoders of one layout."""

    package: Path
    posts: list[str]
    members: list[str]
    share: float | None
    rate: float


LAYOUTS: Final = {
    "1B": Layout(
        {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
        8_192,
        256,
        0.6,
    ),
    "3B": Layout(
        {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24},
        4_096,
        128,
        None,
    ),
    "8B": Layout(
        {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
        2_048,
        64,
        0.7,
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--events", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no NVIDIA GPU is here; this benchmark measures nothing else", file=sys.stderr)
        return 1
    print(f"device: {torch.cuda.get_device_name()}; torch {torch.__version__}", flush=True)
    corpus = texts(arguments.events)
    random.Random(1).shuffle(corpus)
    rate = _product_rate()
    figures = [Figure("bf16 product of 8,192 x 8,192 x 8,192, TFLOP/s", rate / 1e12)]
    for name in arguments.layouts.split(","):
        with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as temporary:
            figures += _measure(name, LAYOUTS[name], Path(temporary) / name, corpus, rate)
    return report(figures, arguments.json)


def _measure(name: str, layout: Layout, folder: Path, corpus: Sequence[str], rate: float) -> list[Figure]:
    print(f"layout {name}", flush=True)
    config = LlamaConfig(**layout.sizes, num_key_value_heads=8, max_position_embeddings=4096, rope_theta=500_000.0)
    package = random_package(folder, config, precision="bf16", limit=_MEMBER_TOKENS, device="cuda")
    # Every text is different, so that the encoder cannot find a repeated one.
    posts = [f"{number} {text}" for number, text in enumerate(islice(cycle(corpus), layout.num_posts))]
    case = _Case(package, posts, list(islice(_long(corpus), layout.num_members)), layout.share, rate)
    figures: list[Figure] = []
    for compiled in (False, True):
        _free()
        figures += _encoder_figures(f"{name}, compiled" if compiled else name, case, compiled=compiled)
        _free()
    tokens_per_s = figures[0].value
    assert figures[0].name == f"{name}: posts, tokens/s"
    taken_s = _stock_s(case)
    _free()
    stock = _num_tokens(case) / taken_s
    return [
        *figures,
        Figure(f"{name}: sentence-transformers, posts, tokens/s", stock),
        Figure(f"{name}: / sentence-transformers, posts", tokens_per_s / stock, 3.0),
    ]


def _encoder_figures(name: str, case: _Case, *, compiled: bool) -> list[Figure]:
    encoder = Encoder.load(case.package, device="cuda", compiled=compiled)
    encoder.warm_up()
    torch.cuda.reset_peak_memory_stats()
    figures = []
    for kind, sample, bound in (("posts", case.posts, case.share), ("members of 2,048 tokens", case.members, None)):
        lengths = [len(prompt) for prompt in encoder.prompts(sample)]
        seconds = _median_s(partial(encoder.encode_texts, sample))
        floor = _floor_flop(case.package, lengths) / case.rate
        figures.append(Figure(f"{name}: {kind}, tokens/s", sum(lengths) / seconds))
        figures.append(Figure(f"{name}: {kind}, share of the floor", floor / seconds, bound))
    figures.append(Figure(f"{name}: peak memory, GB", torch.cuda.max_memory_allocated() / 1e9))
    checked = [*case.posts[:_CHECKED], case.members[0]]
    vectors = np.stack([np.asarray(vector, np.float64) for vector in encoder.encode_texts(checked)])
    prompts = encoder.prompts(checked)
    truth = one_by_one(case.package, prompts, encoder.package.dimension, torch.float32, "cuda")
    worst = float((1 - (truth * vectors).sum(1)).max())
    return [*figures, Figure(f"{name}: 1 - cosine to fp32, worst text", worst, 3e-3, "at_most")]


def _stock_s(case: _Case) -> float:
    stock = sentence_transformers(case.package, 8, device="cuda", most_tokens=_MEMBER_TOKENS)
    return _median_s(partial(stock, [f"<|nearline:text|>{text}" for text in case.posts]))


def _num_tokens(case: _Case) -> int:
    return sum(map(len, Encoder.load(case.package, device="cuda").prompts(case.posts)))


def _floor_flop(package: Path, lengths: Sequence[int]) -> float:
    """Two operations for each token and each parameter outside the embedding. Attention: on average a token attends to
    half of its prompt, with two products."""
    config = LlamaConfig.from_json_file(package / "config.json")
    hidden, head = config.hidden_size, config.head_dim
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    per_layer = 2 * hidden * queries + 2 * hidden * keys + 3 * hidden * config.intermediate_size
    products = sum(length * (length + 1) for length in lengths) * queries * 2
    return float(config.num_hidden_layers * (2 * per_layer * sum(lengths) + products))


def _product_rate() -> float:
    """Operations per second of a large product in bf16."""
    left, right = (torch.randn(_PRODUCT, _PRODUCT, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = _median_s(lambda: [torch.mm(left, right) for _ in range(20)]) / 20
    return 2 * _PRODUCT**3 / seconds


def _median_s(run: Callable[[], object]) -> float:
    taken = []
    run()
    for _ in range(_TURNS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _long(corpus: Sequence[str]) -> Iterator[str]:
    """Texts of at least `_MEMBER_TOKENS` tokens; the encoder cuts them to that length."""
    randomly = random.Random(2)
    while True:
        text = ""
        while len(text) < _MEMBER_TOKENS * _CHARS_PER_TOKEN:
            text += " " + randomly.choice(corpus)
        yield text


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    raise SystemExit(main())
