"""Part 2: tokens/s of the encoder, compared with the floor of its matrix products and with sentence-transformers."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

import torch
from transformers.utils import is_flash_attn_2_available

from benchmarks.gpu.device import forward_operations
from benchmarks.gpu.run import LeftOut, Run
from benchmarks.gpu.sizes import Layout
from benchmarks.kit.other_encoders import sentence_transformers
from benchmarks.kit.table import Figure
from encoders.encoder import Encoder
from encoders.model.attention import AttentionKernel, takes_num_splits

_OUTSIDE: Final = 0.05
_TIMES_STOCK: Final = 3.0
_STOCK_PART: Final = 8
"""Sentence-transformers gets so much fewer posts: it takes several times as long."""
_HOST_THREADS: Final = 8
"""Of sentence-transformers' tokenizer."""


class _Rates(NamedTuple):
    """From the arms before, by the name of the arm."""

    posts: dict[str, float]
    """Tokens per second."""
    members: dict[str, float]
    """Likewise, of long ones."""
    shares: dict[str, float]
    """Of the floor, for posts."""


def measure(run: Run, layout: str) -> None:
    run.models.forget_all_but(layout)
    run.arm("rates of the device", partial(_rates_of_device, run))
    rates = _Rates({}, {}, {})
    for kind, compiled in (("eager", False), *([("compiled", True)] if run.device.is_gpu else [])):
        run.arm(f"{layout} {kind}", partial(_speed, run, layout, rates, compiled=compiled))
    run.arm(f"{layout} better of eager and compiled", partial(_best, run, layout, rates))
    for prefix_tokens in run.sizes.prefixes:
        run.arm(f"{layout}, {prefix_tokens} tokens before each", partial(_prefix, run, layout, prefix_tokens))
    run.arm(f"{layout} sentence-transformers, padded", partial(_stock, run, layout, rates, padded=True))
    run.arm(f"{layout} sentence-transformers, unpadded", partial(_stock, run, layout, rates, padded=False))
    if layout == run.models.main:
        kernels: tuple[AttentionKernel, ...] = ("invariant", "any")
        for attention in kernels:
            run.arm(f"{layout}, attention = {attention}", partial(_other_attention, run, layout, rates, attention))


def _rates_of_device(run: Run) -> Iterator[Figure]:
    yield Figure("bf16 product, TFLOP/s", run.device.product_rate / 1e12)
    yield Figure("copy, read and written, GB/s", run.device.copy_rate / 1e9)


def _speed(run: Run, layout: str, rates: _Rates, *, compiled: bool) -> Iterator[Figure]:
    encoder = _encoder(run, layout, compiled=compiled)
    posts, members = _samples(run, layout)
    sizes = run.models.layout(layout)
    posts_s, tokens_per_s, share = _speed_of(run, encoder, sizes, posts)
    key = "compiled" if compiled else "eager"
    rates.posts[key], rates.shares[key] = tokens_per_s, share
    yield Figure("posts, tokens/s", tokens_per_s)
    yield Figure("posts, share of the floor", share)
    _, tokens_per_s, share = _speed_of(run, encoder, sizes, members)
    rates.members[key] = tokens_per_s
    yield Figure("long members, tokens/s", tokens_per_s)
    yield Figure("long members, share of the floor", share)
    if run.device.is_gpu:
        yield Figure("peak memory, GB", torch.cuda.max_memory_allocated(run.device.name) / 1e9)
    # Last, because a machine may forbid the profiler.
    outside = _outside(run, encoder, posts, posts_s)
    yield Figure("posts, share of the time not in the model", outside, run.aim(_OUTSIDE), "at_most")


def _samples(run: Run, layout: str) -> tuple[list[str], list[str]]:
    """Posts, and texts as long as a member's."""
    sizes = run.models.layout(layout)
    members = [run.models.words(run.sizes.member_tokens, first=number) for number in range(sizes.num_members)]
    return run.models.posts(sizes.num_posts), members


def _other_attention(run: Run, layout: str, rates: _Rates, attention: AttentionKernel) -> Iterator[Figure]:
    """What batch-invariant attention costs, and what torch's own choice of a kernel would gain."""
    if run.device.is_gpu and not takes_num_splits():
        raise LeftOut(f"torch {torch.__version__} has one packed attention, which takes no such choice")
    if "eager" not in rates.members:
        raise LeftOut("flash was not measured")
    encoder = _encoder(run, layout, compiled=False, attention=attention)
    for name, sample, flash in zip(("posts", "long members"), _samples(run, layout), rates[:2], strict=True):
        _, tokens_per_s, _ = _speed_of(run, encoder, run.models.layout(layout), sample)
        yield Figure(f"{name}, tokens/s / flash", tokens_per_s / flash["eager"])


