"""How a training uses its device: in which precision, which texts are computed together, and what is computed twice
because it does not fit.

Follows from the settings, the shape of the model and the device alone, and not from what is free on the device now: a
training that is resumed must do the same sums. Owns the estimate of the memory. Computes nothing on the device.

Shapes: H the model's size, I the size of the MLP, N heads of queries, K heads of keys, D size of a head.
"""

import math
import os
from collections.abc import Callable
from itertools import product
from typing import Final, Literal, NamedTuple

import torch
from accelerate import PartialState
from transformers.models.llama.configuration_llama import LlamaConfig

from trainer.errors import BadStart
from trainer.settings import TrainSettings

Precision = Literal["fp32", "bf16"]

_CPU_PASS_TOKENS: Final = 2_048
"""More would leave a CPU's caches."""
_MIN_PASS_TOKENS: Final = 4_096
"""A smaller pass does not fill a large GPU. Then it is better to compute each layer twice."""
_USABLE: Final = 0.85
"""Of a card's memory. The rest is for CUDA, for what other devices send, and for holes."""
_MASTER_BYTES: Final = 4
"""Of a weight, in fp32."""
_LEARNING_BYTES: Final = 12
"""Of a weight that learns, beside itself: its gradient and what AdamW remembers."""
_CAST_BYTES: Final = 2
"""Of a weight, in bf16, while a batch is computed."""
_LORA_ACTIVATIONS: Final = 1.4
"""Each adapter keeps an input of its own."""


class Card(NamedTuple):
    """The device of this process."""

    kind: str
    """cpu, cuda, …"""
    name: str
    num_bytes: int
    """Its memory; 0: not asked."""
    has_bf16: bool
    shards: int
    """Among how many such devices the weights are divided (FSDP); 1: each has all."""
    idle: int
    """Other GPUs of this machine that no process uses, because `accelerate launch` was not used."""


class DeviceUse(NamedTuple):
    precision: Precision
    """bf16: of products and attention. Weights, gradients, sums of residuals and the loss stay in fp32."""
    pass_tokens: int
    """About how many tokens are computed together."""
    gradient_checkpointing: bool
    """The inside of each layer is computed again for its gradients, instead of being kept."""
    cached_gradients: bool
    """GradCache (Gao et al. 2021): each pass is computed again for its gradients, after the loss of the whole batch."""
    num_passes: int | None = None
    """So many in each batch. None: as many as its texts take. Devices among which the weights are divided ask each
    other for each layer of each pass, so all need the same number."""


IN_FP32: Final = DeviceUse("fp32", _CPU_PASS_TOKENS, gradient_checkpointing=False, cached_gradients=False)


def this_card() -> Card:
    """Asks torch and accelerate. Raises BadStart where weights would be divided among devices that are no GPUs."""
    state = PartialState()
    if state.device.type != "cuda":
        if is_sharded():
            raise BadStart(
                f"weights are divided among GPUs, and this process has {state.device.type}; "
                "take --use_fsdp out of accelerate launch"
            )
        return Card(state.device.type, state.device.type, 0, has_bf16=False, shards=1, idle=0)
    properties = torch.cuda.get_device_properties(state.device)
    return Card(
        "cuda",
        properties.name,
        properties.total_memory,
        torch.cuda.is_bf16_supported(including_emulation=False),
        state.num_processes if is_sharded() else 1,
        torch.cuda.device_count() - 1 if state.num_processes == 1 else 0,
    )


