"""A LLaMA's layers on packed texts, with a backward pass of their own, for one pass in one thread of a CPU.

torch's autograd would read and write each activation some sixty times between the matrix products of a layer; the
kernels do it a dozen times. The results are those of transformers' own layers. Owns the order of the steps of the
forward and the backward pass and the memory of a pass. Knows no threads and no loss.

Shapes: T tokens of a pass, H the model's size, I the size of the MLP, N heads of queries, K heads of keys and of
values, D size of a head, X = (N + 2 K) D numbers of queries, keys and values, Y = N D, L positions.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel

from trainer.model.kernels import Heads, Kernels

LONGEST: Final = 1_024
"""The scores of longer texts and their gradients do not fit the processor's caches; torch's own attention takes them in
pieces."""
_CHUNK_NUMBERS: Final = 4 * 2**20
_CACHE_LINE_NUMBERS: Final = 16


class LayerWeights(NamedTuple):
    """The weights of one layer, or their gradients."""

    norm_H: Tensor
    qkv_XH: Tensor
    out_HY: Tensor
    mlp_norm_H: Tensor
    gate_up_2IH: Tensor
    down_HI: Tensor


class Weights(NamedTuple):
    """The weights of all layers and of the last norm, or their gradients."""

    layers: list[LayerWeights]
    norm_H: Tensor

    @classmethod
    def of(cls, llama: LlamaModel) -> "Weights":
        return cls([_layer_weights(layer) for layer in llama.layers], llama.norm.weight)

    @classmethod
    def from_flat(cls, flat: Sequence[Tensor]) -> "Weights":
        size = len(LayerWeights._fields)
        return cls([LayerWeights(*flat[at : at + size]) for at in range(0, len(flat) - 1, size)], flat[-1])

    def flat(self) -> Iterator[Tensor]:
        for layer in self.layers:
            yield from layer
        yield self.norm_H


class Activations(NamedTuple):
    """What a layer's forward pass computed, for its backward pass."""

    hidden_TH: Tensor
    inverse_rms_T: Tensor
    normed_TH: Tensor
    qkv_TX: Tensor
    attended_TY: Tensor
    log_sum_exp_NT: Tensor
    middle_TH: Tensor
    """The residual between attention and MLP."""
    mlp_inverse_rms_T: Tensor
    mlp_normed_TH: Tensor
    gate_up_T2I: Tensor
    gated_TI: Tensor


class Pass(NamedTuple):
    """A forward pass whose backward pass is still to come."""

    memory: "Memory"
    lengths: Tensor
    layers: list[Activations]
    last_TH: Tensor
    last_inverse_rms_T: Tensor


