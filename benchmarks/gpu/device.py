"""The device that is measured, and what it can do at best: the rates of a large product and of a large copy."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from transformers.models.llama.configuration_llama import LlamaConfig

from benchmarks.gpu.sizes import Sizes


class Device:
    def __init__(self, name: str, sizes: Sizes) -> None:
        self.name = name
        self.is_gpu = name.startswith("cuda")
        self._sizes = sizes

    def describe(self) -> str:
        return str(torch.cuda.get_device_name(self.name)) if self.is_gpu else "a CPU"

    def synchronize(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize(self.name)

    def free(self) -> None:
        """Gives memory back that nobody uses any more. Does nothing on a CPU."""
        if self.is_gpu:
            gc.collect()
            torch.cuda.empty_cache()

    def free_bytes(self) -> int:
        """How much of its memory nobody has. Of a CPU: enough."""
        self.free()
        return int(torch.cuda.mem_get_info(self.name)[0]) if self.is_gpu else 1 << 40

    def seconds(self, action: Callable[[], object]) -> float:
        self.synchronize()
        began = time.perf_counter()
        action()
        self.synchronize()
        return time.perf_counter() - began

    def median_s(self, action: Callable[[], object]) -> float:
        """After one run that does not count."""
        action()
        return statistics.median(self.seconds(action) for _ in range(self._sizes.turns))

    @cached_property
    def product_rate(self) -> float:
        """Operations per second of a large product in bf16, of random numbers."""
        size = self._sizes.product
        left, right = (torch.randn(size, size, device=self.name, dtype=torch.bfloat16) for _ in range(2))
        return 2 * size**3 * 20 / self.median_s(lambda: [torch.mm(left, right) for _ in range(20)])

    @cached_property
    def copy_rate(self) -> float:
        """Bytes per second that a large copy reads and writes."""
        source = torch.zeros(self._sizes.copied_bytes, dtype=torch.uint8, device=self.name)
        target = torch.empty_like(source)
        return 2 * len(source) * 10 / self.median_s(lambda: [target.copy_(source) for _ in range(10)])

    def busy_s(self, action: Callable[[], object]) -> float:
        """How long a GPU works for it: the union of the times of all its kernels and copies."""
        from torch.autograd import DeviceType
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            action()
            self.synchronize()
        events = [event for event in profiler.events() or [] if event.device_type == DeviceType.CUDA]
        busy_us, end = 0.0, float("-inf")
        for span in sorted((event.time_range.start, event.time_range.end) for event in events):
            busy_us += max(0.0, span[1] - max(span[0], end))
            end = max(end, span[1])
        return busy_us / 1e6


def forward_operations(config: LlamaConfig, lengths: Sequence[int], shared_tokens: int = 0) -> float:
    """Two operations for each token and each parameter outside the embedding. Attention: a token attends to those
    before it in its prompt, with two products. `lengths`: of the tokens that are computed; each prompt also sees
    `shared_tokens` before them."""
    head = int(config.head_dim)
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    per_layer = 2 * config.hidden_size * (queries + keys) + 3 * config.hidden_size * config.intermediate_size
    pairs = sum(length * (length + 1) / 2 + length * shared_tokens for length in lengths)
    return float(config.num_hidden_layers * (2 * per_layer * sum(lengths) + 4 * queries * pairs))
