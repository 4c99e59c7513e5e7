"""A LLaMA's layers on packed texts, forward and gradients by hand, for one pass in one thread of a CPU.

torch's autograd would read and write each activation some sixty times between the matrix products of a layer; our own
kernels do it a dozen times. What comes out is that of transformers' own layers. Shapes: T tokens of a pass, H the
model's size, I the size within, N heads, X numbers of all heads, L positions, D size of a head.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel

from trainer.model.kernels import Heads, Kernels

LONGEST: Final = 1_024
"""Weights and slopes of longer texts leave the caches; torch's own attention takes them in pieces."""
_CHUNK: Final = 4 * 2**20
_LINE: Final = 16
"""Numbers of a cache line."""


class Layer(NamedTuple):
    """The weights of one layer, or their gradients."""

    norm_H: Tensor
    qkv_XH: Tensor
    out_HX: Tensor
    inner_norm_H: Tensor
    gate_up_2IH: Tensor
    down_HI: Tensor


class Weights(NamedTuple):
    """Of all layers and the last norm, or their gradients."""

    layers: list[Layer]
    norm_H: Tensor

    @classmethod
    def of(cls, llama: LlamaModel) -> "Weights":
        return cls([_weights(layer) for layer in llama.layers], llama.norm.weight)

    @classmethod
    def from_flat(cls, flat: Sequence[Tensor]) -> "Weights":
        size = len(Layer._fields)
        return cls([Layer(*flat[at : at + size]) for at in range(0, len(flat) - 1, size)], flat[-1])

    def flat(self) -> Iterator[Tensor]:
        for layer in self.layers:
            yield from layer
        yield self.norm_H


class Kept(NamedTuple):
    """Of a layer's forward pass, for its gradients."""

    hidden_TH: Tensor
    scales_T: Tensor
    normed_TH: Tensor
    qkv_TX: Tensor
    attended_TX: Tensor
    logs_NT: Tensor
    middle_TH: Tensor
    inner_scales_T: Tensor
    inner_normed_TH: Tensor
    gate_up_T2I: Tensor
    gated_TI: Tensor


class Pass(NamedTuple):
    """One forward pass, until its gradients are made."""

    memory: "Memory"
    lengths: Tensor
    layers: list[Kept]
    last_TH: Tensor
    last_scales_T: Tensor