class Memory:
    """The memory of one pass. The next batch uses it again: new memory would cost page faults each time."""

    def __init__(self) -> None:
        self._chunks: list[Tensor] = []
        self._chunk = 0
        self._used = 0

    def clear(self) -> None:
        self._chunk = self._used = 0

    def take(self, *shape: int) -> Tensor:
        """An uninitialised tensor."""
        size = math.prod(shape)
        while self._chunk < len(self._chunks) and self._used + size > len(self._chunks[self._chunk]):
            self._chunk, self._used = self._chunk + 1, 0
        if self._chunk == len(self._chunks):
            self._chunks.append(torch.empty(max(size, _CHUNK_NUMBERS)))
        tensor = self._chunks[self._chunk][self._used : self._used + size].view(shape)
        self._used += -(-size // _CACHE_LINE_NUMBERS) * _CACHE_LINE_NUMBERS
        return tensor


class Layers:
    """Any thread may call it; it holds no state of a pass."""

    def __init__(self, llama: LlamaModel, kernels: Kernels) -> None:
        attention: Any = llama.layers[0].self_attn
        config = llama.config
        self._kernels = kernels
        self._eps = config.rms_norm_eps
        num_heads = config.num_attention_heads, int(config.num_key_value_heads or config.num_attention_heads)
        self._heads = Heads(*num_heads, attention.head_dim, attention.scaling, _angles(llama))

    def forward(
        self, hidden_TH: Tensor, lengths: Sequence[int], weights: Weights, memory: Memory, to_TH: Tensor
    ) -> Pass:
        """`lengths`: of the pass's texts. Writes the last norm's result to `to_TH`."""
        memory.clear()
        lengths_in_memory = torch.tensor(lengths, dtype=torch.int32)
        layers = []
        for layer in weights.layers:
            activations, hidden_TH = self._forward_layer(hidden_TH, lengths_in_memory, layer, memory)
            layers.append(activations)
        inverse_rms_T = memory.take(len(hidden_TH))
        self._kernels.rms_norm(hidden_TH, weights.norm_H, self._eps, inverse_rms_T, to_TH)
        return Pass(memory, lengths_in_memory, layers, hidden_TH, inverse_rms_T)

    def backward(
        self, forward_pass: Pass, grad_out_TH: Tensor, weights: Weights, grads: Weights, grad_hidden_TH: Tensor
    ) -> None:
        """Adds to `grads`. `grad_hidden_TH` begins as zeros and ends as the gradient of what `forward` was given."""
        memory, layers = forward_pass.memory, forward_pass.layers
        norm = forward_pass.last_TH, weights.norm_H, forward_pass.last_inverse_rms_T
        self._kernels.rms_norm_backward(*norm, grad_out_TH, (grad_hidden_TH, grads.norm_H))
        scratch = memory.take(*layers[0].attended_TY.shape), memory.take(*layers[0].qkv_TX.shape)
        for layer, activations, layer_grads in list(zip(weights.layers, layers, grads.layers, strict=True))[::-1]:
            self._backward_mlp(layer, activations, layer_grads, grad_hidden_TH)
            self._backward_attention(layer, activations, layer_grads, grad_hidden_TH, (forward_pass.lengths, *scratch))

    def _forward_layer(
        self, hidden_TH: Tensor, lengths: Tensor, layer: LayerWeights, memory: Memory
    ) -> tuple[Activations, Tensor]:
        kernels = self._kernels
        rows, hidden = hidden_TH.shape
        inverse_rms_T, normed_TH = memory.take(rows), memory.take(rows, hidden)
        kernels.rms_norm(hidden_TH, layer.norm_H, self._eps, inverse_rms_T, normed_TH)
        qkv_TX = torch.mm(normed_TH, layer.qkv_XH.T, out=memory.take(rows, len(layer.qkv_XH)))
        attended_TY, log_sum_exp_NT = memory.take(rows, layer.out_HY.shape[1]), memory.take(self._heads.queries, rows)
        kernels.attend(qkv_TX, lengths, self._heads, attended_TY, log_sum_exp_NT)
        middle_TH = torch.addmm(hidden_TH, attended_TY, layer.out_HY.T, out=memory.take(rows, hidden))

        mlp_inverse_rms_T, mlp_normed_TH = memory.take(rows), memory.take(rows, hidden)
        kernels.rms_norm(middle_TH, layer.mlp_norm_H, self._eps, mlp_inverse_rms_T, mlp_normed_TH)
        gate_up_T2I = torch.mm(mlp_normed_TH, layer.gate_up_2IH.T, out=memory.take(rows, len(layer.gate_up_2IH)))
        gated_TI = memory.take(rows, layer.down_HI.shape[1])
        kernels.swiglu(gate_up_T2I, gated_TI)
        next_TH = torch.addmm(middle_TH, gated_TI, layer.down_HI.T, out=memory.take(rows, hidden))
        attention = hidden_TH, inverse_rms_T, normed_TH, qkv_TX, attended_TY, log_sum_exp_NT
        return Activations(*attention, middle_TH, mlp_inverse_rms_T, mlp_normed_TH, gate_up_T2I, gated_TI), next_TH

    # The backward pass writes gradients over activations that it does not need any more. The gradient of a residual is
    # also the gradient of what was added to it, so `grad_hidden_TH` is passed on as it is.

    def _backward_mlp(
        self, layer: LayerWeights, activations: Activations, grads: LayerWeights, grad_hidden_TH: Tensor
    ) -> None:
        grads.down_HI.addmm_(grad_hidden_TH.T, activations.gated_TI)
        grad_gated_TI = torch.mm(grad_hidden_TH, layer.down_HI, out=activations.gated_TI)
        self._kernels.swiglu_backward(activations.gate_up_T2I, grad_gated_TI)
        grad_gate_up_T2I = activations.gate_up_T2I
        grads.gate_up_2IH.addmm_(grad_gate_up_T2I.T, activations.mlp_normed_TH)
        grad_normed_TH = torch.mm(grad_gate_up_T2I, layer.gate_up_2IH, out=activations.mlp_normed_TH)
        norm = activations.middle_TH, layer.mlp_norm_H, activations.mlp_inverse_rms_T
        self._kernels.rms_norm_backward(*norm, grad_normed_TH, (grad_hidden_TH, grads.mlp_norm_H))

    def _backward_attention(
        self,
        layer: LayerWeights,
        activations: Activations,
        grads: LayerWeights,
        grad_hidden_TH: Tensor,
        scratch: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """`scratch`: the texts' lengths, and memory for the gradients of `attended_TY` and of `qkv_TX`."""
        lengths, grad_attended_TY, grad_qkv_TX = scratch
        grads.out_HY.addmm_(grad_hidden_TH.T, activations.attended_TY)
        torch.mm(grad_hidden_TH, layer.out_HY, out=grad_attended_TY)
        result = activations.attended_TY, activations.log_sum_exp_NT, grad_attended_TY
        self._kernels.attend_backward(activations.qkv_TX, lengths, self._heads, result, grad_qkv_TX)
        grads.qkv_XH.addmm_(grad_qkv_TX.T, activations.normed_TH)
        grad_normed_TH = torch.mm(grad_qkv_TX, layer.qkv_XH, out=activations.normed_TH)
        norm = activations.hidden_TH, layer.norm_H, activations.inverse_rms_T
        self._kernels.rms_norm_backward(*norm, grad_normed_TH, (grad_hidden_TH, grads.norm_H))


def _layer_weights(layer: nn.Module) -> LayerWeights:
    """Matrices that multiply the same input become one."""
    assert isinstance(layer, LlamaDecoderLayer)
    attention, mlp = layer.self_attn, layer.mlp
    return LayerWeights(
        layer.input_layernorm.weight,
        torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]),
        attention.o_proj.weight,
        layer.post_attention_layernorm.weight,
        torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
        mlp.down_proj.weight,
    )


def _angles(llama: LlamaModel) -> Tensor:
    """(L, D): the rotary angles of each position: the cosines of all pairs, then the sines."""
    cos_1LD, sin_1LD = llama.rotary_emb(torch.empty(0), torch.arange(LONGEST).unsqueeze(0))
    half = cos_1LD.shape[2] // 2
    return torch.cat([cos_1LD[0, :, :half], sin_1LD[0, :, :half]], 1)
