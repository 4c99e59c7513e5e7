"""A LLaMA layer for packed prompts: transformers' own weights, in fewer and larger steps.

Between the matrix products a stock layer reads and writes its activations some thirty times; here it is a dozen. The
three products that read the same input are one, a norm's weights are in the product that follows it, and a product adds
its result to the residual itself. Shapes: T tokens of a packed batch, H the model's size, N heads, D size of a head.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel

from encoders.attention import Packing, packed_attention


class Steps(NamedTuple):
    """What is between the matrix products."""

    normed: Callable[[Tensor, float], Tensor]
    rotated: Callable[[Tensor, Tensor, Tensor], Tensor]
    gated: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]


def use_packed_layers(model: LlamaModel, *, compiled: bool = False) -> None:
    """The model's layers become packed ones; the old ones' weights are let go. `compiled`: their steps are fused by
    torch's compiler, when they first run."""
    steps = Steps(*(torch.compile(step) for step in STEPS)) if compiled else STEPS
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, LlamaDecoderLayer)
        model.layers[number] = PackedLayer(layer, model.config, number, steps)


class PackedLayer(nn.Module):
    def __init__(self, layer: LlamaDecoderLayer, config: LlamaConfig, number: int, steps: Steps) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.layer_idx = number
        self._steps = steps
        self._head = config.head_dim
        self._heads = config.num_attention_heads
        self._turning = config.num_attention_heads + int(config.num_key_value_heads or config.num_attention_heads)
        self._scaling = attention.scaling
        self._eps = config.rms_norm_eps
        self._activate = ACT2FN[config.hidden_act]
        self._qkv = _Product([attention.q_proj, attention.k_proj, attention.v_proj], layer.input_layernorm.weight)
        self._gate_up = _Product([mlp.gate_proj, mlp.up_proj], layer.post_attention_layernorm.weight)
        self._out = _Product([attention.o_proj])
        self._down = _Product([mlp.down_proj])

    def forward(
        self, hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], packing: Packing, **_: Any
    ) -> Tensor:
        """(1, T, H), changed in place."""
        hidden_TH = hidden_states[0]
        self._out.add_to(hidden_TH, self._attended(hidden_TH, position_embeddings, packing))
        gate_up_T2I = self._gate_up(self._steps.normed(hidden_TH, self._eps))
        self._down.add_to(hidden_TH, self._steps.gated(gate_up_T2I, self._activate))
        return hidden_states

    def _attended(self, hidden_TH: Tensor, position_embeddings: tuple[Tensor, Tensor], packing: Packing) -> Tensor:
        qkv_TND = self._qkv(self._steps.normed(hidden_TH, self._eps)).unflatten(1, (-1, self._head))
        qk_TND = self._steps.rotated(qkv_TND[:, : self._turning], *position_embeddings)
        query, key, value = (
            side.transpose(0, 1).unsqueeze(0)
            for side in (qk_TND[:, : self._heads], qk_TND[:, self._heads :], qkv_TND[:, self._turning :])
        )
        attended, _ = packed_attention(self, query, key, value, None, packing=packing, scaling=self._scaling)
        return attended[0].flatten(1)


class _Product(nn.Module):
    """Linear layers of one input side by side, with the weights of the norm before them, if there is one."""

    bias: Tensor | None

    def __init__(self, linears: list[nn.Linear], norm: Tensor | None = None) -> None:
        super().__init__()
        weights: list[Tensor] = [linear.weight for linear in linears]
        weight = torch.cat(weights)
        self.weight = nn.Buffer(weight if norm is None else (weight.float() * norm.float()).to(weight.dtype))
        biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
        self.bias = nn.Buffer(torch.cat(biases)) if biases else None

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight, self.bias)

    def add_to(self, hidden_TH: Tensor, inputs: Tensor) -> None:
        hidden_TH.addmm_(inputs, self.weight.t())
        if self.bias is not None:
            hidden_TH.add_(self.bias)


def _normed(hidden_TH: Tensor, eps: float) -> Tensor:
    """Root mean square norm without its weights; in float32 inside, whatever the precision."""
    length_T1 = torch.linalg.vector_norm(hidden_TH, dim=1, keepdim=True, dtype=torch.float32)
    scale_T1 = torch.rsqrt(length_T1.square_().div_(hidden_TH.shape[1]).add_(eps))
    return torch.mul(hidden_TH, scale_T1, out=torch.empty_like(hidden_TH))


def _rotated(heads_TND: Tensor, cos_1TD: Tensor, sin_1TD: Tensor) -> Tensor:
    """Each head's two halves turned by their positions' angles."""
    half = heads_TND.shape[2] // 2
    cos, sin = cos_1TD[0, :, None, :half], sin_1TD[0, :, None, :half]
    left, right = heads_TND[..., :half], heads_TND[..., half:]
    turned = torch.empty_like(heads_TND, memory_format=torch.contiguous_format)
    torch.mul(left, cos, out=turned[..., :half]).addcmul_(right, sin, value=-1)
    torch.mul(right, cos, out=turned[..., half:]).addcmul_(left, sin)
    return turned


def _gated(gate_up_T2I: Tensor, activate: Callable[[Tensor], Tensor]) -> Tensor:
    """Of the gate's numbers and what they let through, side by side."""
    gate, up = gate_up_T2I.chunk(2, 1)
    return activate(gate).mul_(up)


STEPS: Final = Steps(_normed, _rotated, _gated)
