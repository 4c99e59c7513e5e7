"""A tokenizer with which a text can never produce a special token.

Owns the tokenizer of a package. Knows nothing of fields or of contexts.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from encoders.errors import BadPackage, Unencodable

TokenIds = list[int]

CHARS_PER_TOKEN: Final = 32
"""Before a text is tokenised it is cut to this many characters for each token of its limit. Longer tokens are too rare
to matter, and a text of 100,000 characters then costs no more than one at the limit."""


class SafeTokenizer:
    """The package's tokenizer; it takes special tokens in a text for plain characters. May be used by many threads."""

    def __init__(self, file: Path, special_tokens: dict[str, str]) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise BadPackage(f"{file} is no tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.begin, self.end = _wrapping(self._tokenizer)
        self._tokenizer.encode_special_tokens = True
        self.special = {role: self._special_id(token) for role, token in special_tokens.items()}
        self._check_texts_make_no_special_token(file)

    @property
    def num_tokens(self) -> int:
        """The highest id plus one."""
        return max(self._tokenizer.get_vocab().values()) + 1

    def __call__(self, text: str) -> TokenIds:
        """Raises ValueError when the text is no valid Unicode, or the library fails on it."""
        try:
            return self._encode([text])[0]
        except TypeError as error:
            raise ValueError("the text holds half a character (a lone surrogate); send valid Unicode") from error
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"the tokenizer fails on this text: {error}") from error

    def batch(self, texts: Sequence[str]) -> list[TokenIds | Unencodable]:
        """A bad text does not harm the others."""
        try:
            return list(self._encode(texts))
        except Exception:
            return [self._encode_or_refuse(text) for text in texts]

    def text(self, ids: TokenIds) -> str:
        """The tokens as a text; special tokens are spelled out."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def _encode_or_refuse(self, text: str) -> TokenIds | Unencodable:
        try:
            return self(text)
        except ValueError as error:
            return Unencodable(str(error))

    def _encode(self, texts: Sequence[str]) -> list[TokenIds]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _special_id(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise BadPackage(f"the tokenizer lacks the special token {token}; write the package again")
        return int(token_id)

    def _check_texts_make_no_special_token(self, file: Path) -> None:
        added = self._tokenizer.get_added_tokens_decoder()
        special = {*self.special.values(), *(token_id for token_id, token in added.items() if token.special)}
        names = [str(self._tokenizer.id_to_token(token_id)) for token_id in special]
        spelled = self._encode([spelling for name in names for spelling in (name, f" {name} ", f"a{name}a")])
        if special & set(itertools.chain.from_iterable(spelled)):
            raise BadPackage(
                f"{file} makes special tokens from plain text; mark them special and keep them out of its words"
            )


def _wrapping(tokenizer: Tokenizer) -> tuple[TokenIds, TokenIds]:
    """The tokens that the tokenizer puts before and after every text, such as LLaMA-3's begin of text."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    raise BadPackage("the tokenizer changes a text when it adds special tokens; it cannot be used")
