"""The encoder's counters as Prometheus reads them."""

from prometheus_client import CollectorRegistry

from encoders.encoder import Encoder
from encoders.metrics import EncoderMetrics


def test_what_was_encoded_is_counted_and_nothing_is_padded(encoder: Encoder) -> None:
    registry = CollectorRegistry()
    registry.register(EncoderMetrics(encoder))

    def value(name: str, **labels: str) -> float:
        sample = registry.get_sample_value(f"nearline_encode_{name}", labels)
        assert sample is not None
        return sample

    before = value("prompts_total"), value("tokens_total"), value("device_seconds_total")
    texts = ["one", "two words", "two words", "three of them"]
    num_tokens = sum(map(len, encoder.prompts(sorted(set(texts)))))
    encoder.encode_texts(texts)
    assert value("prompts_total") - before[0] == 3, "a repeated text is encoded once"
    assert value("tokens_total") - before[1] == num_tokens
    assert value("device_seconds_total") > before[2]
    assert value("padding_total") == encoder.stats.padding_tokens == 0
    assert value("batch_budget_tokens_total") >= value("tokens_total")
    assert (value("budget_tokens"), value("out_of_memory_total")) == (encoder.budget_tokens, 0)
    assert value("cache_total", cache="text", result="hit") == encoder.by_text.hits
