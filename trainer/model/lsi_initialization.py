"""A new LLaMA whose token embeddings already know which words occur together: latent semantic indexing (LSI).

Owns how a new model's weights begin. Knows nothing of training. Shapes: P posts, V tokens of the vocabulary, H the
model's size, K latent directions.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.model.attention import ATTENTION
from encoders.prompt.prompts import Prompt
from trainer.scratch_config import scratch_config
from trainer.settings import TrainSettings

_IDF_POWER: Final = 3
"""A word's embedding is multiplied with this power of its idf. On an earlier split Recall@500 of the untrained model
was 0.30 with 1, 0.37 with 2, 0.42 with 3: in a mean over tokens a rare word must count more than all the others."""
_LENGTH_QUANTILE: Final = 0.8
"""Embeddings longer than this quantile are cut to its length: Recall@100 of the untrained model was 0.21 instead of
0.18."""
_MIN_STRENGTH: Final = 1e-4
"""Relative to the strongest direction. A weaker direction is only rounding, from texts that say the same."""


def new_model(
    settings: TrainSettings, num_tokens: int, prompts: Sequence[Prompt], seed: int, *, longest: int | None = None
) -> LlamaModel:
    """At first its layers add nothing: a text's vector is the mean of its tokens' LSI vectors. `longest`: the most
    tokens that a prompt may have; None: as many as a post.

    One number of each embedding has no meaning: it fills the embedding up to the length that all embeddings have, and
    the last norm's weight for it is zero. So a token that means little keeps small numbers elsewhere; without it the
    norm would make all tokens equally strong.
    """
    torch.manual_seed(seed)
    config = scratch_config(settings, num_tokens, longest=longest)
    config._attn_implementation = ATTENTION
    model = LlamaModel(config)
    with torch.no_grad():
        embeddings_VH = lsi_embeddings(prompts, num_tokens, settings.hidden, seed)
        model.embed_tokens.weight.copy_(torch.from_numpy(embeddings_VH))
        model.norm.weight[-1] = 0.0
    _zero_layer_outputs(model)
    return model


def _zero_layer_outputs(model: LlamaModel) -> None:
    """The layers then add nothing to the embeddings, and learn from there."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()


def lsi_embeddings(prompts: Sequence[Prompt], num_tokens: int, hidden: int, seed: int) -> npt.NDArray[np.float32]:
    """(V, H): the mean over a text's tokens is the text's LSI vector, with the strongest direction first.

    BLAS runs in one thread, because with several it adds in another order: the result is the same on every machine.
    """
    weighting = TfidfTransformer(sublinear_tf=True)
    with threadpool_limits(1, "blas"):
        weights_PV = weighting.fit_transform(_token_counts(prompts, num_tokens))
        tokens_VK = latent_directions(weights_PV, min(hidden, num_tokens - 1, len(prompts) - 1), seed)
        tokens_VK *= weighting.idf_[:, None] ** _IDF_POWER
        return _to_equal_length(tokens_VK, hidden)


def latent_directions(weights_PV: csr_matrix, size: int, seed: int) -> npt.NDArray[np.float32]:
    """(V, K), K = `size` - 1: how much of each latent direction a token has, without what all texts have in common.

    What all texts have in common is the direction of their mean. It need not be the strongest direction: where half of
    the texts share no word with the other half, each half has a direction of its own, and both are equally strong.
    """
    _, strengths_K, directions_KV = randomized_svd(weights_PV, size, n_iter=4, random_state=seed)
    mean_K = directions_KV @ np.asarray(weights_PV.mean(axis=0)).ravel()
    mean_K /= np.linalg.norm(mean_K)
    # Project the mean out of the texts and decompose again; the mean's direction, now with strength zero, comes last.
    without_mean_KK = np.eye(size) - np.outer(mean_K, mean_K)
    _, strengths_left_K, rotation_KK = np.linalg.svd(strengths_K[:, None] * without_mean_KK)
    tokens_VK = directions_KV.T @ rotation_KK[:-1].T
    is_direction_K = strengths_left_K[:-1] > _MIN_STRENGTH * strengths_K[0]
    # Dividing by the square root of the strength lies between two extremes: only the strongest directions count (no
    # division) and all directions count the same (division by the strength).
    scales_K = np.sqrt(strengths_left_K[:-1], out=np.full(size - 1, np.inf), where=is_direction_K)
    scaled_VK: npt.NDArray[np.float32] = (tokens_VK / scales_K).astype(np.float32)
    return scaled_VK


def _to_equal_length(tokens_VK: npt.NDArray[np.float32], hidden: int) -> npt.NDArray[np.float32]:
    """(V, H): the last number fills each row up to length sqrt(H). A number is then about one in size, and the
    optimizer's steps are small beside it."""
    lengths_V = np.linalg.norm(tokens_VK, axis=1)
    longest = np.quantile(lengths_V[lengths_V > 0], _LENGTH_QUANTILE) if lengths_V.any() else 1.0
    embeddings_VH: npt.NDArray[np.float32] = np.zeros((len(tokens_VK), hidden), dtype=np.float32)
    embeddings_VH[:, : tokens_VK.shape[1]] = tokens_VK / np.maximum(lengths_V, longest)[:, None]
    embeddings_VH[:, -1] = np.sqrt(np.maximum(1 - (embeddings_VH**2).sum(1), 0))
    return embeddings_VH * np.float32(np.sqrt(hidden))


def _token_counts(prompts: Sequence[Prompt], num_tokens: int) -> Any:
    """A sparse matrix (P, V)."""
    ends = np.cumsum([0, *map(len, prompts)])
    tokens = np.fromiter((token for prompt in prompts for token in prompt), dtype=np.int64, count=int(ends[-1]))
    counts_PV = csr_matrix((np.ones(len(tokens), dtype=np.float32), tokens, ends), shape=(len(prompts), num_tokens))
    counts_PV.sum_duplicates()
    return counts_PV