def _speed_of(run: Run, encoder: Encoder, layout: Layout, sample: Sequence[str]) -> tuple[float, float, float]:
    """Seconds, tokens per second, and the share of the floor."""
    lengths = [len(prompt) for prompt in encoder.prompts(sample)]
    seconds = run.device.median_s(partial(encoder.encode_texts, sample))
    floor_s = forward_operations(layout.config(), lengths) / run.device.product_rate
    return seconds, sum(lengths) / seconds, floor_s / seconds


def _best(run: Run, layout: str, rates: _Rates) -> Iterator[Figure]:
    if not rates.shares:
        raise LeftOut("neither was measured")
    yield Figure("posts, share of the floor", max(rates.shares.values()), run.aim(run.models.layout(layout).share))


def _outside(run: Run, encoder: Encoder, sample: Sequence[str], seconds: float) -> float:
    """Of a GPU: how long it has nothing to do."""
    if run.device.is_gpu:
        return max(0.0, 1 - run.device.busy_s(lambda: encoder.encode_texts(sample)) / seconds)
    before = encoder.stats.device_s
    wall_s = run.device.seconds(lambda: encoder.encode_texts(sample))
    return 1 - (encoder.stats.device_s - before) / wall_s


def _prefix(run: Run, layout: str, prefix_tokens: int) -> Iterator[Figure]:
    encoder = run.models.encoder(layout, prefix_tokens=prefix_tokens, limit=run.sizes.member_tokens)
    sample = run.models.posts(run.models.layout(layout).num_posts)
    shared = len(encoder.prepare_posts([]).prefix)
    config = run.models.layout(layout).config()
    lengths = [len(prompt) for prompt in encoder.prompts(sample)]
    shared_s = run.device.median_s(partial(encoder.encode_texts, sample))
    whole_s = run.device.median_s(partial(encoder.encode_texts, sample, share_prefix=False))
    own = [length - shared for length in lengths]
    operations = forward_operations(config, own, shared)
    yield Figure("tokens of the prefix", shared)
    yield Figure("posts/s", len(sample) / shared_s)
    yield Figure("share of the floor", operations / run.device.product_rate / shared_s)
    yield Figure("sharing / not, posts/s", whole_s / shared_s)
    yield Figure("what the tokens allow", sum(lengths) / sum(own))


def _stock(run: Run, layout: str, rates: _Rates, *, padded: bool) -> Iterator[Figure]:
    if not padded and not is_flash_attn_2_available():
        raise LeftOut("sentence-transformers needs the package flash-attn for it")
    sample = run.models.posts(-(-run.models.layout(layout).num_posts // _STOCK_PART))
    package = run.models.package(layout)
    counter = run.models.encoder(layout, limit=run.sizes.member_tokens)
    tokens = sum(len(prompt) for prompt in counter.prompts(sample))
    del counter
    best = 0.0
    for batch in run.sizes.stock_batches:
        stock = sentence_transformers(
            package.folder,
            _HOST_THREADS if run.device.is_gpu else 1,
            device=run.device.name,
            most_tokens=run.sizes.member_tokens,
            batch=batch,
            unpadded=not padded,
        )
        seconds = run.device.median_s(_encode(stock, sample))
        del stock
        run.device.free()
        yield Figure(f"batches of {batch}, tokens/s", tokens / seconds)
        best = max(best, tokens / seconds)
    if rates.posts:
        ratio = max(rates.posts.values()) / best
        yield Figure("ours / its best batch", ratio, run.aim(_TIMES_STOCK if padded else None))


def _encode(stock: Callable[[Sequence[str]], object], sample: Sequence[str]) -> Callable[[], object]:
    rendered = [f"<|nearline:text|>{text}" for text in sample]
    return lambda: stock(rendered)


def _encoder(run: Run, layout: str, *, compiled: bool, attention: AttentionKernel = "flash") -> Encoder:
    if run.device.is_gpu:
        torch.cuda.reset_peak_memory_stats(run.device.name)
    return run.models.encoder(layout, compiled=compiled, attention=attention, limit=run.sizes.member_tokens)
