"""A LLaMA layer for packed prompts: transformers' own weights, in fewer and larger steps.

Between the matrix products a stock layer reads and writes its activations some thirty times; here it is a dozen. The
three products that read the same input are one, a norm's weights are in the product that follows it, a product adds its
result to the residual itself, and a position turns pairs of numbers that lie side by side. What happens between the
products is in `encoders/model/elementwise.py`.

Shapes: T tokens of a packed batch, H the model's size, N heads, D size of a head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel, LlamaRotaryEmbedding

from encoders.model.attention import Packing, packed_attention
from encoders.model.elementwise import Steps, choose_steps
from encoders.model.fused_linear import gate_and_up, product
from encoders.model.kernels import Heads


def use_packed_layers(model: LlamaModel, *, compiled: bool = False) -> None:
    """The model's layers become packed ones; the old ones' weights are let go. `compiled`: what is between the products
    is fused, on a GPU when it first runs. Raises EncodingFailed where nothing can be compiled."""
    steps = choose_steps(model.config, model.device, compiled=compiled)
    model.rotary_emb = _Turns(model.rotary_emb)
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, LlamaDecoderLayer)
        model.layers[number] = PackedLayer(layer, model.config, number, steps)


class PackedLayer(nn.Module):
    def __init__(self, layer: LlamaDecoderLayer, config: LlamaConfig, number: int, steps: Steps) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.layer_idx = number
        self._steps = steps
        self._head = int(config.head_dim or config.hidden_size // config.num_attention_heads)
        self._heads = config.num_attention_heads
        self._turning = config.num_attention_heads + int(config.num_key_value_heads or config.num_attention_heads)
        self._scaling = attention.scaling
        self._eps = config.rms_norm_eps
        turned = [_side_by_side(linear, self._head) for linear in (attention.q_proj, attention.k_proj)]
        self._qkv = product([*turned, attention.v_proj], layer.input_layernorm.weight)
        self._out = product([attention.o_proj])
        self._gate_and_up = gate_and_up(
            mlp.gate_proj, mlp.up_proj, layer.post_attention_layernorm.weight, config.hidden_act, steps
        )
        self._down = product([mlp.down_proj])

    def forward(self, hidden_states: Tensor, *, position_embeddings: Tensor, packing: Packing, **_: Any) -> Tensor:
        """(1, T, H), which may be changed in place."""
        hidden_TH = hidden_states[0]
        hidden_TH = self._out.added_to(hidden_TH, self._attended(hidden_TH, position_embeddings, packing))
        gated_TI = self._gate_and_up(self._steps.normed(hidden_TH, self._eps))
        return self._down.added_to(hidden_TH, gated_TI).unsqueeze(0)

    def _attended(self, hidden_TH: Tensor, turns_T1C: Tensor, packing: Packing) -> Tensor:
        qkv_TND = self._qkv(self._steps.normed(hidden_TH, self._eps)).view(len(hidden_TH), -1, self._head)
        kernels = self._steps.kernels
        if kernels is not None and kernels.fit_prompts(packing):
            return kernels.attended(qkv_TND, turns_T1C, packing, Heads(self.layer_idx, self._heads, self._scaling))
        qk_TND = self._steps.turned(qkv_TND[:, : self._turning], turns_T1C)
        query, key, value = (
            side.transpose(0, 1).unsqueeze(0)
            for side in (qk_TND[:, : self._heads], qk_TND[:, self._heads :], qkv_TND[:, self._turning :])
        )
        attended, _ = packed_attention(self, query, key, value, None, packing=packing, scaling=self._scaling)
        return attended[0].flatten(1)


class _Turns(nn.Module):
    """Each position's angles, as complex numbers: (T, 1, D / 2). In float32, whatever the precision."""

    def __init__(self, rotary: LlamaRotaryEmbedding) -> None:
        super().__init__()
        self._rotary = rotary

    def forward(self, _: Tensor, position_ids: Tensor) -> Tensor:
        whole_precision = torch.empty(0, device=position_ids.device)
        cos_1TD, sin_1TD = self._rotary(whole_precision, position_ids)
        half = cos_1TD.shape[2] // 2
        return torch.complex(cos_1TD[0, :, None, :half], sin_1TD[0, :, None, :half])


def _side_by_side(linear: nn.Linear, head: int) -> nn.Linear:
    """The numbers of a head in another order, so that each pair which a position turns lies side by side: the first
    half's with the second half's. Queries and keys in the same order have the same products."""
    order = torch.arange(linear.out_features, device=linear.weight.device).view(-1, 2, head // 2).mT.flatten()
    found = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
    found.weight = nn.Parameter(linear.weight[order], requires_grad=False)
    if linear.bias is not None:
        found.bias = nn.Parameter(linear.bias[order], requires_grad=False)
    return found
