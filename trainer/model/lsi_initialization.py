"""What training starts from: a LLaMA made from nothing whose embeddings already know which words go together.

Shapes: P posts, V tokens of the vocabulary, H the model's size.
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
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.model.attention import ATTENTION
from encoders.prompt.prompts import Prompt
from trainer.settings import TrainSettings

_RARENESS: Final = 3
"""The power of a word's idf. On an earlier split Recall@500 of the start alone was 0.30 with 1, 0.37 with 2, 0.42 with
3; what a mean over tokens lacks is that a rare word says more than all the others."""
_BOUNDED: Final = 0.8
"""Tokens above this quantile of length are as long as it: Recall@100 of the start alone was 0.21 in place of 0.18."""
_LEAST: Final = 1e-4
"""Of the strongest direction's strength. A direction with less is what rounding leaves of texts that say the same."""


def new_model(settings: TrainSettings, num_tokens: int, prompts: Sequence[Prompt], seed: int) -> LlamaModel:
    """Its layers say nothing yet: at first a text's vector is the mean of its tokens' LSI vectors.

    The last norm ignores one number of each token. It makes up every token's length, so that a token that means little
    stays small in the others, where the norm would have made all equal.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=num_tokens,
        hidden_size=settings.hidden,
        intermediate_size=3 * settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=max(1, settings.heads // 2),
        max_position_embeddings=max(512, settings.post_tokens),
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=False,
    )
    config._attn_implementation = ATTENTION
    model = LlamaModel(config)
    with torch.no_grad():
        model.embed_tokens.weight.copy_(torch.from_numpy(lsi(prompts, num_tokens, settings.hidden, seed)))
        model.norm.weight[-1] = 0.0
    silence_layers(model)
    return model


def silence_layers(model: LlamaModel) -> None:
    """They add nothing to what was embedded, and learn from there."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()


def lsi(prompts: Sequence[Prompt], num_tokens: int, hidden: int, seed: int) -> npt.NDArray[np.float32]:
    """(V, H): the mean over a text's tokens is its latent semantic vector (LSI), the strongest direction first.

    The same whatever number of threads numpy's BLAS has: with another one it adds in another order.
    """
    weighting = TfidfTransformer(sublinear_tf=True)
    with threadpool_limits(1, "blas"):
        weights_PV = weighting.fit_transform(_counts(prompts, num_tokens))
        words_VK = latent_words(weights_PV, min(hidden, num_tokens - 1, len(prompts) - 1), seed)
        words_VK *= weighting.idf_[:, None] ** _RARENESS
        return _embeddings(words_VK, hidden)


def latent_words(weights_PV: csr_matrix, size: int, seed: int) -> npt.NDArray[np.float32]:
    """(V, K), K = `size` - 1: how much of each direction a token has, without what all texts have in common.

    What they have in common is their mean, wherever it lies among the directions. It need not be the strongest one:
    where half of the texts share no word with the others, each half has a direction of its own, and both are as strong.
    """
    _, strengths_K, directions_KV = randomized_svd(weights_PV, size, n_iter=4, random_state=seed)
    mean_K = directions_KV @ np.asarray(weights_PV.mean(axis=0)).ravel()
    mean_K /= np.linalg.norm(mean_K)
    # The directions again, of what is left of the texts once their mean's is taken out of each: it comes out last.
    _, rest_K, turns_KK = np.linalg.svd(strengths_K[:, None] * (np.eye(size) - np.outer(mean_K, mean_K)))
    words_VK = directions_KV.T @ turns_KK[:-1].T
    known_K = rest_K[:-1] > _LEAST * strengths_K[0]
    # The root lies between strong directions alone and all alike.
    scales_K = np.sqrt(rest_K[:-1], out=np.full(size - 1, np.inf), where=known_K)
    found: npt.NDArray[np.float32] = (words_VK / scales_K).astype(np.float32)
    return found


def _embeddings(words_VK: npt.NDArray[np.float32], hidden: int) -> npt.NDArray[np.float32]:
    """(V, H): numbers of size one, beside which the optimizer's steps are small."""
    lengths_V = np.linalg.norm(words_VK, axis=1)
    longest = np.quantile(lengths_V[lengths_V > 0], _BOUNDED) if lengths_V.any() else 1.0
    found: npt.NDArray[np.float32] = np.zeros((len(words_VK), hidden), dtype=np.float32)
    found[:, : words_VK.shape[1]] = words_VK / np.maximum(lengths_V, longest)[:, None]
    found[:, -1] = np.sqrt(np.maximum(1 - (found**2).sum(1), 0))
    return found * np.float32(np.sqrt(hidden))


def _counts(prompts: Sequence[Prompt], num_tokens: int) -> Any:
    ends = np.cumsum([0, *map(len, prompts)])
    tokens = np.fromiter((token for prompt in prompts for token in prompt), dtype=np.int64, count=int(ends[-1]))
    counts = csr_matrix((np.ones(len(tokens), dtype=np.float32), tokens, ends), shape=(len(prompts), num_tokens))
    counts.sum_duplicates()
    return counts