class Memory:
    """Of one pass, used again in the next batch: new memory would have to be given pages each time."""

    def __init__(self) -> None:
        self._chunks: list[Tensor] = []
        self._chunk = 0
        self._used = 0

    def clear(self) -> None:
        self._chunk = self._used = 0

    def take(self, *shape: int) -> Tensor:
        """Of any content."""
        size = math.prod(shape)
        while self._chunk < len(self._chunks) and self._used + size > len(self._chunks[self._chunk]):
            self._chunk, self._used = self._chunk + 1, 0
        if self._chunk == len(self._chunks):
            self._chunks.append(torch.empty(max(size, _CHUNK)))
        found = self._chunks[self._chunk][self._used : self._used + size].view(shape)
        self._used += -(-size // _LINE) * _LINE
        return found


class Layers:
    """In any thread; nothing of a pass is kept here."""

    def __init__(self, llama: LlamaModel, kernels: Kernels) -> None:
        attention: Any = llama.layers[0].self_attn
        config = llama.config
        self._kernels = kernels
        self._eps = config.rms_norm_eps
        shape = config.num_attention_heads, int(config.num_key_value_heads or config.num_attention_heads)
        self._heads = Heads(*shape, attention.head_dim, attention.scaling, _angles(llama))

    def forward(
        self, hidden_TH: Tensor, lengths: Sequence[int], weights: Weights, memory: Memory, to_TH: Tensor
    ) -> Pass:
        memory.clear()
        texts = torch.tensor(lengths, dtype=torch.int32)
        kept = []
        for layer in weights.layers:
            one, hidden_TH = self._layer(hidden_TH, texts, layer, memory)
            kept.append(one)
        scales_T = memory.take(len(hidden_TH))
        self._kernels.norm(hidden_TH, weights.norm_H, self._eps, scales_T, to_TH)
        return Pass(memory, texts, kept, hidden_TH, scales_T)

    def backward(
        self, one: Pass, out_gradient_TH: Tensor, weights: Weights, sums: Weights, gradient_TH: Tensor
    ) -> None:
        """Adds to `sums`. `gradient_TH` begins as zeros and ends as that of what was embedded."""
        last = one.last_TH, weights.norm_H, one.last_scales_T
        self._kernels.norm_gradient(*last, out_gradient_TH, (gradient_TH, sums.norm_H))
        spare = one.memory.take(*one.layers[0].attended_TX.shape), one.memory.take(*one.layers[0].qkv_TX.shape)
        for layer, kept, layer_sums in list(zip(weights.layers, one.layers, sums.layers, strict=True))[::-1]:
            self._mlp_gradients(layer, kept, layer_sums, gradient_TH)
            self._attention_gradients(layer, kept, layer_sums, gradient_TH, (one.lengths, *spare))

    def _layer(self, hidden_TH: Tensor, texts: Tensor, layer: Layer, memory: Memory) -> tuple[Kept, Tensor]:
        kernels = self._kernels
        rows, hidden = hidden_TH.shape
        scales_T, normed_TH = memory.take(rows), memory.take(rows, hidden)
        kernels.norm(hidden_TH, layer.norm_H, self._eps, scales_T, normed_TH)
        qkv_TX = torch.mm(normed_TH, layer.qkv_XH.T, out=memory.take(rows, len(layer.qkv_XH)))
        attended_TX, logs_NT = memory.take(rows, layer.out_HX.shape[1]), memory.take(self._heads.queries, rows)
        kernels.attend(qkv_TX, texts, self._heads, attended_TX, logs_NT)
        middle_TH = torch.addmm(hidden_TH, attended_TX, layer.out_HX.T, out=memory.take(rows, hidden))

        inner_scales_T, inner_TH = memory.take(rows), memory.take(rows, hidden)
        kernels.norm(middle_TH, layer.inner_norm_H, self._eps, inner_scales_T, inner_TH)
        gate_up_T2I = torch.mm(inner_TH, layer.gate_up_2IH.T, out=memory.take(rows, len(layer.gate_up_2IH)))
        gated_TI = memory.take(rows, layer.down_HI.shape[1])
        kernels.gate(gate_up_T2I, gated_TI)
        next_TH = torch.addmm(middle_TH, gated_TI, layer.down_HI.T, out=memory.take(rows, hidden))
        attention = hidden_TH, scales_T, normed_TH, qkv_TX, attended_TX, logs_NT
        return Kept(*attention, middle_TH, inner_scales_T, inner_TH, gate_up_T2I, gated_TI), next_TH

    # What was kept is written over where it is needed no more. A residual's gradient goes on as it is.

    def _mlp_gradients(self, layer: Layer, kept: Kept, sums: Layer, gradient_TH: Tensor) -> None:
        sums.down_HI.addmm_(gradient_TH.T, kept.gated_TI)
        gated_TI = torch.mm(gradient_TH, layer.down_HI, out=kept.gated_TI)
        self._kernels.gate_gradient(kept.gate_up_T2I, gated_TI)
        sums.gate_up_2IH.addmm_(kept.gate_up_T2I.T, kept.inner_normed_TH)
        normed_TH = torch.mm(kept.gate_up_T2I, layer.gate_up_2IH, out=kept.inner_normed_TH)
        norm = kept.middle_TH, layer.inner_norm_H, kept.inner_scales_T
        self._kernels.norm_gradient(*norm, normed_TH, (gradient_TH, sums.inner_norm_H))

    def _attention_gradients(
        self, layer: Layer, kept: Kept, sums: Layer, gradient_TH: Tensor, given: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        texts, attended_TX, qkv_TX = given
        sums.out_HX.addmm_(gradient_TH.T, kept.attended_TX)
        torch.mm(gradient_TH, layer.out_HX, out=attended_TX)
        out = kept.attended_TX, kept.logs_NT, attended_TX
        self._kernels.attend_gradient(kept.qkv_TX, texts, self._heads, out, qkv_TX)
        sums.qkv_XH.addmm_(qkv_TX.T, kept.normed_TH)
        normed_TH = torch.mm(qkv_TX, layer.qkv_XH, out=kept.normed_TH)
        norm = kept.hidden_TH, layer.norm_H, kept.scales_T
        self._kernels.norm_gradient(*norm, normed_TH, (gradient_TH, sums.norm_H))


def _weights(layer: nn.Module) -> Layer:
    """The products that read the same input are one."""
    assert isinstance(layer, LlamaDecoderLayer)
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        layer.input_layernorm.weight,
        torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]),
        attention.o_proj.weight,
        layer.post_attention_layernorm.weight,
        torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
        mlp.down_proj.weight,
    )


def _angles(llama: LlamaModel) -> Tensor:
    """(L, D): of each position the cosines of its pairs' angles, then the sines."""
    cos_1LD, sin_1LD = llama.rotary_emb(torch.empty(0), torch.arange(LONGEST).unsqueeze(0))
    half = cos_1LD.shape[2] // 2
    return torch.cat([cos_1LD[0, :, :half], sin_1LD[0, :, :half]], 1)
