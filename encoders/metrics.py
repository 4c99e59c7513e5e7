"""The metrics of an encoder for Prometheus. Owns their names; the numbers are counted elsewhere."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from encoders.encoder import Encoder


class EncoderMetrics(Collector):
    """Read when Prometheus scrapes. Tokens per second are the rate of `tokens`; the fill of the budget is `tokens`
    divided by `batch_budget_tokens`."""

    def __init__(self, encoder: "Encoder") -> None:
        self._encoder = encoder

    def collect(self) -> Iterable[Metric]:
        stats = self._encoder.stats
        yield _counter("prompts", "Prompts that the model has encoded", stats.prompts)
        yield _counter("tokens", "Tokens that the model has seen", stats.tokens)
        yield _counter("padding", "Rows of batches that hold no token; none but in bf16 on a CPU", stats.padding_tokens)
        yield _counter("batches", "Forward passes of the model", stats.batches)
        yield _counter("batch_budget_tokens", "Tokens that these batches could have held", stats.budget_tokens)
        yield _counter("device_seconds", "Time that the device worked", stats.device_s)
        yield _counter("out_of_memory", "How often the token budget was halved because memory ran out", stats.halvings)
        yield GaugeMetricFamily(
            "nearline_encode_budget_tokens", "The token budget now", value=float(self._encoder.budget_tokens)
        )
        yield from self._cache_lookups()

    def _cache_lookups(self) -> Iterator[Metric]:
        lookups = CounterMetricFamily(
            "nearline_encode_cache", "Vectors looked for before encoding", labels=["cache", "result"]
        )
        for name, cache in (("text", self._encoder.by_text), ("prompt", self._encoder.by_prompt)):
            lookups.add_metric([name, "hit"], cache.hits)
            lookups.add_metric([name, "miss"], cache.misses)
        yield lookups


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(f"nearline_encode_{name}", help_text, value=value)
