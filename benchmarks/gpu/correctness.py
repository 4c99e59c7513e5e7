"""Part 1: whether the packed encoder in half precision gives the vectors of transformers in fp32, text by text."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.run import LeftOut, Run
from benchmarks.kit.other_encoders import one_by_one
from benchmarks.kit.table import Figure
from encoders.encoder import Encoder
from encoders.errors import Unencodable
from encoders.model.attention import FLASH, ONE_SPLIT, NumSplits, Packing, packed_attention, takes_num_splits
from schemas.embeddings import Vector

WORST: Final = 3e-3
"""The largest 1 - cosine."""
_EAGER_COPIES: Final = 4
"""Eager attention holds so many matrices of all scores at the same time."""


def measure(run: Run) -> None:
    main, prefix = run.models.main, run.sizes.prefixes[0]
    truth = _Truth(run)
    run.arm(f"{main} eager", partial(_vectors, run, truth, main, prefix, compiled=False))
    if run.device.is_gpu:
        run.arm(f"{main} compiled", partial(_vectors, run, truth, main, prefix, compiled=True))
    else:
        run.leave_out(f"{main} compiled", "on a CPU these are other kernels, with tests of their own")
    for name in run.sizes.variants:
        run.arm(name, partial(_vectors, run, truth, name, prefix, compiled=False))
    run.arm("batch-invariant attention", partial(_invariance, run))
    run.arm("flash and cuDNN", partial(_attention, run))


class _Truth:
    """Vectors of transformers in fp32, kept for the next arm with the same model and prompts."""

    def __init__(self, run: Run) -> None:
        self._device = run.device
        self._kept: tuple[object, Vector] | None = None

    def of(self, encoder: Encoder, prompts: Sequence[list[int]]) -> Vector:
        package = encoder.package
        key = package.folder, prompts
        if self._kept is None or self._kept[0] != key:
            vectors = one_by_one(package.folder, prompts, package.dimension, torch.float32, self._device.name)
            self._kept = key, vectors
        return self._kept[1]


def _vectors(run: Run, truth: _Truth, name: str, prefix_tokens: int, *, compiled: bool) -> Iterator[Figure]:
    encoder = run.models.encoder(name, compiled=compiled, prefix_tokens=prefix_tokens)
    texts = _texts(run, encoder)
    prompts = encoder.prompts(texts)
    expected = truth.of(encoder, prompts)
    lengths = [len(prompt) for prompt in prompts]
    yield Figure("tokens of the longest text", max(lengths))
    for label, share in (("prefix shared", True), ("not shared", False)):
        vectors = as_array(encoder.encode_texts(texts, share_prefix=share))
        worst = float((1 - (expected * vectors).sum(1)).max())
        yield Figure(f"1 - cosine to fp32, worst text, {label}", worst, WORST, "at_most")
        again = as_array(encoder.encode_texts(texts, share_prefix=share))
        yield Figure(f"two runs give the same bits, {label} (1: yes)", float((again == vectors).all()), 1.0)
    alone = as_array([encoder.encode_texts([text], share_prefix=False)[0] for text in texts])
    yield Figure("1 - cosine of a text alone to it in a batch", float((1 - (alone * vectors).sum(1)).max()))


def _texts(run: Run, encoder: Encoder) -> list[str]:
    """As long ones as fp32 with eager attention has room for on this card."""
    heads = run.models.layout(run.models.main).config().num_attention_heads
    room = run.device.free_bytes() / (_EAGER_COPIES * 4 * heads)
    texts = [run.models.words(count, first=number) for number, count in enumerate(run.sizes.words)]
    return [text for text, prompt in zip(texts, encoder.prompts(texts), strict=True) if len(prompt) ** 2 <= room]


def as_array(vectors: Sequence[Vector | Unencodable]) -> Vector:
    """(B, D) in double precision. Raises RuntimeError if one text has no vector."""
    causes = [vector.cause for vector in vectors if isinstance(vector, Unencodable)]
    if causes:
        raise RuntimeError(f"{len(causes)} texts have no vector: {causes[0]}")
    return np.asarray(vectors, np.float64)  # type: ignore[return-value]  # double, to see small distances


def _invariance(run: Run) -> Iterator[Figure]:
    """The attention of each text alone and among others."""
    if run.device.is_gpu and not takes_num_splits():
        raise LeftOut(f"torch {torch.__version__} cannot be told to keep the keys of a text together")
    lengths = [1_000, 600, 384, 200, 100, 24]
    texts = [_random_qkv(run, length) for length in lengths]
    batch = [torch.cat(parts, 1) for parts in zip(*texts, strict=True)]
    for name, num_splits, bound in (("invariant", ONE_SPLIT, 1.0), ("flash", FLASH, None)):
        attend = partial(_packed, run, num_splits=num_splits)
        together = torch.split(attend(batch, lengths), lengths)
        alone = [attend(qkv, [length]) for qkv, length in zip(texts, lengths, strict=True)]
        same = all(map(torch.equal, together, alone))
        yield Figure(f"{name}: a text has the same bits in any batch (1: yes)", float(same), bound)


def _packed(run: Run, qkv: Sequence[torch.Tensor], lengths: list[int], *, num_splits: NumSplits) -> torch.Tensor:
    """`qkv`: each (heads, tokens, head). Returns (tokens, heads, head)."""
    packing = Packing(lengths, torch.device(run.device.name), num_splits=num_splits)
    query, key, value = (tensor.unsqueeze(0) for tensor in qkv)
    with torch.inference_mode():
        return packed_attention(torch.nn.Module(), query, key, value, None, packing=packing)[0][0]


def _random_qkv(run: Run, tokens: int) -> list[torch.Tensor]:
    """Each (heads, tokens, head), of the main layout."""
    config = run.models.layout(run.models.main).config()
    sizes = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
    shapes = [(heads, tokens, int(config.head_dim)) for heads in sizes]
    return [torch.randn(shape, device=run.device.name, dtype=torch.bfloat16) for shape in shapes]


def _attention(run: Run) -> Iterator[Figure]:
    """The packed attention of a batch, on either backend of torch, where torch has the choice."""
    if not run.device.is_gpu:
        raise LeftOut("there is one packed attention on a CPU")
    lengths = [count * 2 for count in (500, 300, 200, 100, 100, 60, 60, 60, 40, 30, 20, 10, 1)]
    qkv = [tensor.transpose(0, 1).contiguous() for tensor in _random_qkv(run, sum(lengths))]
    flash_s, flash = _on_backend(run, SDPBackend.FLASH_ATTENTION, qkv, lengths)
    yield Figure("flash, ms a layer of a batch", flash_s * 1e3)
    try:
        cudnn_s, cudnn = _on_backend(run, SDPBackend.CUDNN_ATTENTION, qkv, lengths)
    except RuntimeError as error:  # of torch, for cards or a cuDNN that cannot do it
        raise LeftOut(f"cuDNN: {error}") from error
    yield Figure("cuDNN, ms a layer of a batch", cudnn_s * 1e3)
    yield Figure("cuDNN, ms of the first batch of a geometry", _first_s(run, qkv, lengths) * 1e3)
    yield Figure("largest difference of the two", float((flash - cudnn).abs().max()), 0.05, "at_most")


def _on_backend(
    run: Run, backend: SDPBackend, qkv: list[torch.Tensor], lengths: list[int]
) -> tuple[float, torch.Tensor]:
    from torch.profiler import ProfilerActivity, profile

    with sdpa_kernel(backend), torch.inference_mode():
        seconds = run.device.median_s(partial(_attend, qkv, lengths))
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            out = _attend(qkv, lengths).float()
            run.device.synchronize()
    names = " ".join(event.key for event in profiler.key_averages()).lower()
    if ("cudnn" in names) != (backend == SDPBackend.CUDNN_ATTENTION):
        raise LeftOut(f"packed attention of torch {torch.__version__} does not run on {backend.name} here")
    return seconds, out


def _first_s(run: Run, qkv: list[torch.Tensor], lengths: list[int]) -> float:
    """With a geometry that was never there before."""
    other = [lengths[0] - 7, *lengths[1:-1], lengths[-1] + 7]
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION), torch.inference_mode():
        return run.device.seconds(lambda: _attend(qkv, other))


def _attend(qkv: list[torch.Tensor], lengths: list[int]) -> torch.Tensor:
    """As `encoders.model.attention` does, for torch before 2.12 too: keys and values are repeated."""
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = qkv
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, 1) for tensor in (key, value))
    ends = torch.tensor([0, *lengths], dtype=torch.int32, device=query.device).cumsum(0, dtype=torch.int32)
    window = (-1, 0)
    result = varlen_attn(query, key, value, ends, ends, max(lengths), max(lengths), window_size=window)
    return result if isinstance(result, torch.Tensor) else result[0]
