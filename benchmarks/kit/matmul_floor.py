"""The least time that an encoder needs: that of its matrix products alone, measured on this machine at the model's own
shapes.

Each product is timed in all the ways that are known, and the fastest counts: products that read the same input as one,
or each alone; in bf16 with weights that oneDNN has reordered once, as the encoder's are, or as they are; every thread
with products of its own, or all threads sharing one.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import torch
import torch.nn.functional as F
from transformers.models.llama.configuration_llama import LlamaConfig

from encoders.model.fused_linear import uses_onednn

_ROWS: Final = 1024
"""Tokens in one product."""
_LENGTH: Final = 64
"""Tokens of a prompt in the products of attention: the median of the texts."""
_MEASURE_S: Final = 0.2


def floor_s(config: LlamaConfig, lengths: Sequence[int], dtype: torch.dtype, threads: int) -> float:
    """Seconds that the matrix products of these prompts take at least."""
    hidden, head = config.hidden_size, config.head_dim
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    inner = config.intermediate_size
    same_input = [(hidden, [queries, keys, keys]), (queries, [hidden]), (hidden, [inner, inner]), (inner, [hidden])]
    per_token = sum(_linears_s(inputs, outputs, dtype, threads) for inputs, outputs in same_input)
    per_product = _attention_s(config.num_attention_heads, head, dtype, threads)
    # Causal attention sees half of the prompt. It has two products: the scores, and the weighted mean of the values.
    products = sum(length * (length + 1) / 2 for length in lengths) / _LENGTH**2
    return config.num_hidden_layers * (per_token * sum(lengths) + 2 * per_product * products)


def _linears_s(inputs: int, outputs: Sequence[int], dtype: torch.dtype, threads: int) -> float:
    """Seconds per token of products that read the same input."""
    as_one = _linear_s(inputs, sum(outputs), dtype, threads)
    alone = {width: _linear_s(inputs, width, dtype, threads) for width in {*outputs}} if len(outputs) > 1 else {}
    return min(as_one, sum(alone[width] for width in outputs)) if alone else as_one


def _linear_s(inputs: int, outputs: int, dtype: torch.dtype, threads: int) -> float:
    weight = torch.randn(outputs, inputs).to(dtype)
    tokens = [torch.randn(_ROWS, inputs).to(dtype) for _ in range(threads)]
    products: list[Callable[[int], object]] = [lambda thread: F.linear(tokens[thread], weight)]
    if uses_onednn(torch.device("cpu"), dtype):
        reordered = torch.ops.mkldnn._reorder_linear_weight(weight)
        multiply = torch.ops.mkldnn._linear_pointwise
        products.append(lambda thread: multiply(tokens[thread], reordered, None, "none", [], ""))
    return min(_best_s(product, threads) for product in products) / _ROWS


def _attention_s(heads: int, head: int, dtype: torch.dtype, threads: int) -> float:
    """Seconds for one product of all heads over one prompt of `_LENGTH` tokens."""
    prompts = _ROWS // _LENGTH
    left = [torch.randn(prompts * heads, _LENGTH, head).to(dtype) for _ in range(threads)]
    right = [torch.randn(prompts * heads, head, _LENGTH).to(dtype) for _ in range(threads)]
    return _best_s(lambda thread: torch.bmm(left[thread], right[thread]), threads) / prompts


def _best_s(product: Callable[[int], object], threads: int) -> float:
    """Seconds per product with all threads at work, in the faster of the two ways."""
    torch.set_num_threads(threads)
    shared = _median_s(product, 0)
    torch.set_num_threads(1)
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        separate = max(pool.map(lambda thread: _median_s(product, thread), range(threads))) / threads
    return min(shared, separate)


@torch.inference_mode()
def _median_s(product: Callable[[int], object], thread: int) -> float:
    """Seconds per product: the median over groups of five, as the encoder's time is a median too."""
    times = []
    product(thread)
    end = time.perf_counter() + _MEASURE_S
    while (began := time.perf_counter()) < end:
        for _ in range(5):
            product(thread)
        times.append((time.perf_counter() - began) / 5)
    return statistics.median(times)
