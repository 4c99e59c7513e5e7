from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from encoders.errors import BadPackage, Unencodable
from encoders.package.model_package import ModelPackage
from encoders.prompt.safe_tokenizer import SafeTokenizer


@pytest.fixture(scope="module")
def tokenizer(package: ModelPackage) -> SafeTokenizer:
    return SafeTokenizer(package.folder / "tokenizer.json", package.manifest.special_tokens)


SPECIAL = ("<|nearline:text|>", "<|pad|>")
PIECES = st.sampled_from([*SPECIAL, "<|", "|>", "nearline:text", "a", " ", "\n", "ü", "漢"])


@given(pieces=st.lists(PIECES, max_size=8))
def test_text_never_produces_a_special_token(tokenizer: SafeTokenizer, pieces: list[str]) -> None:
    text = "".join(pieces)
    special = {tokenizer._tokenizer.token_to_id(token) for token in SPECIAL}
    assert not special & set(tokenizer(text))
    assert tokenizer._tokenizer.decode(tokenizer(text), skip_special_tokens=False) == text


def test_one_bad_text_does_not_harm_the_others(tokenizer: SafeTokenizer) -> None:
    good, bad, other = tokenizer.batch(["bread", "half \ud800", "oven"])
    assert [good, other] == [tokenizer("bread"), tokenizer("oven")]
    assert isinstance(bad, Unencodable)
    assert "lone surrogate" in bad.cause


def test_a_text_on_which_the_library_fails_does_not_harm_the_others(
    package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = SafeTokenizer(package.folder / "tokenizer.json", package.manifest.special_tokens)
    encode = tokenizer._encode

    def fails(texts: Sequence[str]) -> list[list[int]]:
        if "oven" in texts:
            raise Exception("no oven today")
        return encode(texts)

    monkeypatch.setattr(tokenizer, "_encode", fails)
    assert tokenizer.batch(["bread", "oven"]) == [
        tokenizer("bread"),
        Unencodable("the tokenizer fails on this text: no oven today"),
    ]


def test_a_special_token_that_is_missing_is_named(package: ModelPackage) -> None:
    with pytest.raises(BadPackage, match=r"lacks the special token <\|other\|>"):
        SafeTokenizer(package.folder / "tokenizer.json", {"text": "<|other|>"})


def small_tokenizer(folder: Path, added: AddedToken, **options: bool) -> Path:
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "Z": 3}, [("a", "b")], **options))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_tokens([added])
    tokenizer.post_processor = TemplateProcessing(single="Z $A", special_tokens=[("Z", 3)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.mark.parametrize(
    ("added", "options"),
    [(AddedToken("<s>", special=False), {}), (AddedToken("ab", special=True), {"ignore_merges": True})],
)
def test_a_tokenizer_that_hears_special_tokens_in_text_is_refused(
    tmp_path: Path, added: AddedToken, options: dict[str, bool]
) -> None:
    file = small_tokenizer(tmp_path, added, **options)
    with pytest.raises(BadPackage, match="from plain text"):
        SafeTokenizer(file, {"text": added.content})


def test_what_the_tokenizer_puts_around_a_text_is_kept(tmp_path: Path) -> None:
    tokenizer = SafeTokenizer(small_tokenizer(tmp_path, AddedToken("<s>", special=True)), {"text": "<s>"})
    assert (tokenizer.begin, tokenizer("ab"), tokenizer.end) == ([3], [2], [])


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadPackage, match="no tokenizer"):
        SafeTokenizer(tmp_path / "tokenizer.json", {})
