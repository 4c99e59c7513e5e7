"""A LLaMA layer for packed prompts: transformers' weights, computed in fewer and larger steps.

Between the matrix products a stock layer reads and writes its activations some thirty times, this one a dozen times:
- the three products that read the same input are one;
- a norm's weights are part of the product after it;
- a product adds its result to the residual itself;
- a rotary position rotates pairs of numbers that lie side by side.

Owns the order of a layer's steps. The products are in `fused_linear`, what is between them in `elementwise`, attention
in `attention` and `kernels`.

Shapes: T tokens of a packed batch, H the model's size, N heads of queries, K heads of keys and of values, D size of a
head, C = D / 2 pairs, I the size of the MLP, X = N + 2 K, Y = N D.
"""

from typing import Any

import torch
from torch import Tensor, nn

from encoders.model.attention import Packing, packed_attention
from encoders.model.elementwise import ElementwiseOps, choose_ops
from encoders.model.fused_linear import fuse, fuse_gate_and_up
from encoders.model.kernels import Heads
from encoders.model.llama import LlamaConfig, LlamaDecoderLayer, LlamaModel, LlamaRotaryEmbedding


def use_packed_layers(model: LlamaModel, *, compiled: bool = False) -> None:
    """Replaces the model's layers by packed layers, and frees the weights of the old layers. With `compiled`, the steps
    between the products are compiled: on a CPU now, on a GPU at the first run. Raises EncodingFailed if that fails."""
    ops = choose_ops(model.config, model.device, compiled=compiled)
    model.rotary_emb = _ComplexRotary(model.rotary_emb)
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, LlamaDecoderLayer)
        model.layers[number] = PackedLayer(layer, model.config, number, ops)


class PackedLayer(nn.Module):
    def __init__(self, layer: LlamaDecoderLayer, config: LlamaConfig, number: int, ops: ElementwiseOps) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.layer_idx = number
        self._ops = ops
        self._head_size = int(config.head_dim or config.hidden_size // config.num_attention_heads)
        self._num_queries = config.num_attention_heads
        num_keys = int(config.num_key_value_heads or config.num_attention_heads)
        self._num_rotated = self._num_queries + num_keys
        self._scaling = attention.scaling
        self._eps = config.rms_norm_eps
        query, key = (_with_pairs_adjacent(linear, self._head_size) for linear in (attention.q_proj, attention.k_proj))
        self._qkv = fuse([query, key, attention.v_proj], layer.input_layernorm.weight)
        self._out = fuse([attention.o_proj])
        self._gate_and_up = fuse_gate_and_up(
            mlp.gate_proj, mlp.up_proj, layer.post_attention_layernorm.weight, config.hidden_act, ops
        )
        self._down = fuse([mlp.down_proj])

    def forward(self, hidden_states: Tensor, *, position_embeddings: Tensor, packing: Packing, **_: Any) -> Tensor:
        """`hidden_states` is (1, T, H) and may be changed in place; `position_embeddings` is complex (T, 1, C)."""
        hidden_TH = hidden_states[0]
        hidden_TH = self._out.added_to(hidden_TH, self._attend(hidden_TH, position_embeddings, packing))
        gated_TI = self._gate_and_up(self._ops.rms_norm(hidden_TH, self._eps))
        return self._down.added_to(hidden_TH, gated_TI).unsqueeze(0)

    def _attend(self, hidden_TH: Tensor, rotary_T1C: Tensor, packing: Packing) -> Tensor:
        """(T, Y)"""
        qkv_TXD = self._qkv(self._ops.rms_norm(hidden_TH, self._eps)).view(len(hidden_TH), -1, self._head_size)
        kernels = self._ops.kernels
        if kernels is not None and kernels.fit_prompts(packing):
            return kernels.attend(qkv_TXD, rotary_T1C, packing, Heads(self.layer_idx, self._num_queries, self._scaling))
        rotated = self._ops.rotate(qkv_TXD[:, : self._num_rotated], rotary_T1C)
        query_1NTD, key_1KTD, value_1KTD = (
            heads.transpose(0, 1).unsqueeze(0)
            for heads in (
                rotated[:, : self._num_queries],
                rotated[:, self._num_queries :],
                qkv_TXD[:, self._num_rotated :],
            )
        )
        attended_1TND, _ = packed_attention(
            self, query_1NTD, key_1KTD, value_1KTD, None, packing=packing, scaling=self._scaling
        )
        return attended_1TND[0].flatten(1)


class _ComplexRotary(nn.Module):
    """The angles of each position as complex numbers, (T, 1, C), in float32 for a model of any precision."""

    def __init__(self, rotary: LlamaRotaryEmbedding) -> None:
        super().__init__()
        self._rotary = rotary

    def forward(self, _: Tensor, position_ids: Tensor) -> Tensor:
        gives_dtype = torch.empty(
            0, device=position_ids.device
        )  # transformers takes the result's dtype from it: float32
        cos_1TD, sin_1TD = self._rotary(gives_dtype, position_ids)
        half = cos_1TD.shape[2] // 2
        return torch.complex(cos_1TD[0, :, None, :half], sin_1TD[0, :, None, :half])


def _with_pairs_adjacent(linear: nn.Linear, head_size: int) -> nn.Linear:
    """Reorders the numbers of each head. transformers rotates number i of a head's first half together with number i of
    its second half. Here the two numbers of such a pair lie side by side. The products of queries and keys stay the
    same, because both have the new order."""
    order = torch.arange(linear.out_features, device=linear.weight.device).view(-1, 2, head_size // 2).mT.flatten()
    reordered = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
    reordered.weight = nn.Parameter(linear.weight[order], requires_grad=False)
    if linear.bias is not None:
        reordered.bias = nn.Parameter(linear.bias[order], requires_grad=False)
    return reordered