def is_sharded() -> bool:
    """Whether `accelerate launch --use_fsdp` has started this process."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def device_use(settings: TrainSettings, config: Callable[[], LlamaConfig], card: Card) -> DeviceUse:
    """`config`: of the model, asked for only where the memory decides. What the settings leave open is chosen so that
    a batch fits: nothing twice if possible, else the inside of layers, else GradCache, else both. Raises BadStart."""
    precision = settings.precision or ("bf16" if card.has_bf16 else "fp32")
    asked = settings.gradient_checkpointing, settings.cached_gradients
    if card.kind != "cuda":
        return DeviceUse(precision, settings.pass_tokens or _CPU_PASS_TOKENS, *(bool(value) for value in asked))
    memory = _Memory(config(), settings.lora_rank, precision, card)
    checkpointing, cached = ([False, True] if value is None else [value] for value in asked)
    uses = [_fitted(settings, memory, *twice) for twice in product(cached, checkpointing)]
    return next((use for use, fits in uses if fits), uses[-1][0])


def _fitted(settings: TrainSettings, memory: "_Memory", cached: bool, checkpointing: bool) -> tuple[DeviceUse, bool]:
    """And whether a batch fits so. Without GradCache all passes are kept until the loss, so there is one."""
    room = memory.tokens(checkpointing=checkpointing)
    whole = settings.batch_tokens
    longest = max(settings.train_tokens or settings.post_tokens, settings.member_tokens)
    pass_tokens = settings.pass_tokens or (max(longest, min(whole, room)) if cached else whole)
    enough = settings.pass_tokens or min(whole, _MIN_PASS_TOKENS) if cached else whole
    num_passes = math.ceil(whole / pass_tokens) if memory.is_divided else None
    return DeviceUse(memory.precision, pass_tokens, checkpointing, cached, num_passes), room >= enough


class _Memory:
    """What a training keeps on a card, estimated from the tensors that torch keeps for the gradients of transformers'
    layers. Raises BadStart where not even the weights have room."""

    def __init__(self, config: LlamaConfig, lora_rank: int, precision: Precision, card: Card) -> None:
        self.precision = precision
        self.is_divided = card.shards > 1
        hidden, inner = config.hidden_size, config.intermediate_size
        heads = config.num_attention_heads
        head = int(config.head_dim or hidden // heads)
        queries, keys = heads * head, int(config.num_key_value_heads or heads) * head
        matrices = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
        matrices += [(hidden, inner), (hidden, inner), (inner, hidden)]
        per_layer = sum(inputs * outputs for inputs, outputs in matrices)
        num_weights = config.vocab_size * hidden + config.num_hidden_layers * per_layer
        adapters = config.num_hidden_layers * lora_rank * sum(inputs + outputs for inputs, outputs in matrices)
        num_learning = adapters if lora_rank else num_weights
        kept = num_weights * _MASTER_BYTES + num_learning * _LEARNING_BYTES + adapters * _MASTER_BYTES
        _refuse_too_large(kept // card.shards, lora_rank, card)
        # Cast weights are not divided: each device computes with whole layers, if not with all at the same time.
        cast = _CAST_BYTES * (num_weights if card.shards == 1 else 3 * per_layer)
        self._room = _USABLE * card.num_bytes - kept / card.shards - cast
        # Norms keep fp32; the products' inputs, attention and the MLP keep bf16.
        in_half = 10 * hidden + 4 * queries + 4 * keys + 8 * inner
        per_token = 16 * hidden + in_half * (1 if precision == "bf16" else 2)
        self._inside = per_token * (_LORA_ACTIVATIONS if lora_rank else 1.0)
        self._between = _MASTER_BYTES * hidden
        self._layers = config.num_hidden_layers

    def tokens(self, *, checkpointing: bool) -> int:
        """How many tokens can be kept until their gradients are computed."""
        per_token = self._layers * self._between + self._inside if checkpointing else self._layers * self._inside
        return max(0, int(self._room / per_token))


def _refuse_too_large(kept: int, lora_rank: int, card: Card) -> None:
    if kept <= card.num_bytes:
        return
    mend = "use more cards" if lora_rank else "set lora_rank"
    raise BadStart(
        f"the weights with their gradients and AdamW's memory take {kept / 1e9:.0f} GB, and {card.name} has "
        f"{card.num_bytes / 1e9:.0f}; {mend}, or divide them among cards: accelerate launch --use_fsdp"
    )
