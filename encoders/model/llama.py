"""transformers' LLaMA, imported without scikit-learn and SciPy.

transformers imports those for a way of generating text and for object detection, which no encoder uses. They would take
a quarter of the CPU time in which a process with a model starts, and so of the time in which it recovers from a crash.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils.import_utils import is_scipy_available, is_sklearn_available


@contextmanager
def _without_what_is_not_used() -> Iterator[None]:
    """Within the block the two count as not installed, if nobody has imported them yet."""
    hidden = [name for name in ("sklearn", "scipy") if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails now
    _ask_again()
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        _ask_again()


def _ask_again() -> None:
    """transformers remembers what is installed."""
    is_sklearn_available.cache_clear()
    is_scipy_available.cache_clear()


with _without_what_is_not_used():
    from transformers import AttentionInterface
    from transformers.activations import ACT2FN
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel, LlamaRotaryEmbedding

__all__ = ["ACT2FN", "AttentionInterface", "LlamaConfig", "LlamaDecoderLayer", "LlamaModel", "LlamaRotaryEmbedding"]
