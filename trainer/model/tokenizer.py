"""Trains a new tokenizer on a data set's texts, and saves it for the processes of a training."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from encoders.package.model_package import TOKENIZER_FILE
from encoders.package.quantiles import NUM_BOUNDARIES
from schemas.files import write_whole

_PAD: Final = "<|nearline:pad|>"
_WORDS: Final = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"
"""How LLaMA-3 splits text before its merges, a little shorter."""


_PERCENTILE_TIMES: Final = 1_000
"""So often a percentile is among the words from which merges are learned: oftener than most words of a data set."""


def percentile_words() -> list[str]:
    """For the words of a tokenizer whose prompts hold numbers: each percentile is then one token, as in LLaMA-3. Texts
    alone would leave most of them two, and the model would have to learn what two digits mean together."""
    return [str(number) for number in range(1, NUM_BOUNDARIES + 2) for _ in range(_PERCENTILE_TIMES)]


def train_tokenizer(texts: Iterable[str], vocabulary: int, special_tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level, so that every text can be encoded. In lower case, because so small a vocabulary has no room for a
    word in two spellings. Adds a padding token to the special tokens."""
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
        special_tokens=[_PAD, *special_tokens],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=_PAD)  # type: ignore[no-untyped-call]
    return fast


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, work: Path) -> Path:
    """Returns the file. All processes of a training save the same one and read it, at the same time too: nobody reads a
    part of it."""
    file = work / TOKENIZER_FILE
    with TemporaryDirectory(dir=work) as folder:
        tokenizer.save_pretrained(folder)
        write_whole(file, (Path(folder) / TOKENIZER_FILE).read_bytes())
    return file
