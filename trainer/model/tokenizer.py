"""A tokenizer of a package's own, trained on its texts."""

from collections.abc import Iterable, Sequence
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_PAD: Final = "<|nearline:pad|>"
_WORDS: Final = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"
"""How LLaMA-3 cuts text before its merges, a little shorter."""


def train_tokenizer(texts: Iterable[str], vocabulary: int, special_tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    """With a padding token of its own."""
    tokenizer = train_bpe(texts, vocabulary, [_PAD, *special_tokens])
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=_PAD)  # type: ignore[no-untyped-call]
    return fast


def train_bpe(texts: Iterable[str], vocabulary: int, special_tokens: Sequence[str]) -> Tokenizer:
    """Byte-level, so that no text is unknown; without case, because so small a vocabulary cannot hold words twice."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
